"""What TensorFlow's optimizer joins in a compiled step stays joined when the step is watched."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

from course_lib.tf import GradientFlowMonitor  # noqa: E402
from course_lib.tf.joins import Readers, measure_waiting  # noqa: E402

X = np.random.default_rng(0).normal(size=(16, 32)).astype("float32")
Y = np.random.default_rng(1).integers(3, size=16)
layers = keras.layers


def stack(*inside):
    """Return a maker of a network with these layers, given as functions, and a head."""
    return lambda: keras.Sequential([layers.Input((32,)), *(f() for f in inside), layers.Dense(3)])


def activated(kind):
    """Return a maker of a network whose activations are layers of their own."""
    return stack(*[lambda: layers.Dense(32), lambda: layers.Activation(kind)] * 2)


def frozen():
    """Return a head on two layers that are not trained."""
    base = keras.Sequential([layers.Input((32,))])
    for _ in range(2):
        base.add(layers.Dense(16))
        base.add(layers.Activation("gelu"))
    base.trainable = False
    start = layers.Input((32,))
    return keras.Model(start, layers.Dense(3)(layers.Dense(8)(base(start))))


def summed():
    """Return a network with a sum of sums, of normalizations and of a product."""
    start = layers.Input((32,))
    one = layers.Add()([layers.Dense(32)(start), layers.Dense(32)(start)])
    two = layers.Add()([one, layers.BatchNormalization()(layers.Dense(32)(start))])
    gate = layers.Activation("sigmoid")(layers.Dense(1)(start))
    three = layers.Multiply()([layers.Multiply()([layers.Dense(32)(start), gate]), start])
    return keras.Model(start, layers.Dense(3)(layers.Subtract()([two, three])))


def residual():
    """Return a network whose residual sums end in a convolution, or a gate, and a ReLU."""
    start = layers.Input((32,))
    x = layers.UpSampling2D(8)(layers.Reshape((4, 4, 2))(start))
    x = layers.Conv2D(16, 3, padding="same")(x)
    h = layers.Conv2D(16, 3, strides=2, padding="same")(x)
    gate = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(h))
    gate = layers.Dense(16, activation="sigmoid")(gate)
    h = layers.Multiply()([h, layers.Reshape((1, 1, 16))(gate)])
    x = layers.ReLU()(layers.Add()([h, layers.Conv2D(16, 1, strides=2)(x)]))
    return keras.Model(start, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


class Written(keras.Model):
    """Activations, products and sums that are no layers."""

    def __init__(self):
        super().__init__()
        self.inner = [layers.Dense(32, name=f"d{k}") for k in range(3)]
        self.gates = [layers.Dense(32, name=f"g{k}") for k in range(3)]
        self.head = layers.Dense(3)

    def call(self, x):
        for inner, gate in zip(self.inner, self.gates, strict=True):
            x = x + tf.tanh(inner(x)) * tf.sigmoid(gate(x)) + inner(x) * 0.5 * x
        return self.head(x)


def trained(make, how, monitor_of=None):
    """Return the weights after six steps of SGD, in `fit` or in a compiled loop."""
    keras.utils.set_random_seed(0)
    model, rule = make(), keras.optimizers.SGD(0.05, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    monitor = monitor_of and monitor_of(model, rule)
    if how == "fit":
        model.compile(rule, loss)
        model.fit(X, Y, batch_size=16, epochs=6, shuffle=False, verbose=0,
                  callbacks=[monitor] if monitor else [])  # fmt: skip
        return model.get_weights()

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        grads = tape.gradient(value, model.trainable_variables)
        rule.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return value

    step = monitor.function(step) if monitor else tf.function(step)
    for _ in range(6):
        step(tf.constant(X), tf.constant(Y))
    return model.get_weights()


def every_step(model, rule):
    return GradientFlowMonitor(model, optimizer=rule, every=1)


@pytest.mark.parametrize("how", ["fit", "loop"])
@pytest.mark.parametrize("make", [
    stack(*[lambda: layers.Dense(128), layers.BatchNormalization] * 2),
    activated("tanh"), activated("sigmoid"), activated("elu"), frozen, summed, residual, Written,
], ids=["scales", "tanh", "sigmoid", "elu", "frozen", "summed", "residual", "written"])  # fmt: skip
def test_a_compiled_step_rounds_as_without_the_monitor(make, how):
    for a, b in zip(trained(make, how), trained(make, how, every_step), strict=True):
        np.testing.assert_array_equal(a, b)


def first_sample(make, joined):
    keras.backend.clear_session()  # so that layers are named alike
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(True))
    monitor = GradientFlowMonitor(every=1)
    monitor.reads_joined = joined
    model.fit(X, Y, batch_size=16, verbose=0, callbacks=[monitor])
    return monitor.record


def test_what_is_joined_is_measured_in_a_copy_or_not_at_all():
    one, two = (first_sample(summed, joined) for joined in (False, True))
    assert one.layers == two.layers
    assert one.parameters == two.parameters
    scales = dict(zip(one.layers, one.activation_scales[0], strict=True))
    lost = [name for name, scale in scales.items() if np.isnan(scale)]
    assert [name.partition("_")[0] for name in lost] == ["dense"] * 3
    for field in ("activation_scales", "activation_grad_norms", "weight_grad_norms",
                  "update_ratios", "saturated_fractions"):  # fmt: skip
        a, b = getattr(one, field), getattr(two, field)
        kept = ~np.isnan(a) | (field != "activation_scales")
        np.testing.assert_allclose(a[kept], b[kept], rtol=1e-5, atol=1e-7)
    assert np.isfinite(two.activation_scales).all()


def test_a_gradient_that_the_step_does_not_need_is_not_there():
    record = first_sample(frozen, joined=False)
    inside = np.array([layer.startswith("sequential") for layer in record.layers])
    assert inside.sum() == 4
    assert np.isnan(record.activation_grad_norms[0, inside]).all()
    assert np.isfinite(record.activation_grad_norms[0, ~inside]).all()
    known = [k for k, kind in enumerate(record.activations) if kind == "gelu"]
    assert np.isfinite(record.activation_scales[0, known]).all()


def test_a_tensor_with_two_readers_is_read_itself_and_one_with_one_in_a_copy():
    with tf.Graph().as_default() as graph:
        x, y = (tf.compat.v1.placeholder(tf.float32, [4, 3]) for _ in range(2))
        once, twice, given = x * y, x * (y + 1), x * (y + 2)
        out = [once * 2.0, twice * 2.0, twice * 3.0, given * 2.0, given]
        dead = tf.tanh(once)
        readers = Readers(graph, out)
        assert readers.readable(twice, False) is twice
        assert readers.readable(given, False) is given
        assert readers.readable(tf.identity(dead), True) is None
        copy = readers.readable(once, False)
        assert copy is not once
        assert copy.op.type == "Mul"
        assert list(copy.op.inputs) == [x, y]
        seen, waiting = [], [((once, None), lambda *t: seen.append(t), False)]
        measure_waiting(waiting, graph, out)
    assert waiting == []
    assert seen[0][1] is None
    assert seen[0][0].op.node_def.attr["_gradient_flow"].b
