# Errors of every kind in cells: the others are run.
# verdict: double=passed total=passed
# note: Code cell 1 raised SyntaxError
# note: Code cell 2 raised ZeroDivisionError in line 2
# %%
def broken(:
# %%
1
1 / 0
# %%
raise KeyboardInterrupt
# %%
import no_such_package

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
