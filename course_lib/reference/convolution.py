r"""A convolution and a residual block of two of them, written out in float64 NumPy.

Images have shape (n, channels, height, width), kernels (out, in, k, k) with k odd, in PyTorch's
layout. What deep learning calls a convolution does not flip the kernel, and with a border of
zeros the image keeps its size:

$$y_{o, i, j} = \sum_{c, a, b} K_{o, c, a, b}\; x_{c,\, i + a - r,\, j + b - r},
\qquad r = (k - 1)/2 .$$

Source: he2016 (the block).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_array, require_flag, require_sequence, require_type
from course_lib.reference.normalization import BatchNorm, NormPass, norm_backward


def _patches(x: np.ndarray, size: int) -> np.ndarray:
    """Return the (size, size) surroundings of every pixel: (n, c, height, width, size, size)."""
    r = size // 2
    padded = np.pad(x, ((0, 0), (0, 0), (r, r), (r, r)))
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))


def _check(x: object, kernel: object) -> tuple[np.ndarray, np.ndarray]:
    x, kernel = require_array("x", x, ndim=4), require_array("kernel", kernel, ndim=4)
    if kernel.shape[2] != kernel.shape[3] or kernel.shape[2] % 2 == 0:
        raise ValueError(f"`kernel` (shape {kernel.shape}) must have a square window of odd size.")
    if kernel.shape[1] != x.shape[1]:
        raise ValueError(
            f"`kernel` (shape {kernel.shape}) must take the {x.shape[1]} channels of `x`."
        )
    return x, kernel


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the convolution of images (n, in, height, width) with a kernel (out, in, k, k).

    Stride 1, zeros beyond the border. Returns (n, out, height, width). Raises ValueError for a
    window of even size or a number of channels that does not fit.
    """
    x, kernel = _check(x, kernel)
    return np.einsum("ncijab,ocab->noij", _patches(x, kernel.shape[2]), kernel, optimize=True)


def convolve_backward(
    x: np.ndarray, kernel: np.ndarray, output_grad: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients with respect to `x` and `kernel`, of their shapes.

    The first is a convolution of `output_grad` with the kernel turned by 180 degrees and with its
    channels exchanged; the second sums the products of patches and output gradients.
    """
    x, kernel = _check(x, kernel)
    shape = (len(x), len(kernel), *x.shape[2:])
    output_grad = require_array("output_grad", output_grad, shape=shape)
    patches = _patches(x, kernel.shape[2])
    kernel_grad = np.einsum("ncijab,noij->ocab", patches, output_grad, optimize=True)
    turned = kernel[:, :, ::-1, ::-1].swapaxes(0, 1)
    return convolve(output_grad, turned), kernel_grad


@dataclass(eq=False)
class ConvBlock:
    r"""The residual block $y = \mathrm{relu}(x + N_2(K_2 * \mathrm{relu}(N_1(K_1 * x))))$.

    $N_1, N_2$ are batch normalizations. No convolution has a bias: the normalization would remove
    it.

    Arguments:
        kernels: $K_1, K_2$, each of shape (channels, channels, k, k).
        shortcut: whether x is added.
        epsilon: of the normalizations, at least 0.
    """

    kernels: Sequence[np.ndarray] = field(repr=False)
    shortcut: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        given = require_sequence("kernels", self.kernels, of="kernels")
        self.shortcut = require_flag("shortcut", self.shortcut)
        if len(given) != 2:
            raise ValueError(f"`kernels` (length {len(given)}) must hold two kernels.")
        channels = require_array("kernels[0]", given[0], ndim=4).shape[0]
        self.kernels = [
            require_array(f"kernels[{k}]", kernel, shape=(channels, channels, None, None)).copy()
            for k, kernel in enumerate(given)
        ]
        self.norms = [BatchNorm(channels, epsilon=self.epsilon) for _ in self.kernels]

    def forward(self, x: np.ndarray, *, training: bool) -> ConvPass:
        """Run images of shape (n, channels, height, width) and remember what is needed."""
        x = require_array("x", x, ndim=4)
        first = self.norms[0].forward(convolve(x, self.kernels[0]), training=training)
        hidden = np.maximum(first.output, 0.0)
        second = self.norms[1].forward(convolve(hidden, self.kernels[1]), training=training)
        total = x + second.output if self.shortcut else second.output
        return ConvPass(np.maximum(total, 0.0), x, first, hidden, second, total)

    def backward(
        self, passed: ConvPass, output_grad: np.ndarray
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Return the gradient with respect to x, and those of the parameters by name.

        The names are "kernels.0", "norms.0.weight", "norms.0.bias" and the same with 1.
        """
        shape = require_type("passed", passed, ConvPass).output.shape
        output_grad = require_array("output_grad", output_grad, shape=shape)
        grads: dict[str, np.ndarray] = {}
        total_grad = output_grad * (passed.total > 0)
        grad, grads["norms.1.weight"], grads["norms.1.bias"] = norm_backward(
            passed.second, total_grad
        )
        grad, grads["kernels.1"] = convolve_backward(passed.hidden, self.kernels[1], grad)
        grad = grad * (passed.first.output > 0)
        grad, grads["norms.0.weight"], grads["norms.0.bias"] = norm_backward(passed.first, grad)
        grad, grads["kernels.0"] = convolve_backward(passed.x, self.kernels[0], grad)
        return grad + total_grad if self.shortcut else grad, grads


@dataclass(frozen=True, eq=False)
class ConvPass:
    """What the backward pass of a ConvBlock needs: its output, input and steps in between."""

    output: np.ndarray = field(repr=False)
    x: np.ndarray = field(repr=False)
    first: NormPass = field(repr=False)
    hidden: np.ndarray = field(repr=False)
    second: NormPass = field(repr=False)
    total: np.ndarray = field(repr=False)
