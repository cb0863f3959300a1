# Forks without end stop at the limit, and all of them are gone afterwards.
# verdict: double=error|timeout total=passed
# says: BlockingIOError|more memory than there is|still running|did not stop
# %%
def double(x):
    import os, time
    while True:
        if os.fork() == 0:
            time.sleep(1000)


# %%
def total(x):
    return float(sum(x))
