# What notebooks allow and Python files do not: await outside of a function.
# verdict: double=passed total=passed
# %%
import asyncio
await asyncio.sleep(0)
factor = await asyncio.sleep(0, 2.0)

def double(x):
    return [factor * v for v in x]


# %%
def total(x):
    return float(sum(x))
