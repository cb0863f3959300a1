"""What runs inside the sandbox: nothing here knows a seed, a reference answer or a roster.

The folder is copied to the sandbox as the package `inside`, beside a `course_lib` without its
tasks; it needs NumPy, `course_lib.plain_data` and `course_lib.checks.calling`.
"""
