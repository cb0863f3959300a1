r"""Chains of matrices that all stretch something, and whose products vanish all the same.

$\sigma_{max}(M_k) > 1$ says that each matrix stretches *one* direction. Whether the product grows
depends on whether the next matrix finds the vector in *its* stretched direction. The chains here
are lists $M_1, \dots, M_K$ in the order in which they act, for `measure_product`.
"""

from __future__ import annotations

import numpy as np

from course_lib._validation import require_integer, require_real, require_seed
from course_lib.initialization import orthogonal_matrix


def rank_one_chain(depth: int, *, stretch: float, angle_degrees: float) -> list[np.ndarray]:
    r"""Return `depth` copies of the (2, 2) matrix $s\, u v^\top$ with an angle between u and v.

    The matrix has the singular values s = `stretch` and 0, and its k-th power is
    $s^k \cos^{k-1}(\theta)\, u v^\top$: it grows only if $s \cos\theta > 1$. At 90 degrees the
    product of any two is zero.

    Arguments:
        depth: at least 1.
        stretch: s > 0, the only nonzero singular value.
        angle_degrees: $\theta$ in degrees, 0 to 90.

    Source: hornjohnson2013.
    """
    depth = require_integer("depth", depth, minimum=1)
    stretch = require_real("stretch", stretch, minimum=0.0, exclusive=True)
    angle = require_real("angle_degrees", angle_degrees, minimum=0.0, maximum=90.0)
    # At a right angle the cosine is 0, which the rounded pi/2 would miss by 6e-17.
    cosine = 0.0 if angle == 90.0 else np.cos(np.deg2rad(angle))
    matrix = stretch * np.outer([1.0, 0.0], [cosine, np.sqrt(1.0 - cosine**2)])
    return [matrix.copy() for _ in range(depth)]


def stretching_chain(
    depth: int, *, width: int, stretch: float, rest: float, seed: int
) -> list[np.ndarray]:
    r"""Draw `depth` matrices with one singular value `stretch` and all others `rest`.

    $M_k = U_k\, \mathrm{diag}(s, r, \dots, r)\, V_k^\top$ with independent Haar-distributed
    orthogonal $U_k$, $V_k$: the stretched direction of each matrix is random. The mean square of a
    vector is then multiplied by $(s^2 + (n-1) r^2)/n$ per matrix, see `isotropic_factor`.

    Arguments:
        depth: at least 1.
        width: n, at least 2.
        stretch, rest: s and r, >= 0.
        seed: of the directions.

    Source: mezzadri2007 (the draw).
    """
    depth = require_integer("depth", depth, minimum=1)
    width = require_integer("width", width, minimum=2)
    stretch = require_real("stretch", stretch, minimum=0.0)
    rest = require_real("rest", rest, minimum=0.0)
    rng = np.random.default_rng(require_seed(seed))
    values = np.array([stretch, *[rest] * (width - 1)])
    return [
        (orthogonal_matrix(width, width, rng=rng) * values)
        @ orthogonal_matrix(width, width, rng=rng).T
        for _ in range(depth)
    ]


def isotropic_factor(*, width: int, stretch: float, rest: float) -> float:
    r"""Return $\sqrt{(s^2 + (n-1) r^2)/n}$, the root-mean-square factor per matrix of a vector.

    $\|Mv\|^2$ averages to the mean of the squared singular values if the direction of v is
    uniform over the sphere.
    """
    width = require_integer("width", width, minimum=2)
    stretch = require_real("stretch", stretch, minimum=0.0)
    rest = require_real("rest", rest, minimum=0.0)
    return float(np.sqrt((stretch**2 + (width - 1) * rest**2) / width))
