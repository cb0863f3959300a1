r"""Tasks on gated cells: the step, the full Jacobian, the direct path, and what it is not."""

from __future__ import annotations

import math

import numpy as np

from course_lib.checks.compare import AnswerError, as_number
from course_lib.checks.task import IN_FLOAT32, Case, Misconception, Task


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


# One step ----------------------------------------------------------------------------------------


def _draw_cells(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, n_in in ((1, 1), (3, 2)):
        args = (
            rng.normal(size=(4 * size, n_in)), rng.normal(size=(4 * size, size)),
            rng.normal(size=4 * size), rng.normal(size=n_in),
            rng.uniform(-0.9, 0.9, size=size), rng.normal(scale=1.5, size=size),
        )  # fmt: skip
        cases.append(Case(args, f"{n_in} inputs and {size} units"))
    return cases


def _gates(w_xh, w_hh, b, x, h, c, *, order="ifgo") -> dict[str, np.ndarray]:
    blocks = dict(zip(order, np.split(w_xh @ x + w_hh @ h + b, 4), strict=True))
    return {name: np.tanh(z) if name == "g" else sigmoid(z) for name, z in blocks.items()}


def _step(w_xh, w_hh, b, x, h, c, *, order="ifgo") -> dict:
    gates = _gates(w_xh, w_hh, b, x, h, c, order=order)
    cell = gates["f"] * c + gates["i"] * gates["g"]
    return {"h": gates["o"] * np.tanh(cell), "c": cell}


def lstm_step(w_xh, w_hh, b, x, h, c) -> dict:
    return _step(w_xh, w_hh, b, x, h, c)


def _cell_without_tanh(w_xh, w_hh, b, x, h, c) -> dict:
    cell = _step(w_xh, w_hh, b, x, h, c)["c"]
    return {"h": _gates(w_xh, w_hh, b, x, h, c)["o"] * cell, "c": cell}


def _sigmoid_candidate(w_xh, w_hh, b, x, h, c) -> dict:
    i, f, g, o = (sigmoid(z) for z in np.split(w_xh @ x + w_hh @ h + b, 4))
    cell = f * c + i * g
    return {"h": o * np.tanh(cell), "c": cell}


LSTM_STEP = Task(
    id="lstm_highway/lstm_step",
    function="lstm_step",
    title="One step of an LSTM",
    points=2,
    cases=_draw_cells,
    reference=lstm_step,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "order of the gates",
            lambda *args: _step(*args, order="ifog"),
            "The last two blocks are exchanged. The order here, as in PyTorch and Keras, is input "
            "gate, forget gate, candidate, output gate.",
        ),
        Misconception(
            "no tanh on the cell",
            _cell_without_tanh,
            "The cell state goes through tanh on its way to h; C itself stays as it is.",
        ),
        Misconception(
            "sigmoid candidate",
            _sigmoid_candidate,
            "The candidate is a tanh, since it must be able to lower the cell state. The three "
            "gates are sigmoids.",
        ),
    ),
    hints=(
        "All four preactivations at once: w_xh @ x + w_hh @ h + b. Then `np.split(..., 4)`.",
        "c_new = f * c + i * g, and h_new = o * tanh(c_new).",
    ),
    frameworks=("pytorch", "tf"),
)

# The full Jacobian -------------------------------------------------------------------------------


def full_jacobian(w_xh, w_hh, b, x, h, c) -> np.ndarray:
    gates = _gates(w_xh, w_hh, b, x, h, c)
    i, f, g, o = (gates[name][:, None] for name in "ifgo")
    w_i, w_f, w_g, w_o = np.split(w_hh, 4)
    squashed = np.tanh(gates["f"] * c + gates["i"] * gates["g"])[:, None]
    c_by_h = g * i * (1.0 - i) * w_i + c[:, None] * f * (1.0 - f) * w_f + i * (1.0 - g**2) * w_g
    c_by_c = np.diag(gates["f"])
    through = o * (1.0 - squashed**2)
    h_by_h = through * c_by_h + squashed * o * (1.0 - o) * w_o
    return np.block([[h_by_h, through * c_by_c], [c_by_h, c_by_c]])


def _direct_path_only(*args) -> np.ndarray:
    full, n = full_jacobian(*args), len(args[4])
    full[:, :n] = 0.0
    return full


def _cell_state_first(*args) -> np.ndarray:
    n = len(args[4])
    return np.roll(full_jacobian(*args), n, axis=(0, 1))


def _without_cell_in_h(*args) -> np.ndarray:
    _, w_hh, _, _, h, c = args
    gates, full, n = _gates(*args), full_jacobian(*args), len(h)
    cell = gates["f"] * c + gates["i"] * gates["g"]
    slope = np.tanh(cell) * gates["o"] * (1.0 - gates["o"])
    full[:n, :n] = slope[:, None] * w_hh[3 * n :]
    return full


FULL_JACOBIAN = Task(
    id="lstm_highway/full_jacobian",
    function="full_jacobian",
    title="The full Jacobian of an LSTM",
    points=4,
    cases=_draw_cells,
    reference=full_jacobian,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason="a solution by central differences in float64 is right to about 1e-8",
    misconceptions=(
        Misconception(
            "direct path only",
            _direct_path_only,
            "Only the cell state's own path is here. The old h acts on all four gates, and "
            "through them on both new states.",
        ),
        Misconception(
            "cell state first",
            _cell_state_first,
            "The blocks are those of (C, h). The order asked for is h first, then C, in rows and "
            "in columns.",
        ),
        Misconception(
            "transposed",
            lambda *args: full_jacobian(*args).T,
            "This is the transpose. Rows belong to the new states, columns to the old ones.",
        ),
        Misconception(
            "h without the new cell",
            _without_cell_in_h,
            "The block of h by h holds the output gate's part alone. The old h also changes the "
            "new C, and h = o tanh(C) follows it.",
        ),
    ),
    hints=(
        "Four blocks of size n: derivatives of h and C, each by the old h and by the old C.",
        "Begin with C by C, diag(f), and C by h: three gates, each a slope times its rows of w_hh.",
        "h = o tanh(C): its rows are o tanh'(C) times the rows of C, plus tanh(C) o' W_o.",
    ),
    frameworks=("pytorch", "tf"),
)

# A bias for a memory -----------------------------------------------------------------------------


def _draw_memories(rng: np.random.Generator) -> list[Case]:
    cases = []
    for low, high in ((5, 20), (50, 200), (1000, 5000)):
        steps, keep = int(rng.integers(low, high)), round(float(rng.uniform(0.2, 0.8)), 2)
        cases.append(Case((steps, keep), f"{keep} left after {steps} steps"))
    return cases


def forget_bias(steps: int, keep: float) -> float:
    gate = math.exp(math.log(keep) / steps)
    return math.log(gate) - math.log1p(-gate)


FORGET_BIAS = Task(
    id="lstm_highway/forget_bias",
    function="forget_bias",
    title="A bias for a wanted memory",
    points=1,
    cases=_draw_memories,
    reference=forget_bias,
    rtol=0.0,
    atol=2e-3,
    tolerance_reason="in float32 the gate of a long memory is close to 1 and its bias to 1e-3",
    misconceptions=(
        Misconception(
            "the gate itself",
            lambda steps, keep: keep ** (1.0 / steps),
            "This is the gate. The bias is the number whose sigmoid it is.",
        ),
        Misconception(
            "time constant",
            lambda steps, keep: math.log(steps - 1.0),
            "This bias gives the time scale 1/(1 - f) = steps, after which about a third is left. "
            "Asked for is the given share.",
        ),
        Misconception(
            "logarithm of the gate",
            lambda steps, keep: math.log(keep) / steps,
            "This is the logarithm of the gate. The inverse of the sigmoid is log(f / (1 - f)).",
        ),
    ),
    hints=(
        "Which gate f has f^steps = keep?",
        "f = keep^(1 / steps); then solve f = 1 / (1 + exp(-b)) for b.",
    ),
)

# GRU ---------------------------------------------------------------------------------------------


def _draw_gru(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, n_in, steps in ((1, 1, 3), (3, 2, 8)):
        args = (
            rng.normal(size=(3 * size, n_in)), rng.normal(size=(3 * size, size)),
            rng.normal(size=3 * size), rng.normal(size=(steps, n_in)),
        )  # fmt: skip
        cases.append(Case(args, f"{steps} steps, {n_in} inputs and {size} units"))
    return cases


def _gru_path(w_xh, w_hh, b, x, *, kept=lambda r, z: z) -> np.ndarray:
    n = len(b) // 3
    h, path = np.zeros(n), np.ones(n)
    for x_t in x:
        a, u = w_xh @ x_t + b, w_hh @ h
        r, z = sigmoid(a[:n] + u[:n]), sigmoid(a[n : 2 * n] + u[n : 2 * n])
        candidate = np.tanh(a[2 * n :] + r * u[2 * n :])
        h = (1.0 - z) * candidate + z * h
        path = path * kept(r, z)
    return path


def gru_direct_path(w_xh, w_hh, b, x) -> np.ndarray:
    return _gru_path(w_xh, w_hh, b, x)


GRU_DIRECT_PATH = Task(
    id="lstm_highway/gru_direct_path",
    function="gru_direct_path",
    title="The direct path of a GRU",
    points=2,
    cases=_draw_gru,
    reference=gru_direct_path,
    rtol=1e-3,
    atol=1e-9,
    tolerance_reason="a product of gates in float32; entries down to 1e-6 are asked for",
    misconceptions=(
        Misconception(
            "the other convention",
            lambda *args: _gru_path(*args, kept=lambda r, z: 1.0 - z),
            "Here z keeps and 1 - z lets the candidate in. Some texts exchange the two.",
        ),
        Misconception(
            "reset gate",
            lambda *args: _gru_path(*args, kept=lambda r, z: r),
            "This is the reset gate, which acts inside the candidate and not on the direct path. "
            "The blocks are PyTorch's: r, z, n. Keras exchanges the first two.",
        ),
        Misconception(
            "last step only",
            lambda w_xh, w_hh, b, x: _gru_path(w_xh, w_hh, b, x) / _gru_path(w_xh, w_hh, b, x[:-1]),
            "This is the last step's gate. The path leads through all steps, and its factors "
            "multiply.",
        ),
    ),
    hints=(
        "Run the network forward from h = 0, and keep the update gate of each step.",
        "h_t = (1 - z) n + z h_(t-1): with gates and candidate held, what multiplies h_(t-1)?",
    ),
    frameworks=("pytorch", "tf"),
)

# A highway that explodes -------------------------------------------------------------------------


def _draw_highways(rng: np.random.Generator) -> list[Case]:
    cases = []
    for steps in sorted(int(n) for n in rng.choice(np.arange(20, 60), size=2, replace=False)):
        gate = round(float(rng.uniform(0.7, 0.95)), 3)
        cases.append(Case((steps, gate), f"{steps} steps and a forget gate of {gate}"))
    return cases


def _run_highway(case: Case, answer: object) -> tuple[float, float]:
    """The forget gate, and the whole derivative of the last cell state by the first."""
    steps, _ = case.args
    names = ("forget_bias", "input_bias", "output_bias", "candidate_weight")
    if not isinstance(answer, dict) or set(answer) != set(names):
        raise AnswerError(f"expected a dict with the keys {', '.join(map(repr, names))}.")
    forget, enter, leave, weight = (
        as_number(answer[name], name=f"the value of {name!r}") for name in names
    )
    if abs(weight) > 4.0:
        raise AnswerError(f"the weight has the size {abs(weight):.3g}; at most 4 is allowed.")
    f, i, o = (float(sigmoid(np.array(bias))) for bias in (forget, enter, leave))
    # From C = 0 the state stays at 0, where every tanh has slope 1.
    return f, (f + i * weight * o) ** steps


def _judge_highway(case: Case, answer: object, expected: object) -> str | None:
    gate, derivative = _run_highway(case, answer)
    if abs(gate - case.args[1]) > 1e-4:
        return f"the forget gate is {gate:.6g}, not {case.args[1]}."
    if abs(derivative) < 1000.0:
        return f"the derivative of the last cell state by the first is {derivative:.3g}, not 1000."
    return None


def exploding_highway(steps: int, gate: float) -> dict:
    bias = math.log(gate / (1.0 - gate))
    return {"forget_bias": bias, "input_bias": 2.0, "output_bias": 2.0, "candidate_weight": 4.0}


def _without_feedback(steps: int, gate: float) -> dict:
    return {**exploding_highway(steps, gate), "candidate_weight": 0.0}


def _wide_open(steps: int, gate: float) -> dict:
    return {**exploding_highway(steps, gate), "forget_bias": 20.0, "candidate_weight": 1.0}


EXPLODING_HIGHWAY = Task(
    id="lstm_highway/exploding_highway",
    function="exploding_highway",
    title="A highway that explodes",
    points=2,
    cases=_draw_highways,
    reference=exploding_highway,
    rtol=0.0,
    atol=1e-4,
    tolerance_reason="the gate is a sigmoid of a bias, in float32 right to about 1e-6",
    judge=_judge_highway,
    misconceptions=(
        Misconception(
            "no feedback",
            _without_feedback,
            "Without a weight from h to the candidate only the direct path is left, and a forget "
            "gate below 1 cannot make it grow.",
            lambda case, answer, expected: (
                abs(_run_highway(case, answer)[1]) <= 1.0 and answer["candidate_weight"] == 0.0
            ),
        ),
        Misconception(
            "forget gate opened",
            _wide_open,
            "You have opened the forget gate. It is given, and it is not what explodes: even at 1 "
            "the direct path only keeps.",
            lambda case, answer, expected: _run_highway(case, answer)[0] > case.args[1] + 0.01,
        ),
    ),
    hints=(
        "C acts on the next C twice: through f, and through h, the candidate and the input gate.",
        "At C = 0 every tanh has slope 1: one step multiplies by f + i * weight * o.",
        "Open the input and the output gate and take a large weight: f + i * weight * o above 1.",
    ),
)

TASKS = (LSTM_STEP, FORGET_BIAS, GRU_DIRECT_PATH, FULL_JACOBIAN, EXPLODING_HIGHWAY)
