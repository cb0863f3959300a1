# Threads count as processes.
# verdict: double=error total=passed
# says: RuntimeError|MemoryError
# %%
def double(x):
    import threading, time
    for _ in range(10_000):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


# %%
def total(x):
    return float(sum(x))
