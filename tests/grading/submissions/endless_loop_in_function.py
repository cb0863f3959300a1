# An endless loop in one function costs that task and no other.
# verdict: double=timeout total=passed
# %%
def double(x):
    while True:
        pass


# %%
def total(x):
    return float(sum(x))
