r"""Tasks on backpropagation through time: the recursion, the sum over steps, and where it ends."""

from __future__ import annotations

import numpy as np

from course_lib.checks.compare import as_array
from course_lib.checks.task import IN_FLOAT32, Case, Misconception, Task


def draw_states(rng: np.random.Generator, w_hh: np.ndarray, steps: int) -> np.ndarray:
    """h_0 to h_T of a tanh network with random inputs, shape (T + 1, n)."""
    states = [rng.uniform(-0.5, 0.5, size=len(w_hh))]
    for _ in range(steps):
        states.append(np.tanh(w_hh @ states[-1] + rng.normal(scale=0.7, size=len(w_hh))))
    return np.array(states)


def draw_network(rng: np.random.Generator, size: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """A recurrent matrix of moderate size, and states of its network."""
    w_hh = rng.normal(scale=1.2 / np.sqrt(size), size=(size, size))
    return w_hh, draw_states(rng, w_hh, steps)


# The recursion -----------------------------------------------------------------------------------


def _draw_recursions(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, steps in ((1, 3), (3, 5)):
        w_hh, states = draw_network(rng, size, steps)
        args = (w_hh, states[1:], rng.normal(size=(steps, size)))
        cases.append(Case(args, f"{steps} steps of a network of {size}"))
    return cases


def total_gradients(w_hh: np.ndarray, states: np.ndarray, direct: np.ndarray) -> np.ndarray:
    total = direct.copy()
    for t in range(len(states) - 2, -1, -1):
        total[t] += w_hh.T @ ((1.0 - states[t + 1] ** 2) * total[t + 1])
    return total


def _last_loss_only(w_hh: np.ndarray, states: np.ndarray, direct: np.ndarray) -> np.ndarray:
    last = np.zeros_like(direct)
    last[-1] = direct[-1]
    return total_gradients(w_hh, states, last)


def _own_slope(w_hh: np.ndarray, states: np.ndarray, direct: np.ndarray) -> np.ndarray:
    total = direct.copy()
    for t in range(len(states) - 2, -1, -1):
        total[t] += (1.0 - states[t] ** 2) * (w_hh.T @ total[t + 1])
    return total


def _not_accumulated(w_hh: np.ndarray, states: np.ndarray, direct: np.ndarray) -> np.ndarray:
    total = direct.copy()
    for t in range(len(states) - 2, -1, -1):
        total[t] += w_hh.T @ ((1.0 - states[t + 1] ** 2) * direct[t + 1])
    return total


TOTAL_GRADIENTS = Task(
    id="bptt/total_gradients",
    function="total_gradients",
    title="The recursion of backpropagation through time",
    points=2,
    cases=_draw_recursions,
    reference=total_gradients,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "last loss only",
            _last_loss_only,
            "Only the loss at the last step arrives. Each step's own, direct gradient has to be "
            "added on the way.",
        ),
        Misconception(
            "slope of the wrong step",
            _own_slope,
            "The slope is taken at step t. The way from h_t to h_(t+1) leads through the tanh of "
            "step t + 1.",
        ),
        Misconception(
            "one step only",
            _not_accumulated,
            "From step t + 1 only its direct gradient comes back. Pass on the total one, which "
            "holds all later steps.",
        ),
    ),
    hints=(
        "Begin at the last step: there the total gradient is the direct one. Then go back.",
        "total_t = direct_t + J^T total_(t+1), with the Jacobian J of step t + 1.",
        "J = diag(1 - h_(t+1)²) W_hh, so J^T v = W_hh^T ((1 - h_(t+1)²) * v).",
    ),
)

# One matrix, many steps --------------------------------------------------------------------------


def _draw_sums(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, steps in ((2, 2), (3, 6)):
        _, states = draw_network(rng, size, steps)
        cases.append(Case((states, rng.normal(size=(steps, size))), f"{steps} steps, {size} units"))
    return cases


def _weight_terms(states: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The contribution of each step, shape (T, n, n)."""
    return ((1.0 - states[1:] ** 2) * total)[:, :, None] * states[:-1, None, :]


def recurrent_weight_gradient(states: np.ndarray, total: np.ndarray) -> np.ndarray:
    return _weight_terms(states, total).sum(axis=0)


RECURRENT_WEIGHT_GRADIENT = Task(
    id="bptt/recurrent_weight_gradient",
    function="recurrent_weight_gradient",
    title="One matrix, used at every step",
    points=1,
    cases=_draw_sums,
    reference=recurrent_weight_gradient,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "state of the same step",
            lambda states, total: ((1.0 - states[1:] ** 2) * total).T @ states[1:],
            "The matrix at step t multiplies h_(t-1), the state before the step. Here stands the "
            "state after it.",
        ),
        Misconception(
            "last step only",
            lambda states, total: _weight_terms(states, total)[-1],
            "This is the contribution of the last step. The same matrix is used at every step, "
            "and the contributions add up.",
        ),
        Misconception(
            "no slope",
            lambda states, total: total.T @ states[:-1],
            "The slope of tanh is missing between the state and the preactivation.",
        ),
        Misconception(
            "mean over the steps",
            lambda states, total: _weight_terms(states, total).mean(axis=0),
            "The contributions of the steps add up; nothing divides by their number.",
        ),
    ),
    hints=(
        "Pretend that each step had a matrix of its own, and write its gradient.",
        "Step t contributes ((1 - h_t²) * total_t) times h_(t-1)^T; sum over t.",
    ),
)

# Rate and bound ----------------------------------------------------------------------------------


def _draw_rates(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, steps in ((2, 4), (5, 20)):
        w_hh, states = draw_network(rng, size, steps)
        cases.append(Case((w_hh, states[1:]), f"{steps} steps of a network of {size}"))
    return cases


def _jacobians(w_hh: np.ndarray, states: np.ndarray) -> list[np.ndarray]:
    return [(1.0 - h**2)[:, None] * w_hh for h in states[1:]]


def rate_and_bound(w_hh: np.ndarray, states: np.ndarray) -> list[float]:
    product = np.eye(len(w_hh))
    for jacobian in _jacobians(w_hh, states):
        product = jacobian @ product
    rate = np.linalg.norm(product, 2) ** (1.0 / (len(states) - 1))
    return [float(rate), float(np.linalg.norm(w_hh, 2))]


def _rate_of_norms(w_hh: np.ndarray, states: np.ndarray) -> list[float]:
    norms = [np.linalg.norm(jacobian, 2) for jacobian in _jacobians(w_hh, states)]
    return [float(np.exp(np.mean(np.log(norms)))), rate_and_bound(w_hh, states)[1]]


def _radius_as_bound(w_hh: np.ndarray, states: np.ndarray) -> list[float]:
    return [rate_and_bound(w_hh, states)[0], float(np.abs(np.linalg.eigvals(w_hh)).max())]


RATE_AND_BOUND = Task(
    id="bptt/rate_and_bound",
    function="rate_and_bound",
    title="The decay per step, measured beside its bound",
    points=2,
    cases=_draw_rates,
    reference=rate_and_bound,
    rtol=1e-3,
    atol=0.0,
    tolerance_reason="a long product in float32; its root loses little of it",
    misconceptions=(
        Misconception(
            "norms of the factors",
            _rate_of_norms,
            "This is the mean of the norms of the single Jacobians, one more bound. Measured is "
            "the norm of their product.",
        ),
        Misconception(
            "spectral radius as bound",
            _radius_as_bound,
            "The spectral radius bounds nothing here: the Jacobians differ from step to step. The "
            "largest slope times the spectral norm of W_hh does.",
        ),
    ),
    hints=(
        "Multiply the Jacobians of steps 2 to T, the latest leftmost. How many are there?",
        "rate = norm of the product, to the power 1 / (T - 1); the slopes of tanh are at most 1.",
    ),
)

# Truncation --------------------------------------------------------------------------------------


def _draw_truncations(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, steps, window in ((2, 5, 1), (3, 8, 3), (2, 6, 5)):
        w_hh, states = draw_network(rng, size, steps)
        args = (w_hh, states, rng.normal(size=size), window)
        cases.append(Case(args, f"{steps} steps, a window of {window} and {size} units"))
    return cases


def truncated_gradient(
    w_hh: np.ndarray, states: np.ndarray, last_grad: np.ndarray, window: int
) -> np.ndarray:
    direct = np.zeros((len(states) - 1, len(last_grad)))
    direct[-1] = last_grad
    terms = _weight_terms(states, total_gradients(w_hh, states[1:], direct))
    return terms[max(len(terms) - window, 0) :].sum(axis=0)


TRUNCATED_GRADIENT = Task(
    id="bptt/truncated_gradient",
    function="truncated_gradient",
    title="Backpropagation, truncated",
    points=2,
    cases=_draw_truncations,
    reference=truncated_gradient,
    rtol=1e-4,
    atol=1e-6,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "not truncated",
            lambda w, states, grad, window: truncated_gradient(w, states, grad, len(states)),
            "This is the full gradient. Stop after `window` steps: what is older gets nothing.",
        ),
        Misconception(
            "one step too many",
            lambda w, states, grad, window: truncated_gradient(w, states, grad, window + 1),
            "This is one step too many: the last step itself counts, so that a window of 1 holds "
            "its contribution and no other.",
        ),
        Misconception(
            "rescaled",
            lambda w, states, grad, window: (
                truncated_gradient(w, states, grad, window) * (len(states) - 1) / window
            ),
            "The sum has been scaled up to all steps. Truncation leaves the old terms out, and "
            "guesses nothing in their place.",
        ),
    ),
    hints=(
        "Write the full sum over the steps first; truncation keeps the last `window` terms.",
        "Carry the gradient at h_t with you: add its term, then go one step back, `window` times.",
    ),
)

# Everything from the inputs ----------------------------------------------------------------------


def _draw_sequences(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, n_in, steps in ((2, 1, 3), (3, 2, 6)):
        args = (
            rng.normal(size=(size, n_in)), rng.normal(scale=0.8, size=(size, size)),
            rng.normal(scale=0.5, size=size), rng.normal(size=(steps, n_in)),
            rng.normal(size=size),
        )  # fmt: skip
        cases.append(Case(args, f"{steps} steps, {n_in} inputs and {size} units"))
    return cases


def _all_gradients(w_xh, w_hh, b, x, y, *, factor=1.0, share=slice(None)) -> dict:
    states = [np.zeros(len(b))]
    for x_t in x:
        states.append(np.tanh(w_xh @ x_t + w_hh @ states[-1] + b))
    h = np.array(states)
    direct = np.zeros((len(x), len(b)))
    direct[-1] = factor * (h[-1] - y)
    delta = ((1.0 - h[1:] ** 2) * total_gradients(w_hh, h[1:], direct))[share]
    inputs, before = x[share], h[:-1][share]
    return {"w_xh": delta.T @ inputs, "w_hh": delta.T @ before, "b": delta.sum(axis=0)}


def sequence_gradients(w_xh, w_hh, b, x, y) -> dict:
    return _all_gradients(w_xh, w_hh, b, x, y)


SEQUENCE_GRADIENTS = Task(
    id="bptt/sequence_gradients",
    function="sequence_gradients",
    title="A recurrent network from end to end",
    points=3,
    cases=_draw_sequences,
    reference=sequence_gradients,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "last step only",
            lambda *args: _all_gradients(*args, share=slice(-1, None)),
            "Only the last step contributes to these gradients. The loss reaches every earlier "
            "step through the states.",
        ),
        Misconception(
            "no one half",
            lambda *args: _all_gradients(*args, factor=2.0),
            "All gradients are twice too large: the loss is half the squared distance.",
        ),
        Misconception(
            "mean over the outputs",
            lambda *args: _all_gradients(*args, factor=1.0 / len(args[2])),
            "All gradients are divided by the number of units. The loss is a sum over the units; "
            "a framework's mean squared error is a mean.",
        ),
    ),
    hints=(
        "Go forward and keep all states, h_0 = 0 included. The loss sees the last one only.",
        "The gradient at the last state is h_T - y. The two tasks before this one do the rest.",
        "With delta_t = (1 - h_t²) * total_t: sum delta_t x_t^T, delta_t h_(t-1)^T, and delta_t.",
    ),
    frameworks=("pytorch", "tf"),
)

# A large eigenvalue, and yet it vanishes ---------------------------------------------------------


def _draw_starts(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size in (2, 4):
        start = np.round(rng.uniform(0.2, 0.9, size=size) * rng.choice([-1.0, 1.0], size=size), 3)
        radius = round(float(rng.uniform(1.5, 1.9)), 3)
        cases.append(Case((start, 40, radius), f"{size} units and a spectral radius of {radius}"))
    return cases


def _run_free(case: Case, answer: object) -> tuple[float, float]:
    """The spectral radius, and the norm of the derivative of the last state by the first."""
    start, steps, _ = case.args
    w_hh = as_array(answer, shape=(len(start), len(start)), name="the matrix")
    h, product = start, np.eye(len(start))
    for _ in range(steps):
        h = np.tanh(w_hh @ h)
        product = (1.0 - h**2)[:, None] * w_hh @ product
    radius = float(np.abs(np.linalg.eigvals(w_hh)).max())
    norm = float(np.linalg.norm(product, 2)) if np.isfinite(product).all() else float("inf")
    return radius, norm


def _judge_free_run(case: Case, answer: object, expected: object) -> str | None:
    radius, norm = _run_free(case, answer)
    if abs(radius - case.args[2]) > 1e-4:
        return f"the spectral radius is {radius:.6g}, not {case.args[2]}."
    if norm > 1e-3:
        return f"the derivative of the last state by the first has the norm {norm:.3g}, over 0.001."
    return None


def silent_matrix(start: np.ndarray, steps: int, radius: float) -> np.ndarray:
    return radius * np.eye(len(start))


def _deaf_to_the_start(start: np.ndarray, steps: int, radius: float) -> np.ndarray:
    along = start / np.linalg.norm(start)
    return radius * (np.eye(len(start)) - np.outer(along, along))


SILENT_MATRIX = Task(
    id="bptt/silent_matrix",
    function="silent_matrix",
    title="An eigenvalue above one, and yet it vanishes",
    points=2,
    cases=_draw_starts,
    reference=silent_matrix,
    rtol=0.0,
    atol=1e-4,
    tolerance_reason="eigenvalues are computed; in float32 a radius is right to about 1e-6",
    judge=_judge_free_run,
    misconceptions=(
        Misconception(
            "small matrix",
            lambda start, steps, radius: 0.5 * np.eye(len(start)),
            "Below 1 everything vanishes, which nobody doubts. The claim to refute is about "
            "matrices with a large eigenvalue.",
            lambda case, answer, expected: _run_free(case, answer)[0] < 1.0,
        ),
        Misconception(
            "state stays at zero",
            _deaf_to_the_start,
            "This network's gradient grows as the eigenvalue says, because its state stays small "
            "where it matters. Let the state grow until tanh becomes flat.",
            lambda case, answer, expected: (
                _run_free(case, answer)[0] > 1.4 and _run_free(case, answer)[1] > 1.0
            ),
        ),
    ),
    hints=(
        "The Jacobian is diag(1 - h²) W_hh. What happens to 1 - h² when the state grows?",
        "Try one unit with weight 1.5: where does the state settle, and what is the slope there?",
        "A multiple of the identity makes every unit do what that one unit does.",
    ),
)

TASKS = (
    TOTAL_GRADIENTS, RECURRENT_WEIGHT_GRADIENT, SEQUENCE_GRADIENTS, RATE_AND_BOUND,
    TRUNCATED_GRADIENT, SILENT_MATRIX,
)  # fmt: skip
