r"""Random weight matrices, drawn in NumPy so that three implementations start from one network.

Shapes follow PyTorch: a matrix is (fan_out, fan_in). `gain` multiplies every draw.

| name | law | source |
|---|---|---|
| glorot_uniform | $U(-a, a)$, $a = \sqrt{6/(n_{in}+n_{out})}$ | glorot2010 |
| glorot_normal | $N(0, 2/(n_{in}+n_{out}))$ | glorot2010 |
| he_uniform | $U(-a, a)$, $a = \sqrt{6/n_{in}}$ | he2015delving |
| he_normal | $N(0, 2/n_{in})$ | he2015delving |
| lecun_normal | $N(0, 1/n_{in})$ | lecun1998efficient |
| pytorch_default | $U(-a, a)$, $a = 1/\sqrt{n_{in}}$, what `torch.nn.Linear` draws | - |
| orthogonal | orthonormal rows or columns, Haar-distributed | saxe2014 |
| normal | $N(0, 1)$, so that `gain` is the standard deviation | - |
| identity | ones on the diagonal | le2015 |

Keras's `he_normal`, `glorot_normal` and `lecun_normal` truncate the normal law at two standard
deviations and rescale it to the same variance; the laws here are not truncated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib._validation import require_choice, require_integer, require_real


def _require_generator(rng: object) -> None:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"`rng` (={rng!r}) must be a numpy.random.Generator.")


def orthogonal_matrix(rows: int, columns: int, *, rng: np.random.Generator) -> np.ndarray:
    """Return a (rows, columns) matrix whose singular values are all exactly 1.

    The QR decomposition of a Gaussian matrix, with the signs of R's diagonal absorbed: without
    them the law would not be uniform over the orthogonal group (mezzadri2007).
    """
    rows = require_integer("rows", rows, minimum=1)
    columns = require_integer("columns", columns, minimum=1)
    _require_generator(rng)
    gaussian = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(gaussian)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if rows >= columns else q.T


def _uniform(limit: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-limit, limit, size=shape)


def _normal(variance: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0.0, np.sqrt(variance), size=shape)


_Draw = Callable[[int, int, np.random.Generator], np.ndarray]

INITIALIZERS: dict[str, _Draw] = {
    "glorot_uniform": lambda o, i, rng: _uniform(np.sqrt(6.0 / (i + o)), (o, i), rng),
    "glorot_normal": lambda o, i, rng: _normal(2.0 / (i + o), (o, i), rng),
    "he_uniform": lambda o, i, rng: _uniform(np.sqrt(6.0 / i), (o, i), rng),
    "he_normal": lambda o, i, rng: _normal(2.0 / i, (o, i), rng),
    "lecun_normal": lambda o, i, rng: _normal(1.0 / i, (o, i), rng),
    "pytorch_default": lambda o, i, rng: _uniform(np.sqrt(1.0 / i), (o, i), rng),
    "orthogonal": lambda o, i, rng: orthogonal_matrix(o, i, rng=rng),
    "normal": lambda o, i, rng: _normal(1.0, (o, i), rng),
    "identity": lambda o, i, rng: np.eye(o, i),
}
"""The laws by name; each takes (fan_out, fan_in, rng) and returns a (fan_out, fan_in) matrix."""


def draw_matrix(
    init: str, *, fan_in: int, fan_out: int, gain: float = 1.0, rng: np.random.Generator
) -> np.ndarray:
    """Return `gain` times a (fan_out, fan_in) float64 matrix drawn from the law `init`.

    Raises TypeError or ValueError for an unknown law, a fan below 1, a gain that is negative or
    not finite, or an `rng` that is not a `numpy.random.Generator`.
    """
    require_choice("init", init, INITIALIZERS)
    fan_in = require_integer("fan_in", fan_in, minimum=1)
    fan_out = require_integer("fan_out", fan_out, minimum=1)
    gain = require_real("gain", gain, minimum=0.0)
    _require_generator(rng)
    return gain * INITIALIZERS[init](fan_out, fan_in, rng)
