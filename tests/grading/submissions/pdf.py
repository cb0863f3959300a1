# A printout.
# form: bytes 255044462d312e370a25
# verdict: double=unattempted total=unattempted
# problem: This is a PDF
