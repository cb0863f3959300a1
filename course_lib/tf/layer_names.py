"""What a Keras model is made of: its layers and variables with names that say where they are."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

from course_lib.monitoring import ACTIVATION_KINDS

PASSING = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape,
           keras.layers.Permute, keras.layers.RepeatVector, keras.layers.Dropout,
           keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D,
           keras.layers.SpatialDropout3D, keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D,
           keras.layers.ZeroPadding3D, keras.layers.Cropping1D, keras.layers.Cropping2D,
           keras.layers.Cropping3D)  # fmt: skip
"""Layers whose output says nothing that their input does not."""

OPERATIONS = {
    "Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Elu": "elu",
    "Selu": "selu", "Softplus": "softplus", "Sigmoid": "sigmoid", "Tanh": "tanh",
}  # fmt: skip
"""How a graph names what a call such as `tf.nn.relu` left behind."""

SEEN_THROUGH = {
    "Softmax": lambda z: tf.raw_ops.Softmax(logits=z),
    "Sigmoid": lambda z: tf.raw_ops.Sigmoid(x=z),
}
"""Operations that Keras's losses look for at the end of a graph, to take the logits instead."""

SPELLINGS = {
    "hard_silu": "hardswish", "hard_swish": "hardswish", "swish": "silu",
    "hard_sigmoid": "hardsigmoid", "hard_tanh": "hardtanh", "leakyrelu": "leaky_relu",
    "softmax": None,
}  # fmt: skip
"""What Keras writes otherwise than `ACTIVATION_KINDS`; a softmax at the end is no attention."""

CLASSES = {
    keras.layers.LeakyReLU: "leaky_relu", keras.layers.PReLU: "leaky_relu",
    keras.layers.ELU: "elu",
}  # fmt: skip


def named_layers(layer: keras.Layer, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every layer below `layer` with its path; what is inside an RNN layer stays inside.

    Operations of a functional model that are no layers, such as `keras.ops.relu(h)`, are yielded
    where they are activations.
    """
    for child in layer._layers:
        name = f"{prefix}{child.name}"
        yield name, child
        if not isinstance(child, keras.layers.RNN):
            yield from named_layers(child, f"{name}/")
    for operation in getattr(layer, "_operations", ()):
        if not isinstance(operation, keras.Layer) and activation_kind(operation):
            yield f"{prefix}{operation.name}", operation


def activation_kind(layer: object) -> str | None:
    """Return which of `ACTIVATION_KINDS` ends the layer or operation, or None."""
    if isinstance(layer, keras.layers.RNN):
        return None
    if not isinstance(layer, keras.Layer):
        name = type(layer).__name__
        return _known(OPERATIONS.get(name, name.lower()))
    if isinstance(layer, keras.layers.ReLU):
        plain = not layer.negative_slope and not layer.threshold
        known = {None: "relu", 6: "relu6"}
        return known.get(layer.max_value) if plain else None
    for kind, name in CLASSES.items():
        if isinstance(layer, kind):
            return name
    if layer._layers:  # what it was given as `activation` ends one of the layers inside it
        return None
    return _known(getattr(getattr(layer, "activation", None), "__name__", None))


def _known(name: str | None) -> str | None:
    name = SPELLINGS.get(name, name)
    return name if name in ACTIVATION_KINDS else None


def functional_activation(h: object) -> str | None:
    """Return which activation a tensor of a graph came from, where it was no layer; else None."""
    if tf.is_symbolic_tensor(h):
        return OPERATIONS.get(h.op.type)
    return None


def is_container(layer: object) -> bool:
    """Return whether a layer only passes on what the layers inside it gave."""
    if not isinstance(layer, keras.Layer) or isinstance(layer, keras.layers.RNN):
        return False
    return bool(layer._layers) and not layer._trainable_variables


def unit_axis(layer: object, h: tf.Tensor) -> int:
    """Return the axis of the units: the last one, but for layers told that it is the first."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if first and h.shape.rank > 2 else h.shape.rank - 1


def frozen_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that a layer would train, were it not told not to."""
    layers = model._flatten_layers()
    return [v for layer in layers for v in layer._trainable_variables if not v.trainable]


def named_variables(model: keras.Model) -> dict[int, tuple[str, str]]:
    """Return, by id, the name of every variable and of the layer that a finding should name.

    Variables inside an RNN layer carry the name of their cell, and count as the RNN layer's.
    """
    found: dict[int, tuple[str, str]] = {}
    taken: dict[str, int] = {}

    def walk(layer: keras.Layer, prefix: str, shown: str | None) -> None:
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            if id(variable) not in found:
                name = f"{prefix}{variable.name}"
                taken[name] = count = taken.get(name, 0) + 1
                name = name if count == 1 else f"{name}#{count}"
                found[id(variable)] = (name, shown or prefix.rstrip("/") or model.name)
        for child in layer._layers:
            path = f"{prefix}{child.name}"
            inside = shown or (path if isinstance(child, keras.layers.RNN) else None)
            walk(child, f"{path}/", inside)

    walk(model, "", None)
    for variable in model.weights:  # what a layer keeps where Keras alone finds it
        owner, _, _ = variable.path.rpartition("/")
        found.setdefault(id(variable), (variable.path, owner or model.name))
    return found
