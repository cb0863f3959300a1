# One task solved, one wrong.
# verdict: double=passed total=failed
# says: sum of the absolute values


# %%
def double(x):
    return [2.0 * v for v in x]

# %%
def total(x):
    return float(sum(abs(v) for v in x))
