# An exception with a text of megabytes, and markup in it.
# verdict: double=error total=error
# says: ValueError
# %%
def double(x):
    raise ValueError("<script>alert(1)</script>" * 100_000)

def total(x):
    raise type("E" * 100_000, (Exception,), {})("=cmd|' /C calc'!A0")
