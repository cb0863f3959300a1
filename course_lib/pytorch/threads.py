"""How many threads a process computes on."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits


def use_one_thread() -> None:
    """Let PyTorch, and NumPy beside it, compute on one thread from now on.

    Of matrices as small as this course's, more threads only wait for each other: on a machine that
    is busy they take several times as long. TensorFlow's threads are left as they are; their number
    has to be set before TensorFlow computes anything.
    """
    torch.set_num_threads(1)
    threadpool_limits(limits=1)
