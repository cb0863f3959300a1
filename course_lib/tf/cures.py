"""A recipe of `course_lib.cures` in Keras, in float64: the first gradient, and the training."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_type
from course_lib.cures import FLOW_INPUTS, Recipe, check_trial
from course_lib.data import DigitsSplit, draw_batches
from course_lib.specs import MLPWeights, check_weights, draw_weights
from course_lib.tf.models import ACTIVATIONS


class HiddenLayer(keras.layers.Layer):
    r"""$h_l = [h_{l-1} +] f(\mathrm{norm}(W_l h_{l-1} + b_l))$, the sum only with a shortcut.

    Normalization has PyTorch's constants: epsilon 1e-5, and a share of 0.1 for each new batch.
    """

    def __init__(self, n_out: int, recipe: Recipe, *, shortcut: bool) -> None:
        super().__init__(dtype="float64")
        self.dense = keras.layers.Dense(n_out, kernel_initializer="zeros", dtype="float64")
        self.norm = {
            "none": lambda: keras.layers.Identity(dtype="float64"),
            "batch": lambda: keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, dtype="float64"
            ),
            "layer": lambda: keras.layers.LayerNormalization(epsilon=1e-5, dtype="float64"),
        }[recipe.norm]()
        name = recipe.network.activation
        self.activation = keras.activations.get(ACTIVATIONS.get(name, name))
        self.shortcut = shortcut

    def call(self, h: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return $h_l$ for $h_{l-1}$, a batch of rows."""
        f = self.activation(self.norm(self.dense(h), training=training))
        return h + f if self.shortcut else f


def build_recipe(recipe: Recipe, weights: MLPWeights) -> keras.Sequential:
    """Return the network of `recipe` with a copy of `weights`, float64."""
    spec = require_type("recipe", recipe, Recipe).network
    check_weights(spec, weights)
    layers = [
        HiddenLayer(len(matrix), recipe, shortcut=recipe.shortcut and k > 0)
        for k, matrix in enumerate(weights.matrices[:-1])
    ]
    head = keras.layers.Dense(spec.n_out, kernel_initializer="zeros", dtype="float64")
    model = keras.Sequential([keras.Input((spec.n_in,), dtype="float64"), *layers, head])
    denses = [*(layer.dense for layer in layers), head]
    for dense, matrix, bias in zip(denses, weights.matrices, weights.biases, strict=True):
        dense.set_weights([matrix.T, bias])
    return model


def run_recipe(
    recipe: Recipe, data: DigitsSplit, *, seed: int, steps: int = 150, batch_size: int = 32
) -> tuple[float, float]:
    """Return what `course_lib.cures.measure_trial` measures, for one seed: decades and accuracy.

    Arguments:
        recipe: the network and how it is trained. (Keras's decay is beside the gradient, which
            is the same for SGD; with Adam a decay is refused.)
        data: from `course_lib.data.load_digits_split`.
        seed: of the weights and the batches.
        steps: number of updates, at least 0.
        batch_size: digits in each, at least 1, and 2 with batch norm.
    """
    steps, batch_size = check_trial(recipe, data, steps=steps, batch_size=batch_size)
    if recipe.weight_decay and recipe.optimizer == "adam":
        raise ValueError("`recipe` (Adam with weight_decay) must not have both in Keras.")
    weights = draw_weights(recipe.network, seed=seed)
    model, states = build_recipe(recipe, weights), []
    initial = model.get_weights()
    x, y = tf.constant(data.x_train), tf.constant(data.y_train)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    with tf.GradientTape() as tape:
        h = x[:FLOW_INPUTS]
        for layer in model.layers:
            h = layer(h, training=True) if isinstance(layer, HiddenLayer) else layer(h)
            states.append(h)
        loss = cross_entropy(y[:FLOW_INPUTS], h)
    first, last = (np.linalg.norm(g) for g in tape.gradient(loss, [states[0], states[-2]]))
    model.set_weights(initial)  # the running averages have seen the data
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps, seed=seed)
    _train(model, recipe, x, y, cross_entropy, batches)
    outputs = model(tf.constant(data.x_test), training=False).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = float(np.log10(first) - np.log10(last))
    return decades, float(np.mean(outputs.argmax(axis=1) == data.y_test))


def _train(model: keras.Model, recipe: Recipe, x: tf.Tensor, y: tf.Tensor,
           cross_entropy: keras.losses.Loss, batches: object) -> None:  # fmt: skip
    kind = keras.optimizers.Adam if recipe.optimizer == "adam" else keras.optimizers.SGD
    rule = kind(recipe.learning_rate, global_clipnorm=recipe.clip_norm,
                weight_decay=recipe.weight_decay or None)  # fmt: skip
    variables = model.trainable_variables
    if recipe.weight_decay:
        rule.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    rule.build(variables)

    @tf.function
    def update(rows: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            outputs = model(tf.gather(x, rows), training=True)
            loss = cross_entropy(tf.gather(y, rows), outputs)
        rule.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for rows in batches:
        update(tf.constant(rows))
