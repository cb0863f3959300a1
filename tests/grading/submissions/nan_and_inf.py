# NaN is equal to nothing.
# verdict: double=failed total=failed
# %%
def double(x):
    return [float("nan")] * len(x)

def total(x):
    return float("inf")
