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
        and tensor.numel() <= BLOCK
        and tensor.layout is torch.strided
    )


def norm64(tensor: torch.Tensor) -> torch.Tensor | float:
    """Return the Euclidean norm as if accumulated in float64: no square under- or overflows.

    On a GPU the result stays there. On the CPU, where reading a number costs nothing, it is a
    number, and float32 is five times as fast, and is trusted where it is far from both ends of its
    range. On Apple's GPUs, which have no float64, the entries are scaled by the largest.
    """
    if tensor.layout is not torch.strided or tensor.is_complex():
        tensor = _plain(tensor)
    if _quick(tensor):
        norm = torch.linalg.vector_norm(tensor).item()
        if TRUSTED[0] < norm < TRUSTED[1]:
            return norm
    tensor = tensor.detach()
    if tensor.device.type != "mps":
        norm = torch.linalg.vector_norm(tensor, dtype=torch.float64)
        return norm.item() if norm.is_cpu else norm
    largest = tensor.float().abs().amax() if tensor.numel() else tensor.float().sum()
    safe = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return safe * torch.linalg.vector_norm(tensor.float() / safe)


@torch.no_grad()
def norms64(tensors: list[torch.Tensor]) -> list[torch.Tensor | float]:
    """Return the norms of many tensors, each as `norm64` would."""
    quick = [tensor for tensor in tensors if _quick(tensor)]
    if not quick:
        return [norm64(tensor) for tensor in tensors]
    low, high = TRUSTED
    values = torch.stack(torch._foreach_norm(quick)).tolist()
    if len(quick) == len(tensors):
        return [v if low < v < high else norm64(t) for t, v in zip(tensors, values, strict=True)]
    known = dict(zip(map(id, quick), values, strict=True))
    return [
        v if low < (v := known.get(id(tensor), 0.0)) < high else norm64(tensor)
        for tensor in tensors
    ]


@torch.no_grad()
def distances64(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[torch.Tensor | float]:
    """Return the norms of a - b, pair by pair, as `norm64` would; a is overwritten by a - b."""
    torch._foreach_sub_(a, b)
    return norms64(a)
