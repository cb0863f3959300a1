r"""A stack of blocks with its backpropagation, written out in float64 NumPy.

Each block is a short list of steps: normalize, activate, multiply by weights. The forward pass
remembers what each step received; the backward pass goes through the same list from its end. A
shortcut adds the gradient that arrives behind the block to the one that comes out of the branch:

$$\frac{\partial\mathcal{L}}{\partial h_{l-1}} = \frac{\partial\mathcal{L}}{\partial h_l}
+ \alpha_l \Bigl(\frac{\partial F_l}{\partial h_{l-1}}\Bigr)^{\!\top}
\frac{\partial\mathcal{L}}{\partial h_l} .$$

Source: he2016, he2016identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_flag,
    require_labels,
    require_type,
)
from course_lib.activations import get_activation
from course_lib.losses import check_batch, evaluate_loss
from course_lib.reference.normalization import BatchNorm, LayerNorm, NormPass, norm_backward
from course_lib.stack_results import StackFlow
from course_lib.stack_specs import StackSpec, check_stack_weights

Step = tuple[str, str]  # what is done, and the name of its parameters


@dataclass(eq=False)
class Stack:
    """A stack that can be run and trained; training changes the arrays of `parameters` in place.

    Fields:
        spec: the stack as data.
        parameters: name -> float64 array, see `course_lib.stack_specs`.
        norms: name -> BatchNorm or LayerNorm; their gamma and beta are those of `parameters`.
        disturbances: name of a norm -> (factor, offset) that its output undergoes before anything
            else; empty but in experiments on shifting distributions.
    """

    spec: StackSpec
    parameters: dict[str, np.ndarray] = field(repr=False)
    norms: dict[str, BatchNorm | LayerNorm] = field(repr=False)
    disturbances: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def forward(self, x: np.ndarray, *, training: bool) -> StackPass:
        """Run a batch of shape (n, n_in) and remember every step; see `StackPass`."""
        x = require_array("x", x, shape=(None, self.spec.n_in))
        require_flag("training", training)
        h, received = self._run([("linear", "stem")], x, training)
        passed = StackPass([h], [(received,)])
        for block in range(self.spec.blocks):
            branch, received = self._run(self.branch(block), h, training)
            z = self.parameters[f"blocks.{block}.scale"] * branch
            z = h + z if self.spec.shortcut else z
            h, after = self._run(self._after, z, training)
            passed.states.append(h)
            passed.received.append((received, branch, after))
        passed.outputs, received = self._run(self._readout, h, training)
        passed.received.append((received,))
        return passed

    def __call__(self, x: np.ndarray, *, training: bool = False) -> np.ndarray:
        """Return the outputs, shape (n, n_out), by default in evaluation mode."""
        return self.forward(x, training=training).outputs

    def branch(self, block: int) -> list[Step]:
        """Return the steps of the branch of block number `block`, counted from 0."""
        steps: list[Step] = []
        for k in range(self.spec.layers):
            linear = [("linear", f"blocks.{block}.linears.{k}")]
            norm = [("norm", f"blocks.{block}.norms.{k}")] if self.norms else []
            activate = [("activation", "")]
            if self.spec.placement == "pre":
                steps += norm + activate + linear
            else:
                last = k == self.spec.layers - 1
                steps += linear + norm + ([] if last else activate)
        return steps

    @property
    def _after(self) -> list[Step]:
        return [("activation", "")] if self.spec.placement == "post" else []

    @property
    def _readout(self) -> list[Step]:
        norm = [("norm", "final_norm")] if self.norms else []
        before = [*norm, ("activation", "")] if self.spec.placement == "pre" else []
        return [*before, ("linear", "head")]

    def _run(self, steps: list[Step], h: np.ndarray, training: bool) -> tuple[np.ndarray, list]:
        received: list[np.ndarray | NormPass] = []
        for kind, name in steps:
            if kind == "norm":
                norm = self.norms[name]
                factor, offset = self.disturbances.get(name, (1.0, 0.0))
                norm.gamma = factor * self.parameters[f"{name}.weight"]
                norm.beta = factor * self.parameters[f"{name}.bias"] + offset
                received.append(norm.forward(h, training=training))
                h = received[-1].output
                continue
            received.append(h)
            if kind == "linear":
                h = h @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]
            else:
                h = get_activation(self.spec.activation).function(h)
        return h, received

    def _back(
        self, steps: list[Step], received: list, grad: np.ndarray, grads: dict[str, np.ndarray]
    ) -> np.ndarray:
        for (kind, name), inputs in zip(reversed(steps), reversed(received), strict=True):
            if kind == "norm":
                grad, gamma_grad, beta_grad = norm_backward(inputs, grad)
                factor, _ = self.disturbances.get(name, (1.0, 0.0))
                grads[f"{name}.weight"] = factor * gamma_grad
                grads[f"{name}.bias"] = factor * beta_grad
            elif kind == "linear":
                grads[f"{name}.weight"], grads[f"{name}.bias"] = grad.T @ inputs, grad.sum(axis=0)
                grad = grad @ self.parameters[f"{name}.weight"]
            else:
                grad = grad * get_activation(self.spec.activation).derivative(inputs)
        return grad

    def backward(
        self, passed: StackPass, output_grad: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        r"""Backpropagate `output_grad`, shape (n, n_out).

        Returns the gradients by parameter name, and $\partial\mathcal{L}/\partial h_l$ for
        l = 0..L.
        """
        shape = require_type("passed", passed, StackPass).outputs.shape
        grad = require_array("output_grad", output_grad, shape=shape, finite=False)
        grads: dict[str, np.ndarray] = {}
        grad = self._back(self._readout, *passed.received[-1], grad, grads)
        state_grads = [grad]
        for block in reversed(range(self.spec.blocks)):
            grad = self.block_backward(block, passed, grad, grads)
            state_grads.append(grad)
        self._back([("linear", "stem")], *passed.received[0], grad, grads)
        return {name: grads[name] for name in self.parameters}, state_grads[::-1]


    def block_backward(
        self, block: int, passed: StackPass, grad: np.ndarray, grads: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Return the gradient before a block for the one behind it; fill in its parameters'."""
        inside, branch, after = passed.received[block + 1]
        grad = self._back(self._after, after, grad, grads)
        scale = f"blocks.{block}.scale"
        grads[scale] = np.sum(grad * branch)
        through = self._back(self.branch(block), inside, self.parameters[scale] * grad, grads)
        return grad + through if self.spec.shortcut else through


@dataclass(eq=False)
class StackPass:
    """What backpropagation needs to know of a forward pass.

    Fields:
        states: $h_0, ..., h_L$, each (n, width).
        received: what the steps received: a list for the stem; for each block a list for the
            branch, the branch's output, and a list for what follows the addition; a list for the
            readout.
        outputs: (n, n_out).
    """

    states: list[np.ndarray]
    received: list[tuple]
    outputs: np.ndarray | None = None


def build_stack(
    spec: StackSpec,
    weights: Mapping[str, np.ndarray],
    *,
    dtype: str = "float64",
    unbiased_running: bool = True,
) -> Stack:
    """Return the stack `spec` with a copy of `weights`. The reference knows only float64.

    `unbiased_running`: see `BatchNorm`; True for PyTorch's running variance, False for Keras's.
    """
    check_stack_weights(spec, weights)
    require_choice("dtype", dtype, ("float64",))
    unbiased = require_flag("unbiased_running", unbiased_running)
    parameters = {name: np.array(array, dtype=np.float64) for name, array in weights.items()}
    norms: dict[str, BatchNorm | LayerNorm] = {}
    for name in _norm_names(parameters):
        if spec.norm == "batch":
            norms[name] = BatchNorm(
                spec.width, epsilon=spec.epsilon, unbiased_running=unbiased
            )
        else:
            norms[name] = LayerNorm(spec.width, epsilon=spec.epsilon)
    return Stack(spec, parameters, norms)


def _norm_names(parameters: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name in parameters:
        if "norm" in name and name.endswith(".weight"):
            yield name.removesuffix(".weight")


def stack_gradient_flow(
    model: Stack,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_squared_error",
    training: bool = True,
) -> StackFlow:
    """Return every gradient of one backward pass; the running averages are left as they were.

    Arguments:
        model: what `build_stack` returned.
        x: inputs, shape (n, n_in).
        y: the loss's targets; see `course_lib.losses`.
        loss: "mean_squared_error", "cross_entropy" or "mean_output".
        training: whether batch normalization takes the batch's own statistics.
    """
    require_type("model", model, Stack)
    training = require_flag("training", training)
    x, y = check_batch(x, y, loss=loss, n_in=model.spec.n_in, n_out=model.spec.n_out)
    kept = [(n, n.running_mean, n.running_var) for n in _batch_norms(model)]
    try:
        passed = model.forward(x, training=training)
    finally:
        for norm, mean, variance in kept:
            norm.running_mean, norm.running_var = mean, variance
    value, output_grad = evaluate_loss(passed.outputs, y, loss=loss)
    grads, state_grads = model.backward(passed, output_grad)
    return StackFlow(
        "NumPy", "float64", training, value, tuple(passed.states), tuple(state_grads), grads
    )


def stack_jacobians(model: Stack, x: np.ndarray) -> list[np.ndarray]:
    r"""Return $\partial h_l/\partial h_{l-1}$ for l = 1..L at one input, in evaluation mode.

    Each block gets `width` copies of its input, and the unit vectors as output gradients: the
    rows of its Jacobian (width, width). In training mode batch normalization would couple them.

    Arguments:
        model: what `build_stack` returned.
        x: one input, shape (n_in,).
    """
    spec = require_type("model", model, Stack).spec
    x = require_array("x", x, shape=(spec.n_in,))
    passed = model.forward(np.repeat(x[None, :], spec.width, axis=0), training=False)
    jacobians = []
    for block in range(spec.blocks):
        jacobians.append(model.block_backward(block, passed, np.eye(spec.width), {}))
    return jacobians


def _batch_norms(model: Stack) -> list[BatchNorm]:
    return [norm for norm in model.norms.values() if isinstance(norm, BatchNorm)]


def stack_accuracy(model: Stack, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of rows of `x` whose largest output, in evaluation mode, is at `y`."""
    outputs = require_type("model", model, Stack)(x)
    labels = require_labels("y", y, shape=(len(outputs),), classes=outputs.shape[1])
    return float(np.mean(outputs.argmax(axis=1) == labels))
