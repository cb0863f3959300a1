# A function under another name is not attempted, and the name is pointed out.
# verdict: double=unattempted total=passed
# says: double_it
# %%
def double_it(x):
    return [2.0 * v for v in x]


# %%
def total(x):
    return float(sum(x))
