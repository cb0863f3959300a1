# An endless loop at the top of a cell: the cells after it are run.
# verdict: double=passed total=passed
# note: Code cell 1 was still running
# %%
while True:
    pass

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
