r"""Random weight matrices, drawn in NumPy so that three implementations start from one network.

Shapes follow PyTorch: a matrix is (fan_out, fan_in). `gain` multiplies every draw.

| name | law | source |
|---|---|---|
| glorot_uniform | $U(-a, a)$, $a = \sqrt{6/(n_{in}+n_{out})}$ | glorot2010 |
| glorot_normal | $N(0, 2/(n_{in}+n_{out}))$ | glorot2010 |
| he_uniform | $U(-a, a)$, $a = \sqrt{6/n_{in}}$ | he2015delving |
| he_normal | $N(0, 2/n_{in})$ | he2015delving |
| he_uniform_fan_out | $U(-a, a)$, $a = \sqrt{6/n_{out}}$ | he2015delving |
| he_normal_fan_out | $N(0, 2/n_{out})$ | he2015delving |
| lecun_uniform | $U(-a, a)$, $a = \sqrt{3/n_{in}}$ | lecun1998efficient |
| lecun_normal | $N(0, 1/n_{in})$ | lecun1998efficient |
| pytorch_default | $U(-a, a)$, $a = 1/\sqrt{n_{in}}$, what `torch.nn.Linear` draws | - |
| orthogonal | orthonormal rows or columns, Haar-distributed | saxe2014 |
| normal | $N(0, 1)$, so that `gain` is the standard deviation | - |
| identity | ones on the diagonal | le2015 |

Keras's `he_normal`, `glorot_normal` and `lecun_normal` truncate the normal law at two standard
deviations and rescale it to the same variance; the laws here are not truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    "he_uniform_fan_out": lambda o, i, rng: _uniform(np.sqrt(6.0 / o), (o, i), rng),
    "he_normal_fan_out": lambda o, i, rng: _normal(2.0 / o, (o, i), rng),
    "lecun_uniform": lambda o, i, rng: _uniform(np.sqrt(3.0 / i), (o, i), rng),
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


_VARIANCES: dict[str, Callable[[int, int], float]] = {
    "glorot_uniform": lambda o, i: 2.0 / (i + o),
    "glorot_normal": lambda o, i: 2.0 / (i + o),
    "he_uniform": lambda o, i: 2.0 / i,
    "he_normal": lambda o, i: 2.0 / i,
    "he_uniform_fan_out": lambda o, i: 2.0 / o,
    "he_normal_fan_out": lambda o, i: 2.0 / o,
    "lecun_uniform": lambda o, i: 1.0 / i,
    "lecun_normal": lambda o, i: 1.0 / i,
    "pytorch_default": lambda o, i: 1.0 / (3.0 * i),
    "orthogonal": lambda o, i: 1.0 / max(o, i),
    "normal": lambda o, i: 1.0,
}


def weight_variance(init: str, *, fan_in: int, fan_out: int, gain: float = 1.0) -> float:
    """Return the variance of one weight drawn from the law `init`, times `gain` squared.

    For "orthogonal" it is the mean square of the entries, which are not independent. Raises
    ValueError for "identity", which draws nothing.
    """
    require_choice("init", init, _VARIANCES)
    fan_in = require_integer("fan_in", fan_in, minimum=1)
    fan_out = require_integer("fan_out", fan_out, minimum=1)
    return require_real("gain", gain, minimum=0.0) ** 2 * _VARIANCES[init](fan_out, fan_in)


def compute_fans(shape: Sequence[int], *, groups: int = 1) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a kernel of shape (n_out, n_in / groups, *window).

    `fan_in` counts the inputs that one output sees, `fan_out` the outputs that one input reaches
    (at stride 1, away from the border): in a grouped convolution only those of its own group.
    PyTorch's and Keras's own counts overlook the groups; see the chapter on initialization.
    """
    if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence) or len(shape) < 2:
        raise ValueError(f"`shape` (={shape!r}) must be a sequence of at least two integers.")
    sizes = [require_integer(f"shape[{k}]", n, minimum=1) for k, n in enumerate(shape)]
    groups = require_integer("groups", groups, minimum=1)
    if sizes[0] % groups:
        raise ValueError(f"`groups` (={groups}) must divide the {sizes[0]} outputs.")
    window = int(np.prod(sizes[2:], dtype=np.int64))
    return sizes[1] * window, sizes[0] // groups * window


def draw_kernel(
    init: str, *, shape: Sequence[int], groups: int = 1, gain: float = 1.0, rng: np.random.Generator
) -> np.ndarray:
    """Return `gain` times a float64 kernel of `shape` (n_out, n_in / groups, *window).

    The variance follows the fans of `compute_fans`. The kernel is drawn as a matrix with one row
    per output, so that without window and groups it is the matrix of `draw_matrix`; "orthogonal"
    makes the rows or columns of that matrix orthonormal, group by group. Raises ValueError for
    "identity" with a window, which has no diagonal.
    """
    require_choice("init", init, INITIALIZERS)
    fan_in, fan_out = compute_fans(shape, groups=groups)
    if init == "identity" and len(shape) > 2:
        raise ValueError(f"`init` (='identity') must not be used for a kernel of shape {shape}.")
    if init in ("orthogonal", "identity", "normal"):
        rows = shape[0] // groups
        blocks = [
            draw_matrix(init, fan_in=fan_in, fan_out=rows, gain=gain, rng=rng)
            for _ in range(groups)
        ]
        return np.concatenate(blocks).reshape(tuple(shape))
    matrix = draw_matrix(init, fan_in=fan_in, fan_out=shape[0], gain=gain, rng=rng)
    wanted = weight_variance(init, fan_in=fan_in, fan_out=fan_out)
    drawn = weight_variance(init, fan_in=fan_in, fan_out=shape[0])
    return (np.sqrt(wanted / drawn) * matrix).reshape(tuple(shape))
