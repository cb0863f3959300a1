# Many processes with a little memory each.
# verdict: double=error|timeout total=passed
# says: more memory than there is|OSError|BlockingIOError|MemoryError|still running|did not stop
# %%
def double(x):
    import os, time
    for _ in range(12):
        if os.fork() == 0:
            kept = [bytearray(b"x" * (48 << 20)) for _ in range(4)]
            time.sleep(1000)
    time.sleep(1000)


# %%
def total(x):
    return float(sum(x))
