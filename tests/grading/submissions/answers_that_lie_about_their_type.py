# Objects that claim another class, length and content.
# verdict: double=failed|invalid|error total=failed|invalid|error
# %%
class Liar:
    __class__ = list
    def __len__(self): return 3
    def __iter__(self): return iter([2.0, 4.0, 6.0])
    def __getitem__(self, k): return 0.0
    def __array__(self, *a, **k): raise KeyboardInterrupt

class LiarList(list):
    def __iter__(self):
        import sys
        frame = sys._getframe()
        while frame:
            for value in list(frame.f_locals.values()):
                if isinstance(value, dict) and "expected" in value:
                    return iter(value["expected"])
            frame = frame.f_back
        return iter([0.0])

def double(x):
    return LiarList([0.0])

def total(x):
    return Liar()
