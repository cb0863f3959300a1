"""PyTorch's random generators, lent and given back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_generators(seed: int) -> None:
    """Start the CPU's generator from `seed`, and those of the GPUs if any was used so far.

    A GPU that was not is left alone: `torch.manual_seed` would note the seed for the day it is
    used, and overwrite what the reader had noted.
    """
    if torch.cuda.is_initialized():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def generators_kept(seed: int) -> Iterator[None]:
    """Start the generators from `seed` inside; on leaving, give each its own state back."""
    used = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=used):
        seed_generators(seed)
        yield
