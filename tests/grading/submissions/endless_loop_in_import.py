# A cell that never ends in C code with the alarm ignored; the rest is graded without it.
# verdict: double=passed total=passed
# note: Code cell 1 did not stop when its time was up
# %%
import signal, time
signal.signal(signal.SIGALRM, signal.SIG_IGN)
while True:
    time.sleep(1000)

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
