"""`diagnose_model` in TensorFlow: right finding, right place, and the model as it was."""

import random

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 8)).astype("float32"), RNG.integers(3, size=32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Block(layers.Layer):
    """A residual block whose activation is a call, not a layer."""

    def __init__(self):
        super().__init__()
        self.norm, self.inner, self.outer = (
            layers.BatchNormalization(), layers.Dense(8, name="inner"), layers.Dense(8)
        )  # fmt: skip

    def call(self, x, training=None):
        return x + self.outer(tf.nn.relu(self.inner(self.norm(x, training=training))))


def blocks():
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        layers.Input((8,)), layers.Dropout(0.1), Block(), Block(), Block(), layers.Dense(3),
    ])  # fmt: skip


def perceptron(depth=6):
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(16, "relu", kernel_initializer="he_normal", name=f"h{k}")
              for k in range(depth)]  # fmt: skip
    return keras.Sequential([layers.Input((8,)), *hidden, layers.Dense(3, name="out")])


def found(report):
    return {(f.code, f.where) for f in report.findings if f.severity != "info"}


def test_a_healthy_model_raises_no_alarm_and_everything_is_as_it_was():
    model = blocks()
    model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    model.fit(X, Y, epochs=1, verbose=0)
    kept = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    losses = model._compile_loss
    report = diagnose_model(model, X, Y, steps=3)
    assert found(report) == set()
    assert "Trained Sequential (" in report.subjects[0]
    assert "3 steps with Adam at learning rate 0.001" in report.subjects[0]
    assert len(report.results[0]) == 3
    assert any(name.endswith("(relu)") for name in report.results[0].layers)
    for variable, old in zip((*model.variables, *model.optimizer.variables), kept, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old, err_msg=variable.path)
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert model._compile_loss is losses
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_it_says_the_same_twice_and_the_seed_is_an_argument():
    model = blocks()
    one, two, other = (
        diagnose_model(model, X, Y, loss=LOSS, steps=1, seed=s).results[0].activation_scales
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)  # dropout


def test_the_copy_of_an_optimizer_goes_on_from_its_state():
    model = perceptron(2)
    rule = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(rule, LOSS)
    model.fit(X, Y, epochs=2, batch_size=32, verbose=0)
    record = diagnose_model(model, X, Y, optimizer=rule, steps=1).results[0]
    before = [w.numpy() for w in model.trainable_variables]
    model.fit(X, Y, epochs=1, batch_size=32, verbose=0, shuffle=False)
    for k, (variable, old) in enumerate(zip(model.trainable_variables, before, strict=True)):
        if len(variable.shape) == 2:
            ratio = np.linalg.norm(variable.numpy() - old) / np.linalg.norm(old)
            assert record.update_ratios[0, k] == pytest.approx(ratio, rel=1e-3)  # float32


@pytest.mark.parametrize("form", ["dataset", "list", "generator"])
def test_batches_come_in_many_forms(form):
    pairs = [(X[:16], Y[:16]), (X[16:], Y[16:])]
    given = {"dataset": tf.data.Dataset.from_tensor_slices((X, Y)).batch(16), "list": pairs,
             "generator": (pair for pair in pairs)}[form]  # fmt: skip
    report = diagnose_model(perceptron(2), given, loss=LOSS, steps=3)
    assert len(report.results[0]) == 3


def test_losses_come_in_many_forms():
    model = perceptron(2)
    target = np.zeros((32, 3), "float32")
    scales = [
        diagnose_model(model, X, target, loss=loss, steps=1).results[0].global_norms[0]
        for loss in ("mse", keras.losses.MeanSquaredError(),
                     lambda output, targets: tf.reduce_mean(tf.square(output - targets)))
    ]  # fmt: skip
    np.testing.assert_allclose(scales, scales[0], rtol=1e-5)
    alone = diagnose_model(model, X, loss=lambda h: tf.reduce_mean(tf.square(h)), steps=1)
    assert alone.results[0].global_norms[0] == pytest.approx(scales[0], rel=1e-5)


def test_several_inputs_and_a_model_without_weights_yet():
    a, b = keras.Input((8,)), keras.Input((8,))
    model = keras.Model([a, b], layers.Dense(3)(layers.Add()([a, b])))
    assert found(diagnose_model(model, (X, X), Y, loss=LOSS, steps=2)) == set()
    fresh = keras.Sequential([layers.Dense(3)])
    diagnose_model(fresh, X, Y, loss=LOSS, steps=1)
    assert not fresh.built


def test_dead_units_a_nan_and_a_cut_are_named_where_they_are():
    model = perceptron()
    model.get_layer("h3").bias.assign(np.full(16, -100.0))
    assert ("dead_units", "h3") in found(diagnose_model(model, X, Y, loss=LOSS, steps=3))
    model = perceptron()
    kernel = model.get_layer("h2").kernel
    kernel.assign(tf.tensor_scatter_nd_update(kernel.value, [[0, 0]], [np.nan]))
    report = diagnose_model(model, X, Y, loss=LOSS)
    assert report.findings[0].where == "h2, step 0"
    assert "stopped there" in report.subjects[0]
    report = diagnose_model(perceptron(), X, Y, steps=2,
                            loss=lambda h, y: tf.stop_gradient(LOSS(y, h)))  # fmt: skip
    assert report.problems[0].code == "no_gradient"
    assert np.isnan(report.results[0].weight_grad_norms).all()


class Feed(layers.Layer):
    """A block that keeps its activation's name as Keras's layers do, and does not end with it."""

    def __init__(self):
        super().__init__()
        self.activation = keras.activations.relu
        self.inner, self.outer = layers.Dense(32, self.activation), layers.Dense(8)

    def call(self, x):
        return self.outer(self.inner(x))


def test_an_activation_inside_a_block_is_not_taken_for_its_end():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((8,)), Feed(), layers.Dense(3)])
    record = diagnose_model(model, X, Y, loss=LOSS, steps=1).results[0]
    assert record.kinds == ("Dense", "Dense", "Dense")  # the block's end is its last layer's
    assert record.activations == ("relu", None, None)
    model.layers[0].outer.bias.assign(np.full(8, -50.0))  # off, were it a ReLU
    assert "dead_units" not in {c for c, _ in found(diagnose_model(model, X, Y, loss=LOSS))}


def test_steps_that_only_accumulate_do_not_hide_a_large_update():
    def report(rate):
        rule = keras.optimizers.Adam(rate, gradient_accumulation_steps=3)
        return diagnose_model(perceptron(2), X, Y, loss=LOSS, optimizer=rule, steps=6)

    quiet, large = report(1e-3), report(0.3)
    moved = (quiet.results[0].update_ratios > 0).any(axis=1)
    assert moved.tolist() == [False, False, True] * 2
    assert found(quiet) == set()
    assert "large_update" in {code for code, _ in found(large)}


def test_a_learning_rate_takes_the_place_of_a_schedule_and_the_first_one_is_told():
    schedule = keras.optimizers.schedules.InverseTimeDecay(1e-2, 1, 1.0)
    rule = keras.optimizers.Adam(schedule)
    report = diagnose_model(perceptron(1), X, Y, loss=LOSS, optimizer=rule, steps=3)
    assert "Adam at learning rate 0.01:" in report.subjects[0]
    given = {}
    for name, own in (("schedule", rule), ("number", keras.optimizers.Adam(1.0))):
        given[name] = diagnose_model(
            perceptron(1), X, Y, loss=LOSS, optimizer=own, learning_rate=1e-3, steps=3
        )
        assert "Adam at learning rate 0.001:" in given[name].subjects[0]
    np.testing.assert_array_equal(given["schedule"].results[0].update_ratios,
                                  given["number"].results[0].update_ratios)  # fmt: skip
    assert rule.learning_rate == schedule(0)


@pytest.mark.parametrize("dropout", [0.0, 0.1])  # fused, and with a softmax layer of its own
def test_attention_that_has_settled_is_named(dropout):
    def encoder(times):
        keras.utils.set_random_seed(0)
        x = h = keras.Input((6, 8))
        for k in range(2):
            n = layers.LayerNormalization()(h)
            h = layers.Add()([h, layers.MultiHeadAttention(
                2, 4, dropout=dropout, name=f"attention{k}")(n, n)])  # fmt: skip
        model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(h)))
        query = model.get_layer("attention1")._query_dense.kernel
        query.assign(times * query)
        x = RNG.normal(size=(32, 6, 8)).astype("float32")
        return diagnose_model(model, x, Y, loss=LOSS, steps=2)

    assert found(encoder(1)) == set()
    places = [where for code, where in found(encoder(1000)) if code == "saturated_attention"]
    assert len(places) == 1
    assert places[0].startswith("attention1")


def test_the_states_of_a_stateful_layer_are_as_they_were():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 3), batch_size=8), layers.LSTM(4, stateful=True),
                              layers.Dense(3)])  # fmt: skip
    x = RNG.normal(size=(8, 5, 3)).astype("float32")
    model(x)
    kept = [state.numpy() for state in model.layers[0].states]
    assert all(state.any() for state in kept)
    diagnose_model(model, x, Y[:8], loss=LOSS, steps=2)
    for state, old in zip(model.layers[0].states, kept, strict=True):
        np.testing.assert_array_equal(state.numpy(), old)


def test_a_forget_gate_that_is_shut_is_named():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((20, 3)), layers.LSTM(8, name="memory"),
                              layers.Dense(3)])  # fmt: skip
    x = RNG.normal(size=(32, 20, 3)).astype("float32")
    assert found(diagnose_model(model, x, Y, loss=LOSS, steps=2)) == set()
    bias = model.get_layer("memory").cell.bias
    bias.assign(np.where(np.arange(32) // 8 == 1, -10.0, bias.numpy()))
    places = {where for code, where in found(diagnose_model(model, x, Y, loss=LOSS, steps=2))
              if code == "vanishing_over_time"}  # fmt: skip
    assert places
    assert all(place.startswith("memory") for place in places)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(model="m"), TypeError, "`model`"),
        (dict(inputs=3), TypeError, "`inputs`"),
        (dict(inputs=[], targets=None), ValueError, "`inputs` \\(no batch\\)"),
        (dict(inputs=X[:0], targets=Y[:0]), ValueError, "`inputs` \\(an empty batch\\)"),
        (dict(inputs=[(X, Y, Y)], targets=None), ValueError, "`inputs` \\(batches of 3"),
        (dict(loss=None), ValueError, "`loss` \\(=None\\)"),
        (dict(loss=3), TypeError, "`loss` \\(=3\\)"),
        (dict(loss="nonsense"), ValueError, "`loss` \\(='nonsense'\\)"),
        (dict(loss=lambda h, y: h), ValueError, "`loss` \\(which returned \\(32, 3\\)\\)"),
        (dict(optimizer="sgd"), TypeError, "`optimizer` \\(='sgd'\\)"),
        (dict(learning_rate=0), ValueError, "`learning_rate` \\(=0"),
        (dict(steps=0), ValueError, "`steps` \\(=0\\)"),
        (dict(every=0), ValueError, "`every` \\(=0\\)"),
        (dict(share=2), ValueError, "`share` \\(=2"),
    ],
)
def test_bad_arguments_are_named_and_the_model_is_as_it_was(arguments, error, words):
    model = perceptron(1)
    kept = model.get_weights()
    given = {"model": model, "inputs": X, "targets": Y, "loss": LOSS, **arguments}
    with pytest.raises(error, match=words):
        diagnose_model(given.pop("model"), given.pop("inputs"), given.pop("targets"), **given)
    for new, old in zip(model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(new, old)
