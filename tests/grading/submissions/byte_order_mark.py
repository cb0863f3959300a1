# A byte-order mark, as Windows editors write.
# form: utf-8-sig
# verdict: double=passed total=passed

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
