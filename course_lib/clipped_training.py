r"""Training with a schedule of learning rates and with clipping, and the largest curvature.

In float64 on the hand-written gradients, so that what a figure says can be computed again. The
largest curvature $\lambda_{max}$ is the eigenvalue of the matrix of second derivatives of the
loss that is largest in absolute value; $2/\lambda_{max}$ limits the learning rate.
Source: lecun1998efficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_real,
    require_seed,
)
from course_lib.clipping import (
    WAYS,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    global_norm,
)
from course_lib.data import draw_batches
from course_lib.losses import check_batch
from course_lib.reference.mlp import MLP, gradient_flow, require_mlp
from course_lib.reference.training import SGD, Adam
from course_lib.results import format_number


@dataclass(frozen=True, eq=False)
class ClippedRun:
    """The record of one training run of at most S steps.

    Fields:
        optimizer: "sgd" or "adam".
        learning_rates: one per step, shape (S,).
        clip_norm: the limit, or None.
        way: what it is on: "value", "tensor" or "global".
        losses: the loss on the step's batch before its update, shape (R,) with R <= S.
        grad_norms: the global norm there, before clipping, shape (R,). A run ends with the first
            gradient that is not finite, which is the last entry.
        final_loss: the loss on all of the data at the end.
    """

    optimizer: str
    learning_rates: np.ndarray = field(repr=False)
    clip_norm: float | None
    way: str
    losses: np.ndarray = field(repr=False)
    grad_norms: np.ndarray = field(repr=False)
    final_loss: float

    @property
    def clipped_fraction(self) -> float:
        """The fraction of steps whose gradient was clipped; only for the way "global"."""
        if self.way != "global" and self.clip_norm is not None:
            return float("nan")
        return 0.0 if self.clip_norm is None else self.fraction_above(self.clip_norm)

    def fraction_above(self, limit: float) -> float:
        """Return the fraction of steps whose global norm is above `limit`, > 0."""
        limit = require_real("limit", limit, minimum=0.0, exclusive=True)
        return float(np.mean(~(self.grad_norms <= limit)))

    def describe(self) -> str:
        """Say how often the gradient was clipped and the loss at the end."""
        if self.clip_norm is None:
            clip = "no clipping"
        elif self.way == "global":
            share = 100 * self.clipped_fraction
            clip = f"clipped by global norm to {self.clip_norm:g} in {share:.0f} % of the steps"
        else:
            label = {"value": "by value", "tensor": "per tensor"}[self.way]
            clip = f"clipped {label} to {self.clip_norm:g}"
        return (
            f"{self.optimizer}, {clip}: the loss on all data is "
            f"{format_number(self.final_loss)} after {len(self.losses)} steps."
        )


def train_clipped(
    model: MLP,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "sgd",
    learning_rates: Sequence[float],
    clip_norm: float | None = None,
    way: str = "global",
    batch_size: int | None = None,
    seed: int | None = None,
) -> ClippedRun:
    """Train `model` in place, one step per learning rate, and return the record of the run.

    Arguments:
        model: what `reference.build_mlp` returned; its weights are changed.
        x, y, loss: as for `reference.gradient_flow`.
        optimizer: "sgd" or "adam".
        learning_rates: one per step, each >= 0.
        clip_norm: the limit, > 0; None for no clipping.
        way: what the limit is on, "value", "tensor" or "global", see `course_lib.clipping`.
        batch_size, seed: as for `reference.train`.
    """
    require_mlp(model)
    x, y = check_batch(x, y, loss=loss, n_in=model.layer_sizes[0], n_out=model.layer_sizes[-1])
    require_choice("optimizer", optimizer, ("sgd", "adam"))
    rates = require_array("learning_rates", learning_rates, ndim=1)
    if rates.min() < 0:
        raise ValueError(f"`learning_rates` (with the entry {rates.min()}) must be >= 0.")
    way = require_choice("way", way, WAYS)
    clip = {"value": clip_by_value, "tensor": clip_by_norm, "global": clip_by_global_norm}[way]
    if clip_norm is not None:
        clip_norm = require_real("clip_norm", clip_norm, minimum=0.0, exclusive=True)
    rule = (Adam if optimizer == "adam" else SGD)(1.0)
    losses, norms = [], []
    batches = draw_batches(len(x), batch_size=batch_size, steps=len(rates), seed=seed)
    with np.errstate(over="ignore", invalid="ignore"):
        for rate, rows in zip(rates, batches, strict=True):
            flow = gradient_flow(model, x[rows], None if y is None else y[rows], loss=loss)
            grads = [*flow.weight_grads, *flow.bias_grads]
            losses.append(flow.loss)
            norms.append(global_norm(grads))
            if not np.isfinite(norms[-1]):
                break
            rule.learning_rate = rate
            grads = grads if clip_norm is None else clip(grads, clip_norm)
            rule.update([*model.matrices, *model.biases], grads)
        final = gradient_flow(model, x, y, loss=loss).loss
    return ClippedRun(optimizer, rates, clip_norm, way, np.array(losses), np.array(norms), final)


def largest_curvature(
    model: MLP,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "cross_entropy",
    iterations: int = 40,
    seed: int,
) -> float:
    r"""Return $|\lambda|_{max}$ of the loss's second derivatives, by power iteration.

    The product of the matrix with a vector v is a central difference of gradients,
    $(g(w + \epsilon v) - g(w - \epsilon v))/2\epsilon$. Arguments as for `train_clipped`;
    `iterations` >= 1, `seed` draws the first v. The model is left as it was.
    """
    require_mlp(model)
    iterations = require_integer("iterations", iterations, minimum=1)
    rng = np.random.default_rng(require_seed(seed))
    parameters = [*model.matrices, *model.biases]
    depth, epsilon = len(model.matrices), 1e-5

    def grads_at(sign: float, v: list[np.ndarray]) -> list[np.ndarray]:
        moved = [p + sign * epsilon * d for p, d in zip(parameters, v, strict=True)]
        flow = gradient_flow(MLP(moved[:depth], moved[depth:], model.activations), x, y, loss=loss)
        return [*flow.weight_grads, *flow.bias_grads]

    v, curvature = [rng.standard_normal(p.shape) for p in parameters], 0.0
    for _ in range(iterations):
        length = global_norm(v)
        if length == 0.0:
            return 0.0
        v = [d / length for d in v]
        pairs = zip(grads_at(1.0, v), grads_at(-1.0, v), strict=True)
        v = [(up - down) / (2.0 * epsilon) for up, down in pairs]
        curvature = global_norm(v)
    return curvature
