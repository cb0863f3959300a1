# A file of no bytes.
# form: bytes
# verdict: double=unattempted total=unattempted
# problem: The file is empty
