# A Python script with the ending of a notebook.
# form: text import numpy as np
# verdict: double=unattempted total=unattempted
# problem: This is a Python script
