# os._exit ends the process with a status of success, and proves nothing.
# verdict: double=error total=passed
# says: exited with status 0
# %%
def double(x):
    import os
    os._exit(0)


# %%
def total(x):
    return float(sum(x))
