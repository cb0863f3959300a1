r"""Tasks on the choice of a cure: what a remedy acts on, which cures cancel, and two patients.

Treatments are judged by their effect. The network of the last task is that of Lecture 3's
exercise. Source: glorot2010, he2015delving, ioffe2015.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import (
    FLOAT32,
    Fault,
    judge_by,
    scramble_digits,
    share_right,
    shows,
)
from course_lib.checks.tasks._patients import CHOOSE_CURE
from course_lib.initialization import draw_matrix
from course_lib.reference.mlp import MLP
from course_lib.reference.training import train

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
    train(model, x_train, y_train, learning_rate=0.1, steps=25, batch_size=32, seed=0)
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
