r"""Tasks on the choice of a cure: what a remedy acts on, which cures cancel, and two patients.

Treatments are judged by their effect: the judge applies what was chosen and measures again. The
network of the last task is that of Lecture 3's exercise. Source: glorot2010, he2015delving,
ioffe2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np

from course_lib.activations import get_activation
from course_lib.checks.compare import as_choice
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import (
    FLOAT32,
    Fault,
    judge_by,
    scramble_digits,
    share_right,
    shows,
)
from course_lib.clipping import clip_by_global_norm
from course_lib.initialization import draw_matrix
from course_lib.losses import evaluate_loss
from course_lib.reference.mlp import MLP, backward
from course_lib.results import decades

# --- what a remedy acts on

ACTS_ON = {
    "He's initialization": "gradient",
    "ReLU in place of the sigmoid": "gradient",
    "batch normalization": "gradient",
    "residual connections": "gradient",
    "clipping by the global norm": "received",
    "an L2 term in the loss": "received",
    "a lower learning rate": "update",
    "learning-rate warm-up": "update",
    "decoupled weight decay": "update",
}
"""Remedy -> the first thing it changes on the way from the layers to the weights."""


def _remedy_cases(rng: np.random.Generator) -> list[Case]:
    names = list(ACTS_ON)
    return [Case((names[k],), f"{names[k]!r}") for k in rng.permutation(len(names))]


def _believed(**changes: str) -> Callable[[str], str]:
    table = ACTS_ON | {name.replace("_", " "): value for name, value in changes.items()}
    return lambda remedy: table[remedy]


WHAT_IT_ACTS_ON = Task(
    id="choosing_a_cure/acts_on",
    function="acts_on",
    title="What a remedy acts on",
    points=1,
    cases=_remedy_cases,
    reference=_believed(),
    rtol=0.0,
    atol=0.0,
    tolerance_reason="three words: nothing is rounded",
    misconceptions=(
        Misconception(
            "clipping stops the explosion",
            _believed(clipping_by_the_global_norm="gradient"),
            "Clipping comes after the backward pass: the gradient explodes as before, and what the "
            "optimizer receives is shortened.",
        ),
        Misconception(
            "the rate scales the gradient",
            _believed(a_lower_learning_rate="received", **{"learning-rate_warm-up": "received"}),
            "The learning rate multiplies the step at the end. The optimizer receives the same "
            "gradient at every rate (and Adam would not mind a factor on it).",
        ),
        Misconception(
            "all decay is an L2 term",
            _believed(decoupled_weight_decay="received"),
            "Decoupled weight decay shrinks the weights directly and never enters the gradient. "
            "The L2 term does, and under Adam that makes a difference.",
        ),
    ),
    hints=(
        "Three stations: backpropagation computes the gradient of the data's loss; the optimizer "
        "receives a gradient; it makes an update of it.",
        "What changes the network or its weights changes the gradient itself. What is added to the "
        "loss, or done to the gradients before the optimizer's step, changes what is received.",
    ),
)


# --- two cures of which one cancels the other


def _scaling_cases(rng: np.random.Generator) -> list[Case]:
    factors = [float(c) for c in (*np.round(rng.uniform(2.0, 12.0, size=2), 2), 0.25)]
    return [Case((c,), f"all weights of the layer times {c:g}") for c in factors]


def _powers(*exponents: int) -> Callable[[float], np.ndarray]:
    return lambda factor: np.array([float(factor) ** p for p in exponents])


AFTER_SCALING = Task(
    id="choosing_a_cure/after_scaling",
    function="after_scaling",
    title="Initialization in front of a normalization",
    points=2,
    cases=_scaling_cases,
    reference=_powers(0, -1, -2, -1),
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "no normalization",
            _powers(1, 0, -1, -1),
            "This is the layer without normalization: its output grows with its weights. "
            "Normalization divides by the size of z, and z has grown by the same factor.",
        ),
        Misconception(
            "nothing changes",
            _powers(0, 0, 0, 0),
            "The output does not change, so the loss does not. But a step of the same length now "
            "turns longer weights by less: the gradient must be smaller.",
        ),
        Misconception(
            "the gradient grows",
            _powers(0, 1, 0, -1),
            "The gradient was multiplied by the factor. If L(c W) = L(W) for every c, its "
            "gradient at c W is that at W divided by c.",
        ),
        Misconception(
            "Adam like SGD",
            _powers(0, -1, -2, -2),
            "Adam divides by the size of the gradient, so its steps are as long as before. Only "
            "the weights that they are compared with have grown.",
        ),
    ),
    hints=(
        "First the output: z is multiplied by c, and so are its mean and its standard deviation.",
        "Differentiate L(c W) = L(W) with respect to W: c times the gradient at c W is the "
        "gradient at W.",
        "SGD's step is proportional to the gradient; Adam's does not depend on its size. Divide "
        "both by the norm of the weights.",
    ),
)


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


# --- the problematic network, repaired

REPAIR_BAR = 0.85


def _repair_cases(rng: np.random.Generator) -> list[Case]:
    digits = scramble_digits(rng, train=800, new=400, noise=0.4)
    words = "400 unseen digits"
    return [Case((digits.x_train, digits.y_train, digits.x_new), words, hidden=digits.y_new)]


def _fault_of_labels(case: Case, answer: object) -> Fault | None:
    share = share_right(answer, case.hidden)
    if share >= REPAIR_BAR:
        return None
    said = f"{share:.0%} of the labels are right, {REPAIR_BAR:.0%} are asked for."
    if len(np.unique(np.asarray(answer))) <= 2:
        return Fault("constant", said)
    return Fault("chance" if share < 0.2 else "low", said)


def _as_the_lecture(x_train: np.ndarray, y_train: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """The network of the lecture after an epoch of SGD: it has learned which digit is common.

    More steps would change nothing that matters here: its first layers do not move.
    """
    weights = [
        draw_matrix("glorot_uniform", fan_in=n, fan_out=m, rng=np.random.default_rng(0))
        for n, m in pairwise([64, 128, 128, 128, 128, 10])
    ]
    model = MLP(weights, [np.zeros(len(w)) for w in weights], ("sigmoid",) * 4 + ("linear",))
    for rows in np.arange(768).reshape(24, 32):
        passed = model.forward(x_train[rows])
        _, grad = evaluate_loss(passed.activations[-1], y_train[rows], loss="cross_entropy")
        weight_grads, bias_grads, _ = backward(model, passed, grad)
        _update(model, [*weight_grads, *bias_grads], Patient(rate=0.1))
    return model(x_new).argmax(axis=1)


def _shuffled(x_train: np.ndarray, y_train: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Labels of the right kind in the wrong order."""
    return np.resize(y_train, len(x_new))


REPAIR = Task(
    id="choosing_a_cure/repair",
    function="repair",
    title="The problematic network, repaired",
    points=4,
    cases=_repair_cases,
    reference=None,
    rtol=0.0,
    atol=0.0,
    tolerance_reason=(
        "85 % of the digits. Over 24 seeds the network of the lecture reaches 6 to 14 % with ten "
        "epochs of SGD and 45 to 65 % with ten of Adam; ReLU with He's weights reaches 89 to 96 %"
    ),
    judge=judge_by(_fault_of_labels),
    misconceptions=(
        Misconception(
            "as the lecture left it", _as_the_lecture,
            "Nearly all digits get the same label: the outputs have learned which digit is common, "
            "and the layers below have not moved. This is what vanished gradients look like.",
            recognizes=shows(_fault_of_labels, "constant"),
        ),
        Misconception(
            "labels in another order", _shuffled,
            "As many labels are right as by guessing. Check that the rows of what you return "
            "belong to the rows of x_new, and that features and labels were shuffled together.",
            recognizes=shows(_fault_of_labels, "chance"),
        ),
    ),
    hints=(
        "Measure first: the gradient of each layer's weights in the first step. What do the "
        "sigmoids do to it, and what is the learning rate worth after that?",
        "ReLU with He's weights alone is enough. Adam with a rate of 0.001, ten epochs in batches "
        "of 32.",
        "Batch normalization works as well; then remember evaluation mode for x_new.",
    ),
    time_limit=60.0,
    frameworks=("pytorch", "tf"),
)  # fmt: skip

TASKS = (WHAT_IT_ACTS_ON, AFTER_SCALING, CHOOSE_CURE, REPAIR)
