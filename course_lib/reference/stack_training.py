r"""Training a stack on the hand-written gradients, with or without disturbed normalization.

The question is what "reduces internal covariate shift" (ioffe2015) is worth. So the run records
how far the inputs of each activation move from step to step, and can make them move on purpose:
before each step, the output of every normalization is multiplied and shifted, unit by unit, by
numbers drawn anew. If the shift were what hurts, this would hurt. Source: santurkar2018.
"""

from __future__ import annotations

import numpy as np

from course_lib._validation import require_integer, require_real, require_seed, require_type
from course_lib.data import draw_batches
from course_lib.losses import check_batch, evaluate_loss
from course_lib.recording import check_training
from course_lib.reference.stack import Stack, StackPass, stack_gradient_flow
from course_lib.reference.training import SGD, Adam
from course_lib.stack_results import StackRun


def train_stack(
    model: Stack,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "sgd",
    learning_rate: float,
    steps: int,
    batch_size: int | None = None,
    seed: int,
    disturbance: float = 0.0,
) -> StackRun:
    r"""Train `model` in place and return the record of the run.

    Arguments:
        model: what `build_stack` returned; its parameters and running averages are changed.
        x, y, loss: as for `stack_gradient_flow`.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        steps: number of updates, at least 1.
        batch_size: inputs per step, drawn without replacement within an epoch; all if None.
        seed: of the batches and of the disturbance.
        disturbance: $s \ge 0$: before each step each normalized unit is shifted by a new number
            drawn from $U(-s, s)$ and multiplied by one from $U(1, 1 + s/2)$. At $s = 1/2$ these
            are the laws of santurkar2018, there drawn once more for each input.

    The disturbance is gone when the final loss is measured.
    """
    spec = require_type("model", model, Stack).spec
    learning_rate, steps, _ = check_training(
        optimizer=optimizer, learning_rate=learning_rate, steps=steps, record_every=1
    )
    x, y = check_batch(x, y, loss=loss, n_in=spec.n_in, n_out=spec.n_out)
    strength = require_real("disturbance", disturbance, minimum=0.0)
    rng = np.random.default_rng(require_seed(seed))
    rule = (Adam if optimizer == "adam" else SGD)(learning_rate)
    losses, shifts, before = [], [], None
    for rows in draw_batches(len(x), batch_size=batch_size, steps=steps, seed=seed):
        model.disturbances = _draw_disturbances(model, strength, rng) if strength > 0 else {}
        passed = model.forward(x[rows], training=True)
        value, output_grad = evaluate_loss(
            passed.outputs, None if y is None else y[rows], loss=loss
        )
        losses.append(value)
        if not np.isfinite(value):
            break
        moments = _activation_moments(model, passed)
        if before is not None:
            shifts.append(np.sqrt(np.mean(((moments[0] - before[0]) / before[1]) ** 2)))
        before = moments
        grads = model.backward(passed, output_grad)[0]
        rule.update([*model.parameters.values()], [*grads.values()])
    model.disturbances = {}
    final = stack_gradient_flow(model, x, y, loss=loss, training=False).loss
    return StackRun(spec, np.array(losses), final, np.array(shifts))


def _draw_disturbances(
    model: Stack, strength: float, rng: np.random.Generator
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    width = model.spec.width
    return {
        name: (
            rng.uniform(1.0, 1.0 + strength / 2.0, width),
            rng.uniform(-strength, strength, width),
        )
        for name in model.norms
    }


def _activation_moments(model: Stack, passed: StackPass) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over the batch of what the blocks' activations get."""
    inputs = []
    for block in range(model.spec.blocks):
        inside, _, after = passed.received[block + 1]
        kinds = [kind for kind, _ in model.branch(block)]
        inputs += [got for kind, got in zip(kinds, inside, strict=True) if kind == "activation"]
        inputs += after
    stacked = np.stack(inputs)
    return stacked.mean(axis=1), np.maximum(stacked.std(axis=1), 1e-12)


def measure_gradient_shift(
    model: Stack,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "cross_entropy",
    learning_rate: float,
    block: int,
) -> tuple[float, float]:
    r"""Return how much the update of the blocks below changes the gradient of one block.

    santurkar2018 define the internal covariate shift of a layer by it: the gradient $G$ of the
    layer's matrices, and $G'$ on the same batch after only the layers below have taken their
    step. Returns $\|G' - G\|/\|G\|$ and the cosine between the two. The model is left as it was.

    Arguments:
        model: what `build_stack` returned.
        x, y, loss: as for `stack_gradient_flow`.
        learning_rate: of the step of the layers below, > 0.
        block: number of the block, counted from 0; the stem alone is below block 0.
    """
    spec = require_type("model", model, Stack).spec
    rate = require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    block = require_integer("block", block, minimum=0)
    if block >= spec.blocks:
        raise ValueError(f"`block` (={block}) must be below {spec.blocks}, the number of blocks.")
    first = stack_gradient_flow(model, x, y, loss=loss).parameter_grads
    kept = {name: array.copy() for name, array in model.parameters.items()}
    for name, array in model.parameters.items():
        if name.startswith("stem") or (
            name.startswith("blocks") and int(name.split(".")[1]) < block
        ):
            array -= rate * first[name]
    second = stack_gradient_flow(model, x, y, loss=loss).parameter_grads
    for name, array in model.parameters.items():
        array[...] = kept[name]
    own = [f"blocks.{block}.linears.{k}.weight" for k in range(spec.layers)]
    a, b = (np.concatenate([grads[name].ravel() for name in own]) for grads in (first, second))
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    return float(np.linalg.norm(b - a) / lengths[0]), float(a @ b / (lengths[0] * lengths[1]))
