"""What is measured on a stack of blocks: every gradient, sizes block by block, a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_choice
from course_lib.results import DTYPES, FRAMEWORKS, format_number, per_layer_factor
from course_lib.stack_specs import StackSpec


@dataclass(frozen=True, eq=False)
class StackFlow:
    r"""Every gradient of one backward pass through a stack of L blocks, for a batch of n inputs.

    Fields:
        framework: "NumPy", "PyTorch" or "TensorFlow".
        dtype: "float32" or "float64".
        training: whether batch normalization used the batch's own statistics.
        loss: the value of the loss.
        states: $h_0, \dots, h_L$, each of shape (n, width).
        state_grads: $\partial\mathcal{L}/\partial h_l$ for l = 0..L, same shapes.
        parameter_grads: name -> gradient, with the names and shapes of the spec's parameters.
    """

    framework: str
    dtype: str
    training: bool
    loss: float
    states: tuple[np.ndarray, ...] = field(repr=False)
    state_grads: tuple[np.ndarray, ...] = field(repr=False)
    parameter_grads: Mapping[str, np.ndarray] = field(repr=False)

    def __post_init__(self) -> None:
        require_choice("framework", self.framework, FRAMEWORKS)
        require_choice("dtype", self.dtype, DTYPES)

    @property
    def state_grad_norms(self) -> np.ndarray:
        r"""$\|\partial\mathcal{L}/\partial h_l\|_F$ over the batch for l = 0..L, shape (L + 1,)."""
        grads = [np.asarray(g, dtype=np.float64) for g in self.state_grads]
        return np.array([np.linalg.norm(g) for g in grads])

    def describe(self) -> str:
        """Say the gradient's norm behind the last block and before the first."""
        norms = self.state_grad_norms
        mode = "training" if self.training else "evaluation"
        return (
            f"{self.framework} ({self.dtype}, {mode} mode), {len(norms) - 1} blocks: the gradient "
            f"has norm {format_number(norms[-1])} behind the last block and "
            f"{format_number(norms[0])} before the first."
        )


@dataclass(frozen=True, eq=False)
class StackProfile:
    r"""Sizes of the signals in one random stack of L blocks, with their prediction.

    Fields:
        spec: the stack.
        inputs: number of inputs B in the batch.
        forward: root mean square of $h_l$ for l = 0..L, shape (L + 1,).
        spread: root mean square of $h_l$ minus its mean over the batch: what tells inputs apart.
        backward: root mean square of $\partial\mathcal{L}/\partial h_l$ for l = 0..L, over its
            value at l = L.
        forward_theory, backward_theory: predictions for `forward` and `backward`; NaN where
            there is none.
    """

    spec: StackSpec
    inputs: int
    forward: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    backward: np.ndarray = field(repr=False)
    forward_theory: np.ndarray = field(repr=False)
    backward_theory: np.ndarray = field(repr=False)

    @property
    def backward_factor(self) -> float:
        """The factor per block, towards the input, of the gradient's size, first block left out.

        There the scale of the inputs has its say. NaN for a single block.
        """
        return per_layer_factor(self.backward[1:])

    @property
    def forward_factor(self) -> float:
        """The factor per block, towards the readout, of the states' size, first block left out."""
        return per_layer_factor(self.forward[:0:-1])

    def describe(self) -> str:
        """Say how states and gradients change from one end of the stack to the other."""
        growth, theory = self.forward[-1] / self.forward[0], self.forward_theory[-1]
        return (
            f"{self.spec.blocks} blocks: states grow × {format_number(growth)} (theory "
            f"{format_number(theory / self.forward_theory[0])}), gradients on their way back × "
            f"{format_number(self.backward[0])} (theory {format_number(self.backward_theory[0])})."
        )


@dataclass(frozen=True, eq=False)
class StackRun:
    """The record of one training run of S steps.

    Fields:
        spec: the stack that was trained.
        losses: the loss on each step's batch before its update, shape (S,); a run ends with the
            first loss that is not finite.
        final_loss: the loss on all of the data at the end, in evaluation mode.
        shifts: how far the mean of a unit's preactivation moves from one step to the next, in its
            standard deviations on the step's batch: root mean square over all units, shape
            (S - 1,).
    """

    spec: StackSpec
    losses: np.ndarray = field(repr=False)
    final_loss: float
    shifts: np.ndarray = field(repr=False)

    def describe(self) -> str:
        """Say the loss at the start and at the end."""
        return (
            f"{self.spec.blocks} blocks, norm {self.spec.norm}, {len(self.losses)} steps: the loss "
            f"goes from {format_number(self.losses[0])} to {format_number(self.final_loss)}."
        )
