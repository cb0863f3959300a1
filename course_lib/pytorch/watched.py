"""What the hooks know of a model's modules, and what they keep of one pass through it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from course_lib.monitoring import Site
from course_lib.pytorch.graph import NEEDS_INPUT

MODULE_ACTIVATIONS = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leaky_relu", nn.PReLU: "leaky_relu",
    nn.ELU: "elu", nn.SELU: "selu", nn.GELU: "gelu", nn.SiLU: "silu", nn.Mish: "mish",
    nn.Hardswish: "hardswish", nn.Softplus: "softplus", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh",
    nn.Hardsigmoid: "hardsigmoid",
}  # fmt: skip

PASSING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
           nn.Dropout3d, nn.AlphaDropout)  # fmt: skip
"""Modules whose output says nothing that their input does not."""

LINEAR = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.LayerNorm,
          nn.GroupNorm, nn.Embedding, nn.RNNBase)  # fmt: skip
"""Modules that are no activation, whatever node their output has."""

CHANNEL_MODULES = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm,
                   nn.modules.instancenorm._InstanceNorm)  # fmt: skip


def first_tensor(output: object) -> torch.Tensor | None:
    """Return the first floating-point tensor of a module's output, whatever holds it."""
    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, nn.utils.rnn.PackedSequence):
        return output.data
    if isinstance(output, dict):
        output = output.values()
    if isinstance(output, Iterable) and not isinstance(output, str):
        for part in output:
            found = first_tensor(part)
            if found is not None:
                return found
    return None


def count_units(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the sum of a mask, or of zeros and ones, per unit; units lie along `axis`."""
    if values.ndim == 2:
        return values.sum(0 if axis in (1, -1) else 1)
    others = [d for d in range(values.ndim) if d != axis % values.ndim]
    return values.sum(dim=others) if others else values


class Watched:
    """What the hooks need to know of a module, found out once.

    Fields:
        name: its path in the model.
        own: whether its output is measured; a container's is only searched for activations.
        linear: whether it is known to be no activation.
        activation: one of `ACTIVATION_KINDS` if its class is known for one.
        parametric: whether it has parameters, below it as well.
        recurrent: whether it is one of PyTorch's own recurrent layers.
        axis: the axis of its units, None for an activation, whose input tells.
        plain: whether its class tells all that there is to find out about a call.
        steady: whether its output was, in an earlier pass, still as it was when the pass was over,
            with nobody's hook on it. Of such a call of a plain module little need be looked at.
        follows: whether its gradient came, in that pass, after another's.
    """

    __slots__ = ("activation", "axis", "follows", "kind", "linear", "name", "own", "parametric",
                 "plain", "recurrent", "steady")  # fmt: skip

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.kind = name or type(module).__name__, type(module).__name__
        leaf = all(name == "parametrizations" for name, _ in module.named_children())
        own = leaf or any(True for _ in module.parameters(recurse=False))
        self.own = own and not isinstance(module, PASSING)
        self.linear = isinstance(module, LINEAR)
        self.activation = MODULE_ACTIVATIONS.get(type(module))
        self.parametric = any(True for _ in module.parameters())
        self.recurrent = isinstance(module, nn.RNNBase)
        first = isinstance(module, (*CHANNEL_MODULES, nn.modules.pooling._MaxPoolNd))
        self.axis = 1 if first else -1
        if self.activation is not None:
            self.axis = None
        told = self.linear or self.activation not in (None, *NEEDS_INPUT)
        self.plain = self.own and told and not self.recurrent
        self.steady = self.follows = False


class Pass:
    """The sites of one forward pass and what its backward pass brought.

    To measure many tensors in one call is twice as fast as one by one. So a few outputs and
    gradients wait for it: those that are known not to be overwritten in place. Few, because the
    layers after them would be given fresh memory, which costs more than the calls.
    """

    def __init__(self) -> None:
        self.outputs: list[tuple[Site, torch.Tensor, int, int]] = []
        self.gradients: dict[Site, torch.Tensor] = {}
        self.hooks: list[dict] = []  # of nodes, that only keep the gradient
        self.met: list[tuple[Site, Watched, torch.Tensor, int]] = []
        self.inside = True  # until the model returns
        self.blind: dict[str, Site] = {}  # run without a graph: under no_grad, or to be run again
        self.held = self.met_bytes = self.expected = 0
        self.sites: list[Site] = []
        self.calls: dict[str, int] = {}
        self.nodes: dict[int, object] = {}  # holding a node keeps its id its own
        self.axes: dict[tuple[int, ...], int] = {}
        self.closed = self._reached = False

    @property
    def differentiated(self) -> bool:
        """Whether a gradient came."""
        self._reached = self._reached or bool(self.gradients)
        return self._reached

    def close(self) -> None:
        """Let go of the graph, whose nodes hold, by their hooks, this pass.

        A circle through the graph is one that the garbage collector does not see: what is held here
        beyond the pass is never freed, nor is the model.
        """
        for held in (self.outputs, self.gradients, self.met, self.nodes):
            held.clear()
        for hooks in self.hooks:
            hooks.clear()
        self.closed = True
