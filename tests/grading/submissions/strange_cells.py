# Cells that are no cells, sources of every type, and metadata of none.
# form: strange
# verdict: double=passed total=passed

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
