"""The hand-written backpropagation against central differences, which know no chain rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import ACTIVATIONS, NetworkSpec, draw_weights
from course_lib.losses import LOSSES, evaluate_loss
from course_lib.reference import (
    MLP,
    accuracy,
    backward,
    build_mlp,
    central_difference,
    gradient_flow,
    layer_jacobians,
)

# Central differences with step 1e-5 are good to about 1e-10 for values of order 1; the bar for
# hand-written gradients is 1e-6 relative to the norm of the gradient.
RELATIVE = 1e-6


def assert_close(hand, numeric, what):
    """Compare relative to the numeric array's norm, and say where the worst entry is."""
    error = np.abs(hand - numeric)
    worst = np.unravel_index(error.argmax(), error.shape)
    assert np.linalg.norm(error) <= RELATIVE * np.linalg.norm(numeric) + 1e-12, (
        f"{what}, entry {worst}: by hand {hand[worst]:.10g}, by differences {numeric[worst]:.10g}"
    )


def network(activation, *, depth=3, n_out=3, output_activation="linear", seed=0):
    spec = NetworkSpec(
        4, 5, depth, n_out=n_out, activation=activation, output_activation=output_activation,
        init="he_normal", bias=0.1,
    )  # fmt: skip
    return build_mlp(spec, draw_weights(spec, seed=seed))


def batch(loss, *, count=6, n_out=3, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4))
    if loss == "cross_entropy":
        return x, rng.integers(0, n_out, size=count)
    return x, None if loss == "mean_output" else rng.normal(size=(count, n_out))


def loss_with(model, x, y, loss, **changed):
    """Return the loss after replacing entry k of one of the model's lists: matrices=(k, value)."""
    lists = {"matrices": list(model.matrices), "biases": list(model.biases)}
    for name, (k, value) in changed.items():
        lists[name][k] = value
    return evaluate_loss(MLP(**lists, activations=model.activations)(x), y, loss=loss)[0]


def loss_from(model, h, k, y, loss):
    """Return the loss of the layers after layer k (counted from 1), given $h_k$."""
    if k == len(model.matrices):
        return evaluate_loss(h, y, loss=loss)[0]
    rest = MLP(model.matrices[k:], model.biases[k:], model.activations[k:])
    return evaluate_loss(rest(h), y, loss=loss)[0]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_gradient_is_the_central_difference(activation, loss):
    model = network(activation, output_activation="tanh")
    x, y = batch(loss)
    flow = gradient_flow(model, x, y, loss=loss)
    assert flow.loss == loss_with(model, x, y, loss)
    for k in range(3):
        numeric = central_difference(
            lambda w, k=k: loss_with(model, x, y, loss, matrices=(k, w)), model.matrices[k]
        )
        assert_close(flow.weight_grads[k], numeric, f"weights of layer {k + 1}")
        numeric = central_difference(
            lambda b, k=k: loss_with(model, x, y, loss, biases=(k, b)), model.biases[k]
        )
        assert_close(flow.bias_grads[k], numeric, f"bias of layer {k + 1}")
        numeric = central_difference(
            lambda h, k=k: loss_from(model, h, k + 1, y, loss), flow.activations[k]
        )
        assert_close(flow.activation_grads[k], numeric, f"activations of layer {k + 1}")


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_layer_jacobians_are_central_differences(activation):
    model = network(activation, output_activation="sigmoid")
    x = batch("mean_output")[0][0]
    result = layer_jacobians(model, x)
    h = x
    for k, jacobian in enumerate(result.jacobians):
        layer = MLP([model.matrices[k]], [model.biases[k]], [model.activations[k]])
        numeric = central_difference(lambda v, layer=layer: layer(v[None])[0], h)
        assert jacobian.shape == model.matrices[k].shape
        assert_close(jacobian, numeric, f"Jacobian of layer {k + 1}")
        h = layer(h[None])[0]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_product_is_the_jacobian_of_the_whole_network(activation):
    model = network(activation, depth=5)
    x = batch("mean_output")[0][0]
    result = layer_jacobians(model, x)
    whole = central_difference(lambda v: model(v[None])[0], x)
    assert_close(result.product(first=1), whole, "dh_L/dx")
    rest = MLP(model.matrices[1:], model.biases[1:], model.activations[1:])
    h1 = model.forward(x[None]).activations[1][0]
    from_first = central_difference(lambda v: rest(v[None])[0], h1)
    assert_close(result.product(), from_first, "dh_L/dh_1")
    inner = MLP(model.matrices[1:3], model.biases[1:3], model.activations[1:3])
    part = central_difference(lambda v: inner(v[None])[0], h1)
    assert_close(result.product(first=2, last=3), part, "dh_3/dh_1")


def test_activation_gradient_is_the_transposed_product():
    model = network("tanh", depth=4)
    x, y = batch("mean_squared_error", count=1)
    flow = gradient_flow(model, x, y)
    product = layer_jacobians(model, x[0]).product()
    np.testing.assert_allclose(
        flow.activation_grads[0][0], product.T @ flow.activation_grads[-1][0], rtol=1e-12
    )


@given(seed=st.integers(0, 1000), loss=st.sampled_from(LOSSES))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_gradient_of_a_mean_does_not_depend_on_the_batch_order(seed, loss):
    model = network("tanh", seed=seed)
    x, y = batch(loss, count=7, seed=seed)
    order = np.random.default_rng(seed).permutation(7)
    one = gradient_flow(model, x, y, loss=loss)
    two = gradient_flow(model, x[order], None if y is None else y[order], loss=loss)
    for a, b in zip(one.weight_grads, two.weight_grads, strict=True):
        # 1e-13: the same seven numbers added in another order.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * max(1.0, np.abs(a).max()))
    np.testing.assert_array_equal(one.activation_grads[0][order], two.activation_grads[0])


def test_the_gradient_of_a_mean_is_the_mean_of_the_gradients():
    model = network("sigmoid")
    x, y = batch("cross_entropy", count=4)
    whole = gradient_flow(model, x, y, loss="cross_entropy")
    single = [
        gradient_flow(model, x[k : k + 1], y[k : k + 1], loss="cross_entropy") for k in range(4)
    ]
    mean = np.mean([flow.weight_grads[0] for flow in single], axis=0)
    np.testing.assert_allclose(whole.weight_grads[0], mean, rtol=1e-12)


def test_forward_by_hand():
    model = MLP(
        [np.array([[1.0, 2.0]]), np.array([[-1.0], [3.0]])],
        [np.array([0.5]), np.array([0.0, 1.0])],
        ("relu", "linear"),
    )
    passed = model.forward([[1.0, 1.0], [-1.0, -1.0]])
    np.testing.assert_array_equal(passed.preactivations[0], [[3.5], [-2.5]])
    np.testing.assert_array_equal(passed.activations[1], [[3.5], [0.0]])
    np.testing.assert_array_equal(model([[1.0, 1.0]]), [[-3.5, 11.5]])
    assert len(passed.activations) == 3


def test_build_mlp_copies_the_weights():
    spec = NetworkSpec(4, 5, 2)
    weights = draw_weights(spec, seed=0)
    model = build_mlp(spec, weights)
    model.matrices[0][:] = 0.0
    assert np.abs(weights.matrices[0]).min() > 0.0


def test_accuracy_counts_the_largest_output():
    model = MLP([np.eye(3)], [np.zeros(3)], ("linear",))
    assert accuracy(model, np.eye(3), np.array([0, 1, 0])) == pytest.approx(2 / 3)


def test_an_overflowing_network_shows_its_non_finite_gradients():
    model = MLP([np.full((2, 2), 1e200)] * 3, [np.zeros(2)] * 3, ("linear",) * 3)
    with np.errstate(over="ignore", invalid="ignore"):
        flow = gradient_flow(model, [[1.0, 1.0]], [[0.0, 0.0]])
    assert not np.isfinite(flow.loss)
    assert not np.isfinite(flow.weight_grads[0]).all()


def test_backward_takes_any_output_gradient():
    model = network("tanh")
    x, _ = batch("mean_output", count=2)
    passed = model.forward(x)
    seed_row = np.zeros((2, 3))
    seed_row[0, 1] = 1.0
    _, _, activation_grads = backward(model, passed, seed_row)
    row = layer_jacobians(model, x[0]).product()[1]
    np.testing.assert_allclose(activation_grads[0][0], row, rtol=1e-12)
    np.testing.assert_array_equal(activation_grads[0][1], 0.0)


# --- central_difference itself, on functions with a known derivative --------------------------


def test_central_difference_of_a_scalar_function():
    x = np.array([[0.3, -1.0], [2.0, 0.5]])
    numeric = central_difference(lambda v: float(np.sum(np.sin(v))), x)
    np.testing.assert_allclose(numeric, np.cos(x), rtol=1e-9)


def test_central_difference_of_a_vector_function_is_in_numerator_layout():
    matrix = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    numeric = central_difference(lambda v: matrix @ v, np.zeros(3))
    np.testing.assert_allclose(numeric, matrix, rtol=1e-9)


def test_central_difference_is_of_second_order():
    errors = [
        abs(central_difference(lambda v: float(np.exp(v[0])), np.zeros(1), step=s)[0] - 1.0)
        for s in (1e-2, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(100.0, rel=0.01)
