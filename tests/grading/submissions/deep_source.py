# An expression nested beyond the parser's depth, which once crashed interpreters.
# form: deep
# verdict: double=passed total=passed
# note: Code cell 1 (raised|ended)

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
