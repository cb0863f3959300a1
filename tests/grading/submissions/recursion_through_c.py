# Recursion that overflows the stack of C and kills the process.
# verdict: double=error total=passed
# %%
import sys, threading

def double(x):
    import ctypes
    return ctypes.string_at(0)


# %%
def total(x):
    return float(sum(x))
