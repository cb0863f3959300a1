# A function with too many arguments, and a name that is no function.
# verdict: double=error total=invalid
# %%
def double(x, y):
    return x

total = 3
