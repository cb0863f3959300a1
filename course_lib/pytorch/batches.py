"""Batches as readers have them, brought to where a model is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

Batch = tuple[object, object]
"""Inputs and targets; None for targets that are not there."""


def read_batches(
    inputs: object, targets: object, *, limit: int, like: torch.Tensor
) -> list[Batch]:
    """Return one batch, or the first batches of an iterable, as tensors.

    Arguments:
        inputs: a tensor, an array, a tuple or a dict of one batch, or an iterable of batches.
        targets: of one batch, or None.
        limit: how many batches are read from an iterable.
        like: a parameter of the model: its device, and the precision of what was an array.
    """
    if isinstance(inputs, (int, float, str, bytes)) or inputs is None:
        raise TypeError(f"`inputs` (={inputs!r}) must be a batch or an iterable of batches.")
    alone = isinstance(inputs, (torch.Tensor, np.ndarray, tuple)) or hasattr(inputs, "keys")
    if targets is not None or alone:
        batches = [(inputs, targets)]
    elif isinstance(inputs, Iterable):
        batches = [_split(batch) for batch in itertools.islice(inputs, limit)]
    else:
        raise TypeError(
            f"`inputs` (a {type(inputs).__name__}) must be a batch or an iterable of batches."
        )
    if not batches:
        raise ValueError("`inputs` (no batch) must hold at least one batch.")
    batches = [(_placed("inputs", x, like), _placed("targets", y, like)) for x, y in batches]
    if any(t.ndim > 0 and len(t) == 0 for x, _ in batches for t in _tensors(x)):
        raise ValueError("`inputs` (an empty batch) must hold at least one input.")
    return batches


def _placed(name: str, data: object, like: torch.Tensor) -> object:
    """Return `place(data, like)`, or say which argument holds what is no array of numbers."""
    try:
        return place(data, like)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` (a {type(data).__name__}) must hold arrays or tensors of numbers."
        ) from error


def _split(batch: object) -> Batch:
    """Return what a loader gave as inputs and targets."""
    if not isinstance(batch, (tuple, list)) or isinstance(batch, nn.utils.rnn.PackedSequence):
        return batch, None
    if len(batch) == 2:
        return batch[0], batch[1]
    return (batch[0], None) if len(batch) == 1 else (tuple(batch), None)


def place(data: object, like: torch.Tensor) -> object:
    """Return the data, however nested, with arrays as tensors, copied to the device of `like`."""
    if isinstance(data, np.ndarray):
        data = torch.as_tensor(data, device="cpu")  # else on the default device
        if data.is_floating_point():
            data = data.to(like.dtype if like.is_floating_point() else torch.float32)
    if isinstance(data, torch.Tensor):
        # A copy: a model may work in place, and the data stay the reader's.
        fresh = data.detach().clone().to(like.device)
        return fresh.requires_grad_() if data.requires_grad else fresh
    if isinstance(data, nn.utils.rnn.PackedSequence):
        return data.to(like.device)
    if hasattr(data, "keys"):
        return {key: place(data[key], like) for key in data.keys()}  # noqa: SIM118
    if isinstance(data, (tuple, list)):
        parts = [place(part, like) for part in data]
        return parts if isinstance(data, list) else tuple(parts)
    return data


def _tensors(data: object) -> Iterator[torch.Tensor]:
    if isinstance(data, torch.Tensor):
        yield data
    elif isinstance(data, dict):
        for part in data.values():
            yield from _tensors(part)
    elif isinstance(data, (tuple, list)):
        for part in data:
            yield from _tensors(part)


def call_model(model: nn.Module, x: object) -> object:
    """Return the model's output: a dict is given by keyword, a tuple one by one."""
    if isinstance(x, dict):
        return model(**x)
    if isinstance(x, tuple) and not isinstance(x, nn.utils.rnn.PackedSequence):
        return model(*x)
    return model(x)
