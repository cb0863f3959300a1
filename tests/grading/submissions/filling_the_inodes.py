# Empty files without number.
# verdict: double=passed total=error
# says: OSError


# %%
def double(x):
    return [2.0 * v for v in x]

# %%
def total(x):
    for k in range(10_000_000):
        open(f"/tmp/{k}", "wb").close()
    return float(sum(x))
