# A picture called notebook.ipynb.
# form: bytes 89504e470d0a1a0a0000000d49484452
# verdict: double=unattempted total=unattempted
# problem: This is a picture
