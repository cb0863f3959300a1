# os._exit in a cell: the cell is left out, the rest is run.
# verdict: double=passed total=passed
# note: Code cell 1 ended its process
# %%
import os
os._exit(0)

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
