"""A Keras model on trial: a few steps with the reader's loss and optimizer, then put back."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from course_lib.diagnosis import Finding
from course_lib.diagnosis.gains import measure_gains, small_matrices
from course_lib.diagnosis.states import check_identical, check_single_values, check_statistics
from course_lib.diagnosis.trial import FirstCall
from course_lib.diagnosis.units import check_attention
from course_lib.diagnosis.uses import check_heads, check_several
from course_lib.monitoring import FlowRecord
from course_lib.tf.attention import SoftmaxWatch
from course_lib.tf.batches import Batch
from course_lib.tf.layer_names import named_variables
from course_lib.tf.model_profiles import profile_recurrent_layers
from course_lib.tf.monitor import GradientFlowMonitor
from course_lib.tf.patching import override, restore
from course_lib.tf.trial_facts import (
    FirstPass,
    RoundingWatch,
    check_loss,
    check_model,
    check_rounding,
    measure_direction,
    show_output,
    split_tensors,
)
from course_lib.tf.trial_uses import least_gains, multiplied, shared_heads
from course_lib.tf.trial_weights import (
    NormalizedWatch,
    fans_in,
    find_identical,
    find_inner,
    find_single_values,
    find_unused_statistics,
)


class Trial:
    """A model that is trained and put back, the batches for it, and its loss."""

    def __init__(
        self, model: keras.Model, batches: list[Batch], loss: Callable | None, steps: int,
        share: float = 0.1,
    ) -> None:  # fmt: skip
        self.model, self.batches, self.steps = model, batches, steps
        self.loss = loss and FirstCall(
            "targets", "`loss` takes beside the model's output", loss, show_output
        )
        self.called = FirstCall("inputs", "`model` can be called on", model)
        self.output = self.latest = None
        self.first = FirstPass(model)
        self.normalized = NormalizedWatch(model)
        self.attention = SoftmaxWatch(model, share)

    @contextmanager
    def undone(self, seed: int) -> Iterator[None]:
        """Put back, on leaving, every variable and attribute that a step may change."""
        model, patched = self.model, []
        if not model.built:
            self._call(self.batches[0][0], training=False)
        states = [v for layer in model._flatten_layers() if getattr(layer, "stateful", False)
                  for v in tf.nest.flatten(getattr(layer, "states", ()))
                  if isinstance(v, keras.Variable)]  # fmt: skip
        self.identical = find_identical(model)
        self.unused_statistics = find_unused_statistics(model)
        kept = {id(v): (v, v.numpy())
                for v in (*model.variables, *model.metrics_variables, *states)}  # fmt: skip
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
        try:
            with self.first, self.normalized, self.attention:
                value = self.measure_loss(*self.batches[0])
        except Exception:
            if not self.refused(self.batches[0]):
                raise
            return  # the steps will show where that comes from
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
        self.latest = output
        if self.output is None and tf.executing_eagerly():
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
        compiled = monitor.function(step) if self._compile() else None
        with nullcontext() if compiled else monitor:
            for x, y in batches:
                try:
                    losses.append(float((compiled or step)(x, y)))
                except Exception:
                    if compiled:  # what its output was is known after an eager pass
                        self.latest = None
                        with suppress(Exception):
                            self.latest = self._call(x, training=True)
                    if not self.refused((x, y)):
                        raise
                    losses.append(float("nan"))
                    self._finish(rule, monitor if compiled else None, x)
                if not np.isfinite(losses[-1]):
                    break
        return losses

    def _finish(
        self, rule: keras.Optimizer, monitor: GradientFlowMonitor | None, x: object
    ) -> None:
        """Complete the sample of a step whose loss raised: no weight has a gradient, none moves."""
        variables = self.model.trainable_variables
        with monitor or nullcontext():
            if monitor:
                with suppress(Exception):  # of a model that refuses such numbers itself
                    self._call(x, training=True)
            rule.apply([None] * len(variables), variables)

    def refused(self, batch: Batch) -> bool:
        """Return whether the loss, or the model, was given or holds a number that is none, and may
        have raised for that.
        """
        made = (*tf.nest.flatten(self.latest), *(v.value + 0 for v in self.model.weights))
        parts = [(t, tf.math.is_finite) for t in made]
        parts += [(t, lambda t: t < t.dtype.max) for t in tf.nest.flatten(batch)]  # -inf is a mask
        return any(
            isinstance(t, tf.Tensor) and t.dtype.is_floating and hasattr(t, "numpy")
            and not bool(tf.reduce_all(sound(t)))
            for t, sound in parts
        )  # fmt: skip

    def _compile(self) -> bool:
        """Return whether to compile the step: activations in a reader's own layer are then seen.

        A few steps of a model of Keras's own layers are done before their graph would be.
        """
        if getattr(self.model, "run_eagerly", False):
            return False
        layers = self.model._flatten_layers()
        return any(not type(layer).__module__.startswith("keras.") for layer in layers)

    def check(
        self, record: FlowRecord, rule: keras.Optimizer, losses: list[float]
    ) -> list[Finding]:
        """Return what the steps that were taken show beside the record."""
        x, y = self.batches[0]
        measure = functools.partial(self.measure_loss, x, y)
        return [
            *check_model(record, self.model, self.batches, self.first, losses),
            *check_rounding(record, self.rounding, rule, measure, len(losses)),
            *check_loss(record, self.output, lambda h: self.judge(h, x, y, training=False),
                        split_tensors(self.batches[0])[1],
                        *self._direction(record, rule, measure, losses)),
            *check_identical(*self.identical),
            *check_statistics(*self.unused_statistics),
            *check_single_values(*find_single_values(self.model)),
            *check_attention(self.attention.shares),
            *self._uses(record),
        ]  # fmt: skip

    def _uses(self, record: FlowRecord) -> list[Finding]:
        """Return what is out of scale where a matrix belongs to no plain layer, or to two."""
        several = check_several(
            record, least_gains(self.model, record, self.fans),
            lambda: multiplied(
                self.model, lambda: self._call(self.batches[0][0], training=False)
            ),
        )  # fmt: skip
        return several or check_heads(record, shared_heads(self.model, record))

    def _direction(
        self, record: FlowRecord, rule: keras.Optimizer, measure: Callable, losses: list[float]
    ) -> tuple[float, int]:
        """Return the cosine of a step with the gradient, and the sign of the model's own loss."""
        sound = np.isfinite(losses[-1]) and not record.nonfinite
        cosine = measure_direction(self.model, rule, measure) if sound else float("nan")
        return cosine, int(self.loss is None and not self.model.compiled)

    def look_at_weights(self, record: FlowRecord) -> FlowRecord:
        """Return the record with how the matrices were drawn, and what a normalization takes."""
        names = named_variables(self.model)
        sizes = {names[id(v)][0]: int(np.prod(v.shape)) for v in self.model.weights}
        self.fans = fans_in(self.model)
        gains = measure_gains(record.parameters, record.weight_norms[0], self.fans, sizes)
        record = replace(record, normalized=self.normalized.layers, gains=gains)
        if small_matrices(record):  # it takes another pass to know whether they are heads
            x = self.batches[0][0]
            inner = find_inner(self.model, lambda: self._call(x, training=False))
            record = replace(record, inner=inner)
        return record

    def loss_changes(self) -> Callable[[list[str]], bool] | None:
        """Return a function that says whether the loss depends on the named variables.

        It evaluates the first batch with them changed, and puts them back. None where the loss is
        not finite, or not the same twice. Penalties of the weights themselves do not count.
        """
        found = named_variables(self.model)
        names = {found[id(v)][0]: v for v in self.model.weights}

        def evaluate() -> tuple[float, float]:
            try:
                value = float(self.measure_loss(*self.batches[0], training=False))
            except Exception:
                if not self.refused(self.batches[0]):
                    raise
                value = float("nan")
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
