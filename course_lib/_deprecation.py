"""Old names that keep working for a while; CONTRIBUTING.md says for how long."""

import functools
import warnings
from collections.abc import Callable


def renamed(function: Callable, *, old: str, since: str, gone_in: str) -> Callable:
    """Return `function` under its old name: it answers as before, and says what to use instead.

    In the module that had the old name:

        old_name = renamed(new_name, old="old_name", since="0.2.0", gone_in="0.4.0")

    Arguments:
        function: the function under its new name.
        old: the name it had.
        since: the version that renames it.
        gone_in: the version that has the old name no more; a test reminds of it.

    Returns:
        A function of the same arguments that warns with `DeprecationWarning` where it is called,
        which Jupyter and Colab show, and then calls `function`.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        warnings.warn(
            f"`{old}` is called `{function.__name__}` since course_lib {since}; "
            f"the old name will be gone in {gone_in}.",
            DeprecationWarning,
            stacklevel=2,
        )
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = old
    call.gone_in = gone_in
    return call
