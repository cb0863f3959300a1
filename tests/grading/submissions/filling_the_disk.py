# The private space filled, with one file and with many.
# verdict: double=passed total=error
# says: OSError


# %%
def double(x):
    return [2.0 * v for v in x]

# %%
def total(x):
    for k in range(10_000):
        with open(f"/tmp/{k}", "wb") as stream:
            stream.write(bytes(8 << 20))
    return float(sum(x))
