# Names, texts and lone surrogates beyond ASCII.
# verdict: double=passed total=error
# says: ValueError
# %%
größe = 2.0
名前 = "\ud800 \u202e <b>"

def double(x):
    return [größe * v for v in x]

def total(x):
    raise ValueError("\ud800\u0000 ‮ ﷽ 👩‍🏫")
