"""Batch and layer normalization by hand: central differences, both frameworks, both modes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.reference import (
    BatchNorm,
    ConvBlock,
    LayerNorm,
    central_difference,
    convolve,
    convolve_backward,
    norm_backward,
)

# Central differences with step 1e-5 are good to about 1e-10 for values of order 1.
DIFFERENCES = 1e-6
# Both frameworks compute the same few operations in float64; the bar of the course.
FRAMEWORK = 1e-10


def assert_close(found, expected, tolerance, what):
    scale = max(np.linalg.norm(expected), 1e-3)  # some gradients are zero but for rounding
    assert found.shape == expected.shape, what
    error = np.linalg.norm(found - expected)
    assert error <= tolerance * scale, f"{what}: {error:.2e} apart, norm {scale:.2e}"


def filled(norm, seed=5):
    """Give a normalization parameters and running averages that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    norm.gamma = rng.uniform(0.5, 2.0, norm.units)
    norm.beta = rng.normal(size=norm.units)
    if isinstance(norm, BatchNorm):
        norm.running_mean = rng.normal(size=norm.units)
        norm.running_var = rng.uniform(0.5, 2.0, norm.units)
    return norm


SHAPES = {"vectors": (6, 4), "images": (3, 4, 2, 3)}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["batch vectors", "batch images", "layer", "layer of one input"])
def test_backward_is_the_central_difference(kind, training):
    rng = np.random.default_rng(0)
    shape = {"layer": (6, 4), "layer of one input": (1, 4)}.get(kind) or SHAPES[kind.split()[1]]
    x, weight = rng.normal(1.0, 2.0, shape), rng.normal(size=shape)
    norm = filled(LayerNorm(4) if "layer" in kind else BatchNorm(4))
    gamma, beta = norm.gamma, norm.beta

    def loss(x=x, gamma=gamma, beta=beta):
        norm.gamma, norm.beta = gamma, beta
        kept = vars(norm).copy()
        value = np.sum(weight * norm.forward(x, training=training).output)
        vars(norm).update(kept)
        return value

    passed = norm.forward(x, training=training) if "layer" in kind else None
    if passed is None:
        kept = vars(norm).copy()
        passed = norm.forward(x, training=training)
        vars(norm).update(kept)
    by_hand = norm_backward(passed, weight)
    for name, found in zip(("x", "gamma", "beta"), by_hand, strict=True):
        start = {"x": x, "gamma": gamma, "beta": beta}[name]
        numeric = central_difference(lambda value, name=name: loss(**{name: value}), start)
        assert_close(found, numeric, DIFFERENCES, f"{kind}, gradient of {name}")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_batch_norm_is_pytorchs(shape, training):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, weight = rng.normal(3.0, 2.0, shape), rng.normal(size=shape)
    ours = filled(BatchNorm(4))
    module = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(4).double()
    with torch.no_grad():
        for name in ("running_mean", "running_var"):
            getattr(module, name).copy_(torch.tensor(getattr(ours, name)))
        module.weight.copy_(torch.tensor(ours.gamma))
        module.bias.copy_(torch.tensor(ours.beta))
    inputs = torch.tensor(x, requires_grad=True)
    outputs = module.train(training)(inputs)
    (outputs * torch.tensor(weight)).sum().backward()
    passed = ours.forward(x, training=training)
    grads = norm_backward(passed, weight)
    assert_close(outputs.detach().numpy(), passed.output, FRAMEWORK, "output")
    for theirs, found in zip((inputs, module.weight, module.bias), grads, strict=True):
        assert_close(found, theirs.grad.numpy(), FRAMEWORK, "gradient")
    for name in ("running_mean", "running_var"):
        assert_close(getattr(ours, name), getattr(module, name).numpy(), FRAMEWORK, name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [6, 1])
@pytest.mark.parametrize("images", [False, True])
def test_batch_norm_is_kerass(images, count, training):
    pytest.importorskip("course_lib.tf", exc_type=ImportError)
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(2)
    shape = (count, 4, 2, 3) if images else (count, 4)
    x, weight = rng.normal(3.0, 2.0, shape), rng.normal(size=shape)
    ours = filled(BatchNorm(4, epsilon=1e-3, new_share=0.01, unbiased_running=False))
    axis = 1 if images else -1
    layer = keras.layers.BatchNormalization(axis=axis, dtype="float64")  # Keras's own defaults
    layer.build(shape)
    layer.set_weights([ours.gamma, ours.beta, ours.running_mean, ours.running_var])
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(outputs * weight)
    theirs = tape.gradient(loss, [inputs, layer.gamma, layer.beta])
    passed = ours.forward(x, training=training)
    assert_close(outputs.numpy(), passed.output, FRAMEWORK, "output")
    for a, b in zip(norm_backward(passed, weight), theirs, strict=True):
        assert_close(a, b.numpy(), FRAMEWORK, "gradient")
    assert_close(ours.running_mean, layer.moving_mean.numpy(), FRAMEWORK, "running mean")
    assert_close(ours.running_var, layer.moving_variance.numpy(), FRAMEWORK, "running variance")


@pytest.mark.parametrize("count", [6, 1])
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_layer_norm_is_the_frameworks(framework, count):
    rng = np.random.default_rng(3)
    x, weight = rng.normal(3.0, 2.0, (count, 5)), rng.normal(size=(count, 5))
    x[0] = 2.0  # a constant row has variance 0: only epsilon is left
    ours = filled(LayerNorm(5, epsilon=1e-5 if framework == "torch" else 1e-3))
    if framework == "torch":
        torch = pytest.importorskip("torch")
        module = torch.nn.LayerNorm(5).double()
        with torch.no_grad():
            module.weight.copy_(torch.tensor(ours.gamma))
            module.bias.copy_(torch.tensor(ours.beta))
        inputs = torch.tensor(x, requires_grad=True)
        outputs = module(inputs)
        (outputs * torch.tensor(weight)).sum().backward()
        theirs = [t.grad.numpy() for t in (inputs, module.weight, module.bias)]
        outputs = outputs.detach()
    else:
        pytest.importorskip("course_lib.tf", exc_type=ImportError)
        import keras
        import tensorflow as tf

        layer = keras.layers.LayerNormalization(dtype="float64")
        layer.build(x.shape)
        layer.set_weights([ours.gamma, ours.beta])
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            loss = tf.reduce_sum(outputs * weight)
        theirs = [g.numpy() for g in tape.gradient(loss, [inputs, layer.gamma, layer.beta])]
    passed = ours.forward(x)
    # 1/sqrt(1e-5) = 316 multiplies rounding in the constant row.
    assert_close(passed.output, outputs.numpy(), FRAMEWORK, "output")
    for a, b in zip(norm_backward(passed, weight), theirs, strict=True):
        assert_close(a, b, FRAMEWORK, "gradient")


def test_a_constant_unit_is_set_to_beta_and_its_gradient_is_finite():
    x = np.random.default_rng(4).normal(size=(5, 3))
    x[:, 1] = 7.0
    norm = filled(BatchNorm(3))
    passed = norm.forward(x, training=True)
    np.testing.assert_allclose(passed.output[:, 1], norm.beta[1], rtol=1e-14)
    grad = norm_backward(passed, np.eye(5)[:, :3])[0]
    assert np.all(np.isfinite(grad))
    # The centered output gradient times gamma / sqrt(epsilon): normalized values are all zero.
    expected = norm.gamma[1] / np.sqrt(1e-5) * (np.eye(5)[:, 1] - 0.2)
    np.testing.assert_allclose(grad[:, 1], expected, rtol=1e-12)


def test_a_single_input_has_no_unbiased_variance():
    x = np.ones((1, 3))
    with pytest.raises(ValueError, match=r"`x` \(with 1 entry per unit\) must have at least 2"):
        BatchNorm(3).forward(x, training=True)
    keras_like = BatchNorm(3, unbiased_running=False)
    assert np.all(keras_like.forward(x, training=True).output == 0.0)
    assert np.all(np.isfinite(BatchNorm(3).forward(x, training=False).output))


@given(
    seed=st.integers(0, 10_000),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(1e-2, 1e3),
    kind=st.sampled_from(["batch", "layer"]),
)
@settings(deadline=None, max_examples=60)
def test_the_gradient_is_orthogonal_to_shift_and_scale(seed, shift, scale, kind):
    """Adding a constant and multiplying change nothing, so the loss has no slope there."""
    rng = np.random.default_rng(seed)
    x, weight = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    axis = 0 if kind == "batch" else 1
    norm = (BatchNorm if kind == "batch" else LayerNorm)(5, epsilon=0.0)
    passed = norm.forward(x, training=True)
    moved = norm.forward(scale * x + shift, training=True)
    # Cancellation of up to 1e3 / 1e-2 digits when the shift is large beside the scale.
    np.testing.assert_allclose(moved.output, passed.output, atol=1e-9)
    grad = norm_backward(passed, weight)[0]
    size = np.linalg.norm(grad) * np.linalg.norm(x) + 1e-12
    assert np.all(np.abs(grad.sum(axis=axis)) <= 1e-12 * size)
    assert np.all(np.abs((grad * x).sum(axis=axis)) <= 1e-12 * size)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_the_order_of_the_batch_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    x, order = rng.normal(size=(7, 3)), rng.permutation(7)
    for norm in (BatchNorm(3), LayerNorm(3)):
        straight = norm.forward(x, training=True).output
        np.testing.assert_allclose(
            norm.forward(x[order], training=True).output, straight[order], rtol=0, atol=1e-12
        )


def test_running_averages_converge_to_the_data_and_evaluation_uses_them():
    rng = np.random.default_rng(6)
    data = rng.normal(3.0, 2.0, size=(4000, 2))
    norm = BatchNorm(2)
    for start in range(0, 4000, 40):
        norm.forward(data[start : start + 40], training=True)
    # 100 batches; the average remembers about 20 of them, 800 entries: mean to 2 / sqrt(800).
    np.testing.assert_allclose(norm.running_mean, 3.0, atol=0.3)
    np.testing.assert_allclose(norm.running_var, 4.0, atol=0.6)
    single = norm.forward(data[:1], training=False).output
    expected = (data[:1] - norm.running_mean) / np.sqrt(norm.running_var + 1e-5)
    np.testing.assert_allclose(single, expected, rtol=1e-14)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_convolution_and_its_gradients_are_pytorchs(size):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    x, kernel = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, size, size))
    weight = rng.normal(size=(2, 2, 4, 5))
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, kernel)]
    outputs = torch.nn.functional.conv2d(*tensors, padding=size // 2)
    (outputs * torch.tensor(weight)).sum().backward()
    assert_close(convolve(x, kernel), outputs.detach().numpy(), FRAMEWORK, "output")
    for found, tensor in zip(convolve_backward(x, kernel, weight), tensors, strict=True):
        assert_close(found, tensor.grad.numpy(), FRAMEWORK, "gradient")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shortcut", [True, False])
def test_the_convolutional_block_against_central_differences(shortcut, training):
    rng = np.random.default_rng(8)
    kernels = [rng.normal(size=(2, 2, 3, 3)) for _ in range(2)]
    x, weight = rng.normal(size=(3, 2, 3, 4)), rng.normal(size=(3, 2, 3, 4))

    def block_of(first, second):
        block = ConvBlock([first, second], shortcut=shortcut)
        for k, norm in enumerate(block.norms):
            filled(norm, seed=k)
        return block

    def loss(x=x, first=kernels[0], second=kernels[1]):
        return np.sum(weight * block_of(first, second).forward(x, training=training).output)

    block = block_of(*kernels)
    x_grad, grads = block.backward(block.forward(x, training=training), weight)
    assert_close(x_grad, central_difference(lambda v: loss(x=v), x), DIFFERENCES, "x")
    for k, name in enumerate(("first", "second")):
        numeric = central_difference(lambda v, name=name: loss(**{name: v}), kernels[k])
        assert_close(grads[f"kernels.{k}"], numeric, DIFFERENCES, name)


BAD = [
    (lambda: BatchNorm(0), ValueError, "`units` (=0) must be an integer >= 1."),
    (lambda: BatchNorm(3, epsilon=-1.0), ValueError, "`epsilon` (=-1.0) must be >= 0.0."),
    (lambda: BatchNorm(3, new_share=1.5), ValueError, "`new_share` (=1.5) must be <= 1.0."),
    (lambda: BatchNorm(3, unbiased_running=1), TypeError, "`unbiased_running` (=1)"),
    (lambda: LayerNorm("3"), TypeError, "`units` (='3') must be an integer >= 1."),
    (lambda: BatchNorm(3).forward(np.ones((2, 4)), training=True), ValueError,
     "`x` (shape (2, 4)) must have 3 entries along axis 1."),
    (lambda: LayerNorm(3).forward(np.ones(3)), ValueError, "`x` (shape (3,)) must have 3"),
    (lambda: BatchNorm(3).forward(np.ones((2, 3)), training=1), TypeError, "`training` (=1)"),
    (lambda: norm_backward(None, np.ones((2, 3))), TypeError, "`passed` (a NoneType)"),
    (lambda: norm_backward(LayerNorm(3).forward(np.ones((2, 3))), np.ones((2, 4))), ValueError,
     "`output_grad` (shape (2, 4)) must have shape (2, 3)."),
    (lambda: convolve(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))), ValueError,
     "`kernel` (shape (1, 1, 2, 2)) must have a square window of odd size."),
    (lambda: convolve(np.ones((1, 2, 3, 3)), np.ones((1, 1, 3, 3))), ValueError,
     "`kernel` (shape (1, 1, 3, 3)) must take the 2 channels of `x`."),
    (lambda: ConvBlock([np.ones((1, 1, 3, 3))]), ValueError, "`kernels` (length 1)"),
    (lambda: ConvBlock([np.ones((2, 1, 3, 3))] * 2), ValueError, "`kernels[0]` (shape"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
