r"""A task of the notebook `choosing_a_cure`: patients, examined, treated and examined again.

Source: glorot2010, he2015delving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np

from course_lib.activations import get_activation
from course_lib.checks.compare import as_choice
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import Fault, judge_by, shows
from course_lib.clipping import clip_by_global_norm
from course_lib.initialization import draw_matrix
from course_lib.losses import evaluate_loss
from course_lib.reference.mlp import MLP, backward
from course_lib.results import decades

# --- a cure for what was measured


@dataclass(frozen=True)
class Patient:
    """A network with a learning rate: what is drawn, treated and measured."""

    activation: str = "relu"
    gain: float = 1.0
    bias: float = 0.0
    rate: float = 0.01
    clip: bool = False
    seed: int = 0


ILLNESSES = (
    {},
    {"gain": 0.45},
    {"gain": 2.0},
    {"bias": -3.0},
    {"rate": 0.2},
    {"activation": "sigmoid"},
    {"activation": "tanh", "gain": 0.5},
    {"activation": "tanh", "gain": 1.1},
)
CURES: dict[str, Callable[[Patient], Patient]] = {
    "nothing": lambda p: p,
    "double the weights": lambda p: replace(p, gain=2.0 * p.gain),
    "halve the weights": lambda p: replace(p, gain=0.5 * p.gain),
    "set the biases to zero": lambda p: replace(p, bias=0.0),
    "divide the learning rate by ten": lambda p: replace(p, rate=0.1 * p.rate),
    "clip the gradient": lambda p: replace(p, clip=True),
    "ReLU with He's weights": lambda p: replace(p, activation="relu", gain=1.0),
}
PATIENT_DEPTH, PATIENT_WIDTH, PATIENT_STEPS = 8, 64, 15
HEALTHY = {"decades": 1.0, "dead": 0.25, "loss_ratio": 0.95}


def _build(patient: Patient) -> tuple[MLP, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(patient.seed)
    sizes = [8, *[PATIENT_WIDTH] * (PATIENT_DEPTH - 1), 1]
    law = "he_normal" if patient.activation == "relu" else "lecun_normal"
    matrices = [
        draw_matrix(law, fan_in=n, fan_out=m, gain=patient.gain, rng=rng)
        for n, m in pairwise(sizes)
    ]
    matrices[-1] = draw_matrix("lecun_normal", fan_in=PATIENT_WIDTH, fan_out=1, rng=rng)
    biases = [np.full(len(w), patient.bias) for w in matrices[:-1]] + [np.zeros(1)]
    hidden = (patient.activation,) * (PATIENT_DEPTH - 1)
    x = rng.standard_normal((48, 8))
    return MLP(matrices, biases, (*hidden, "linear")), x, np.tanh(x[:, :1] - x[:, 1:2])


def examine(patient: Patient) -> dict[str, object]:
    """Return what is measured of a patient: three numbers at the start, one after some steps."""
    model, x, y = _build(patient)
    f = get_activation(patient.activation)
    losses, found = [], {}
    with np.errstate(all="ignore"):
        for step in range(PATIENT_STEPS + 1):
            passed = model.forward(x)
            loss, output_grad = evaluate_loss(passed.activations[-1], y, loss="mean_squared_error")
            losses.append(loss)
            weight_grads, bias_grads, grads = backward(model, passed, output_grad)
            if step == 0:
                slopes = [f.derivative(z) for z in passed.preactivations[:-1]]
                flat = [np.abs(s) < 0.1 * f.supremum for s in slopes]
                found = {
                    "activation": patient.activation,
                    "decades": decades(np.linalg.norm(grads[-2]), np.linalg.norm(grads[0])),
                    "dead": float(np.mean([np.all(s == 0.0, axis=0) for s in slopes])),
                    "saturated": float(np.mean(flat)),
                }
            if not all(np.all(np.isfinite(g)) for g in (*weight_grads, *bias_grads)):
                losses.append(np.inf)
                break
            _update(model, [*weight_grads, *bias_grads], patient)
        ratio = losses[-1] / losses[0]
    return found | {"loss_ratio": float(ratio) if np.isfinite(ratio) else np.inf}


def _update(model: MLP, grads: Sequence[np.ndarray], patient: Patient) -> None:
    if patient.clip:
        grads = clip_by_global_norm(grads, 1.0)
    for parameter, grad in zip([*model.matrices, *model.biases], grads, strict=True):
        parameter -= patient.rate * grad


def is_healthy(found: dict) -> bool:
    """Whether what `examine` found is within the limits of `HEALTHY`."""
    return (
        abs(found["decades"]) <= HEALTHY["decades"]
        and found["dead"] <= HEALTHY["dead"]
        and found["loss_ratio"] <= HEALTHY["loss_ratio"]
    )


def _patient_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for number, k in enumerate(rng.permutation(len(ILLNESSES)), start=1):
        patient = Patient(seed=int(rng.integers(2**31)), **ILLNESSES[k])
        found = examine(patient)
        words = (
            f"patient {number} ({found['activation']}, {found['decades']:.1f} decades, "
            f"{found['dead']:.0%} dead, loss times {found['loss_ratio']:.2g})"
        )
        cases.append(Case((found,), words, hidden=asdict(patient)))
    return cases


def _fault_of_cure(case: Case, answer: object) -> Fault | None:
    cures = {name.casefold(): name for name in CURES}
    cure = cures[as_choice(answer, tuple(cures), name="the cure")]
    patient = Patient(**case.hidden)
    healthy_before = is_healthy(case.args[0])
    if healthy_before and cure == "nothing":
        return None
    if healthy_before:
        return Fault("overtreated", f"got {cure!r}, but this patient is healthy.")
    after = examine(CURES[cure](patient))
    if is_healthy(after):
        return None
    said = (
        f"after {cure!r} there are {after['decades']:.1f} decades, {after['dead']:.0%} dead units "
        f"and a loss times {after['loss_ratio']:.2g}: not healthy."
    )
    return Fault(f"{cure}, {patient.activation}", said)


def choose_cure(found: dict) -> str:
    """Return a cure for what was found: the first limit that is passed decides."""
    if is_healthy(found):
        return "nothing"
    if found["dead"] > HEALTHY["dead"]:
        return "set the biases to zero"
    if found["activation"] == "sigmoid":
        return "ReLU with He's weights"
    if found["decades"] < -HEALTHY["decades"]:
        return "double the weights"
    if found["decades"] > HEALTHY["decades"]:
        return "halve the weights"
    return "divide the learning rate by ten"


def _but(when: Callable[[dict], bool], cure: str) -> Callable[[dict], str]:
    return lambda found: cure if when(found) else choose_cure(found)


def _cure_mistake(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_cure, key))


CHOOSE_CURE = Task(
    id="choosing_a_cure/choose_cure",
    function="choose_cure",
    title="A cure for what was measured",
    points=3,
    cases=_patient_cases,
    reference=choose_cure,
    rtol=0.0,
    atol=0.0,
    tolerance_reason=(
        "the limits of health stand in the exercise; every patient is well inside or outside them"
    ),
    judge=judge_by(_fault_of_cure),
    misconceptions=(
        _cure_mistake(
            "clip what explodes", "clip the gradient, relu",
            _but(lambda s: s["decades"] > 1.0, "clip the gradient"),
            "Clipping shortens the whole gradient; the layers keep their proportions. What "
            "explodes on its way through the layers is cured in the layers.",
        ),
        _cure_mistake(
            "zeros are dead units", "overtreated",
            _but(lambda s: s["saturated"] > 0.4 and s["dead"] < 0.25 and is_healthy(s),
                 "set the biases to zero"),
            "A share of inactive pairs of one half is how a healthy ReLU looks. Treat what is "
            "outside the limits, and nothing else.",
        ),
        _cure_mistake(
            "a lower rate for everything", "divide the learning rate by ten, relu",
            _but(lambda s: s["decades"] > 1.0, "divide the learning rate by ten"),
            "A lower learning rate makes shorter steps along the same gradient. It does not change "
            "how the gradient is spread over the layers.",
        ),
        _cure_mistake(
            "wake the dead by scaling", "double the weights, relu",
            _but(lambda s: s["dead"] > 0.25, "double the weights"),
            "The units of this patient are held down by their biases. Larger weights leave most of "
            "them there, and what is alive explodes.",
        ),
        _cure_mistake(
            "larger weights for the sigmoid", "double the weights, sigmoid",
            _but(lambda s: s["activation"] == "sigmoid", "double the weights"),
            "A slope of at most a quarter per layer is not made up for by a factor of two.",
        ),
    ),
    hints=(
        "First decide who is healthy. The share of saturated pairs is no criterion.",
        "Dead units hide everything else: look at them before the decades. Then the sign of the "
        "decades says whether the weights are too small or too large.",
        "A sigmoid needs more than a factor of two. If only the loss is wrong, it is the rate.",
    ),
    time_limit=2.0,
)  # fmt: skip
