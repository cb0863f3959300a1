# A function in a Markdown cell is not code.
# verdict: double=unattempted total=passed
# %% [markdown]
# def double(x):
#     return [2.0 * v for v in x]


# %%
def total(x):
    return float(sum(x))
