# An exception whose text raises, and one whose type has no name.
# verdict: double=error total=error
# %%
class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

def double(x):
    raise Silent

def total(x):
    raise BaseException(Silent())
