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

from course_lib._validation import require_seed, require_type
from course_lib.digit_runs import BATCH_SIZE, FinishedRun, RunSpec, perform_run
from course_lib.monitoring import FlowRecord
from course_lib.specs import NetworkSpec


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

    def describe(self) -> str:
        """Say what was measured, and not what it means."""
        return f"Run {self.name}. {self.run.describe()}"

    def measurements(self) -> dict[str, object]:
        """Return what can be known of the run, as plain data: lists of names, and float arrays.

        R sampled steps, K layers (first layer first), K weight matrices. NaN marks what does not
        apply, such as the dead units of a tanh layer.
        """
        record, matrices = self.record, self.run.matrices
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
    if rng.random() < 0.5:  # inputs far from zero: every unit sits on one of its shoulders
        shift = float(rng.uniform(20.0, 40.0))
        return RunSpec(_network(rng, (5, 6), **options), 0.05, seed, input_shift=shift)
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
