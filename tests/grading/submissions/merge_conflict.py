# Committed in the middle of a merge.
# form: conflict
# verdict: double=unattempted total=unattempted
# problem: git merge

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
