# Recursion without an end is an error like any other.
# verdict: double=error total=passed
# says: RecursionError
# %%
def double(x):
    return double(x)


# %%
def total(x):
    return float(sum(x))
