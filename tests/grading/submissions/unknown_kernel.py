# A kernel that nobody here has heard of, which is Python's all the same.
# form: kernel my-conda-env-2019
# verdict: double=passed total=passed

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
