# What the tasks ask for, and nothing else.
# verdict: double=passed total=passed

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
