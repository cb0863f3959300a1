# A list that grows without end meets the limit on memory.
# verdict: double=error|timeout total=passed
# says: MemoryError|more memory than there is|ended its process|still running|did not stop
# %%
def double(x):
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


# %%
def total(x):
    return float(sum(x))
