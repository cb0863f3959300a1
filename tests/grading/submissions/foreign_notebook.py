# A notebook of another course.
# verdict: double=unattempted total=unattempted
# problem: Wrong assignment: no function
# %%
import pandas as pd
pd.DataFrame({"a": [1]})
