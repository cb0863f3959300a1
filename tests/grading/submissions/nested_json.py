# Brackets beyond the depth of any parser.
# form: nested
# verdict: double=unattempted total=unattempted
# problem: nested beyond reason|damaged|cut off
