r"""A recurrent network as data, and its initial weights as NumPy arrays.

One layout for all cells and frameworks, PyTorch's: the gates' blocks are stacked along the rows.
With $n$ hidden units, inputs $x_t$, $a_t = W_{xh} x_t + b_{xh}$ and $u_t = W_{hh} h_{t-1} + b_{hh}$
have one block of $n$ entries per gate:

| cell | blocks, in order | step |
|---|---|---|
| tanh_rnn, relu_rnn | h | $h_t = f(a + u)$ |
| lstm | i f g o | $C_t = f \odot C_{t-1} + i \odot g$, $h_t = o \odot \tanh C_t$ |
| gru | r z n | $n = \tanh(a_n + r \odot u_n)$, $h_t = (1 - z) \odot n + z \odot h_{t-1}$ |

Gates i, f, o, r, z are logistic, g is a tanh of its block of $a + u$. An optional readout is
linear: $y_t = W_{hy} h_t + b_y$. Sequences are batch-first: (batch, T, n_in), and $h_0 = C_0 = 0$.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_real,
    require_seed,
)
from course_lib.initialization import INITIALIZERS, draw_matrix, orthogonal_matrix

GATES = {
    "tanh_rnn": ("h",),
    "relu_rnn": ("h",),
    "lstm": ("i", "f", "g", "o"),
    "gru": ("r", "z", "n"),
}
"""The cells by name, and the order of their gates' blocks."""

RECURRENT_INITIALIZERS = (*INITIALIZERS, "gaussian")
r"""Laws of a recurrent matrix: those of `course_lib.initialization`, and "gaussian" =
$N(0, 1/n)$, so that `gain` is the spectral radius that a wide matrix tends to."""

DEFAULTS = ("pytorch", "keras")


@dataclass(frozen=True)
class RecurrentSpec:
    r"""One recurrent layer, with an optional linear readout.

    Arguments:
        n_in: number of inputs per step, at least 1.
        hidden: number $n$ of hidden units, at least 1.
        cell: "tanh_rnn", "relu_rnn", "lstm" or "gru".
        n_out: number of outputs of the readout; None for no readout (the output is $h_t$).
        input_init, input_scale: law of each gate's block of $W_{xh}$, and the factor on it.
        recurrent_init, gain: law of each gate's block of $W_{hh}$, and the factor on it.
        bias: the value of every gate's bias (held in $b_{xh}$; $b_{hh}$ is zero).
        forget_bias: the LSTM forget gate's bias, `bias` if None. Only for "lstm".
        update_bias: the GRU update gate's bias, `bias` if None. Only for "gru".
        defaults: "pytorch" or "keras" to draw everything as that framework does; the laws
            above must then be left alone.
    """

    n_in: int
    hidden: int
    cell: str = "tanh_rnn"
    n_out: int | None = None
    input_init: str = "glorot_uniform"
    input_scale: float = 1.0
    recurrent_init: str = "orthogonal"
    gain: float = 1.0
    bias: float = 0.0
    forget_bias: float | None = None
    update_bias: float | None = None
    defaults: str | None = None

    def __post_init__(self) -> None:
        for name in ("n_in", "hidden"):
            object.__setattr__(self, name, require_integer(name, getattr(self, name), minimum=1))
        require_choice("cell", self.cell, GATES)
        if self.n_out is not None:
            object.__setattr__(self, "n_out", require_integer("n_out", self.n_out, minimum=1))
        require_choice("input_init", self.input_init, INITIALIZERS)
        require_choice("recurrent_init", self.recurrent_init, RECURRENT_INITIALIZERS)
        for name in ("input_scale", "gain"):
            value = require_real(name, getattr(self, name), minimum=0.0)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "bias", require_real("bias", self.bias))
        for name, cell in (("forget_bias", "lstm"), ("update_bias", "gru")):
            value = getattr(self, name)
            if value is None:
                continue
            if self.cell != cell:
                raise ValueError(f"`{name}` (={value}) must be None for the cell {self.cell}.")
            object.__setattr__(self, name, require_real(name, value))
        self._check_defaults()

    def _check_defaults(self) -> None:
        if self.defaults is None:
            return
        require_choice("defaults", self.defaults, DEFAULTS)
        standing = {f.name: f.default for f in fields(self)}
        for name in ("input_init", "input_scale", "recurrent_init", "gain", "bias",
                     "forget_bias", "update_bias"):  # fmt: skip
            if getattr(self, name) != standing[name]:
                raise ValueError(
                    f"`{name}` (={getattr(self, name)!r}) must be left out with "
                    f"`defaults` (={self.defaults!r}), which decides every law."
                )

    @property
    def gates(self) -> tuple[str, ...]:
        """The names of the gates' blocks, in order."""
        return GATES[self.cell]


@dataclass(frozen=True, eq=False)
class RecurrentWeights:
    r"""The parameters of a recurrent layer and its readout, as read-only float64 arrays.

    Arguments, with G gates, n hidden units:
        cell: "tanh_rnn", "relu_rnn", "lstm" or "gru".
        w_xh: $W_{xh}$, shape (G n, n_in).
        w_hh: $W_{hh}$, shape (G n, n).
        b_xh, b_hh: the biases beside them, shape (G n,); zeros if None. Only their sum matters,
            except in the GRU's candidate block, where $b_{hh}$ is inside the reset gate's product.
        w_hy, b_y: the readout, shapes (n_out, n) and (n_out,); None for no readout.
    """

    cell: str
    w_xh: np.ndarray
    w_hh: np.ndarray
    b_xh: np.ndarray | None = None
    b_hh: np.ndarray | None = None
    w_hy: np.ndarray | None = None
    b_y: np.ndarray | None = None

    def __post_init__(self) -> None:
        require_choice("cell", self.cell, GATES)
        w_hh = require_array("w_hh", self.w_hh, ndim=2)
        n, rows = w_hh.shape[1], len(GATES[self.cell]) * w_hh.shape[1]
        shapes = {"w_hh": (rows, n), "w_xh": (rows, None), "b_xh": (rows,), "b_hh": (rows,)}
        if self.w_hy is not None:
            outputs = len(require_array("w_hy", self.w_hy, shape=(None, n)))
            shapes |= {"w_hy": (outputs, n), "b_y": (outputs,)}
        elif self.b_y is not None:
            raise ValueError("`b_y` must be None without `w_hy`: there is no readout.")
        for name, shape in shapes.items():
            value = getattr(self, name)
            value = np.zeros(shape) if value is None and len(shape) == 1 else value
            array = require_array(name, value, shape=shape).copy()
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def n_in(self) -> int:
        """The number of inputs per step."""
        return self.w_xh.shape[1]

    @property
    def hidden(self) -> int:
        """The number n of hidden units."""
        return self.w_hh.shape[1]

    @property
    def n_out(self) -> int | None:
        """The number of outputs of the readout, None without one."""
        return None if self.w_hy is None else len(self.w_hy)

    def gate_rows(self, gate: str) -> slice:
        """Return the rows that belong to `gate`, to index any of the stacked arrays."""
        k = GATES[self.cell].index(require_choice("gate", gate, GATES[self.cell]))
        return slice(k * self.hidden, (k + 1) * self.hidden)


def check_recurrent_weights(spec: RecurrentSpec, weights: RecurrentWeights) -> None:
    """Raise unless both have the right type, the same cell and the same sizes."""
    if not isinstance(spec, RecurrentSpec):
        raise TypeError(f"`spec` (={spec!r}) must be a RecurrentSpec.")
    if not isinstance(weights, RecurrentWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be RecurrentWeights.")
    for name in ("cell", "n_in", "hidden", "n_out"):
        have, want = getattr(weights, name), getattr(spec, name)
        if have != want:
            raise ValueError(f"`weights` ({name} {have}) must have the spec's {name} {want}.")


def draw_recurrent_weights(spec: RecurrentSpec, *, seed: int) -> RecurrentWeights:
    """Draw the initial weights of `spec` with NumPy's PCG64, one stream for the whole network.

    The order is: input blocks, recurrent blocks, biases if random, readout.
    """
    if not isinstance(spec, RecurrentSpec):
        raise TypeError(f"`spec` (={spec!r}) must be a RecurrentSpec.")
    rng = np.random.default_rng(require_seed(seed))
    if spec.defaults == "pytorch":
        return _draw_as_pytorch(spec, rng)
    if spec.defaults == "keras":
        return _draw_as_keras(spec, rng)
    n = spec.hidden
    law = "lecun_normal" if spec.recurrent_init == "gaussian" else spec.recurrent_init
    w_xh = [
        draw_matrix(spec.input_init, fan_in=spec.n_in, fan_out=n, gain=spec.input_scale, rng=rng)
        for _ in spec.gates
    ]
    w_hh = [draw_matrix(law, fan_in=n, fan_out=n, gain=spec.gain, rng=rng) for _ in spec.gates]
    special = {"f": spec.forget_bias, "z": spec.update_bias}
    values = [spec.bias if special.get(g) is None else special[g] for g in spec.gates]
    w_hy = None
    if spec.n_out is not None:
        w_hy = draw_matrix("glorot_uniform", fan_in=n, fan_out=spec.n_out, rng=rng)
    return RecurrentWeights(
        spec.cell, np.vstack(w_xh), np.vstack(w_hh), np.repeat(values, n), w_hy=w_hy
    )


def _draw_as_pytorch(spec: RecurrentSpec, rng: np.random.Generator) -> RecurrentWeights:
    r"""Draw as `torch.nn.RNN`, `LSTM`, `GRU`: everything $U(-1/\sqrt n, 1/\sqrt n)$.

    The two biases are drawn each, so a forget gate's bias has mean 0.
    """
    n, rows = spec.hidden, len(spec.gates) * spec.hidden

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-1.0 / np.sqrt(n), 1.0 / np.sqrt(n), size=shape)

    arrays = [draw(rows, spec.n_in), draw(rows, n), draw(rows), draw(rows)]
    if spec.n_out is not None:
        arrays += [draw(spec.n_out, n), draw(spec.n_out)]
    return RecurrentWeights(spec.cell, *arrays)


def _draw_as_keras(spec: RecurrentSpec, rng: np.random.Generator) -> RecurrentWeights:
    """Draw as Keras's SimpleRNN, LSTM and GRU.

    Glorot-uniform input kernel and one orthogonal recurrent kernel, each over all gates together
    (so a single gate's recurrent block is not orthogonal), zero biases, forget bias 1.
    """
    n, rows = spec.hidden, len(spec.gates) * spec.hidden
    w_xh = draw_matrix("glorot_uniform", fan_in=spec.n_in, fan_out=rows, rng=rng)
    w_hh = orthogonal_matrix(rows, n, rng=rng)
    bias = np.repeat([float(g == "f") for g in spec.gates], n)
    w_hy = None
    if spec.n_out is not None:
        w_hy = draw_matrix("glorot_uniform", fan_in=n, fan_out=spec.n_out, rng=rng)
    return RecurrentWeights(spec.cell, w_xh, w_hh, bias, w_hy=w_hy)
