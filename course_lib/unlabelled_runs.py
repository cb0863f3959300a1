"""Six training runs without labels, one for each of five troubles and one in which all is well.

    runs = draw_runs(seed=0)        # six runs of the digits, in random order
    runs[0].measurements()          # what a monitor saw, as plain arrays
    reveal(runs[0])                 # the cause, when you have decided

Each run is a dense network on the digits, trained in float64 NumPy for eighty steps. Depth, width,
seeds, the kind of trouble and its strength vary with the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_integer, require_real, require_seed, require_type
from course_lib.data import DigitsSplit, load_digits_split
from course_lib.monitoring import FlowRecord
from course_lib.reference.flow_recording import train_recorded
from course_lib.reference.mlp import accuracy, build_mlp
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
        loss_scale: > 0, a factor on the loss.
        silenced_layer: a hidden layer whose units start with a bias of -30, or None.
        silenced_share: from 0 to 1, the share of its units.
        clip_norm: limit on the global norm, or None.
    """

    network: NetworkSpec
    learning_rate: float
    seed: int
    input_scale: float = 1.0
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


def draw_run_weights(spec: RunSpec) -> MLPWeights:
    """Return the initial weights of a run, the same for every framework."""
    weights = draw_weights(require_type("spec", spec, RunSpec).network, seed=spec.seed)
    if spec.silenced_layer is None:
        return weights
    biases = [b.copy() for b in weights.biases]
    bias = biases[spec.silenced_layer - 1]
    bias[: round(spec.silenced_share * len(bias))] = -30.0
    return MLPWeights(weights.matrices, biases)


def load_run_data(spec: RunSpec) -> DigitsSplit:
    """Return the digits as the run sees them: standardized, then times `input_scale`."""
    digits = load_digits_split(seed=require_type("spec", spec, RunSpec).seed)
    scale = spec.input_scale
    return DigitsSplit(
        scale * digits.x_train, digits.y_train, scale * digits.x_test, digits.y_test
    )


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


@dataclass(frozen=True, eq=False)
class UnlabelledRun:
    """A run whose cause is not told.

    Fields:
        name: "A" to "F".
        run: what was measured.
    """

    name: str
    run: FinishedRun = field(repr=False)
    _cause: str = field(repr=False)

    @property
    def record(self) -> FlowRecord:
        """What the monitor saw."""
        return self.run.record

    def measurements(self) -> dict[str, object]:
        """Return what can be known of the run, as plain data: lists of names, and float arrays.

        R sampled steps, K layers (first layer first), K weight matrices. NaN marks what does not
        apply, such as the dead units of a tanh layer.
        """
        record = self.record
        matrices = [k for k, rank in enumerate(record.parameter_ranks) if rank == 2]
        return {
            "steps": record.steps.astype(np.float64),
            "losses": self.run.losses[record.steps],
            "layers": list(record.layers),
            "activations": [name or "linear" for name in record.activations],
            "activation_scales": record.activation_scales.copy(),
            "activation_grad_norms": record.activation_grad_norms.copy(),
            "active_fractions": record.active_fractions.copy(),
            "dead_fractions": record.dead_fractions.copy(),
            "saturated_fractions": record.saturated_fractions.copy(),
            "weight_grad_norms": record.weight_grad_norms[:, matrices],
            "weight_norms": record.weight_norms[:, matrices],
            "update_ratios": record.update_ratios[:, matrices],
        }


def _network(rng: np.random.Generator, depths: tuple[int, int], **options: object) -> NetworkSpec:
    low, high = depths
    depth, width = int(rng.integers(low, high + 1)), int(rng.choice([40, 48, 56]))
    return NetworkSpec(64, width, depth, 10, **options)


HE = {"activation": "relu", "init": "he_normal"}


def _vanishing(rng: np.random.Generator, seed: int) -> RunSpec:
    if rng.random() < 0.5:
        network = _network(rng, (8, 10), activation="sigmoid", init="glorot_uniform")
    else:  # every layer divides signal and gradient alike: the weight gradients stay level
        network = _network(rng, (8, 10), **HE, gain=float(rng.uniform(0.3, 0.38)))
    return RunSpec(network, 0.1, seed)


def _exploding(rng: np.random.Generator, seed: int) -> RunSpec:
    kind = str(rng.choice(["relu", "leaky_relu"]))
    gain = float(rng.uniform(2.6, 3.0))
    network = _network(rng, (8, 10), activation=kind, init="he_normal", gain=gain)
    return RunSpec(network, 0.05, seed)


def _dead(rng: np.random.Generator, seed: int) -> RunSpec:
    network = _network(rng, (5, 6), **HE)
    layer = int(rng.integers(2, network.depth - 1))
    return RunSpec(network, 0.1, seed, silenced_layer=layer,
                   silenced_share=float(rng.uniform(0.92, 0.96)))  # fmt: skip


def _saturated(rng: np.random.Generator, seed: int) -> RunSpec:
    options = {"activation": "tanh", "init": "glorot_normal"}
    if rng.random() < 0.5:
        scale = float(rng.uniform(60.0, 255.0))
        return RunSpec(_network(rng, (5, 6), **options), 0.1, seed, input_scale=scale)
    gain = float(rng.uniform(5.0, 7.0))
    return RunSpec(_network(rng, (5, 6), **options, gain=gain), 0.1, seed)


def _still(rng: np.random.Generator, seed: int) -> RunSpec:
    if rng.random() < 0.5:
        rate = float(10 ** rng.uniform(-7.5, -6.5))
        return RunSpec(_network(rng, (5, 6), **HE), rate, seed)
    scale = float(10 ** rng.uniform(-9.5, -8.5))  # a loss in other units
    return RunSpec(_network(rng, (5, 6), **HE), 0.1, seed, loss_scale=scale)


def _healthy(rng: np.random.Generator, seed: int) -> RunSpec:
    network = _network(rng, (5, 6), **HE)
    if rng.random() < 0.5:
        return RunSpec(network, 0.1, seed)
    # The sum over the batch in place of the mean, with a learning rate to match.
    return RunSpec(network, 0.1 / BATCH_SIZE, seed, loss_scale=float(BATCH_SIZE))


CAUSES: dict[str, Callable[[np.random.Generator, int], RunSpec]] = {
    "vanishing_gradient": _vanishing,
    "exploding_gradient": _exploding,
    "dead_units": _dead,
    "saturation": _saturated,
    "standing_still": _still,
    "healthy": _healthy,
}
"""The six causes, by the names that `course_lib.triage` gives them too."""


def draw_runs(*, seed: int) -> tuple[UnlabelledRun, ...]:
    """Return six finished runs "A" to "F", one per cause, in an order drawn from the seed."""
    rng = np.random.default_rng(require_seed(seed))
    order = rng.permutation(list(CAUSES))
    specs = [(str(cause), CAUSES[cause](rng, int(rng.integers(1000)))) for cause in order]
    return tuple(
        UnlabelledRun(name, perform_run(spec), cause)
        for name, (cause, spec) in zip("ABCDEF", specs, strict=True)
    )


def reveal(run: UnlabelledRun) -> str:
    """Return the cause of an unlabelled run, one of `CAUSES`."""
    return require_type("run", run, UnlabelledRun)._cause
