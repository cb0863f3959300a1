# The same function twice, as in a duplicated cell: the last one counts, and it is said.
# verdict: double=failed total=passed
# note: defined more than once


# %%
def double(x):
    return [2.0 * v for v in x]

# %%
def double(x):
    return x


# %%
def total(x):
    return float(sum(x))
