# A thread that waits until the functions are called, and changes what they return.
# verdict: double=passed total=passed
# %%
import threading, time

def meddle():
    while True:
        time.sleep(0.001)

threading.Thread(target=meddle).start()

# %%
def double(x):
    return [2.0 * v for v in x]


def total(x):
    return float(sum(x))
