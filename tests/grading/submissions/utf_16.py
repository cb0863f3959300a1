# UTF-16, as PowerShell writes.
# form: utf-16
# verdict: double=passed total=passed

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
