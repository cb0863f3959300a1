"""`diagnose_model`: one call that trains the reader's model, says what is wrong, and undoes it."""

from __future__ import annotations

import functools
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_integer, require_real, require_seed
from course_lib.diagnosis import Finding, Report, diagnose
from course_lib.diagnosis.connections import tell_unused
from course_lib.diagnosis.trial import FirstCall, describe_trial
from course_lib.monitoring import FlowRecord
from course_lib.tf.batches import Batch, read_batches
from course_lib.tf.layer_names import named_variables
from course_lib.tf.model_profiles import profile_recurrent_layers
from course_lib.tf.monitor import GradientFlowMonitor
from course_lib.tf.probes import override, restore
from course_lib.tf.trial_facts import (
    FirstPass,
    RoundingWatch,
    check_inputs,
    check_loss,
    check_rounding,
)


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
    they were. `report.results[0]` is the record of what was measured. Where the outputs look like
    probabilities, the loss is called on a few made-up ones besides.

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
        steps: how many training steps, at least 1; it stops at a loss that is not finite.
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
        trial = _Trial(watched, batches, loss, steps)
        with trial.undone(seed):
            rule = trial.make_rule(optimizer, learning_rate)
            profiles = trial.profile_layers()
            monitor = GradientFlowMonitor(watched, optimizer=rule, every=every, share=share)
            inner = getattr(rule, "inner_optimizer", rule)
            rate = float(inner.learning_rate)  # a schedule's changes with the steps
            losses = trial.train(rule, monitor)
            record = tell_unused(monitor.record, trial.loss_changes)
            shown = trial.check(record, rule, len(losses))
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


class _Trial:
    """A model that is trained and put back, the batches for it, and its loss."""

    def __init__(
        self, model: keras.Model, batches: list[Batch], loss: Callable | None, steps: int
    ) -> None:
        self.model, self.batches, self.steps = model, batches, steps
        self.loss = loss and FirstCall("targets", "`loss` takes beside the model's output", loss)
        self.called = FirstCall("inputs", "`model` can be called on", model)
        self.output, self.first = None, FirstPass(model)

    @contextmanager
    def undone(self, seed: int) -> Iterator[None]:
        """Put back, on leaving, every variable and attribute that a step may change."""
        model, patched = self.model, []
        if not model.built:
            self._call(self.batches[0][0], training=False)
        kept = {id(v): (v, v.numpy()) for v in (*model.variables, *model.metrics_variables)}
        compiled = getattr(model, "_compile_loss", None)
        try:
            if compiled is not None:  # it keeps metrics, and is built by its first call
                fresh = keras.src.trainers.compile_utils.CompileLoss(
                    compiled._user_loss, compiled._user_loss_weights,
                    output_names=compiled.output_names,
                )  # fmt: skip
                override(model, "_compile_loss", fresh, patched)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Gradients do not exist")
                self._seed(seed)
                self._check()
                self._put_back(kept)
                self._seed(seed)
                yield
        finally:
            restore(patched)
            self._put_back(kept)

    def _put_back(self, kept: dict) -> None:
        for variable, value in kept.values():
            variable.assign(value)

    def _seed(self, seed: int) -> None:
        """Let every layer with randomness of its own draw from a sequence of its own."""
        for k, variable in enumerate(self.model.variables):
            if variable.path.endswith("seed_generator_state"):
                variable.assign(np.array([seed % 2**31, k], variable.dtype))

    def _check(self) -> None:
        """Raise for a loss that cannot be taken, before anything is compiled."""
        if not self.model.trainable_variables:
            raise ValueError("`model` must have a variable that is trained.")
        with self.first:
            value = self.measure_loss(*self.batches[0])
        if not tf.is_tensor(value) or value.shape.num_elements() != 1:
            shape = tuple(value.shape) if tf.is_tensor(value) else repr(value)
            raise ValueError(f"`loss` (which returned {shape}) must return a tensor of one number.")

    def _call(self, x: object, *, training: bool) -> object:
        if self.model._call_has_training_arg:
            return self.called(x, training=training)
        return self.called(x)

    # Steps ---------------------------------------------------------------------------------

    def measure_loss(self, x: object, y: object, *, training: bool = True) -> tf.Tensor:
        """Return the loss of one batch, with the model's regularization, a tensor of one number."""
        output = self._call(x, training=training)
        if self.output is None:
            self.output = output
        return self.judge(output, x, y, training=training)

    def judge(self, output: object, x: object, y: object, *, training: bool) -> tf.Tensor:
        """Return the loss of an output."""
        if self.loss is not None:
            value = self.loss(output) if y is None else self.loss(output, y)
            return tf.add_n([value, *(tf.cast(r, value.dtype) for r in self.model.losses)])
        if self.model.compiled and (y is not None or not isinstance(output, dict)):
            return self.model.compute_loss(x=x, y=y, y_pred=output, training=training)
        own = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if own is None:
            raise ValueError(
                "`loss` (=None) must be given: the model is not compiled, and its output "
                f"(a {type(output).__name__}) holds no loss of its own."
            )
        return own

    def make_rule(self, optimizer: object, learning_rate: float | None) -> keras.Optimizer:
        """Return an optimizer for the trial, with the settings and the state of the given one."""
        given = optimizer
        if given is None:
            given = self.model.optimizer if self.model.compiled else None
        if isinstance(given, keras.Optimizer):
            rule = type(given).from_config(given.get_config())
        elif given is None or callable(given):
            rule = keras.optimizers.Adam(learning_rate or 1e-3) if given is None else given()
            layers = self.model._flatten_layers()
            scaled = any(layer.compute_dtype == "float16" for layer in layers)
            if given is None and scaled:  # as `compile` does
                rule = keras.optimizers.LossScaleOptimizer(rule)
        else:
            rule = given
        if not isinstance(rule, keras.Optimizer):
            raise TypeError(
                f"`optimizer` (={optimizer!r}) must be a keras.Optimizer, a function that makes "
                "one, or None."
            )
        rule.build(self.model.trainable_variables)
        if isinstance(given, keras.Optimizer) and given.built:
            pairs = zip(rule.variables, given.variables, strict=False)
            if len(rule.variables) != len(given.variables) or any(
                a.shape != b.shape for a, b in pairs
            ):
                raise ValueError("`optimizer` must be one that moves the variables of `model`.")
            for mine, theirs in zip(rule.variables, given.variables, strict=True):
                mine.assign(theirs)
        if learning_rate is not None:
            # Keras puts a function in place of a schedule, but no number.
            getattr(rule, "inner_optimizer", rule).learning_rate = lambda: learning_rate
        apply = rule.apply

        def tolerant(grads: list, variables: list) -> None:
            if any(g is not None for g in grads):  # none is a finding, where Keras raises
                apply(grads, variables)

        object.__setattr__(rule, "apply", tolerant)
        return rule

    def train(self, rule: keras.Optimizer, monitor: GradientFlowMonitor) -> list[float]:
        """Train under the monitor, and return the losses."""
        variables = self.model.trainable_variables

        def step(x: object, y: object) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = self.measure_loss(x, y)
                scaled = rule.scale_loss(loss)
            rule.apply(tape.gradient(scaled, variables), variables)
            return loss

        losses, self.rounding = [], RoundingWatch(self.model)
        batches = itertools.islice(itertools.cycle(self.batches), self.steps)
        if not self._compile():
            with monitor:
                for x, y in batches:
                    losses.append(float(step(x, y)))
                    if not np.isfinite(losses[-1]):
                        break
            return losses
        compiled = monitor.function(step)
        for x, y in batches:
            losses.append(float(compiled(x, y)))
            if not np.isfinite(losses[-1]):
                break
        return losses

    def _compile(self) -> bool:
        """Return whether to compile the step: activations in a reader's own layer are then seen.

        A few steps of a model of Keras's own layers are done before their graph would be.
        """
        if getattr(self.model, "run_eagerly", False):
            return False
        layers = self.model._flatten_layers()
        return any(not type(layer).__module__.startswith("keras.") for layer in layers)

    def check(self, record: FlowRecord, rule: keras.Optimizer, steps: int) -> list[Finding]:
        """Return what the steps that were taken show beside the record."""
        x, y = self.batches[0]
        measure = functools.partial(self.measure_loss, x, y)
        return [
            *check_inputs(record, self.model, self.batches, self.first),
            *check_rounding(record, self.rounding, rule, measure, steps),
            *check_loss(record, self.output, lambda h: self.judge(h, x, y, training=False)),
        ]

    def loss_changes(self) -> Callable[[list[str]], bool] | None:
        """Return a function that says whether the loss depends on the named variables.

        It evaluates the first batch with them changed, and puts them back. None where the loss is
        not finite, or not the same twice. Penalties of the weights themselves do not count.
        """
        found = named_variables(self.model)
        names = {found[id(v)][0]: v for v in self.model.weights}

        def evaluate() -> tuple[float, float]:
            value = float(self.measure_loss(*self.batches[0], training=False))
            penalty = sum(float(r) for r in self.model.losses)
            return value - penalty, 1e-5 * abs(penalty)  # and how far rounding reaches

        before, rounding = evaluate()
        if not np.isfinite(before) or evaluate() != (before, rounding):
            return None

        def changes_loss(changed: list[str]) -> bool:
            kept = [(names[name], names[name].numpy()) for name in changed]
            for variable, value in kept:
                variable.assign(value + np.abs(value) + np.array(0.5, value.dtype))
            try:
                after, rounding = evaluate()
                return not abs(after - before) <= rounding
            finally:
                for variable, value in kept:
                    variable.assign(value)

        return changes_loss

    def profile_layers(self) -> list[dict]:
        """Return the profiles over time of the recurrent layers, as far as they can be taken."""
        x = self.batches[0][0]
        found = profile_recurrent_layers(
            self.model, lambda: self._call(x, training=False), strict=False
        )
        return [found] if found else []
