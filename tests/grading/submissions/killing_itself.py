# A signal that ends the process: the first of its namespace takes none from inside.
# verdict: double=error|failed total=passed
# %%
def double(x):
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
    os.abort()


# %%
def total(x):
    return float(sum(x))
