# The cell of a task deleted.
# verdict: double=unattempted total=passed
# says: there is no .double


# %%
def total(x):
    return float(sum(x))
