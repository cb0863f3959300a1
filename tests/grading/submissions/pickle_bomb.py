# An object whose pickle runs a command, and bytes of such a pickle.
# verdict: double=invalid total=invalid
# %%
import os, pickle

class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/exploded",)

def double(x):
    return Bomb()

def total(x):
    return pickle.dumps(Bomb())
