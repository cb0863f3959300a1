# What IPython adds to Python, and what Colab does.
# verdict: double=passed total=passed
# %%
%matplotlib inline
!pip install nothing
files = !ls
%pip install -q gradient-flow-course
from google.colab import drive
drive.mount("/content/drive")
# %%
%%time
def double(x):
    if x:
        %time
        pass
    return [2.0 * v for v in x]
# %%
%%bash
rm -rf /
# %%
from IPython.display import display, HTML, clear_output
display(HTML("<b>done</b>"))
get_ipython().run_line_magic("matplotlib", "inline")
double?
text = """
%not a magic
!neither
"""
def total(x):
    return float(sum(x)) if "%not" in text else 0.0
