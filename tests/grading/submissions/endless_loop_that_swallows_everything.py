# A bare except swallows each interruption; the process is ended, and the other task still counts.
# verdict: double=timeout total=passed
# %%
def double(x):
    while True:
        try:
            while True:
                pass
        except:
            pass


# %%
def total(x):
    return float(sum(x))
