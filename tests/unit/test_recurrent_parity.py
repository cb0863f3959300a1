"""The reference, PyTorch and TensorFlow compute the same recurrent gradients.

1e-10 in float64 and 1e-4 in float32, relative to each array's norm: the bars of the course.
"""

import numpy as np
import pytest

from course_lib import RecurrentSpec, draw_recurrent_weights, reference
from course_lib.recurrent_specs import GATES

pytorch = pytest.importorskip("course_lib.pytorch")
tensorflow = pytest.importorskip("course_lib.tf")

TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
FRAMEWORKS = [pytest.param(pytorch, id="pytorch"), pytest.param(tensorflow, id="tf")]
NAMES = {pytorch: "PyTorch", tensorflow: "TensorFlow"}
N_IN, HIDDEN, N_OUT, BATCH, STEPS = 3, 5, 4, 3, 9


def build(module, cell, *, n_out=N_OUT, dtype="float64", hidden=HIDDEN, defaults="pytorch"):
    # PyTorch's defaults have two random biases, so that an exchange of the two is seen.
    spec = RecurrentSpec(N_IN, hidden, cell, n_out=n_out, defaults=defaults)
    return module.build_recurrent(spec, draw_recurrent_weights(spec, seed=1), dtype=dtype)


def batch(loss, over):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((BATCH, STEPS, N_IN))
    shape = (BATCH,) if over == "last" else (BATCH, STEPS)
    if loss == "cross_entropy":
        return x, rng.integers(0, N_OUT, size=shape)
    return x, rng.standard_normal((*shape, N_OUT)) if loss == "mean_squared_error" else None


def assert_agree(ours, theirs, tolerance, what):
    assert (ours is None) == (theirs is None), what
    if ours is None:
        return
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} and {theirs.shape}"
    error = np.linalg.norm(np.asarray(ours, np.float64) - theirs)
    assert error <= tolerance * np.linalg.norm(theirs), (
        f"{what}: {error:.2e} apart, norm {np.linalg.norm(theirs):.2e}"
    )


CASES = [
    *[(cell, loss, "last", None) for cell in GATES for loss in ("cross_entropy", "mean_output")],
    *[(cell, "mean_squared_error", "sum", 4) for cell in GATES],
    ("lstm", "cross_entropy", "mean", None),
    ("gru", "mean_output", "sum", 1),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("cell", "loss", "over", "truncation"), CASES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_gradient_flow(framework, cell, loss, over, truncation, dtype):
    x, y = batch(loss, over)
    settings = {"loss": loss, "over": over, "truncation": truncation}
    expected = reference.recurrent_gradient_flow(build(reference, cell), x, y, **settings)
    model = build(framework, cell, dtype=dtype)
    found = framework.recurrent_gradient_flow(model, x, y, **settings)
    assert (found.framework, found.dtype, found.cell) == (NAMES[framework], dtype, cell)
    tolerance = TOLERANCE[dtype]
    assert found.loss == pytest.approx(expected.loss, rel=tolerance, abs=tolerance)
    assert found.parameter_grads.keys() == expected.parameter_grads.keys()
    for name, grad in found.parameter_grads.items():
        assert_agree(grad, expected.parameter_grads[name], tolerance, name)
    for name in ("hidden_grads", "cell_grads", "input_grads", "hidden_states", "cell_states"):
        assert_agree(getattr(found, name), getattr(expected, name), tolerance, name)
    assert found.hidden_grads.dtype == dtype


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_outputs_and_weights_of_the_built_model(framework, cell):
    expected = build(reference, cell)
    model = build(framework, cell)
    x, _ = batch("mean_output", "last")
    if framework is pytorch:
        torch = pytest.importorskip("torch")
        outputs = model(torch.tensor(x)).detach().numpy()
    else:
        outputs = model(x).numpy()
    assert_agree(outputs, expected(x), 1e-12, "outputs")
    read, drawn = framework.recurrent_weights(model), expected.weights
    for name in ("w_xh", "w_hh", "w_hy", "b_y"):
        np.testing.assert_array_equal(getattr(read, name), getattr(drawn, name), err_msg=name)
    np.testing.assert_array_equal(read.b_xh + read.b_hh, drawn.b_xh + drawn.b_hh)
    if cell == "gru":  # only here do two biases exist in both frameworks, and differ in effect
        np.testing.assert_array_equal(read.b_hh, drawn.b_hh)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_state_jacobians_and_path_norms(framework, cell):
    x = batch("mean_output", "last")[0][0]
    expected = reference.state_jacobians(build(reference, cell), x)
    found = framework.state_jacobians(build(framework, cell), x)
    for name in ("jacobians", "readback"):
        assert_agree(getattr(found, name), getattr(expected, name), 1e-10, name)
    np.testing.assert_allclose(found.direct, expected.direct, rtol=1e-10)
    np.testing.assert_allclose(found.path_norms().log10_whole, expected.path_norms().log10_whole,
                               atol=1e-10)  # fmt: skip


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_whole_derivative_is_autograds(framework):
    """dC_T/dC_t from the Jacobians is what automatic differentiation of the unrolled cell gives."""
    x = batch("mean_output", "last")[0][0]
    model = build(framework, "lstm", n_out=None)
    paths = framework.state_jacobians(model, x).path_norms()
    if framework is pytorch:
        torch = pytest.importorskip("torch")
        from course_lib.pytorch.recurrent import unroll

        _, cells = unroll(model.recurrent, torch.tensor(x)[None], [])
        rows = [
            torch.autograd.grad(cells[-1][0, 0, j], cells[1], retain_graph=True)[0][0, 0].numpy()
            for j in range(HIDDEN)
        ]
    else:
        tf = pytest.importorskip("tensorflow")
        from course_lib.tf.recurrent import unroll

        with tf.GradientTape(persistent=True) as tape:
            zeros = tf.constant(x)[None]
            tape.watch(zeros)
            _, cells = unroll(model.layers[0].cell, zeros, [])
            entries = tf.unstack(cells[-1][0])
        rows = [tape.gradient(e, cells[1])[0].numpy() for e in entries]
    assert 10.0 ** paths.log10_whole[1] == pytest.approx(np.linalg.norm(rows, 2), rel=1e-10)


@pytest.mark.parametrize("wrt", ["input", "hidden"])
@pytest.mark.parametrize("cell", ["tanh_rnn", "lstm"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_connectivity(framework, cell, wrt):
    x, y = batch("cross_entropy", "sum")
    expected = reference.connectivity(build(reference, cell), x, y, loss="cross_entropy", wrt=wrt)
    found = framework.connectivity(build(framework, cell), x, y, loss="cross_entropy", wrt=wrt)
    assert_agree(found.norms, expected.norms, 1e-10, "connectivity")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_building_and_measuring_leave_the_readers_seed_alone(framework):
    def draw():
        if framework is pytorch:
            torch = pytest.importorskip("torch")
            torch.manual_seed(0)
            return lambda: torch.rand(1).item()
        tf = pytest.importorskip("tensorflow")
        tf.random.set_seed(0)
        return lambda: float(tf.random.uniform((1,))[0])

    untouched = draw()()
    number = draw()
    model = build(framework, "gru")
    x, _ = batch("mean_output", "last")
    framework.bptt_profile(model, x)
    framework.hook_profile(model, x)
    framework.state_jacobians(model, x[0])
    assert number() == untouched


def test_models_of_ones_own_are_read_as_they_are():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((2, 6, N_IN)).astype(np.float32)
    for module in (
        torch.nn.LSTM(N_IN, 4), torch.nn.GRU(N_IN, 4, batch_first=True, bias=False),
        torch.nn.RNN(N_IN, 4, nonlinearity="relu"),
    ):  # fmt: skip
        flow = pytorch.recurrent_gradient_flow(module, x)
        given = torch.tensor(x) if module.batch_first else torch.tensor(x).transpose(0, 1)
        states = module(given)[0].detach()
        states = states if module.batch_first else states.transpose(0, 1)
        np.testing.assert_allclose(flow.hidden_states, states.numpy(), atol=1e-6)  # float32
        ours = reference.RecurrentNetwork(pytorch.recurrent_weights(module))
        expected = reference.recurrent_gradient_flow(ours, x)
        assert_agree(flow.hidden_grads, expected.hidden_grads, 1e-4, "hidden_grads")
        assert ("b_xh" in flow.parameter_grads) == module.bias


def test_keras_layers_of_ones_own_are_read_as_they_are():
    keras = pytest.importorskip("keras")
    x = np.random.default_rng(0).standard_normal((2, 6, N_IN)).astype(np.float32)
    for layer in (
        keras.layers.LSTM(4), keras.layers.GRU(4, use_bias=False),
        keras.layers.SimpleRNN(4, activation="relu", return_sequences=True),
    ):  # fmt: skip
        last = layer(x).numpy()
        flow = tensorflow.recurrent_gradient_flow(layer, x)
        last = last[:, -1] if layer.return_sequences else last
        np.testing.assert_allclose(flow.hidden_states[:, -1], last, atol=1e-6)  # float32
        ours = reference.RecurrentNetwork(tensorflow.recurrent_weights(layer))
        expected = reference.recurrent_gradient_flow(ours, x)
        assert_agree(flow.hidden_grads, expected.hidden_grads, 1e-4, "hidden_grads")
        assert ("b_xh" in flow.parameter_grads) == layer.use_bias
