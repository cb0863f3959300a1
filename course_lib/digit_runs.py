"""Training runs on the digits as data: what is trained, how it is performed, what came of it.

A `RunSpec` is everything that a run depends on; `perform_run` trains it in float64 NumPy, and
`draw_run_weights` and `load_run_data` hand the same start to a framework.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from course_lib._validation import require_integer, require_real, require_seed, require_type
from course_lib.data import DigitsSplit, load_digits_split
from course_lib.diagnosis import depth_trend
from course_lib.monitoring import FlowRecord
from course_lib.reference.flow_recording import train_recorded
from course_lib.reference.mlp import accuracy, build_mlp
from course_lib.results import format_number
from course_lib.specs import MLPWeights, NetworkSpec, draw_weights

STEPS, EVERY, BATCH_SIZE = 80, 4, 64


@dataclass(frozen=True)
class RunSpec:
    """A training run on the digits by plain SGD, as data.

    Arguments:
        network: 64 inputs, 10 outputs.
        learning_rate: > 0.
        seed: of the weights, the split of the data and the batches.
        input_scale: > 0, a factor on the standardized inputs.
        input_shift: added to every input after that.
        loss_scale: > 0, a factor on the loss.
        silenced_layer: a hidden layer whose units start with a bias of -30, or None.
        silenced_share: from 0 to 1, the share of its units.
        clip_norm: limit on the global norm, or None.
    """

    network: NetworkSpec
    learning_rate: float
    seed: int
    input_scale: float = 1.0
    input_shift: float = 0.0
    loss_scale: float = 1.0
    silenced_layer: int | None = None
    silenced_share: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        network = require_type("network", self.network, NetworkSpec)
        if (network.n_in, network.n_out) != (64, 10):
            raise ValueError(
                f"`network` ({network.n_in} inputs, {network.n_out} outputs) must have 64 inputs "
                "and 10 outputs."
            )
        for name in ("learning_rate", "input_scale", "loss_scale", "clip_norm"):
            value = getattr(self, name)
            if name != "clip_norm" or value is not None:
                require_real(name, value, minimum=0.0, exclusive=True)
        require_seed(self.seed)
        require_real("input_shift", self.input_shift)
        require_real("silenced_share", self.silenced_share, minimum=0.0, maximum=1.0)
        if self.silenced_layer is not None:
            layer = require_integer("silenced_layer", self.silenced_layer, minimum=1)
            if layer >= network.depth:
                raise ValueError(
                    f"`silenced_layer` (={layer}) must be a hidden layer, 1 to {network.depth - 1}."
                )


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What came of a `RunSpec`: the record of the monitor, losses and the accuracy at the end.

    Fields:
        spec: what was trained.
        record: every fourth step of eighty.
        losses: on the step's batch before its update, without `loss_scale`, shape (80,).
        accuracy: on held-out digits, 0 to 1.
    """

    spec: RunSpec = field(repr=False)
    record: FlowRecord = field(repr=False)
    losses: np.ndarray = field(repr=False)
    accuracy: float

    @property
    def final_loss(self) -> float:
        """The mean loss of the last ten steps; NaN if one of them is."""
        return float(np.mean(self.losses[-10:]))

    @property
    def matrices(self) -> list[int]:
        """Columns of the record's parameters that are weight matrices, first layer first."""
        return [k for k, rank in enumerate(self.record.parameter_ranks) if rank == 2]

    def describe(self) -> str:
        """Say what was measured, and not what it means."""
        record, losses = self.record, self.losses
        if np.all(np.isfinite(losses)):
            loss = f"The loss goes from {losses[0]:.2f} to {self.final_loss:.2f}"
        else:
            step, first = int(np.argmax(~np.isfinite(losses))), format_number(losses[0])
            loss = f"The loss, {first} at first, is not finite from step {step} on"
        norms = (record.activation_grad_norms[0], record.weight_grad_norms[0, self.matrices])
        signal, weight = (round(depth_trend(n), 1) + 0.0 for n in norms)  # no "-0.0"
        ratios = record.update_ratios[0, self.matrices]
        low, high = int(np.argmin(ratios)), int(np.argmax(ratios))
        small, large = format_number(ratios[low]), format_number(ratios[high])
        return (
            f"{loss}. At step 0, from layer {len(ratios)} to layer 1, the activation gradient "
            f"changes by {signal:+.1f} decades and the weight gradient by {weight:+.1f}; "
            f"{self._describe_units()}; an update is {small} (layer {low + 1}) to {large} "
            f"(layer {high + 1}) of its weight."
        )

    def _describe_units(self) -> str:
        """Say what applies: a leaky ReLU has no dead units, a tanh no off side."""
        record, parts = self.record, []
        off = 1 - record.active_fractions[0]
        if np.isfinite(off).any():
            parts.append(f"{100 * np.nanmean(off):.0f} % of the values are inactive")
        one_sided = bool(parts)
        shares = (record.dead_fractions if one_sided else record.saturated_fractions)[0]
        if np.isfinite(shares).any():
            worst = int(np.nanargmax(shares))
            of, state = ("units", "dead") if one_sided else ("values", "saturated")
            parts.append(
                f"at most {100 * shares[worst]:.0f} % of a layer's {of} are {state} "
                f"({record.layers[worst]})"
            )
        return " and ".join(parts) or "no activation is known"


def draw_run_weights(spec: RunSpec) -> MLPWeights:
    """Return the initial weights of a run, the same for every framework."""
    weights = draw_weights(require_type("spec", spec, RunSpec).network, seed=spec.seed)
    if spec.silenced_layer is None:
        return weights
    biases = [b.copy() for b in weights.biases]
    bias = biases[spec.silenced_layer - 1]
    bias[: round(spec.silenced_share * len(bias))] = -30.0
    return MLPWeights(weights.matrices, biases)


@lru_cache(maxsize=16)
def _load_digits(seed: int) -> DigitsSplit:
    """Return a split that is read once: parsing the file takes as long as half a run."""
    return load_digits_split(seed=seed)


def load_run_data(spec: RunSpec) -> DigitsSplit:
    """Return the digits as the run sees them: standardized, then scaled and shifted."""
    digits = _load_digits(require_type("spec", spec, RunSpec).seed)
    x_train, x_test = (
        spec.input_scale * x + spec.input_shift for x in (digits.x_train, digits.x_test)
    )
    return DigitsSplit(x_train, digits.y_train, x_test, digits.y_test)


def perform_run(spec: RunSpec) -> FinishedRun:
    """Train the run of `spec` in float64 NumPy and return what was measured."""
    digits = load_run_data(spec)
    model = build_mlp(spec.network, draw_run_weights(spec))
    training = train_recorded(
        model, digits.x_train, digits.y_train, learning_rate=spec.learning_rate, steps=STEPS,
        batch_size=BATCH_SIZE, seed=spec.seed, every=EVERY, loss_scale=spec.loss_scale,
        clip_norm=spec.clip_norm,
    )  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore"):
        share = accuracy(model, digits.x_test, digits.y_test)
    return FinishedRun(spec, training.record, training.losses, share)
