"""What a trial of a Keras model shows beside the monitor's record: inputs, outputs, rounding."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from course_lib.diagnosis import Finding
from course_lib.diagnosis.depth import check_inputs
from course_lib.diagnosis.direction import (
    check_direction,
    loss_sign,
    lowers_likelihood,
    uphill,
)
from course_lib.diagnosis.inputs import (
    check_alike,
    check_features,
    check_large,
    check_numbers,
    check_small,
    check_targets,
)
from course_lib.diagnosis.outputs import (
    check_first_loss,
    check_missing_activation,
    check_output,
)
from course_lib.diagnosis.peers import check_peers
from course_lib.diagnosis.rounding import RoundedWeight, check_rounded
from course_lib.diagnosis.targets import check_log_probabilities, check_pairing
from course_lib.diagnosis.trial import check_dropout, check_loss_value
from course_lib.monitoring import FlowRecord
from course_lib.tf.batches import Batch
from course_lib.tf.layer_names import named_layers, named_variables
from course_lib.tf.patching import override, restore

DROPOUTS = (keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D,
            keras.layers.SpatialDropout3D)  # fmt: skip

Loss = Callable[[tf.Tensor], tf.Tensor]
"""Of a model's output, the targets being those of the first batch."""


def as_array(tensor: tf.Tensor) -> np.ndarray:
    """Return a tensor's numbers on the host; what NumPy lacks (bfloat16) as float32."""
    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def show_output(output: object) -> np.ndarray | None:
    """Return a model's output as an array, if it is a tensor of numbers that is at hand."""
    at_hand = isinstance(output, tf.Tensor) and hasattr(output, "numpy")
    return as_array(output) if at_hand and output.dtype.is_floating else None


def split_tensors(batch: Batch) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return a batch's inputs and its targets as arrays; none if some are sparse, ragged or words.

    Several targets count as none.
    """
    x, y = batch
    parts = tf.nest.flatten(x)
    dense = all(tf.is_tensor(t) and isinstance(t, tf.Tensor) and t.dtype != tf.string
                for t in parts)  # fmt: skip
    targets = as_array(y) if isinstance(y, tf.Tensor) and y.dtype != tf.string else None
    return [as_array(t) for t in parts] if dense else [], targets


class FirstPass:
    """What goes into the first layer with weights, in one eager pass.

    Use it as a context manager around that pass.

    Fields:
        layer, name: that layer, None until it is called.
        given: its input, None if that is no tensor.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.layer, self.name = None, ""
        self.given: tf.Tensor | None = None

    def __enter__(self) -> FirstPass:
        self._patched: list = []
        for name, layer in named_layers(self.model):
            leaf = isinstance(layer, keras.layers.RNN) or not getattr(layer, "_layers", True)
            if leaf and layer.weights:
                override(layer, "call", self._seen(name, layer), self._patched)
        return self

    def __exit__(self, *exception: object) -> None:
        restore(self._patched)

    def _seen(self, name: str, layer: keras.Layer) -> Callable:
        call = layer.call

        @functools.wraps(call)
        def seen(*args: object, **kwargs: object) -> object:
            if self.layer is None:
                self.layer, self.name = layer, name
                given = next((t for t in tf.nest.flatten((args, kwargs))
                              if isinstance(t, tf.Tensor)), None)  # fmt: skip
                self.given = given if hasattr(given, "numpy") else None
            return call(*args, **kwargs)

        return seen

    @property
    def axis(self) -> int:
        """The axis of the features of what the first layer gets."""
        return 1 if getattr(self.layer, "data_format", None) == "channels_first" else -1


class RoundingWatch:
    """Compares the 16-bit matrices after a trial with what they were before it."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.before = [(v, v.numpy()) for v in model.trainable_variables
                       if v.dtype in ("float16", "bfloat16") and len(v.shape) > 1]  # fmt: skip

    def weights(self, rule: keras.Optimizer, measure: Callable, steps: int) -> list[RoundedWeight]:
        """Return what became of every matrix; none if the rule has not moved anything yet.

        Arguments:
            rule: the optimizer.
            measure: () -> the loss, for the entries that have a gradient.
            steps: how many were taken.
        """
        inner = getattr(rule, "inner_optimizer", rule)
        if not self.before or float(inner.learning_rate) == 0 or (
            steps < (inner.gradient_accumulation_steps or 1)
        ):  # fmt: skip
            return []
        with tf.GradientTape() as tape:
            loss = rule.scale_loss(measure())
        grads = tape.gradient(loss, [v.value for v, _ in self.before])
        names = named_variables(self.model)
        found = []
        for (variable, old), grad in zip(self.before, grads, strict=True):
            if grad is not None:
                asked = tf.convert_to_tensor(grad).numpy() != 0
                still = asked & (variable.numpy() == old)
                found.append(RoundedWeight(names[id(variable)][0], variable.dtype,
                                           int(asked.sum()), int(still.sum())))  # fmt: skip
        return found


def check_model(
    record: FlowRecord,
    model: keras.Model,
    batches: list[Batch],
    first: FirstPass,
    losses: list[float],
) -> list[Finding]:
    """Return what inputs, matrices, dropout and losses of a trial show beside the record."""
    split = [split_tensors(batch) for batch in batches]
    ended = [] if np.isfinite(losses[-1]) and not record.nonfinite else split[: len(losses)]
    given = None if first.given is None else as_array(first.given)
    kind = type(first.layer).__name__
    names = named_variables(model)
    return [
        *check_numbers([x for x, _ in ended], [y for _, y in ended]),
        *check_alike([x for x, _ in split], [y for _, y in split]),
        *check_targets([y for _, y in split]),
        *check_small(split[0][0], given, first.name),
        *(() if check_inputs(record) else check_large(split[0][0], given, kind, first.name)),
        *check_features(given, first.axis, kind, first.name),
        *check_peers(record, {names[id(v)][0]: int(np.prod(v.shape)) for v in model.weights}),
        *check_dropout({name: float(layer.rate) for name, layer in named_layers(model)
                        if isinstance(layer, DROPOUTS)}),
        *check_loss_value(record, losses),
    ]  # fmt: skip


def check_rounding(
    record: FlowRecord, watch: RoundingWatch, rule: keras.Optimizer, measure: Callable, steps: int
) -> list[Finding]:
    """Return what 16-bit weights did; nothing if anything was not finite."""
    return [] if record.nonfinite else check_rounded(watch.weights(rule, measure, steps), steps)


def measure_direction(model: keras.Model, rule: keras.Optimizer, measure: Callable) -> float:
    """Return which way an optimizer goes: the cosine of the gradient with the difference between
    the steps that it takes for the gradient and for its negative, so that momentum and decay do not
    matter. NaN if nothing moves.

    Arguments:
        model: whose weights are put back afterwards.
        rule: the optimizer.
        measure: () -> the loss.
    """
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = rule.scale_loss(measure())
    grads = tape.gradient(loss, [v.value for v in variables])
    grads = [None if g is None else tf.convert_to_tensor(g) for g in grads]
    kept = [(v, v.numpy()) for v in (*variables, *rule.variables)]
    after = []
    for sign in (1, -1):
        rule.apply([None if g is None else sign * g for g in grads], variables)
        after.append([as_array(v.value) for v in variables])
        for v, value in kept:
            v.assign(value)
    return uphill(
        (one - other, as_array(g)) for one, other, g in zip(*after, grads, strict=True)
        if g is not None
    )  # fmt: skip


def check_loss(
    record: FlowRecord,
    output: object,
    loss: Loss,
    targets: np.ndarray | None,
    cosine: float,
    sign: int,
) -> list[Finding]:
    """Return what the loss makes of the first output that it should not, or of its sign.

    Keras marks what came from its softmax, and its losses then take the logits behind it.

    Arguments:
        targets: of the first batch, or None.
        cosine: of a step with the gradient.
        sign: of the loss, 0 if that is not known without trying.
    """
    if not isinstance(output, tf.Tensor) or not output.dtype.is_floating:
        return check_direction(sign, cosine)
    values = tf.cast(output, tf.float64).numpy()
    if not np.all(np.isfinite(values)):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        marked = hasattr(output, "_keras_logits")
        mended = marked and float(loss(output)) != float(loss(tf.identity(output)))
        judge = LossOnTrial(loss, output.dtype)
        found = check_output(record, values, judge.gradient, mended=mended)
        for check in (check_missing_activation, check_first_loss):
            found += check(record, values, judge.gradient, judge.value)
        found += check_log_probabilities(record, values, judge.gradient, targets)
        found += check_pairing(record, values, judge.value, targets)
        sign = sign or loss_sign(judge.gradient, values.shape)
        sign = sign or -int(lowers_likelihood(values, judge.gradient))
        return found + check_direction(sign, cosine)


class LossOnTrial:
    """The loss as a function of made-up outputs of one type."""

    def __init__(self, loss: Loss, dtype: tf.DType) -> None:
        self.loss, self.dtype = loss, dtype

    def gradient(self, values: np.ndarray) -> np.ndarray | None:
        """Return the loss's gradient there, or None where the loss refuses them."""
        found = self._measure(values)
        if found is None or found[1] is None:
            return None
        return tf.cast(tf.convert_to_tensor(found[1]), tf.float64).numpy()

    def value(self, values: np.ndarray) -> float:
        """Return the loss there, or NaN."""
        found = self._measure(values)
        return float("nan") if found is None else found[0]

    def _measure(self, values: np.ndarray) -> tuple[float, tf.Tensor | None] | None:
        made = tf.cast(tf.convert_to_tensor(values), self.dtype)
        try:
            with tf.GradientTape() as tape:
                tape.watch(made)
                loss = self.loss(made)
            return float(loss), tape.gradient(loss, made)
        except Exception:  # a reader's loss may refuse such outputs in any way
            return None
