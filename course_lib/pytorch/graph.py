"""What autograd's graph tells of functional activations: `F.relu(h)` leaves no module, but a node.

A node names the operation and holds what its derivative needs: the output of a ReLU, the input of
a GELU, the queries and keys of attention. Read only in sampled steps, and only what the model has
stored anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.autograd.graph import disable_saved_tensors_hooks

NODE_ACTIVATIONS = {
    "ReluBackward0": "relu", "LeakyReluBackward0": "leaky_relu", "PreluKernelBackward0":
    "leaky_relu", "EluBackward0": "elu", "CeluBackward0": "elu", "GeluBackward0": "gelu",
    "SiluBackward0": "silu", "MishBackward0": "mish", "HardswishBackward0": "hardswish",
    "SoftplusBackward0": "softplus", "SigmoidBackward0": "sigmoid", "TanhBackward0": "tanh",
    "HardsigmoidBackward0": "hardsigmoid", "HardtanhBackward0": "hardtanh",
}  # fmt: skip
"""How autograd names what a functional call left behind."""

NEEDS_INPUT = ("gelu", "silu", "mish", "hardswish")
"""Activations that take one value at two inputs: the output does not tell the slope."""

ATTENTION = ("SoftmaxBackward0", "SafeSoftmaxBackward0",
             "ScaledDotProductFlashAttentionForCpuBackward0",
             "ScaledDotProductFlashAttentionBackward0",
             "ScaledDotProductEfficientAttentionBackward0")  # fmt: skip

_REDO: dict[str, Callable] = {
    "leaky_relu": torch.nn.functional.leaky_relu, "elu": torch.nn.functional.elu,
    "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu,
    "mish": torch.nn.functional.mish, "hardswish": torch.nn.functional.hardswish,
    "softplus": torch.nn.functional.softplus,
    "hardsigmoid": torch.nn.functional.hardsigmoid,
}  # fmt: skip

REACH = 80
"""How many nodes are looked at between one module and the next."""


_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
"""Asks in 0.1 us; PyTorch 2.6 lacks it."""


def packed() -> bool:
    """Return whether saved tensors are packed away, as under checkpointing or offloading."""
    if _top_hooks is not None:
        return _top_hooks(True) is not None
    try:
        with disable_saved_tensors_hooks("Asked whether there are any."):  # raises if there are
            return False
    except RuntimeError:
        return True


_compiling, _tracing = torch.compiler.is_compiling, torch.jit.is_tracing
_transform = torch._C._functorch.peek_interpreter_stack


def transformed() -> bool:
    """Return whether a `torch.func` transform or a tracer runs: tensors then hold no numbers."""
    # The compiler first: the rest is nothing for it.
    return _compiling() or _transform() is not None or _tracing()


def within_backward() -> bool:
    """Return whether a backward pass is running in this thread."""
    return torch._C._current_graph_task_id() != -1


def activation_of(node: object) -> str | None:
    """Return which of `ACTIVATION_KINDS` a node is of, or None."""
    kind = NODE_ACTIVATIONS.get(node.name())
    if kind == "elu" and getattr(node, "_saved_scale", 1.0) != 1.0:
        return "selu"
    if kind == "hardtanh" and node._saved_min_val == 0.0:
        return "relu6" if node._saved_max_val == 6.0 else None
    return kind


def walk(node: object, known: dict[int, object]) -> Iterator[object]:
    """Yield activations and attention from `node` backwards, as far as to what is known already.

    Nodes met are added to `known`, so that a pass looks at each only once. A node's Python object
    keeps its id as long as it is held.
    """
    queue = [node]
    for _ in range(REACH):
        if not queue:
            return
        node = queue.pop(0)
        if node is None or id(node) in known:
            continue
        known[id(node)] = node
        name = node.name()
        if name == "torch::autograd::AccumulateGrad":
            continue
        if name in NODE_ACTIVATIONS or name in ATTENTION:
            yield node
        queue += [parent for parent, _ in node.next_functions]


def saved_values(node: object, kind: str) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Return (h, z) of an activation from what its node stored; None if it is gone.

    z is None where the output alone tells the slope.
    """
    if packed():
        return None
    try:
        result = getattr(node, "_saved_result", None)
        z = getattr(node, "_saved_self", None)
    except RuntimeError:  # overwritten in place since, or freed
        return None
    if result is not None:
        return result.detach(), None
    if z is None:
        return None
    z = z.detach()
    if kind in ("relu6", "hardtanh"):
        return z.clamp(node._saved_min_val, node._saved_max_val), None
    redo = torch.nn.functional.selu if kind == "selu" else _REDO[kind]
    return redo(z), z if kind in NEEDS_INPUT else None


@torch.no_grad()
def attention_weights(node: object) -> torch.Tensor | None:
    """Return softmax's output, rows along the last axis; of fused attention for one sequence.

    Fused attention never stores it: it is computed again for the first sequence of the batch.
    None for what is not softmax over two entries or more.
    """
    if packed():
        return None
    try:
        if node.name() in ATTENTION[:2]:
            weights = node._saved_result
            last = node._saved_dim in (-1, weights.ndim - 1, 2**64 - 1)
            return weights.detach() if last and weights.shape[-1] > 1 else None
        query, key = node._saved_query[:1], node._saved_key[:1]
        mask = getattr(node, "_saved_attn_mask", getattr(node, "_saved_attn_bias", None))
        causal, scale = node._saved_is_causal, node._saved_scale
    except (RuntimeError, AttributeError):
        return None
    if key.shape[-2] < 2:
        return None
    if key.shape[1] != query.shape[1]:  # grouped queries
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores + mask[:1]
    if causal:  # the first row has one entry, and cannot but be flat
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)[..., 1:, :]
    return scores.softmax(-1)


def flat_rows(weights: torch.Tensor, share: float) -> torch.Tensor:
    r"""Return which rows of softmax are flat: $1 - \sum p^2$ below the share of its largest value.

    The trace of softmax's Jacobian, $\sum_i p_i (1 - p_i)$, is at most $1 - 1/n$, at the uniform
    row, and 0 where one entry has it all.
    """
    n = weights.shape[-1]
    return 1 - weights.square().sum(-1) < share * (1 - 1 / n)
