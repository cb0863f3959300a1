# Integers with a million digits and lists that hold themselves.
# verdict: double=invalid total=invalid
# %%
def double(x):
    endless = []
    endless.append(endless)
    return endless

def total(x):
    return 10 ** 1_000_000
