"""`diagnose_model`: one call that trains the reader's model, says what is wrong, and undoes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_integer, require_real, require_seed
from course_lib.diagnosis import Report, diagnose
from course_lib.diagnosis.connections import tell_unused
from course_lib.diagnosis.trial import describe_trial
from course_lib.tf.batches import read_batches
from course_lib.tf.monitor import GradientFlowMonitor
from course_lib.tf.trial_steps import Trial


def diagnose_model(
    model: keras.Model,
    inputs: object,
    targets: object = None,
    *,
    loss: object = None,
    optimizer: object = None,
    learning_rate: float | None = None,
    steps: int = 10,
    every: int = 1,
    share: float = 0.1,
    seed: int = 0,
) -> Report:
    """Train a model for a few steps, watch it, undo them, and return what is wrong and where.

    The model's weights, moving averages and metrics are kept aside and put back, also after an
    error; its optimizer is not used, but a copy of it. The random number generators go on where
    they were. `report.results[0]` is the record of what was measured. The loss is called on a few
    made-up outputs besides.

    Arguments:
        model: any built Keras model, or one that its configuration can make again.
        inputs: one batch for `model(inputs)` (a tensor or an array, a tuple or a dict of them), or
            an iterable of batches such as a `tf.data.Dataset`, each a pair (inputs, targets) or,
            with a loss that needs no targets, inputs alone. Batches are gone through again if
            there are fewer than `steps`.
        targets: of one batch; None if there are none, or if the batches bring theirs.
        loss: `loss(output, targets)`, or `loss(output)` where there are no targets; or a loss of
            Keras's, or its name. None: the one that the model was compiled with, or the output's
            own `loss`. The regularization losses of the model are added.
        optimizer: the optimizer in use, which is copied with its settings and its state; or a
            function () -> optimizer; or None for the one compiled with the model, else Adam.
        learning_rate: > 0, in place of the optimizer's own; 1e-3 for Adam if None.
        steps: how many training steps, at least 1; it stops at a loss that is not finite, or that
            raises because the output is not.
        every: sampling interval in steps.
        share: a value is saturated if its slope is below this share of the largest slope.
        seed: of the randomness in the model, such as dropout.

    Raises TypeError or ValueError, naming the argument, for anything else, for an empty batch, and
    for a loss that is not one number.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a keras.Model.")
    loss = _check_loss(loss)
    steps = require_integer("steps", steps, minimum=1)
    every = require_integer("every", every, minimum=1)
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    if learning_rate is not None:
        learning_rate = require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    seed = require_seed(seed)
    with _untouched_randomness(seed):
        watched = model if model.built else _made_again(model)
        batches = read_batches(inputs, targets, limit=steps, model=watched)
        trial = Trial(watched, batches, loss, steps, share)
        with trial.undone(seed):
            rule = trial.make_rule(optimizer, learning_rate)
            profiles = trial.profile_layers()
            monitor = GradientFlowMonitor(watched, optimizer=rule, every=every, share=share)
            monitor.reads_joined = True  # a copy is trained: the last bit does not matter
            inner = getattr(rule, "inner_optimizer", rule)
            rate = float(inner.learning_rate)  # a schedule's changes with the steps
            losses = trial.train(rule, monitor)
            record = tell_unused(
                trial.look_at_weights(monitor.record),
                lambda: trial.loss_changes() if np.isfinite(losses[-1]) else None,
            )
            shown = trial.check(record, rule, losses)
    report = diagnose(record, *profiles).with_findings(shown)
    sentence = describe_trial(
        type(model).__name__, sum(int(np.prod(w.shape)) for w in watched.weights), steps,
        type(inner).__name__, rate, losses,
    )  # fmt: skip
    return replace(report, subjects=(sentence, *report.subjects))


def _check_loss(loss: object) -> Callable | None:
    """Return a function of (output, targets): Keras's own are functions of (targets, output)."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError as error:
            raise ValueError(f"`loss` (={loss!r}) must be the name of a Keras loss.") from error
    if loss is None:
        return None
    if not callable(loss):
        raise TypeError(f"`loss` (={loss!r}) must be a function of the output and the targets.")
    kerass = isinstance(loss, keras.losses.Loss)
    if kerass or (getattr(loss, "__module__", None) or "").startswith("keras."):
        return lambda output, targets: tf.reduce_mean(loss(targets, output))
    return loss


def _made_again(model: keras.Model) -> keras.Model:
    """Return a model like one that has no weights yet: building it here would change it."""
    try:
        return type(model).from_config(model.get_config())
    except Exception as error:  # whatever a reader's own class raises
        raise TypeError(
            f"`model` (a {type(model).__name__}) must be built, by calling it once on a batch, or "
            f"have a configuration that makes it again: {error}"
        ) from error


@contextmanager
def _untouched_randomness(seed: int) -> Iterator[None]:
    """Seed Python's and NumPy's generators, and give each its own state back on leaving.

    TensorFlow's own are not drawn from: what Keras draws comes from variables of the model, and
    what a compiled step draws from its operations.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
