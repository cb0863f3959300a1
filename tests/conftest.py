"""What every test process needs before it imports a framework."""

import contextlib

with contextlib.suppress(ImportError):
    # Before TensorFlow, whichever test file is collected first: see course_lib/tf/__init__.py.
    import triton  # noqa: F401
