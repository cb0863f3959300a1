r"""Batch and layer normalization with their backward passes, written out in float64 NumPy.

Both subtract a mean $\mu$ and divide by $\sqrt{v + \epsilon}$, with $v$ the mean squared deviation
(divided by the number of entries m, not by m - 1), then scale and shift:

$$\hat x = \frac{x - \mu}{\sqrt{v + \epsilon}}, \quad y = \gamma \odot \hat x + \beta .$$

They differ in the entries that share a mean: all of one unit (batch), all of one input (layer).
With $g = \partial\mathcal{L}/\partial\hat x$ and a bar for the mean over those m entries,

$$\frac{\partial\mathcal{L}}{\partial x} = \frac{1}{\sqrt{v + \epsilon}}
\bigl(g - \bar g - \hat x\, \overline{g \hat x}\bigr).$$

In evaluation mode batch normalization takes $\mu$ and $v$ from running averages instead; they do
not depend on x, and the two subtractions disappear. Source: ioffe2015, ba2016.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_flag,
    require_integer,
    require_real,
    require_type,
)


@dataclass(frozen=True, eq=False)
class NormPass:
    r"""What the backward pass of a normalization needs to know.

    Fields:
        output: $y$, of the input's shape.
        normalized: $\hat x$, of the input's shape.
        inverse_scale: $1/\sqrt{v + \epsilon}$, broadcastable to the input.
        gamma: the scale, broadcastable to the input.
        shared_axes: the axes over which $\mu$ and $v$ were taken; empty in evaluation mode.
        parameter_axes: the axes over which the entries share one gamma and beta.
    """

    output: np.ndarray = field(repr=False)
    normalized: np.ndarray = field(repr=False)
    inverse_scale: np.ndarray = field(repr=False)
    gamma: np.ndarray = field(repr=False)
    shared_axes: tuple[int, ...]
    parameter_axes: tuple[int, ...]


def norm_backward(
    passed: NormPass, output_grad: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Return the gradients with respect to x, $\gamma$ and $\beta$.

    Arguments:
        passed: what `BatchNorm.forward` or `LayerNorm.forward` returned.
        output_grad: $\partial\mathcal{L}/\partial y$, of the shape of y.
    """
    shape = require_type("passed", passed, NormPass).output.shape
    output_grad = require_array("output_grad", output_grad, shape=shape, finite=False)
    gamma_grad = np.sum(output_grad * passed.normalized, axis=passed.parameter_axes)
    beta_grad = np.sum(output_grad, axis=passed.parameter_axes)
    return standardize_backward(passed, output_grad * passed.gamma), gamma_grad, beta_grad


def standardize_backward(passed: NormPass, grad: np.ndarray) -> np.ndarray:
    r"""Return the gradient with respect to x from `grad`, $g$, the one at $\hat x$.

    Arguments:
        passed: what `BatchNorm.forward` or `LayerNorm.forward` returned.
        grad: $\partial\mathcal{L}/\partial\hat x$, of the shape of x.
    """
    shape = require_type("passed", passed, NormPass).normalized.shape
    grad = require_array("grad", grad, shape=shape, finite=False)
    if passed.shared_axes:
        shared = {"axis": passed.shared_axes, "keepdims": True}
        along = np.mean(grad * passed.normalized, **shared)
        grad = grad - np.mean(grad, **shared) - passed.normalized * along
    return passed.inverse_scale * grad


@dataclass(eq=False)
class BatchNorm:
    r"""Normalization of each unit over the batch, and over the positions of an image.

    Arguments:
        units: number of units, or of channels, at least 1.
        epsilon: $\epsilon \ge 0$; PyTorch's default is 1e-5, Keras's 1e-3.
        new_share: the share of the new batch in the running averages, 0 to 1. It is PyTorch's
            `momentum` (0.1) and one minus Keras's (0.99).
        unbiased_running: whether the running variance collects $v\, m/(m - 1)$, as in PyTorch, or
            $v$, as in Keras. What divides x in training is $v$ in both.

    Fields that change: `gamma`, `beta`, `running_mean`, `running_var`, each of shape (units,).
    """

    units: int
    epsilon: float = 1e-5
    new_share: float = 0.1
    unbiased_running: bool = True

    def __post_init__(self) -> None:
        self.units = require_integer("units", self.units, minimum=1)
        self.epsilon = require_real("epsilon", self.epsilon, minimum=0.0)
        self.new_share = require_real("new_share", self.new_share, minimum=0.0, maximum=1.0)
        self.unbiased_running = require_flag("unbiased_running", self.unbiased_running)
        self.gamma, self.beta = np.ones(self.units), np.zeros(self.units)
        self.running_mean, self.running_var = np.zeros(self.units), np.ones(self.units)

    def forward(self, x: np.ndarray, *, training: bool) -> NormPass:
        """Normalize a batch; in training mode, update the running averages as well.

        Arguments:
            x: shape (n, units), or (n, units, height, width) for images.
            training: whether to use the batch's own mean and variance.

        Raises ValueError for a single entry per unit if an unbiased variance is to be collected:
            it does not exist. (PyTorch raises too; Keras goes on, and returns beta.)
        """
        x = _require_batch(x, self.units, axis=1)
        axes = (0, *range(2, x.ndim))
        column = (-1, *[1] * (x.ndim - 2))  # how a vector of units meets the array
        training = require_flag("training", training)
        mean = x.mean(axis=axes) if training else self.running_mean
        centered = x - mean.reshape(column)
        variance = np.mean(centered**2, axis=axes) if training else self.running_var
        if training:
            self._collect(mean, variance, count=x.size // self.units)
        inverse = (1.0 / np.sqrt(variance + self.epsilon)).reshape(column)
        normalized = centered * inverse
        gamma = self.gamma.reshape(column)
        output = gamma * normalized + self.beta.reshape(column)
        return NormPass(output, normalized, inverse, gamma, axes if training else (), axes)

    def _collect(self, mean: np.ndarray, variance: np.ndarray, *, count: int) -> None:
        if self.unbiased_running:
            if count < 2:
                raise ValueError(
                    f"`x` (with {count} entry per unit) must have at least 2 in training mode."
                )
            variance = variance * count / (count - 1)
        self.running_mean = self.running_mean + self.new_share * (mean - self.running_mean)
        self.running_var = self.running_var + self.new_share * (variance - self.running_var)


@dataclass(eq=False)
class LayerNorm:
    r"""Normalization of each input over its own units: the last axis, whatever the batch.

    Arguments:
        units: length of the last axis, at least 1.
        epsilon: $\epsilon \ge 0$; PyTorch's default is 1e-5, Keras's 1e-3.

    Fields that change: `gamma` and `beta`, each of shape (units,).
    """

    units: int
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        self.units = require_integer("units", self.units, minimum=1)
        self.epsilon = require_real("epsilon", self.epsilon, minimum=0.0)
        self.gamma, self.beta = np.ones(self.units), np.zeros(self.units)

    def forward(self, x: np.ndarray, *, training: bool = True) -> NormPass:
        """Normalize the rows of `x`, shape (..., units); both modes compute the same."""
        x = _require_batch(x, self.units, axis=-1)
        require_flag("training", training)
        centered = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(centered**2, axis=-1, keepdims=True)
        inverse = 1.0 / np.sqrt(variance + self.epsilon)
        normalized = centered * inverse
        output = self.gamma * normalized + self.beta
        others = tuple(range(x.ndim - 1))
        return NormPass(output, normalized, inverse, self.gamma, (x.ndim - 1,), others)


def _require_batch(x: object, units: int, *, axis: int) -> np.ndarray:
    x = require_array("x", x, finite=False)  # what has diverged has statistics of NaN, no error
    if x.ndim < 2 or x.shape[axis] != units:
        raise ValueError(f"`x` (shape {x.shape}) must have {units} entries along axis {axis}.")
    return x
