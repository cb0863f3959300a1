# Every cell and every function ends the process: the restarts come to an end too.
# verdict: double=error total=error
# %%
import os
os._exit(1)
# %%
import os
os._exit(2)
# %%
import os
os._exit(3)
# %%
import os
os._exit(4)
# %%
def double(x): import os; os._exit(5)
def total(x): import os; os._exit(6)
