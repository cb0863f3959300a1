"""What Keras's losses find behind an output is the same with the monitor and without it.

A loss of Keras's takes the logits in place of a softmax or a sigmoid where it can tell that the
output is one: by a mark that `keras.activations` leaves, or, in a graph, by the operation.
"""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

from course_lib.tf import GradientFlowMonitor  # noqa: E402

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.eye(3, dtype="float32")[np.random.default_rng(1).integers(3, size=8)]
WIDE = keras.initializers.RandomNormal(stddev=3.0)

ENDS = {
    "tf.nn.softmax": tf.nn.softmax,
    "tf.nn.sigmoid": tf.nn.sigmoid,
    "keras.ops.softmax": keras.ops.softmax,
    "keras.activations.softmax": keras.activations.softmax,
}
LOSSES = {
    "binary": keras.losses.BinaryCrossentropy,
    "categorical": keras.losses.CategoricalCrossentropy,
}


class Ending(keras.layers.Layer):
    """A reader's own layer: a matrix, and a function that ends it."""

    def __init__(self, end, inside):
        super().__init__()
        self.end, self.inside = end, inside
        self.kernel = self.add_weight(shape=(8, 3), initializer=WIDE)

    def call(self, x):
        z = tf.linalg.matmul(x, self.kernel)
        return self.end(z) if self.inside else z


class Own(keras.Model):
    """Ends in a layer that holds the function, or applies it itself."""

    def __init__(self, end, inside):
        super().__init__()
        self.first, self.last = keras.layers.Dense(8, "relu"), Ending(end, inside)

    def call(self, x):
        y = self.last(self.first(x))
        return y if self.last.inside else self.last.end(y)


def train(model, loss, how, monitored):
    optimizer = keras.optimizers.SGD(0.1)
    monitor = GradientFlowMonitor(model, optimizer=optimizer, every=1)
    if how == "fit":
        model.compile(optimizer, loss)
        history = model.fit(X, Y, epochs=3, batch_size=8, shuffle=False, verbose=0,
                            callbacks=[monitor] if monitored else [])  # fmt: skip
        return history.history["loss"], model.get_weights()

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        grads = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return value

    step = monitor.function(step) if monitored else tf.function(step)
    losses = [float(step(tf.constant(X), tf.constant(Y))) for _ in range(3)]
    if monitored:
        assert np.isfinite(monitor.record.activation_grad_norms[:, -1]).all()
    return losses, model.get_weights()


@pytest.mark.parametrize(
    ("how", "inside", "end"),
    [*(("loop", True, end) for end in ENDS), ("loop", False, "tf.nn.softmax"),
     ("fit", True, "tf.nn.softmax"), ("fit", True, "tf.nn.sigmoid")],
)  # fmt: skip
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_finds_what_it_finds_without_the_monitor(end, loss, inside, how):
    results = []
    for monitored in (False, True):
        keras.utils.set_random_seed(0)
        model = Own(ENDS[end], inside)
        model(X)
        results.append(train(model, LOSSES[loss](), how, monitored))
    (plain, weights), (watched, watched_weights) = results
    # A second trace may be joined otherwise by TensorFlow's optimizer, and rounds otherwise.
    np.testing.assert_allclose(watched, plain, rtol=1e-5)
    for a, b in zip(weights, watched_weights, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
