# A million well-formed events.
# verdict: double=error|timeout total=passed
# %%
def double(x):
    import os
    body = b'{"dict":{"event":"cell","number":1}}'
    block = (len(body).to_bytes(4, "big") + body) * 500
    while True:
        for descriptor in range(3, 12):
            try:
                os.write(descriptor, block)
            except OSError:
                pass


# %%
def total(x):
    return float(sum(x))
