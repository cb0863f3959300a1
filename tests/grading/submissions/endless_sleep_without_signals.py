# All signals blocked, and a sleep in C.
# verdict: double=timeout total=passed
# %%
import signal, time

def double(x):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(10_000)


# %%
def total(x):
    return float(sum(x))
