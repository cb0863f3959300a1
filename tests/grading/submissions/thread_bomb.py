# Threads count as processes.
# verdict: double=error|timeout total=passed
# says: RuntimeError|MemoryError|still running|did not stop
# %%
def double(x):
    import threading, time
    for _ in range(10_000):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


# %%
def total(x):
    return float(sum(x))
