r"""What the demo functions return: frozen records with NumPy fields that can describe themselves.

`describe()` gives one sentence whose numbers come from the record and are rounded to what travels
between machines. The same sentence becomes a figure's caption and its alternative text.
Norms are always computed in float64, whatever the precision of the run: the square of a float32
gradient of 1e-25 is zero in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_sequence,
)

FRAMEWORKS = ("NumPy", "PyTorch", "TensorFlow")
DTYPES = ("float32", "float64")


def _number(name: str, value: object) -> float:
    """Return any real number, NaN and infinities included, as a float."""
    return float(require_array(name, value, ndim=0, finite=False))


def _check_arrays(name: str, value: object, *, ndim: int, count: int | None = None) -> None:
    """Raise unless `value` holds arrays of rank `ndim`, as many as there are layers."""
    arrays = require_sequence(name, value, of="arrays")
    if count is not None and len(arrays) != count:
        raise ValueError(f"`{name}` (length {len(arrays)}) must have {count} entries.")
    for k, array in enumerate(arrays):
        if not isinstance(array, np.ndarray) or array.ndim != ndim or array.dtype.kind not in "fiu":
            raise TypeError(f"`{name}[{k}]` (={array!r}) must be a real array of rank {ndim}.")


def _check_origin(result: GradientFlow | LayerJacobians | TrainingRun) -> None:
    require_choice("framework", result.framework, FRAMEWORKS)
    require_choice("dtype", result.dtype, DTYPES)


def _norms(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the Frobenius norm of each array, in float64."""
    return np.array([np.linalg.norm(np.asarray(a, dtype=np.float64)) for a in arrays])


def decades(first: float, last: float) -> float:
    """Return log10(last / first): how many powers of ten `last` lies above `first`."""
    first, last = _number("first", first), _number("last", last)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.log10(last) - np.log10(first))


def format_number(value: float) -> str:
    """Return `value` with two significant digits: 0.24, 31, 6.4e-07, 4.2e+08."""
    value = _number("value", value)
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    if 1e-2 <= abs(value) < 1e3:
        text = f"{value:.2g}"
        return f"{float(text):g}"
    return f"{value:.1e}"


def per_layer_factor(norms: np.ndarray) -> float:
    """Return the geometric-mean factor by which `norms` change from one layer down to the next.

    `norms[-1]` belongs to the last layer. A factor of 0.25 means that every step towards the
    input divides the norm by four. NaN for fewer than two layers.
    """
    norms = require_array("norms", norms, ndim=1, finite=False)
    if len(norms) < 2:
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp((np.log(norms[0]) - np.log(norms[-1])) / (len(norms) - 1)))


@dataclass(frozen=True, eq=False)
class GradientFlow:
    r"""Every gradient of one backward pass through an L-layer network, for one batch of n inputs.

    Fields:
        framework: "NumPy", "PyTorch" or "TensorFlow".
        dtype: "float32" or "float64", the precision the gradients were computed in.
        loss: the value of the loss.
        weight_grads: $\partial\mathcal{L}/\partial W_l$, each of shape (n_l, n_{l-1}).
        bias_grads: $\partial\mathcal{L}/\partial b_l$, each of shape (n_l,).
        activation_grads: $\partial\mathcal{L}/\partial h_l$, each of shape (n, n_l).
        activations: $h_l$, each of shape (n, n_l).
    """

    framework: str
    dtype: str
    loss: float
    weight_grads: tuple[np.ndarray, ...] = field(repr=False)
    bias_grads: tuple[np.ndarray, ...] = field(repr=False)
    activation_grads: tuple[np.ndarray, ...] = field(repr=False)
    activations: tuple[np.ndarray, ...] = field(repr=False)

    def __post_init__(self) -> None:
        _check_origin(self)
        _number("loss", self.loss)
        _check_arrays("weight_grads", self.weight_grads, ndim=2)
        for name, ndim in (("bias_grads", 1), ("activation_grads", 2), ("activations", 2)):
            _check_arrays(name, getattr(self, name), ndim=ndim, count=self.depth)

    @property
    def depth(self) -> int:
        """The number L of layers."""
        return len(self.weight_grads)

    @property
    def weight_grad_norms(self) -> np.ndarray:
        r"""$\|\partial\mathcal{L}/\partial W_l\|_F$ for l = 1..L, shape (L,)."""
        return _norms(self.weight_grads)

    @property
    def bias_grad_norms(self) -> np.ndarray:
        r"""$\|\partial\mathcal{L}/\partial b_l\|$ for l = 1..L, shape (L,)."""
        return _norms(self.bias_grads)

    @property
    def activation_grad_norms(self) -> np.ndarray:
        r"""$\|\partial\mathcal{L}/\partial h_l\|_F$ over the batch for l = 1..L, shape (L,)."""
        return _norms(self.activation_grads)

    @property
    def activation_norms(self) -> np.ndarray:
        r"""$\|h_l\|_F$ over the batch for l = 1..L, shape (L,)."""
        return _norms(self.activations)

    def describe(self) -> str:
        """Say how the weight gradient and the activation gradient change from layer L to 1."""
        parts = [
            f"{name} {_say_change(norms)}"
            for name, norms in (
                ("weight-gradient norm", self.weight_grad_norms),
                ("activation-gradient norm", self.activation_grad_norms),
            )
        ]
        return f"{self.framework} ({self.dtype}), {self.depth} layers: {'; '.join(parts)}."


def _say_change(norms: np.ndarray) -> str:
    if len(norms) < 2:
        return f"is {format_number(norms[-1])}"
    last, first = norms[-1], norms[0]
    span = f"from {format_number(last)} in layer {len(norms)} to {format_number(first)} in layer 1"
    if not (np.isfinite(first) and np.isfinite(last)) or first == 0 or last == 0:
        return f"goes {span}"
    change = decades(last, first)
    factor = format_number(per_layer_factor(norms))
    if abs(change) < 0.5:
        return f"stays within half a decade, {span}"
    verb = "falls" if change < 0 else "grows"
    return f"{verb} {span} ({abs(change):.1f} decades, a factor of {factor} per layer)"


@dataclass(frozen=True, eq=False)
class LayerJacobians:
    r"""The Jacobians of an L-layer network at one input.

    Fields:
        framework: "NumPy", "PyTorch" or "TensorFlow".
        dtype: "float32" or "float64".
        jacobians: $J_l = \partial h_l/\partial h_{l-1}$ for l = 1..L, of shape (n_l, n_{l-1}).
    """

    framework: str
    dtype: str
    jacobians: tuple[np.ndarray, ...] = field(repr=False)

    def __post_init__(self) -> None:
        _check_origin(self)
        _check_arrays("jacobians", self.jacobians, ndim=2)
        for k in range(1, self.depth):
            rows, columns = self.jacobians[k - 1].shape[0], self.jacobians[k].shape[1]
            if columns != rows:
                raise ValueError(
                    f"`jacobians[{k}]` (shape {self.jacobians[k].shape}) must have {rows} columns, "
                    f"the number of rows of `jacobians[{k - 1}]`."
                )

    @property
    def depth(self) -> int:
        """The number L of layers."""
        return len(self.jacobians)

    def product(self, *, first: int = 2, last: int | None = None) -> np.ndarray:
        r"""Return $J_{last} \cdots J_{first}$ in float64, the Jacobian dh_last/dh_{first-1}.

        The default is $\partial h_L/\partial h_1$, which leaves the input layer out. Raises
        ValueError unless 1 <= first <= last <= L.
        """
        last = require_integer("last", self.depth if last is None else last, minimum=1)
        first = require_integer("first", first, minimum=1)
        if not first <= last <= self.depth:
            raise ValueError(
                f"`first` (={first}) and `last` (={last}) must satisfy "
                f"1 <= first <= last <= {self.depth}."
            )
        result = np.asarray(self.jacobians[first - 1], dtype=np.float64)
        for jacobian in self.jacobians[first:last]:
            result = np.asarray(jacobian, dtype=np.float64) @ result
        return result

    def singular_values(self, *, first: int = 2, last: int | None = None) -> np.ndarray:
        """Return the singular values of `product(first, last)`, largest first."""
        return np.linalg.svd(self.product(first=first, last=last), compute_uv=False)

    @property
    def spectral_norms(self) -> np.ndarray:
        r"""$\|J_l\| = \sigma_{max}(J_l)$ for l = 1..L, shape (L,)."""
        return np.array([np.linalg.norm(np.asarray(j, np.float64), 2) for j in self.jacobians])

    @property
    def condition_numbers(self) -> np.ndarray:
        r"""$\kappa(J_l) = \sigma_{max}/\sigma_{min}$ for l = 1..L; inf for a singular matrix."""
        matrices = [np.asarray(j, dtype=np.float64) for j in self.jacobians]
        values = [np.linalg.svd(j, compute_uv=False) for j in matrices]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.array([s[0] / s[-1] for s in values])

    def describe(self) -> str:
        """Compare the norm of the end-to-end Jacobian with the product of the layers' norms."""
        if self.depth < 2:
            norm = format_number(self.spectral_norms[0])
            return f"{self.framework} ({self.dtype}), 1 layer: the Jacobian's norm is {norm}."
        norm = float(self.singular_values()[0])
        bound = float(np.prod(self.spectral_norms[1:]))
        gap = f"{decades(norm, bound):.1f}" if norm > 0 else "inf"
        return (
            f"{self.framework} ({self.dtype}), {self.depth} layers: the norm of the Jacobian from "
            f"layer 1 to layer {self.depth} is {format_number(norm)}, the product of the layers' "
            f"norms {format_number(bound)}, {gap} decades above it."
        )


@dataclass(frozen=True, eq=False)
class TrainingRun:
    r"""The record of one training run of an L-layer network.

    Fields:
        framework: "NumPy", "PyTorch" or "TensorFlow".
        dtype: "float32" or "float64".
        optimizer: "sgd" or "adam".
        learning_rate: the step size.
        steps: numbers of the recorded steps, shape (R,); step 0 is before the first update.
        losses: the loss on the step's batch before its update, shape (R,).
        weight_grad_norms: $\|\partial\mathcal{L}/\partial W_l\|_F$ there, shape (R, L).
        weight_changes: $\|W_l - W_l^{(0)}\|_F / \|W_l^{(0)}\|_F$ there, shape (R, L).
    """

    framework: str
    dtype: str
    optimizer: str
    learning_rate: float
    steps: np.ndarray
    losses: np.ndarray
    weight_grad_norms: np.ndarray = field(repr=False)
    weight_changes: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        _check_origin(self)
        require_choice("optimizer", self.optimizer, ("sgd", "adam"))
        _number("learning_rate", self.learning_rate)
        rows = len(require_array("steps", self.steps, ndim=1))
        require_array("losses", self.losses, shape=(rows,), finite=False)
        norms = self.weight_grad_norms
        norms = require_array("weight_grad_norms", norms, shape=(rows, None), finite=False)
        require_array("weight_changes", self.weight_changes, shape=norms.shape, finite=False)

    @property
    def depth(self) -> int:
        """The number L of layers."""
        return self.weight_changes.shape[1]

    def describe(self) -> str:
        """Say how the loss and the first and last layers' weights changed over the run."""
        first, last = self.weight_changes[-1, 0], self.weight_changes[-1, -1]
        return (
            f"{self.framework} ({self.dtype}), {self.optimizer}, {int(self.steps[-1])} steps at "
            f"learning rate {self.learning_rate:g}: the loss goes from {self.losses[0]:.2f} to "
            f"{self.losses[-1]:.2f}; layer 1 moves by {100 * first:.2g} % of its norm, "
            f"layer {self.depth} by {100 * last:.2g} %."
        )
