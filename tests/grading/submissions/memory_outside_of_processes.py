# Files in memory belong to no process; the call that makes them is refused.
# verdict: double=error total=passed
# says: PermissionError
# %%
def double(x):
    import os
    kept = []
    while True:
        kept.append(os.memfd_create("hidden"))
        os.write(kept[-1], bytes(100 << 20))


# %%
def total(x):
    return float(sum(x))
