"""Norms that never under- or overflow, of many tensors in few calls."""

from __future__ import annotations

import torch

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


def _quick(tensor: torch.Tensor) -> bool:
    """Return whether float32 is quick for a tensor, and exact enough if the result is trusted."""
    return (
        tensor.dtype is torch.float32
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and 0 < tensor.numel() <= BLOCK
    )


def norm64(tensor: torch.Tensor) -> torch.Tensor | float:
    """Return the Euclidean norm as if accumulated in float64: no square under- or overflows.

    On a GPU the result stays there. On the CPU, where reading a number costs nothing, float32 is
    five times as fast, and is trusted where it is far from both ends of its range. On Apple's GPUs,
    which have no float64, the entries are scaled by the largest.
    """
    if tensor.layout is not torch.strided or tensor.is_complex():
        tensor = _plain(tensor)
    if _quick(tensor):
        norm = torch.linalg.vector_norm(tensor).item()
        if TRUSTED[0] < norm < TRUSTED[1]:
            return norm
    tensor = tensor.detach()
    if tensor.device.type != "mps":
        return torch.linalg.vector_norm(tensor, dtype=torch.float64)
    largest = tensor.float().abs().amax() if tensor.numel() else tensor.float().sum()
    safe = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return safe * torch.linalg.vector_norm(tensor.float() / safe)


@torch.no_grad()
def norms64(tensors: list[torch.Tensor]) -> list[torch.Tensor | float]:
    """Return the norms of many tensors, each as `norm64` would."""
    found: list = [None] * len(tensors)
    quick = [k for k, tensor in enumerate(tensors) if _quick(tensor)]
    if quick:
        values = torch.stack(torch._foreach_norm([tensors[k] for k in quick])).tolist()
        for k, norm in zip(quick, values, strict=True):
            if TRUSTED[0] < norm < TRUSTED[1]:
                found[k] = norm
    return [norm64(t) if norm is None else norm for t, norm in zip(tensors, found, strict=True)]


@torch.no_grad()
def distances64(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[torch.Tensor | float]:
    """Return the norms of a - b, pair by pair, as `norm64` would; a and b are alike."""
    found: list = []
    for first, second in zip(a, b, strict=True):
        norm = torch.dist(first, second).item() if _quick(second) else None
        trusted = norm is not None and TRUSTED[0] < norm < TRUSTED[1]
        if not trusted and not (norm == 0 and torch.equal(first, second)):
            norm = norm64(first - second)
        found.append(norm)
    return found
