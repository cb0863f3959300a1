"""Measuring inside a TensorFlow step: what is put around layers and optimizers for one trace.

A layer's output passes through an identity whose gradient function sees the loss's gradient there.
All numbers of a step are packed into one vector, so that one transfer brings them over.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from course_lib.monitoring import (
    ACTIVATION_KINDS,
    ONE_SIDED,
    ParameterState,
    Sample,
    Site,
    flat_mask,
)

PASSING = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape,
           keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D,
           keras.layers.ZeroPadding2D)  # fmt: skip
"""Layers whose output says nothing that their input does not."""

OPERATIONS = {
    "Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Elu": "elu",
    "Softplus": "softplus", "Sigmoid": "sigmoid", "Tanh": "tanh",
}  # fmt: skip
"""How a graph names what a call such as `tf.nn.relu` left behind."""


def named_layers(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Yield every layer below `layer` with its path; what is inside an RNN layer stays inside."""
    for child in layer._layers:
        name = f"{prefix}{child.name}"
        yield name, child
        if not isinstance(child, keras.layers.RNN):
            yield from named_layers(child, f"{name}/")


def activation_kind(layer: keras.Layer) -> str | None:
    """Return which of `ACTIVATION_KINDS` ends the layer, or None."""
    if isinstance(layer, keras.layers.RNN):
        return None
    if isinstance(layer, keras.layers.ReLU):
        plain = not layer.negative_slope and not layer.threshold
        return ("relu" if layer.max_value is None else "relu6") if plain else None
    for kind, name in ((keras.layers.LeakyReLU, "leaky_relu"), (keras.layers.PReLU, "leaky_relu"),
                       (keras.layers.ELU, "elu")):  # fmt: skip
        if isinstance(layer, kind):
            return name
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return name if name in ACTIVATION_KINDS else None


def norm64(tensor: tf.Tensor) -> tf.Tensor:
    """Return the Euclidean norm, accumulated in float64: no square under- or overflows."""
    if isinstance(tensor, tf.IndexedSlices):
        tensor = tensor.values
    return tf.sqrt(tf.reduce_sum(tf.square(tf.cast(tensor, tf.float64))))


def _place() -> object:
    """Return where ops are going: "eager", or the graph being traced."""
    return "eager" if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


class Trace:
    """What the probes of one step collect, as tensors of one place."""

    def __init__(self, model: keras.Model, *, share: float, max_calls: int) -> None:
        self.model, self.share, self.max_calls = model, share, max_calls
        self.place = _place()
        self.sites: list[Site] = []
        self.calls: dict[str, int] = {}
        self.states: dict[str, ParameterState] = {}
        self.scale: tf.Tensor | None = None

    # Layers --------------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """Forget the outputs of an earlier pass: of several in a step, the last one counts."""
        if _place() is self.place:
            self.sites, self.calls = [], {}

    def probe(self, name: str, layer: keras.Layer, inputs: tuple, output: object) -> object:
        """Measure a layer's output and return it with a gradient that will be measured."""
        parts = tf.nest.flatten(output)
        first = next(
            (k for k, h in enumerate(parts) if isinstance(h, tf.Tensor) and h.dtype.is_floating),
            None,
        )
        if first is None or _place() is not self.place or parts[first].shape.rank in (None, 0):
            return output
        h = parts[first]
        kind = activation_kind(layer)
        if kind is None and self.place != "eager":
            kind = OPERATIONS.get(h.op.type)
        container = bool(layer._layers) and not isinstance(layer, keras.layers.RNN)
        if container and kind is None and not layer._trainable_variables:
            return output
        self.calls[name] = calls = self.calls.get(name, 0) + 1
        if calls > self.max_calls:
            return output
        site = self._measure(name if calls == 1 else f"{name}#{calls}", layer, kind, inputs, h)
        parts[first] = self._differentiated(site, h)
        mask = getattr(h, "_keras_mask", None)
        if mask is not None:
            parts[first]._keras_mask = mask
        return tf.nest.pack_sequence_as(output, parts)

    def _measure(
        self, name: str, layer: keras.Layer, kind: str | None, inputs: tuple, h: tf.Tensor
    ) -> Site:
        site = Site(name, type(layer).__name__, kind, 0, int(h.shape[-1] or 1))
        site.size = tf.cast(tf.size(h), tf.float64)  # the last batch may be smaller
        site.norm = norm64(h)
        others = list(range(h.shape.rank - 1))
        if kind in ONE_SIDED:
            site.active = tf.reduce_sum(tf.cast(h > 0, tf.float32), others)
        if kind is not None and kind != "relu":
            z = inputs[0] if isinstance(layer, keras.layers.Activation) else None
            flat = flat_mask(kind, h, z, self.share)
            site.flat = None if flat is None else tf.reduce_sum(tf.cast(flat, tf.float32), others)
        self.sites.append(site)
        return site

    def _differentiated(self, site: Site, h: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def watch(x: tf.Tensor) -> tuple:
            def gradient(grad: tf.Tensor) -> tf.Tensor:
                if _place() is self.place:
                    site.grad_norm = norm64(grad)
                return grad

            return tf.identity(x), gradient

        return watch(h)

    # Parameters ----------------------------------------------------------------------------

    def apply(self, optimizer: keras.Optimizer, apply: object, grads: object, variables: object):
        """Measure gradients and weights, let the optimizer apply, and measure the updates."""
        grads = list(grads)
        moved = list(optimizer._trainable_variables if variables is None else variables)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) and optimizer.built:
            self.scale = tf.cast(optimizer.dynamic_scale, tf.float64)
        known = {id(v) for v in self.model.weights}
        before = []
        for grad, variable in zip(grads, moved, strict=True):
            if id(variable) not in known:
                continue
            state = self._state(variable)
            state.grad_norm = None if grad is None else norm64(grad)
            before.append((state, variable, tf.identity(variable.value)))
            state.norm = norm64(before[-1][2])
        result = apply(grads, variables)
        for state, variable, old in before:
            state.update = norm64(variable.value - old)
        return result

    def _state(self, variable: keras.Variable) -> ParameterState:
        path = variable.path
        layer = path.rpartition("/")[0]
        # The model's own name in front says nothing.
        layer = layer.removeprefix(f"{self.model.name}/")
        path = path.removeprefix(f"{self.model.name}/")
        name, k = path, 1
        while name in self.states:
            name, k = f"{path}#{k + 1}", k + 1
        state = ParameterState(name, layer, len(variable.shape), variable.trainable)
        self.states[name] = state
        return state

    # Transfer ------------------------------------------------------------------------------

    def pack(self) -> tf.Tensor:
        """Return every number of the step in one float64 vector."""
        numbers = [*(s.size for s in self.sites), *self._values()]
        if not numbers:
            return tf.zeros([0], tf.float64)
        return tf.concat([tf.reshape(tf.cast(n, tf.float64), [-1]) for n in numbers], axis=0)

    def _template(self) -> Sample:
        return Sample(0, self.sites, list(self.states.values()), self.scale)

    def _values(self) -> list[tf.Tensor]:
        return [getattr(owner, name) for owner, name in self._template().slots()]

    def unpack(self, step: int, vector: np.ndarray) -> Sample:
        """Return the sample that a packed vector holds."""
        template, count = self._template(), len(self.sites)
        values, start = [], count
        for tensor in self._values():
            size = int(np.prod(tensor.shape, dtype=int))
            values.append(vector[start : start + size])
            start += size
        if start != len(vector):
            raise RuntimeError("The model's layers have changed between two traces of its step.")
        sites = [
            replace(site, size=int(size), rows=int(size) // site.rows)
            for site, size in zip(template.sites, vector[:count], strict=True)
        ]
        states = [replace(state) for state in template.parameters]
        sample = Sample(step, sites, states, template.gradient_scale)
        sample.fill(values)
        return sample


@contextmanager
def instrumented(trace: Trace, optimizers: list[keras.Optimizer]) -> Iterator[Trace]:
    """Put the probes around the model's layers and the optimizers; take them off on leaving."""
    patched: list[tuple[object, str, object]] = []
    try:
        override(trace.model, "call", _root_call(trace), patched)
        seen = set()
        for name, layer in named_layers(trace.model):
            if id(layer) in seen or isinstance(layer, PASSING):
                continue
            seen.add(id(layer))
            override(layer, "call", _probed_call(trace, name, layer), patched)
        for optimizer in optimizers:
            override(optimizer, "apply", _probed_apply(trace, optimizer), patched)
        yield trace
    finally:
        restore(patched)


def override(owner: object, attribute: str, function: object, patched: list) -> None:
    """Give one object a method of its own, past Keras's __setattr__, and note it in `patched`."""
    patched.append((owner, attribute, vars(owner).get(attribute)))
    object.__setattr__(owner, attribute, function)


def restore(patched: list) -> None:
    """Undo every `override`, the latest first."""
    while patched:
        owner, attribute, before = patched.pop()
        if before is None:
            object.__delattr__(owner, attribute)
        else:
            object.__setattr__(owner, attribute, before)


def _root_call(trace: Trace) -> object:
    call = trace.model.call

    # Keras looks at a call's arguments by name (training, mask): the wrapper shows the same.
    @functools.wraps(call)
    @tf.autograph.experimental.do_not_convert
    def root(*args: object, **kwargs: object) -> object:
        trace.begin_pass()
        return call(*args, **kwargs)

    return root


def _probed_call(trace: Trace, name: str, layer: keras.Layer) -> object:
    call = layer.call

    @functools.wraps(call)
    @tf.autograph.experimental.do_not_convert
    def probed(*args: object, **kwargs: object) -> object:
        return trace.probe(name, layer, args, call(*args, **kwargs))

    return probed


def _probed_apply(trace: Trace, optimizer: keras.Optimizer) -> object:
    apply = optimizer.apply

    @tf.autograph.experimental.do_not_convert
    def probed(grads: object, trainable_variables: object = None) -> object:
        return trace.apply(optimizer, apply, grads, trainable_variables)

    return probed
