# JSON that is no notebook.
# form: text {"double": "passed", "points": 10}
# verdict: double=unattempted total=unattempted
# problem: no cells
