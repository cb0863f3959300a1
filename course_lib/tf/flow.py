"""What flows backwards, in TensorFlow: one `tf.GradientTape` around the layers."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_array
from course_lib.results import GradientFlow, LayerJacobians
from course_lib.tf.models import batch_tensors, compute_loss, dtype_name, read_layers


def gradient_flow(
    model: keras.Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_squared_error",
) -> GradientFlow:
    """Return every gradient of one backward pass; the model is left as it was found.

    Arguments:
        model: a `keras.Sequential` of Dense layers and activations; see `course_lib.tf`.
        x: inputs, shape (n, n_0).
        y: the loss's targets; see `course_lib.losses`.
        loss: "mean_squared_error", "cross_entropy" or "mean_output".

    A layer without bias has an empty entry in `bias_grads`.
    """
    layers = read_layers(model)
    x, y = batch_tensors(layers, x, y, loss=loss)
    kernels = [layer.dense.kernel.value for layer in layers]
    biases = [layer.dense.bias.value if layer.dense.use_bias else None for layer in layers]
    activations = []
    with tf.GradientTape() as tape:
        tape.watch([v for v in (*kernels, *biases) if v is not None])  # frozen layers as well
        h = x
        for layer in layers:
            h = layer(h)
            tape.watch(h)  # the activations, too, are to be differentiated by
            activations.append(h)
        value = compute_loss(h, y, loss=loss)
    sources = {
        "weights": kernels,
        "biases": [b for b in biases if b is not None],
        "activations": activations,
    }
    grads = tape.gradient(value, sources)
    bias_grads = iter(grads["biases"])
    return GradientFlow(
        framework="TensorFlow",
        dtype=dtype_name(layers),
        loss=float(value),
        weight_grads=tuple(grad.numpy().T for grad in grads["weights"]),
        bias_grads=tuple(
            np.zeros(0) if bias is None else next(bias_grads).numpy() for bias in biases
        ),
        activation_grads=tuple(grad.numpy() for grad in grads["activations"]),
        activations=tuple(h.numpy() for h in activations),
    )


def layer_jacobians(model: keras.Sequential, x: np.ndarray) -> LayerJacobians:
    r"""Return $J_l = \partial h_l/\partial h_{l-1}$ for l = 1..L at one input x of shape (n_0,).

    Row i of a Jacobian is what one backward pass makes of the i-th unit vector, so n_l copies of
    the input and the n_l unit vectors as `output_gradients` give all rows at once. (The ready-made
    `tape.jacobian` gives the same; it compiles a new function for every call and warns about it.)

    Arguments:
        model: a `keras.Sequential` of Dense layers and activations.
        x: one input, shape (n_0,).
    """
    layers = read_layers(model)
    x = require_array("x", x, shape=(layers[0].n_in,))
    h = tf.constant(x[None, :], dtype=dtype_name(layers))
    jacobians = []
    for layer in layers:
        with tf.GradientTape() as tape:
            inputs = tf.repeat(h, layer.n_out, axis=0)
            tape.watch(inputs)
            outputs = layer(inputs)
        unit_vectors = tf.eye(layer.n_out, dtype=h.dtype)
        jacobians.append(tape.gradient(outputs, inputs, output_gradients=unit_vectors).numpy())
        h = outputs[:1]
    return LayerJacobians(
        framework="TensorFlow", dtype=dtype_name(layers), jacobians=tuple(jacobians)
    )
