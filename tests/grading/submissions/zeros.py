# What a broken disk leaves: zeros.
# form: bytes 00000000000000000000000000000000
# verdict: double=unattempted total=unattempted
# problem: empty
