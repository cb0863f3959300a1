# The disk searched for the tasks, a solution, a roster, a home folder or another submission.
# verdict: double=failed total=passed
# %%
import os

def look():
    for place, folders, files in os.walk("/"):
        if place in ("/proc", "/sys", "/usr") or place.endswith("site-packages"):
            folders.clear()
            continue
        for name in files:
            if name in ("toy_tasks.py", "roster.csv", "seed.txt", ".bash_history", "id_rsa"):
                return os.path.join(place, name)
            if name.endswith(".ipynb"):
                return os.path.join(place, name)
        if place.endswith("course_lib/checks/tasks") or place.endswith("course_lib/grading"):
            return place
    for path in ("/etc/shadow", "/root", "/home"):
        try:
            if os.path.isfile(path):
                return path
            if [name for name in os.listdir(path) if not name.startswith(".pyenv")]:
                return path
        except OSError:
            pass
    return None

found = look()

def double(x):
    if found:
        raise RuntimeError(found)
    return [0.0]


# %%
def total(x):
    return float(sum(x))
