"""Plain SGD and Adam on the hand-written gradients: the twin that both frameworks must match."""

from __future__ import annotations

import numpy as np

from course_lib._validation import require_array, require_flag, require_real, require_sequence
from course_lib.data import draw_batches
from course_lib.losses import check_batch
from course_lib.recording import RunRecorder, check_training
from course_lib.reference.mlp import MLP, gradient_flow, require_mlp
from course_lib.results import TrainingRun


def _check_update(parameters: list[np.ndarray], grads: list[np.ndarray]) -> None:
    """Raise unless `parameters` are float64 arrays and `grads` has one of each shape."""
    require_sequence("parameters", parameters, of="arrays")
    if len(require_sequence("grads", grads, of="arrays")) != len(parameters):
        raise ValueError(f"`grads` (length {len(grads)}) must have {len(parameters)} entries.")
    for k, (parameter, grad) in enumerate(zip(parameters, grads, strict=True)):
        if not isinstance(parameter, np.ndarray) or parameter.dtype != np.float64:
            raise TypeError(f"`parameters[{k}]` (={parameter!r}) must be a float64 array.")
        require_array(f"grads[{k}]", grad, shape=parameter.shape, finite=False)


class Adam:
    r"""Adam's update (kingma2015), with the small number $\epsilon$ in either framework's place.

    PyTorch adds $\epsilon$ to the bias-corrected $\sqrt{\hat v}$; Keras adds it to the raw
    $\sqrt{v}$ (the paper's $\hat\epsilon$). Where gradients have vanished, the difference decides.

    Arguments:
        learning_rate: > 0.
        epsilon: > 0; PyTorch's default is 1e-8, Keras's 1e-7.
        epsilon_on_raw: False for PyTorch's place, True for Keras's.
    """

    def __init__(
        self, learning_rate: float, *, epsilon: float = 1e-8, epsilon_on_raw: bool = False
    ) -> None:
        self.learning_rate = require_real("learning_rate", learning_rate, minimum=0, exclusive=True)
        self.epsilon = require_real("epsilon", epsilon, minimum=0.0, exclusive=True)
        self.epsilon_on_raw = require_flag("epsilon_on_raw", epsilon_on_raw)
        self.step, self.first, self.second = 0, {}, {}

    def update(self, parameters: list[np.ndarray], grads: list[np.ndarray]) -> None:
        """Change `parameters` in place by one step along `grads`."""
        _check_update(parameters, grads)
        self.step += 1
        correction1, correction2 = 1.0 - 0.9**self.step, 1.0 - 0.999**self.step
        for k, (parameter, grad) in enumerate(zip(parameters, grads, strict=True)):
            self.first[k] = 0.9 * self.first.get(k, 0.0) + 0.1 * grad
            self.second[k] = 0.999 * self.second.get(k, 0.0) + 0.001 * grad**2
            if self.epsilon_on_raw:
                denominator = (np.sqrt(self.second[k]) + self.epsilon) / np.sqrt(correction2)
            else:
                denominator = np.sqrt(self.second[k] / correction2) + self.epsilon
            parameter -= self.learning_rate * self.first[k] / correction1 / denominator


class SGD:
    """Plain gradient descent: parameter minus learning rate times gradient."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = require_real("learning_rate", learning_rate, minimum=0, exclusive=True)

    def update(self, parameters: list[np.ndarray], grads: list[np.ndarray]) -> None:
        """Change `parameters` in place by one step along `grads`."""
        _check_update(parameters, grads)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter -= self.learning_rate * grad


def train(
    model: MLP,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "sgd",
    learning_rate: float,
    steps: int,
    batch_size: int | None = None,
    seed: int | None = None,
    record_every: int = 1,
    epsilon: float = 1e-8,
    epsilon_on_raw: bool = False,
) -> TrainingRun:
    """Train `model` in place and return the record of the run.

    Arguments:
        model: what `build_mlp` returned; its weights are changed.
        x, y, loss: as for `gradient_flow`.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        steps: number of updates, at least 1.
        batch_size: inputs per step, drawn without replacement within an epoch; all if None.
        seed: of the batches; required with `batch_size`.
        record_every: interval of the recorded steps; step 0 and the last are always recorded.
        epsilon, epsilon_on_raw: Adam's, see `Adam`.

    The loss and the gradients recorded at step s are those before update s + 1, so that the last
    row, at step `steps`, is measured after all updates, on one more batch.
    """
    learning_rate, steps, record_every = check_training(
        optimizer=optimizer, learning_rate=learning_rate, steps=steps, record_every=record_every
    )
    epsilon = require_real("epsilon", epsilon, minimum=0.0, exclusive=True)
    epsilon_on_raw = require_flag("epsilon_on_raw", epsilon_on_raw)
    require_mlp(model)
    sizes = model.layer_sizes
    x, y = check_batch(x, y, loss=loss, n_in=sizes[0], n_out=sizes[-1])
    if optimizer == "adam":
        rule = Adam(learning_rate, epsilon=epsilon, epsilon_on_raw=epsilon_on_raw)
    else:
        rule = SGD(learning_rate)
    recorder = RunRecorder(model.matrices, steps=steps, record_every=record_every)
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps + 1, seed=seed)
    for step, rows in enumerate(batches):
        flow = gradient_flow(model, x[rows], None if y is None else y[rows], loss=loss)
        if recorder.wants(step):
            recorder.record(step, flow.loss, list(flow.weight_grads), model.matrices)
        if step < steps:
            rule.update(
                [*model.matrices, *model.biases], [*flow.weight_grads, *flow.bias_grads]
            )
    return recorder.result(
        framework="NumPy", dtype="float64", optimizer=optimizer, learning_rate=learning_rate
    )
