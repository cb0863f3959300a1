r"""Tasks on activations and dead units: four states of a unit, and the way back from below zero.

Definitions as in `course_lib.unit_states`. Source: glorot2011, maas2013, clevert2016elu.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from course_lib.activations import get_activation
from course_lib.checks.compare import AnswerError, as_array
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import FLOAT32, Fault, judge_by, shows
from course_lib.unit_states import classify_units

EXACT = "True or False, or whole numbers: nothing is rounded"


# --- how many pairs are inactive


def _share_cases(rng: np.random.Generator) -> list[Case]:
    biases = [0.0, *(rng.uniform(0.4, 1.5, size=3) * [1.0, -1.0, -1.0])]
    return [
        Case((float(b), float(q)), f"a bias of {b:.2f} and a mean square of {q:.2f}")
        for b, q in zip(biases, rng.uniform(1.5, 4.0, size=4), strict=True)
    ]


def _below_zero(argument: float) -> float:
    """The probability that a standard normal number lies above `argument`."""
    return 0.5 * math.erfc(argument / math.sqrt(2.0))


INACTIVE_SHARE = Task(
    id="activations_and_dead_units/inactive_share",
    function="inactive_share",
    title="How many pairs are inactive",
    points=1,
    cases=_share_cases,
    reference=lambda bias, mean_square: _below_zero(bias / math.sqrt(mean_square)),
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "always one half",
            lambda bias, mean_square: 0.5,
            "One half is right for a bias of zero only. A bias moves every preactivation.",
        ),
        Misconception(
            "active for inactive",
            lambda bias, mean_square: _below_zero(-bias / math.sqrt(mean_square)),
            "This is the share of the active pairs: a positive bias switches units on.",
        ),
        Misconception(
            "variance for deviation",
            lambda bias, mean_square: _below_zero(bias / mean_square),
            "The bias must be counted in standard deviations, which are the root of the mean "
            "square.",
        ),
    ),
    hints=(
        "z = w.h + b with w.h normal, of mean zero. When is z at most zero?",
        "When w.h is at most -b. Divide by the standard deviation of w.h, and use the "
        "distribution function Phi of the standard normal law.",
        "Phi(x) = (1 + math.erf(x / math.sqrt(2))) / 2, at x = -b / sqrt(q).",
    ),
)


# --- inactive, dead, always on, saturated


def _state_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for name in ("relu", "leaky_relu", "tanh", "sigmoid", "gelu"):
        # Some units far below zero, some far above; one touches zero exactly.
        centers = rng.permutation([-9.0, -9.0, 9.0, 9.0, -1.0, 0.0, 0.5, 1.0])
        z = np.round(rng.normal(size=(12, 8)) + centers, 3)
        touching = int(np.argmin(np.abs(centers)))
        z[:, touching] -= z[:, touching].max()
        z[0, centers == -1.0] = -1.4  # where a GELU falls
        f = get_activation(name)
        words = f"12 inputs and 8 units of {name}"
        cases.append(Case((z, f.derivative(z), f.supremum), words, hidden=name))
    return cases


def _states(z: np.ndarray, slopes: np.ndarray, supremum: float, *, dead=None, **other) -> dict:
    """Return the four masks; each can be replaced to make a mistake."""
    masks = {
        "inactive": z <= 0.0,
        "dead": np.all(slopes == 0.0, axis=0) if dead is None else dead,
        "always_on": np.all(z > 0.0, axis=0),
        "saturated": np.abs(slopes) < 0.1 * supremum,
    }
    return masks | other


UNIT_STATES = Task(
    id="activations_and_dead_units/unit_states",
    function="unit_states",
    title="Inactive, dead, always on, saturated",
    points=2,
    cases=_state_cases,
    reference=_states,
    rtol=0.0,
    atol=0.0,
    tolerance_reason=EXACT,
    misconceptions=(
        Misconception(
            "dead on one input",
            lambda z, s, g: _states(z, s, g, dead=np.any(s == 0.0, axis=0)),
            "A unit that is off for one input is inactive there. Dead is a unit without a slope on "
            "every input of the data.",
        ),
        Misconception(
            "more than 20 % zeros",
            lambda z, s, g: _states(z, s, g, dead=np.mean(z <= 0.0, axis=0) > 0.2),
            "A threshold on the share of zeros cannot find the dead: a healthy ReLU is off for "
            "half of its inputs.",
        ),
        Misconception(
            "below zero is dead",
            lambda z, s, g: _states(z, s, g, dead=np.all(z <= 0.0, axis=0)),
            "A leaky or smooth unit below zero on every input still has a slope, and moves. Dead "
            "is decided by the slope, not by the sign of z.",
        ),
        Misconception(
            "zero is active",
            lambda z, s, g: _states(z, s, g, inactive=z < 0.0, always_on=np.all(z >= 0.0, axis=0)),
            "A unit at exactly zero was taken for active. It passes nothing on, and by the "
            "convention of both frameworks its slope, if it is a ReLU, is zero.",
        ),
        Misconception(
            "saturated is inactive",
            lambda z, s, g: _states(z, s, g, saturated=z <= 0.0),
            "Inactive and saturated are the same for ReLU alone. A sigmoid just below zero is "
            "nearly as steep as it can be.",
        ),
        Misconception(
            "sign kept",
            lambda z, s, g: _states(z, s, g, saturated=s < 0.1 * g),
            "A GELU falls in a part of its range, and there its slope is below zero, but not flat. "
            "Take the slope's absolute value.",
        ),
    ),
    hints=(
        "Two of the four speak of one input and one unit, so their masks have the shape of z. The "
        "other two speak of a unit on all inputs.",
        "`np.all(..., axis=0)` asks for all inputs. Dead asks it of the slopes, always on of z.",
        "Saturated: the absolute slope is below a tenth of the supremum that is handed in.",
    ),
)


# --- dead units, batch by batch


def _batch_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for sizes in ((8, 8, 3), (5, 16, 4, 2), (1, 9), (12, 7)):
        units = int(rng.integers(20, 60))
        # Some units never fire, some rarely, some often.
        rates = rng.choice([0.0, 0.0, 0.06, 0.1, 0.2, 0.5, 0.9], size=units)
        batches = [
            rng.uniform(0.1, 1.0, size=(n, units)) * (rng.uniform(size=(n, units)) < rates)
            for n in sizes
        ]
        said = ", ".join(map(str, sizes[:-1]))
        cases.append(Case((batches,), f"batches of {said} and {sizes[-1]} inputs"))
    return cases


def _count_idle(batches: Sequence[np.ndarray], *, join: Callable = np.all) -> int:
    return int(join([np.all(h == 0.0, axis=0) for h in batches], axis=0).sum())


def _average_zeros(batches: Sequence[np.ndarray]) -> float:
    return batches[0].shape[1] * float(np.mean([np.mean(h == 0.0) for h in batches]))


COUNT_DEAD = Task(
    id="activations_and_dead_units/count_dead",
    function="count_dead",
    title="Dead units, batch by batch",
    points=2,
    cases=_batch_cases,
    reference=_count_idle,
    rtol=0.0,
    atol=0.0,
    tolerance_reason=EXACT,
    misconceptions=(
        Misconception(
            "average of zeros",
            _average_zeros,
            "This is the share of zero outputs, times the number of units: what the check of "
            "Lecture 1 averages. It counts pairs of an input and a unit, not dead units.",
        ),
        Misconception(
            "dead in some batch",
            lambda batches: _count_idle(batches, join=np.any),
            "A unit that is silent for one batch and fires in another is alive. Carry over, from "
            "batch to batch, which units have fired.",
        ),
        Misconception(
            "counted in each batch",
            lambda batches: sum(_count_idle([h]) for h in batches),
            "Silent units were counted batch by batch and added up, so that one unit is counted "
            "several times, even if it fires elsewhere.",
        ),
        Misconception(
            "only the last batch",
            lambda batches: _count_idle(batches[-1:]),
            "Only the last batch was looked at. On a few inputs the living look dead.",
        ),
    ),
    hints=(
        "Keep one flag for each unit: has it fired on any input so far?",
        "After each batch: fired |= (h > 0).any(axis=0).",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)


# --- the way back


def _climb_cases(rng: np.random.Generator) -> list[Case]:
    names = ("leaky_relu", "elu", "softplus", "relu")
    return [
        Case((name, float(k), float(rate)), f"a {name} at z = -{k:.2f} and a rate of {rate:.3f}")
        for name, k, rate in zip(
            names, rng.uniform(1.5, 4.0, size=4), rng.uniform(0.01, 0.2, size=4), strict=True
        )
    ]


def _climb(times: dict[str, Callable[[float], float]]) -> Callable:
    return lambda activation, depth, learning_rate: times[activation](depth) / learning_rate


TIMES = {
    "leaky_relu": lambda k: k / 0.01,
    "elu": lambda k: math.expm1(k),
    "softplus": lambda k: k + math.expm1(k),
    "relu": lambda k: math.inf,
}
START_SLOPES = {"elu": lambda k: k * math.exp(k), "softplus": lambda k: k * (1.0 + math.exp(k))}

CLIMB_TIME = Task(
    id="activations_and_dead_units/climb_time",
    function="climb_time",
    title="The way back from below zero",
    points=3,
    cases=_climb_cases,
    reference=_climb(TIMES),
    rtol=5e-3,
    atol=0.0,
    tolerance_reason="half a percent, so that a sum over a grid will do for the integral",
    misconceptions=(
        Misconception(
            "slope 1 for all",
            _climb(dict.fromkeys(TIMES, lambda k: k)),
            "This is how long a unit with slope 1 needs. Below zero each of the four has another "
            "slope, and ReLU has none.",
        ),
        Misconception(
            "the slope of the start",
            _climb(TIMES | START_SLOPES),
            "The slope of the start was kept for the whole way. It grows as the unit climbs, so "
            "the time is an integral of one over the slope.",
        ),
        Misconception(
            "a ReLU that climbs",
            _climb(TIMES | {"relu": lambda k: k}),
            "A ReLU below zero has no gradient: it does not move, however long one waits.",
        ),
    ),
    hints=(
        "In one step z grows by learning_rate * f'(z). How many steps does it take for a small dz?",
        "dz / (learning_rate * f'(z)). Integrate from -depth to 0. Slopes below zero: 0.01 for the "
        "leaky ReLU, exp(z) for ELU, 1 / (1 + exp(-z)) for softplus, 0 for ReLU.",
        "depth / 0.01, exp(depth) - 1, depth + exp(depth) - 1 and infinity, each over the rate.",
    ),
)


# --- a counterexample to the rule of 20 %


def _rule_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for n, d, units in ((40, 6, 10), (60, 10, 16)):
        # Far from the origin, so that no bias fits by chance.
        center, spread = rng.normal(size=d), float(np.exp(rng.uniform(-2.0, 2.0)))
        x = spread * (rng.normal(size=(n, d)) + 10.0 * center / np.linalg.norm(center))
        words = f"{n} inputs of {d} numbers and {units} units"
        cases.append(Case((x, units), words))
    return cases


def _layer(answer: dict, key: str, x: np.ndarray, units: int) -> np.ndarray:
    """Return the preactivations of the layer (w, b) under `key`, or raise a sentence."""
    pair = answer.get(key)
    if not isinstance(pair, list) or len(pair) != 2:
        raise AnswerError(f"expected a pair (w, b) under the key {key!r}.")
    w = as_array(pair[0], shape=(units, x.shape[1]), name=f"w of {key!r}")
    return x @ w.T + as_array(pair[1], shape=(units,), name=f"b of {key!r}")


def _fault_of_layers(case: Case, answer: object) -> Fault | None:
    x, units = case.args
    if not isinstance(answer, dict):
        raise AnswerError("expected a dictionary with the keys 'condemned' and 'missed'.")
    healthy = classify_units(_layer(answer, "condemned", x, units), "relu")
    sick = classify_units(_layer(answer, "missed", x, units), "relu")
    lost = int(healthy.dead.sum() + healthy.always_on.sum())
    if healthy.inactive_share <= 0.2:
        zeros = f"{healthy.inactive_share:.0%}"
        return Fault("not condemned", f"the layer 'condemned' has {zeros} zeros; the rule is "
                                      "silent about it.")  # fmt: skip
    if lost:
        return Fault("not healthy", f"in the layer 'condemned' {lost} of {units} units are dead or "
                                    "always on; none should be.")  # fmt: skip
    if sick.inactive_share > 0.2:
        return Fault("not missed", f"the layer 'missed' has {sick.inactive_share:.0%} zeros; the "
                                   "rule would warn.")  # fmt: skip
    wanted = max(1, units // 10)
    if int(sick.dead.sum()) < wanted:
        return Fault("not sick", f"expected at least {wanted} dead units in the layer 'missed', "
                                 f"got {int(sick.dead.sum())}.")  # fmt: skip
    return None


def _layers(*, lowered: float = 0.0, dead_share: float = 0.1, lifted: float = 1.0) -> Callable:
    """Return a solution: random weights, with biases in units of the range of w.x.

    At 0 a unit fires for about half of the inputs, at -1 for none, at 1 for all.
    """

    def fool_the_rule(x: np.ndarray, units: int) -> dict:
        w = np.random.default_rng(0).normal(size=(units, x.shape[1]))
        z = x @ w.T
        middle, reach = np.median(z, axis=0), z.max(axis=0) - z.min(axis=0) + 1e-3
        dead = np.arange(units) < dead_share * units
        return {
            "condemned": (w, lowered * reach - middle),
            "missed": (w, np.where(dead, -1.0, lifted) * reach - middle),
        }

    return fool_the_rule


def _rule_mistake(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_layers, key))


FOOL_THE_RULE = Task(
    id="activations_and_dead_units/fool_the_rule",
    function="fool_the_rule",
    title="Two layers that fool the rule of 20 %",
    points=3,
    cases=_rule_cases,
    reference=_layers(),
    rtol=0.0,
    atol=0.0,
    tolerance_reason=EXACT,
    judge=judge_by(_fault_of_layers),
    misconceptions=(
        _rule_mistake(
            "a sick layer for a healthy one", "not healthy", _layers(lowered=-1.0),
            "The rule is right about this layer: it must condemn one in which every unit fires for "
            "some inputs and rests for others.",
        ),
        _rule_mistake(
            "all units off", "not missed", _layers(dead_share=1.0),
            "A layer with many dead units has many zeros, and the rule sees it. Let the others be "
            "on so often that the zeros stay below 20 %.",
        ),
        _rule_mistake(
            "no unit off", "not sick", _layers(dead_share=0.0),
            "Without zeros there is nothing to miss: some units of this layer must be dead.",
        ),
    ),
    hints=(
        "What is the share of zeros in a fresh layer with zero biases, and how many of its units "
        "are dead?",
        "The rule averages over units. A tenth of them dead adds only 10 % of zeros, if the others "
        "never rest.",
        "The biases must fit the data: minus the median of w.x halves a unit's inputs, below minus "
        "the largest it is dead, above minus the smallest it is always on.",
    ),
)  # fmt: skip

TASKS = (INACTIVE_SHARE, UNIT_STATES, COUNT_DEAD, CLIMB_TIME, FOOL_THE_RULE)
