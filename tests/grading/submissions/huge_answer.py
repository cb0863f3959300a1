# An answer of a hundred megabytes, and one of too many items.
# verdict: double=error|invalid|timeout total=invalid|error|timeout
# %%
import numpy as np

def double(x):
    return np.zeros(12_000_000)

def total(x):
    return [1.0] * 3_000_000
