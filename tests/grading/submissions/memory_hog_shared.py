# Shared memory does not count for a process; it is watched all the same.
# verdict: double=error|timeout total=passed
# says: more memory than there is|MemoryError|OSError|still running|did not stop
# %%
def double(x):
    import mmap
    block, kept = b"x" * (16 << 20), []
    while True:
        area = mmap.mmap(-1, 16 << 20)
        area[:] = block
        kept.append(area)


# %%
def total(x):
    return float(sum(x))
