"""Lecture 3's network and its repairs in Keras: built layer by layer, trained with a tape."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_seed, require_type
from course_lib.data import DigitsSplit, draw_batches
from course_lib.repairs import Repair, RepairRun, check_repair
from course_lib.specs import MLPWeights, check_weights
from course_lib.tf.models import ACTIVATIONS


def build_repair(repair: Repair, weights: MLPWeights, *, seed: int) -> keras.Sequential:
    """Return the network of `repair` with a copy of `weights`, float32.

    Each hidden layer is Dense, then batch norm and dropout if there are any. Keras's `momentum` is
    what stays of the averages: 1 less the repair's share of each new batch. `seed` is dropout's.
    """
    network = require_type("repair", repair, Repair).network
    check_weights(network, weights)
    seed = require_seed(seed)
    model = keras.Sequential([keras.Input((network.n_in,))])
    for k, matrix in enumerate(weights.matrices):
        name = network.activations[k]
        model.add(keras.layers.Dense(len(matrix), ACTIVATIONS.get(name, name),
                                     kernel_initializer="zeros"))  # fmt: skip
        model.layers[-1].set_weights([matrix.T, weights.biases[k]])
        if k < network.depth - 1:
            if repair.batch_norm:
                model.add(keras.layers.BatchNormalization(momentum=1 - repair.batch_share))
            if repair.dropout:
                model.add(keras.layers.Dropout(repair.dropout, seed=seed + k))
    return model


def train_repair(
    repair: Repair, weights: MLPWeights, data: DigitsSplit, *, epochs: int, batch_size: int = 32,
    seed: int,
) -> RepairRun:  # fmt: skip
    """Train one repair from given weights and return its accuracy after every epoch.

    Arguments:
        repair: the network and how it is trained.
        weights: its initial weights.
        data: from `course_lib.data.load_digits_split`.
        epochs: at least 1.
        batch_size: at least 1, and 2 with batch norm.
        seed: of the batches, the same in both frameworks, and of Keras's dropout.
    """
    epochs, batch_size, seed = check_repair(
        repair, weights, data, epochs=epochs, batch_size=batch_size, seed=seed
    )
    model = build_repair(repair, weights, seed=seed)
    x, y = tf.constant(data.x_train, tf.float32), tf.constant(data.y_train)
    x_test = tf.constant(data.x_test, tf.float32)
    kind = keras.optimizers.Adam if repair.optimizer == "adam" else keras.optimizers.SGD
    rule = kind(repair.learning_rate, clipnorm=repair.clip_norm)
    rule.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def update(rows: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(tf.gather(y, rows), model(tf.gather(x, rows), training=True))
        grads = tape.gradient(loss, model.trainable_variables)
        rule.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return loss

    per_epoch = len(x) // batch_size
    batches = draw_batches(len(x), batch_size=batch_size, steps=epochs * per_epoch, seed=seed)
    losses, accuracies = [], []
    for step, rows in enumerate(batches, start=1):
        losses.append(float(update(tf.constant(rows))))
        if step % per_epoch == 0:
            outputs = model(x_test, training=False).numpy()
            accuracies.append(float(np.mean(outputs.argmax(axis=1) == data.y_test)))
    return RepairRun("TensorFlow", len(losses), losses[0], tuple(accuracies))
