# Text in an encoding that JSON does not have.
# form: latin-1
# verdict: double=unattempted total=unattempted
# problem: not text
# %%
# größe
def double(x):
    return x
