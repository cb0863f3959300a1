# The page around the notebook saved instead of the notebook.
# form: text <!DOCTYPE html><html><body>{"cells": []}</body></html>
# verdict: double=unattempted total=unattempted
# problem: This is a web page
