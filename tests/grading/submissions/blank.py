# The student notebook as it was given out.
# verdict: double=unattempted total=unattempted
# %%
def double(x):
    ...  # your code here

# %%
def total(x):
    ...  # your code here
