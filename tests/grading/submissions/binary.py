# Bytes of nothing known.
# form: bytes c3280fa1fe99887766554433221100ffee
# verdict: double=unattempted total=unattempted
# problem: not text
