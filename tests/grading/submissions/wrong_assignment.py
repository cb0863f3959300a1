# Another week's notebook.
# verdict: double=unattempted total=unattempted
# problem: Wrong assignment: this is the notebook of bptt
# %%
from course_lib.checks import check
def recursion(x):
    return x
check("bptt/recursion", recursion)
