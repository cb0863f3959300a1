r"""The capstone: scale a network to its data, train thirty layers, remember over hundreds of steps.

Designs are judged by what they do on data that the student has not seen, and by the gradients
that flow through the weights that were handed in. Source: mishkin2016, saxe2014, hochreiter1997,
gers2000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from course_lib.activations import ACTIVATIONS, get_activation
from course_lib.checks.compare import AnswerError, as_array, as_choice
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import (
    FLOAT32,
    Fault,
    judge_by,
    scramble_digits,
    shows,
)
from course_lib.initialization import draw_matrix
from course_lib.reference import lstm
from course_lib.reference.mlp import MLP, accuracy, gradient_flow
from course_lib.results import decades

# --- weights that fit the data


def _scaling_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for activation, sizes in (("relu", (6, 10, 8, 5)), ("tanh", (5, 7, 7, 7)),
                              ("sigmoid", (4, 9, 6, 8, 3))):  # fmt: skip
        x = 3.0 * rng.normal(size=(25, sizes[0])) + 1.0
        weights = [rng.normal(0.0, 10.0 ** rng.uniform(-2, 1), (m, n)) for n, m in pairwise(sizes)]
        words = f"{len(weights)} layers of {activation} and 25 inputs"
        cases.append(Case((x, weights, activation), words))
    return cases


def _size(z: np.ndarray) -> float:
    return float(np.sqrt(np.mean(z**2)))


def _rescale(
    x: np.ndarray, weights: Sequence[np.ndarray], activation: str, *,
    sequential: bool = True, measure: Callable = _size, behind: bool = False,
) -> list[np.ndarray]:  # fmt: skip
    """Divide each matrix by the size of its preactivations, layer after layer.

    Not `sequential`, the sizes are those before any layer was scaled; `behind`, they are those of
    the activations.
    """
    f, scaled, h = get_activation(activation).function, [], x
    for w in weights:
        z = h @ w.T
        scaled.append(w / measure(f(z) if behind else z))
        h = f(h @ (scaled[-1] if sequential else w).T)
    return scaled


RESCALE = Task(
    id="capstone/rescale",
    function="rescale_layers",
    title="Weights that fit the data",
    points=2,
    cases=_scaling_cases,
    reference=_rescale,
    rtol=1e-4,
    atol=1e-7,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "all layers at once",
            lambda x, weights, activation: _rescale(x, weights, activation, sequential=False),
            "The sizes were measured before any layer was scaled. Once layer 1 has its factor, "
            "layer 2 receives other inputs: scale, run on, then measure the next.",
        ),
        Misconception(
            "deviation for size",
            lambda x, weights, activation: _rescale(x, weights, activation, measure=np.std),
            "The mean was subtracted: this is the standard deviation of z. Asked for is the root "
            "of its mean square.",
        ),
        Misconception(
            "measured behind the activation",
            lambda x, weights, activation: _rescale(x, weights, activation, behind=True),
            "The outputs were measured. A sigmoid's output has a size near one half whatever z is: "
            "measure in front of the activation.",
        ),
    ),
    hints=(
        "One pass through the network, layer by layer, is enough.",
        "z = h @ W.T; divide W by the root mean square of z; then h = f(h @ W_new.T).",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)


# --- thirty layers

DEPTH, WIDTH, ACCURACY, SPAN = 30, 32, 0.8, 2.0


def _deep_cases(rng: np.random.Generator) -> list[Case]:
    digits = scramble_digits(rng, train=1000, new=400, noise=0.3)
    hidden = [digits.x_new, digits.y_new]
    return [Case((digits.x_train, digits.y_train), "400 unseen digits", hidden=hidden)]


def _read_network(answer: object) -> MLP:
    if not isinstance(answer, dict) or not {"activation", "matrices", "biases"} <= answer.keys():
        raise AnswerError(
            "expected a dictionary with the keys 'activation', 'matrices' and 'biases'."
        )
    nonlinear = tuple(name for name in ACTIVATIONS if name != "linear")
    activation = as_choice(answer["activation"], nonlinear, name="the activation")
    given = answer["matrices"]
    if not isinstance(given, (list, np.ndarray)) or len(given) < 1:
        raise AnswerError("expected a list of matrices under the key 'matrices'.")
    matrices = [as_array(w, shape=(None, None), name=f"matrix {k}") for k, w in enumerate(given)]
    biases = answer["biases"]
    if not isinstance(biases, (list, np.ndarray)) or len(biases) != len(matrices):
        raise AnswerError(f"expected a list of {len(matrices)} biases, one for each matrix.")
    biases = [as_array(b, shape=(len(w),), name="a bias")
              for w, b in zip(matrices, biases, strict=True)]  # fmt: skip
    sizes = [64, *[len(w) for w in matrices]]
    for k, (w, n) in enumerate(zip(matrices, sizes, strict=False)):
        if w.shape[1] != n:
            raise AnswerError(f"expected matrix {k} with {n} columns, got {w.shape[1]}.")
    if sizes[-1] != 10:
        raise AnswerError(f"expected 10 outputs, got {sizes[-1]}.")
    hidden = (activation,) * (len(matrices) - 1)
    return MLP(matrices, biases, (*hidden, "linear"))


def _fault_of_network(case: Case, answer: object) -> Fault | None:
    model = _read_network(answer)
    x, y = case.hidden
    depth, width = len(model.matrices), max(model.layer_sizes[1:])
    if depth < DEPTH or width > WIDTH:
        said = f"got {depth} layers of up to {width} units, expected at least {DEPTH} and at most"
        return Fault("shape", f"{said} {WIDTH}.")
    with np.errstate(all="ignore"):
        share = accuracy(model, x, y)
        norms = gradient_flow(model, x, y, loss="cross_entropy").activation_grad_norms
        span = decades(norms[-2], norms[0])
        constant = len(np.unique(model(x).argmax(axis=1))) <= 2
    if share < ACCURACY:
        said = f"{share:.0%} of the labels are right, {ACCURACY:.0%} are asked for."
        return Fault("vanished" if constant and span < -SPAN else "low", said)
    if not abs(span) <= SPAN:
        said = f"the gradient changes by {span:.1f} decades from the last hidden layer to the first"
        return Fault("span", f"{said}; at most {SPAN:g} are allowed.")
    return None


def _network(init: str, activation: str, depth: int, *, gain: float = 1.0) -> Callable:
    """Return a solution that draws a network and does not train it."""

    def train_deep(x: np.ndarray, y: np.ndarray) -> dict:
        rng = np.random.default_rng(0)
        sizes = [64, *[WIDTH] * (depth - 1), 10]
        matrices = [
            draw_matrix(init, fan_in=n, fan_out=m, gain=gain, rng=rng) for n, m in pairwise(sizes)
        ]
        biases = [np.zeros(len(w)) for w in matrices]
        return {"activation": activation, "matrices": matrices, "biases": biases}

    return train_deep


def _deep_mistake(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_network, key))


TRAIN_DEEP = Task(
    id="capstone/train_deep",
    function="train_deep",
    title="Thirty layers, and nothing but layers",
    points=5,
    cases=_deep_cases,
    reference=None,
    rtol=0.0,
    atol=SPAN,
    tolerance_reason=(
        "80 % of the digits and two decades. Tanh with orthogonal weights reaches 91 to 96 % and "
        "stays within one decade, on each of ten seeds; PyTorch's default weights reach 7 to 23 %"
    ),
    judge=judge_by(_fault_of_network),
    misconceptions=(
        _deep_mistake(
            "the default weights", "vanished", _network("glorot_uniform", "sigmoid", DEPTH),
            "All digits get nearly the same label, and hardly any gradient reaches the first "
            "layers: it has vanished on the way. Choose activation and weights for thirty layers.",
        ),
        _deep_mistake(
            "a shallow network", "shape", _network("he_normal", "relu", 3),
            "Fewer layers would be the better engineering, but the exercise is to train all "
            "thirty.",
        ),
        _deep_mistake(
            "not trained", "low", _network("orthogonal", "tanh", DEPTH),
            "The gradient passes, but the network knows little. Train for longer, or with another "
            "learning rate.",
        ),
    ),
    hints=(
        "Which activation and which law keep a gradient level over thirty layers, at a width of "
        "only 32? Think of the spread of singular values.",
        "Tanh with orthogonal weights, scaled by 1.05. Adam with 0.001 or SGD with 0.05.",
        "300 steps with batches of 64 are enough: `course_lib.reference.train` takes about two "
        "seconds for them.",
    ),
    time_limit=90.0,
    frameworks=("pytorch", "tf"),
)  # fmt: skip


# --- a memory of hundreds of steps

NOISE, BEFORE = 0.1, 20


def _memory_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for symbols, inputs, lag in ((2, 3, 120), (4, 5, 300)):
        codes = np.linalg.qr(rng.normal(size=(inputs, symbols)))[0].T
        words = f"{symbols} symbols over {lag} steps"
        cases.append(Case((codes, lag), words, hidden=int(rng.integers(2**31))))
    return cases


def draw_sequences(
    codes: np.ndarray, lag: int, *, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with one symbol's code added `lag` steps before the end, and the symbols.

    Shapes (count, T, inputs) and (count,), with T = lag + 20.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(codes), size=count)
    x = NOISE * rng.standard_normal((count, lag + BEFORE, codes.shape[1]))
    x[:, BEFORE - 1] += codes[y]
    return x, y


def _fault_of_memory(case: Case, answer: object) -> Fault | None:
    codes, lag = case.args
    names = {"w_xh", "w_hh", "b", "w_hy", "b_y"}
    if not isinstance(answer, dict) or not names <= answer.keys():
        raise AnswerError("expected a dictionary with the keys w_xh, w_hh, b, w_hy and b_y.")
    bias = as_array(answer["b"], shape=(None,), name="b")
    n = len(bias) // 4
    if len(bias) % 4 or not 1 <= n <= 32:
        raise AnswerError(f"expected b with 4 entries for each of 1 to 32 units, got {len(bias)}.")
    w_xh = as_array(answer["w_xh"], shape=(4 * n, codes.shape[1]), name="w_xh")
    w_hh = as_array(answer["w_hh"], shape=(4 * n, n), name="w_hh")
    w_hy = as_array(answer["w_hy"], shape=(len(codes), n), name="w_hy")
    b_y = as_array(answer["b_y"], shape=(len(codes),), name="b_y")
    x, y = draw_sequences(codes, lag, count=200, seed=case.hidden)
    steps, hidden, cell = [], np.zeros((len(x), n)), np.zeros((len(x), n))
    for t in range(x.shape[1]):
        steps.append(lstm.step("lstm", x[:, t] @ w_xh.T + bias, hidden @ w_hh.T, hidden, cell))
        hidden, cell = steps[-1].hidden, steps[-1].cell
    share = float(np.mean((hidden @ w_hy.T + b_y).argmax(axis=1) == y))
    kept = _gradient_kept(steps, w_hh, w_hy[y], steps_back=lag)
    if not kept >= 0.1:
        said = f"of the gradient at the last cell state {kept:.1e} arrives {lag} steps earlier"
        return Fault("forgets", f"{said}; a tenth is asked for.")
    if share < 0.98:
        return Fault("noise", f"{share:.0%} of the symbols are right, 98 % are asked for.")
    return None


def _gradient_kept(
    steps: Sequence[lstm.Step], w_hh: np.ndarray, hidden_grad: np.ndarray, *, steps_back: int
) -> float:
    """Return the norm of the complete gradient at C_{T - steps_back} over that at C_T."""
    grad, cell_grad, norms = hidden_grad, np.zeros_like(hidden_grad), []
    for done in reversed(steps[-steps_back - 1 :]):
        grads = lstm.step_backward(done, grad, cell_grad)
        norms.append(float(np.linalg.norm(grads.total_cell)))
        grad, cell_grad = grads.u @ w_hh, grads.cell
    return norms[-1] / norms[0] if norms[0] > 0.0 else 0.0


def _memory(*, forget: float = 12.0, gate: float = 20.0) -> Callable:
    """Return a design with one unit per symbol, whose input gate opens for its code only."""

    def design_memory(codes: np.ndarray, lag: int) -> dict:
        n = len(codes)
        none = np.zeros_like(codes)
        # With a gate that is always open the candidate must carry the symbol itself.
        candidate = none if gate else codes
        opened = np.full(n, -0.6 * gate if gate else 5.0)
        steady = np.full(n, 2.0 if gate else 0.0)
        return {
            "w_xh": np.vstack([gate * codes, none, candidate, none]),
            "w_hh": np.zeros((4 * n, n)),
            "b": np.concatenate([opened, np.full(n, forget), steady, np.full(n, 10.0)]),
            "w_hy": np.eye(n),
            "b_y": np.zeros(n),
        }

    return design_memory


def _memory_mistake(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_memory, key))


REMEMBER = Task(
    id="capstone/remember",
    function="design_memory",
    title="A memory of three hundred steps, by design",
    points=4,
    cases=_memory_cases,
    reference=_memory(),
    rtol=0.0,
    atol=0.0,
    tolerance_reason=(
        "98 % of 200 noisy sequences and a tenth of the gradient. Over twenty seeds a sound design "
        "makes no mistake and keeps 99 %; an open input gate is right in 30 to 72 % of the cases"
    ),
    judge=judge_by(_fault_of_memory),
    misconceptions=(
        _memory_mistake(
            "a forget bias of one", "forgets", _memory(forget=1.0),
            "A forget gate of 0.73 looks open and forgets by half in two steps. Over hundreds of "
            "steps it must be so near 1 that its power is.",
        ),
        _memory_mistake(
            "no input gate", "noise", _memory(gate=0.0),
            "The cell keeps what it is given, the noise of every step included: after hundreds of "
            "steps its sum is larger than the symbol. The input gate has to be shut until the "
            "symbol comes.",
        ),
    ),
    hints=(
        "C_t = f * C_(t-1) + i * g. Which f keeps the symbol over the lag? Which i lets it in, and "
        "the noise not?",
        "One unit for each symbol: W_xi = 20 times its code, with a bias of -12, is about +8 when "
        "the symbol is there and about -12 when it is not.",
        "Forget bias 12, candidate bias 2, output bias 10, w_hh = 0, and the identity as readout.",
    ),
)  # fmt: skip

TASKS = (RESCALE, TRAIN_DEEP, REMEMBER)
