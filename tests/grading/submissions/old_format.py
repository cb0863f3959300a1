# The notebook format of before 2015.
# form: nbformat3
# verdict: double=passed total=passed

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
