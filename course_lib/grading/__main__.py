"""`python -m course_lib.grading` is `gradient-flow-grade`."""

import sys

from course_lib.grading.command import main

if __name__ == "__main__":
    sys.exit(main())
