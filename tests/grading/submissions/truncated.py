# The second half of the file is missing.
# form: truncated
# verdict: double=unattempted total=unattempted
# problem: cut off

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
