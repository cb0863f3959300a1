"""Measuring inside a TensorFlow step: what is put around layers and optimizers for one trace.

A layer's output passes through an identity whose gradient function sees the loss's gradient there.
All numbers of a step are packed into one vector, so that one transfer brings them over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from course_lib.monitoring import ONE_SIDED, ParameterState, Sample, Site, flat_mask
from course_lib.tf.attention import LAYERS, attention_weights, flat_rows, is_last
from course_lib.tf.gates import recurrent_gates
from course_lib.tf.joins import before_update, ends_a_chain, measure_waiting, waited_for
from course_lib.tf.layer_names import (
    PASSING,
    SEEN_THROUGH,
    activation_kind,
    frozen_variables,
    functional_activation,
    is_container,
    named_layers,
    named_variables,
    unit_axis,
)
from course_lib.tf.packing import Packer
from course_lib.tf.patching import override, restore
from course_lib.tf.updates import ToldUpdates, measure_around

VECTORS = ("bias", "alpha", "gamma", "beta")
"""Variables that hold one number per unit, whatever their shape."""


def _place() -> object:
    """Return where ops are going: "eager", or the graph being traced."""
    return "eager" if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


@dataclass
class Pass:
    """The sites of one forward pass, and whether a backward pass came through it."""

    sites: list[Site] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    differentiated: bool = False


class Trace:
    """What the probes of one step collect, as tensors of one place."""

    def __init__(
        self, model: keras.Model, *, share: float, max_calls: int, reads_joined: bool = True
    ) -> None:
        self.model, self.share, self.max_calls = model, share, max_calls
        self.place = _place()
        self.packer = Packer()
        self.current, self.kept = Pass(), Pass()
        self.states: dict[int, ParameterState] = {}
        self.names = named_variables(model)
        self.gradient_scale: float | None = None
        self.let_go: list[list] = []
        self.around: list[tuple] = []  # what a branch or a loop of the graph moves
        at_once = reads_joined or self.place == "eager"
        self.waiting: list[tuple[tuple, Callable, bool]] | None = None if at_once else []

    # Layers --------------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """Begin a new pass: of several in a step, the last one that is differentiated counts."""
        if _place() is self.place:
            self.kept = self.current if self.current.differentiated else self.kept
            self.current = Pass()

    def probe_input(self, name: str, inputs: tuple) -> tuple:
        """Measure an activation that was no layer: `self.dense2(tf.nn.relu(h))`, in a graph."""
        kind = functional_activation(inputs[0]) if inputs else None
        if kind is None or _place() is not self.place or inputs[0].shape.rank in (None, 0):
            return inputs
        watched = self._record(f"{name}.input ({kind})", kind, kind, None, None, inputs[0])
        return (watched, *inputs[1:])

    def probe(self, name: str, layer: object, inputs: tuple, output: object) -> object:
        """Measure a layer's output and return it with a gradient that will be measured."""
        parts = tf.nest.flatten(output)
        first = next(
            (k for k, h in enumerate(parts) if isinstance(h, tf.Tensor) and h.dtype.is_floating),
            None,
        )
        if first is None or _place() is not self.place or parts[first].shape.rank in (None, 0):
            return output
        h = parts[first]
        kind = activation_kind(layer) or functional_activation(h)
        if kind is None and is_container(layer):
            return output
        z = inputs[0] if isinstance(layer, keras.layers.Activation) else None
        parts[first] = self._record(name, type(layer).__name__, kind, layer, z, h)
        return tf.nest.pack_sequence_as(output, parts)

    def _record(
        self, name: str, kind: str, activation: str | None, layer: object, z: object, h: tf.Tensor
    ) -> tf.Tensor:
        """Note a site for h, unless its layer was called too often; return h, watched."""
        run = self.current
        run.calls[name] = calls = run.calls.get(name, 0) + 1
        if calls > self.max_calls:
            return h
        axis = unit_axis(layer, h)
        site = Site(name if calls == 1 else f"{name}#{calls}", kind, activation, 0, 1)
        run.sites.append(site)
        self.read((h, z), functools.partial(self._measure, site, axis))
        mask, logits = getattr(h, "_keras_mask", None), getattr(h, "_keras_logits", None)
        operation = h.op.type if tf.is_symbolic_tensor(h) else ""
        if logits is None and operation in SEEN_THROUGH:
            # Only the loss knows whether it looks for this one: it must find the operation itself.
            before = self._differentiated(run, site, h.op.inputs[0])
            watched = SEEN_THROUGH[operation](before)
        else:
            watched = self._differentiated(run, site, h)
        if mask is not None:
            watched._keras_mask = mask
        if logits is not None:  # Keras's losses begin there, and the gradient arrives there
            watched._keras_logits = self._differentiated(run, site, logits)
        return watched

    def probe_attention(self, name: str, weights: tf.Tensor | None) -> None:
        """Count the rows of softmax's output (..., heads, T, S) that are flat, for every head."""
        if weights is None or _place() is not self.place or weights.shape.rank < 3:
            return
        run = self.current
        run.calls[name] = calls = run.calls.get(name, 0) + 1
        if calls > self.max_calls or weights.shape[-1] == 1:
            return
        heads = weights.shape[1] if weights.shape.rank == 4 else None
        title = f"{name} (softmax)" if calls == 1 else f"{name} (softmax)#{calls}"
        site = Site(title, "softmax", "softmax", 0, heads or 1)
        run.sites.append(site)
        flat = tf.cast(flat_rows(weights, self.share), tf.float32)
        self.packer.scalar(site, "size", tf.size(flat, out_type=tf.int64))
        others = [k for k in range(flat.shape.rank) if heads is None or k != 1]
        self.packer.counts(site, "flat", tf.reshape(tf.reduce_sum(flat, others), [heads or 1]))

    def probe_gates(
        self, name: str, layer: keras.layers.RNN, loop: Callable, x: tf.Tensor, states: object
    ) -> None:
        """Count how often each gate inside a recurrent layer is stuck, on a sample of its input."""
        run = self.current
        run.calls[f"{name} gates"] = calls = run.calls.get(f"{name} gates", 0) + 1
        if calls > self.max_calls or _place() is not self.place:
            return
        for gate, kind, z, stuck in recurrent_gates(layer, loop, x, states, self.share):
            title = f"{name} ({gate})" if calls == 1 else f"{name} ({gate})#{calls}"
            site = Site(title, kind, kind, 0, layer.cell.units)  # `unpack` divides the size by it
            run.sites.append(site)
            self.packer.scalar(site, "size", tf.size(z, out_type=tf.int64))
            field, mask = ("active", z > 0) if kind == "relu" else ("flat", stuck)
            self.packer.counts(site, field, tf.reduce_sum(tf.cast(mask, tf.float32), [0, 1]))

    def read(self, tensors: tuple, measure: Callable, *, gradient: bool = False) -> None:
        """Call `measure` with tensors: in a graph, when it is known who else reads them."""
        if self.waiting is None:
            measure(*tensors)
        else:
            self.waiting.append((tensors, measure, gradient))

    def _measure(self, site: Site, axis: int, h: tf.Tensor, z: object) -> None:
        size, units = h.shape.num_elements(), h.shape[axis]
        if size is None:  # the last batch may be smaller
            self.packer.scalar(site, "size", tf.size(h, out_type=tf.int64))
        else:
            site.size = size
        site.rows = units or 1  # `unpack` divides the size by it
        self.packer.norm(site, "norm", h)
        if site.activation is None or units is None or h.shape.rank < 2:
            return
        others = [k for k in range(h.shape.rank) if k != axis]
        if site.activation in ONE_SIDED:
            # A ReLU's sign is 0 or 1, and quicker than `> 0`.
            quick = site.activation in ("relu", "relu6") and h.dtype == tf.float32
            on = tf.sign(h) if quick else tf.cast(h > 0, tf.float32)
            self.packer.counts(site, "active", tf.reduce_sum(on, others))
        if site.activation != "relu":  # a ReLU is flat exactly where it is not active
            flat = flat_mask(site.activation, h, z, self.share)
            if flat is not None:
                flat = tf.reduce_sum(tf.cast(flat, tf.float32), others)
                self.packer.counts(site, "flat", flat)

    def _differentiated(self, run: Pass, site: Site, h: tf.Tensor) -> tf.Tensor:
        """Return h by way of an identity whose gradient is measured.

        TensorFlow keeps a custom gradient for good, with all that it can reach: so what it reaches
        lies in two lists, out of which `close` takes it.
        """
        watching, seen = [self, run, site], []
        self.let_go += [watching, seen]

        @tf.custom_gradient
        def watch(x: tf.Tensor) -> tuple:
            def gradient(grad: tf.Tensor) -> tf.Tensor:
                trace, run, site = watching
                if trace is not None and _place() is trace.place:
                    norm = functools.partial(trace.packer.norm, site, "grad_norm")
                    trace.read((grad,), norm, gradient=True)
                    run.differentiated = True
                return grad

            seen.append(tf.identity(x))
            return seen, gradient

        return watch(h)[0]

    # Parameters ----------------------------------------------------------------------------

    def apply(
        self, optimizer: keras.Optimizer, apply: Callable, grads: object, variables: object
    ) -> object:
        """Measure gradients and weights, let the optimizer apply, and measure the updates."""
        grads = list(grads)
        moved = list(optimizer._trainable_variables if variables is None else variables)
        if _place() is not self.place:
            self.around += measure_around(self, grads, moved)
            return apply(grads, variables)
        if not optimizer.built:  # behind what is measured, XLA could not lift its variables out
            with keras.name_scope(optimizer.name):
                optimizer.build(moved)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            scale = optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale
            self.packer.scalar(self, "gradient_scale", scale)
        before, kept = [], 0
        for k, (grad, variable) in enumerate(zip(grads, moved, strict=True)):
            if id(variable) in self.names:
                state = self.state(variable)
                old = before_update(variable.value, grad)
                norm = functools.partial(self.packer.norm, state, "grad_norm")
                if ends_a_chain(grad):
                    self.read((grad,), norm, gradient=True)
                elif grad is not None:
                    norm(grad)
                self.packer.norm(state, "norm", old)
                before.append((state, variable, old))
            if self.packer.empty or k + 1 == len(grads):
                # Measured gradients are let go of before they are applied: memory is reused.
                with tf.control_dependencies(self.packer.flush()):
                    grads[kept : k + 1] = map(waited_for, grads[kept : k + 1])
                kept = k + 1
        told = ToldUpdates()
        with told.listen(optimizer):
            result = apply(grads, variables)
        for state, variable, old in before:
            update = told.update(variable)
            if update is None:
                self.packer.norm(state, "update", tf.identity(variable.value), old)
            else:
                self.packer.norm(state, "update", update)
        return result

    def state(self, variable: keras.Variable) -> ParameterState:
        """Return the state of a variable of the model, made when first asked for."""
        if id(variable) not in self.states:
            name, layer = self.names[id(variable)]
            # Keras's attention and GRU keep a bias per head or gate in a matrix: a bias it stays.
            rank = min(len(variable.shape), 1 if variable.name in VECTORS else 9)
            self.states[id(variable)] = ParameterState(name, layer, rank, variable.trainable)
        return self.states[id(variable)]

    # Transfer ------------------------------------------------------------------------------

    def pack(self, results: object = ()) -> tf.Tensor:
        """Return every number of the step in one float64 vector; a trace is packed once.

        `results` is what a compiled step returns, in any structure.
        """
        if self.waiting:
            measure_waiting(self.waiting, self.place, results)
        for state, variable, old in self.around:
            self.packer.norm(state, "update", tf.identity(variable.value), old)
        vector = self.packer.pack()
        for variable in frozen_variables(self.model):
            self.state(variable)
        run = self.current if self.current.differentiated or not self.kept.sites else self.kept
        self.sample = Sample(0, run.sites, list(self.states.values()))
        self.units = [site.rows for site in run.sites]
        self.current = self.kept = Pass()
        return vector

    def close(self) -> None:
        """Let go of what the custom gradients reach: from now on they measure nothing."""
        for held in self.let_go:
            held[:] = [None] * len(held)
        self.let_go.clear()

    def unpack(self, step: int, vector: np.ndarray) -> Sample:
        """Return the sample that a packed vector holds; it is filled anew the next time."""
        sample = self.sample
        sample.step = step
        self.packer.unpack(vector)
        for site, units in zip(sample.sites, self.units, strict=True):
            site.size = int(site.size)
            site.rows = site.size // units
        sample.gradient_scale = self.gradient_scale
        sample.unscale()
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
            if isinstance(layer, LAYERS):
                fused = _probed_attention(trace, name, layer)
                override(layer, "_compute_attention", fused, patched)
            if isinstance(layer, keras.layers.RNN):
                override(layer, "inner_loop", _probed_loop(trace, name, layer), patched)
        for optimizer in optimizers:
            override(optimizer, "apply", _probed_apply(trace, optimizer), patched)
        yield trace
    finally:
        restore(patched)
        trace.close()


def _root_call(trace: Trace) -> Callable:
    call = trace.model.call

    # Keras looks at a call's arguments by name (training, mask): the wrapper shows the same.
    @functools.wraps(call)
    @tf.autograph.experimental.do_not_convert
    def root(*args: object, **kwargs: object) -> object:
        trace.begin_pass()
        return call(*args, **kwargs)

    return root


def _probed_call(trace: Trace, name: str, layer: object) -> Callable:
    call = layer.call

    @functools.wraps(call)
    @tf.autograph.experimental.do_not_convert
    def probed(*args: object, **kwargs: object) -> object:
        args = trace.probe_input(name, args)
        output = call(*args, **kwargs)
        if isinstance(layer, keras.layers.Softmax) and is_last(layer.axis, output.shape.rank):
            trace.probe_attention(name, output)
        return trace.probe(name, layer, args, output)

    return probed


def _probed_attention(trace: Trace, name: str, layer: keras.Layer) -> Callable:
    compute = layer._compute_attention

    @functools.wraps(compute)
    @tf.autograph.experimental.do_not_convert
    def probed(query: tf.Tensor, key: tf.Tensor, *args: object, **kwargs: object) -> object:
        result = compute(query, key, *args, **kwargs)
        if result[1] is None:  # else its softmax was a layer, and was seen
            mask, causal = kwargs.get("attention_mask"), kwargs.get("use_causal_mask", False)
            trace.probe_attention(name, attention_weights(layer, query, key, mask, causal))
        return result

    return probed


def _probed_loop(trace: Trace, name: str, layer: keras.layers.RNN) -> Callable:
    loop = layer.inner_loop

    @functools.wraps(loop)
    @tf.autograph.experimental.do_not_convert
    def probed(
        sequences: tf.Tensor, initial_state: object, mask: object, training: bool = False
    ) -> object:
        trace.probe_gates(name, layer, loop, sequences, initial_state)
        return loop(sequences, initial_state, mask, training=training)

    return probed


def _probed_apply(trace: Trace, optimizer: keras.Optimizer) -> Callable:
    apply = optimizer.apply

    @tf.autograph.experimental.do_not_convert
    def probed(grads: object, trainable_variables: object = None) -> object:
        return trace.apply(optimizer, apply, grads, trainable_variables)

    return probed
