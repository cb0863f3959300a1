"""Norms that never under- or overflow, of many tensors in few calls."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch

FEW = 1024
"""Entries up to which the call costs more than the numbers: such tensors are measured together."""

BLOCK = 1 << 18
"""Entries that one float32 sum may run over: its rounding stays below 1e-6 of the result."""

TRUSTED = (1e-12, 1e15)
"""Norms between these lost nothing when the entries were squared in float32."""


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return the entries of a tensor, sparse or complex, as dense real numbers of the same norm."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.coalesce().values() if tensor.is_sparse else tensor.to_dense()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def norm64(tensor: torch.Tensor) -> torch.Tensor | float:
    """Return the Euclidean norm as if accumulated in float64: no square under- or overflows.

    On a GPU the result stays there. On the CPU, where reading a number costs nothing, float32 is
    five times as fast, and is trusted where it is far from both ends of its range. On Apple's GPUs,
    which have no float64, the entries are scaled by the largest.
    """
    if tensor.layout is not torch.strided or tensor.is_complex():
        tensor = _plain(tensor)
    if tensor.is_cpu and tensor.dtype is torch.float32 and tensor.numel() <= BLOCK:
        norm = torch.linalg.vector_norm(tensor).item()
        if TRUSTED[0] < norm < TRUSTED[1]:
            return norm
    tensor = tensor.detach()
    if tensor.device.type != "mps":
        return torch.linalg.vector_norm(tensor, dtype=torch.float64)
    largest = tensor.float().abs().amax() if tensor.numel() else tensor.float().sum()
    safe = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return safe * torch.linalg.vector_norm(tensor.float() / safe)


def _sort(tensors: list[torch.Tensor]) -> tuple[list[int], list[int], list[int]]:
    """Return the places of the tensors that are measured together, in one call, one by one."""
    few, some, others = [], [], []
    float32, strided = torch.float32, torch.strided
    for k, t in enumerate(tensors):
        if t.dtype is float32 and t.is_cpu and t.layout is strided:
            size = t.numel()
            (few if 0 < size <= FEW else some if FEW < size <= BLOCK else others).append(k)
        else:
            others.append(k)
    return few, some, others


def _pack(tensors: list[torch.Tensor]) -> np.ndarray:
    flat = [t if t.ndim == 1 else t.reshape(-1) for t in tensors]
    return torch.cat(flat).numpy().astype(np.float64)


def _norms_of_parts(packed: np.ndarray, parts: list[torch.Tensor]) -> list[float]:
    starts = [0, *accumulate(t.numel() for t in parts[:-1])]
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is reported as such
        return np.sqrt(np.add.reduceat(packed * packed, starts)).tolist()


@torch.no_grad()
def norms64(tensors: list[torch.Tensor]) -> list[torch.Tensor | float]:
    """Return the norms of many tensors, each as `norm64` would."""
    found: list = [None] * len(tensors)
    few, some, others = _sort(tensors)
    if few:
        parts = [tensors[k] for k in few]
        for k, norm in zip(few, _norms_of_parts(_pack(parts), parts), strict=True):
            found[k] = norm
    if some:
        values = torch.stack(torch._foreach_norm([tensors[k] for k in some])).tolist()
        for k, norm in zip(some, values, strict=True):
            found[k] = norm if TRUSTED[0] < norm < TRUSTED[1] else norm64(tensors[k])
    for k in others:
        found[k] = norm64(tensors[k])
    return found


@torch.no_grad()
def distances64(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[torch.Tensor | float]:
    """Return the norms of a - b, pair by pair, as `norm64` would; a and b are alike."""
    found: list = [None] * len(a)
    few, some, others = _sort(b)
    if few:
        parts = [b[k] for k in few]
        packed = _pack([a[k] for k in few]) - _pack(parts)
        for k, norm in zip(few, _norms_of_parts(packed, parts), strict=True):
            found[k] = norm
    for k in some:
        norm = torch.dist(a[k], b[k]).item()
        trusted = TRUSTED[0] < norm < TRUSTED[1]
        found[k] = norm if trusted or (norm == 0 and torch.equal(a[k], b[k])) else None
    for k in (*others, *(k for k in some if found[k] is None)):
        found[k] = norm64(a[k] - b[k])
    return found
