# Tensors and NumPy numbers are plain data once they have arrived.
# verdict: double=passed total=passed
# %%
import numpy as np

def double(x):
    return tuple(np.float64(2.0 * v) for v in x)

def total(x):
    return np.asarray(x).sum()
