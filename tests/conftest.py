"""What every test process needs before it imports a framework."""

import contextlib
import os

from hypothesis import HealthCheck, settings

# A slow or busy machine is no fault of the code. (In CI hypothesis also draws the same examples
# each time; on a desk it goes on looking.)
if not os.environ.get("CI"):
    settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("desk")

with contextlib.suppress(ImportError):
    # Before TensorFlow, whichever test file is collected first: see course_lib/tf/__init__.py.
    import triton  # noqa: F401
