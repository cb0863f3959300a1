# A notebook for another kernel.
# form: language julia
# verdict: double=unattempted total=unattempted
# problem: written in julia

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
