# sys.exit and exit() are errors like any other.
# verdict: double=error total=passed
# says: SystemExit
# %%
import sys
exit()

# %%
def double(x):
    sys.exit(0)


# %%
def total(x):
    return float(sum(x))
