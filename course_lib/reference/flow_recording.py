"""Training on the hand-written gradients, watched as the monitors of both frameworks watch.

The record is a `FlowRecord` like that of `course_lib.pytorch.GradientFlowMonitor` and its twin in
`course_lib.tf`, measured in float64 NumPy: the third voice when two monitors are compared, and a
cheap one where many runs are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_real, require_type
from course_lib.clipping import clip_by_global_norm
from course_lib.data import draw_batches
from course_lib.flow_recorder import FlowRecorder
from course_lib.losses import check_batch
from course_lib.monitoring import (
    ACTIVATION_KINDS,
    ONE_SIDED,
    FlowRecord,
    ParameterState,
    Sample,
    Site,
    flat_mask,
)
from course_lib.recording import check_training
from course_lib.reference.mlp import MLP, ForwardPass, gradient_flow, require_mlp
from course_lib.reference.training import SGD, Adam
from course_lib.results import GradientFlow, format_number
from course_lib.stability import measure_norm


@dataclass(frozen=True, eq=False)
class RecordedTraining:
    """One training run of S steps: what a monitor saw, and the loss at every step.

    Fields:
        record: the sampled steps, layers named "layer 1", parameters "layer 1.weight" and so on.
        losses: on the step's batch before its update, without `loss_scale`, shape (S,).
    """

    record: FlowRecord
    losses: np.ndarray = field(repr=False)

    def describe(self) -> str:
        """Say the loss at both ends, and what the record says."""
        first, last = (format_number(value) for value in (self.losses[0], self.losses[-1]))
        return f"The loss goes from {first} to {last}. {self.record.describe()}"


def train_recorded(
    model: MLP,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "sgd",
    learning_rate: float,
    steps: int,
    batch_size: int | None = None,
    seed: int | None = None,
    every: int = 10,
    max_records: int = 500,
    share: float = 0.1,
    loss_scale: float = 1.0,
    clip_norm: float | None = None,
    on_sample: Callable[[int, GradientFlow], None] | None = None,
) -> RecordedTraining:
    """Train `model` in place and return what a monitor would have seen.

    Arguments:
        model: what `build_mlp` returned; its weights are changed.
        x, y, loss, optimizer, learning_rate, steps, batch_size, seed: as for `train`.
        every, max_records, share: as for the monitors.
        loss_scale: > 0, a factor on the loss and so on every gradient; the number of inputs turns
            a mean over the batch into a sum.
        clip_norm: scale a larger gradient down to this global norm; the record holds the norms
            before. A gradient that is not finite is applied as it is.
        on_sample: called with the step and the (unscaled) gradients of every sampled step.

    Source: glorot2010.
    """
    learning_rate, steps, every = check_training(
        optimizer=optimizer, learning_rate=learning_rate, steps=steps, record_every=every
    )
    require_mlp(model)
    x, y = check_batch(x, y, loss=loss, n_in=model.layer_sizes[0], n_out=model.layer_sizes[-1])
    loss_scale = require_real("loss_scale", loss_scale, minimum=0.0, exclusive=True)
    if clip_norm is not None:
        clip_norm = require_real("clip_norm", clip_norm, minimum=0.0, exclusive=True)
    if on_sample is not None:
        require_type("on_sample", on_sample, Callable)
    rule = (Adam if optimizer == "adam" else SGD)(learning_rate)
    recorder = FlowRecorder(framework="NumPy", every=every, max_records=max_records, share=share)
    parameters, losses = [*model.matrices, *model.biases], []
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps, seed=seed)
    with np.errstate(over="ignore", invalid="ignore"):  # a run may break: that is the subject
        for step, rows in enumerate(batches):
            flow = gradient_flow(model, x[rows], None if y is None else y[rows], loss=loss)
            losses.append(flow.loss)
            grads = [loss_scale * g for g in (*flow.weight_grads, *flow.bias_grads)]
            if not recorder.wants(step):
                rule.update(parameters, _clip(grads, clip_norm))
                continue
            sites = measure_sites(model, model.forward(x[rows]), flow, recorder.share, loss_scale)
            before = [p.copy() for p in parameters]
            rule.update(parameters, _clip(grads, clip_norm))
            recorder.add(Sample(step, sites, _parameter_states(before, grads, parameters)))
            if on_sample is not None:
                on_sample(step, flow)
    return RecordedTraining(recorder.record(), np.array(losses))


def _clip(grads: list[np.ndarray], clip_norm: float | None) -> list[np.ndarray]:
    if clip_norm is None or not all(np.isfinite(g).all() for g in grads):
        return grads
    return clip_by_global_norm(grads, clip_norm)


def measure_sites(
    model: MLP, passed: ForwardPass, flow: GradientFlow, share: float, loss_scale: float = 1.0
) -> list[Site]:
    """Return what a monitor measures at every layer's output, first layer first.

    Arguments:
        model, passed, flow: a network, its forward pass and its gradients on the same batch.
        share: the share s of the largest slope below which a value counts as saturated.
        loss_scale: a factor on the gradients.
    """
    require_mlp(model)
    require_type("passed", passed, ForwardPass)
    require_type("flow", flow, GradientFlow)
    sites = []
    for k, name in enumerate(model.activations):
        z, h = passed.preactivations[k], passed.activations[k + 1]
        kind = name if name in ACTIVATION_KINDS else None
        site = Site(f"layer {k + 1}", "Dense", kind, h.size, len(h), measure_norm(h))
        site.grad_norm = loss_scale * measure_norm(flow.activation_grads[k])
        if kind in ONE_SIDED:
            site.active = np.sum(h > 0, axis=0)
        flat = None if kind is None else flat_mask(kind, h, z, share)
        site.flat = None if flat is None else np.sum(flat, axis=0)
        sites.append(site)
    return sites


def _parameter_states(
    before: list[np.ndarray], grads: list[np.ndarray], after: list[np.ndarray]
) -> list[ParameterState]:
    """Return the norms of gradient, parameter and update, in a network's order of parameters."""
    depth = len(before) // 2
    states = []
    for k in range(depth):
        for kind, j in (("weight", k), ("bias", depth + k)):
            layer = f"layer {k + 1}"
            states.append(
                ParameterState(
                    f"{layer}.{kind}", layer, before[j].ndim, True, measure_norm(grads[j]),
                    measure_norm(before[j]), measure_norm(after[j] - before[j]),
                )
            )  # fmt: skip
    return states
