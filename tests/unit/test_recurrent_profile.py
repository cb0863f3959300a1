"""The gradient's norm over time: the closed recursion, the hooks, and where only one survives."""

import numpy as np
import pytest

from course_lib import RecurrentSpec, draw_recurrent_weights, reference
from course_lib.bptt_recursion import Coefficients, backpropagate, log10_norms
from course_lib.diagnosis import diagnose
from course_lib.recurrent_results import BPTTProfile
from course_lib.recurrent_specs import GATES

pytorch = pytest.importorskip("course_lib.pytorch")
tensorflow = pytest.importorskip("course_lib.tf")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

FRAMEWORKS = [pytest.param(pytorch, id="pytorch"), pytest.param(tensorflow, id="tf")]
STEPS = 600


def networks(framework, cell, dtype):
    spec = RecurrentSpec(2, 8, cell, defaults="pytorch")
    weights = draw_recurrent_weights(spec, seed=2)
    model = framework.build_recurrent(spec, weights, dtype=dtype)
    return reference.build_recurrent(spec, weights), model


def sequence(steps=STEPS):
    return np.random.default_rng(0).standard_normal((2, steps, 2))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_recursion_is_right_far_below_1e_80(framework, cell, dtype):
    expected_model, model = networks(framework, cell, dtype)
    x = sequence()
    expected = reference.bptt_profile(expected_model, x)
    found = framework.bptt_profile(model, x)
    assert expected.log10_norms[0] < -80  # or the test would prove nothing
    assert (found.method, found.dtype, found.cell) == ("recursion", dtype, cell)
    # In float64 only the order of operations differs. In float32 the states do, by 1e-7 per step:
    # 600 of them give 3e-5 decades at most if all err alike. Three digits would be 0.08 decades.
    tolerance = 1e-10 if dtype == "float64" else 1e-3
    np.testing.assert_allclose(found.log10_norms, expected.log10_norms, atol=tolerance, rtol=0)
    if cell == "lstm":
        np.testing.assert_allclose(
            found.log10_cell_norms, expected.log10_cell_norms, atol=tolerance, rtol=0
        )
    else:
        assert found.log10_cell_norms is None


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_hooks_agree_until_they_underflow(framework, cell):
    _, model = networks(framework, cell, "float32")
    x = sequence(200)
    ours, hooks = framework.bptt_profile(model, x), framework.hook_profile(model, x)
    assert hooks.method == "hooks"
    # Float32 squares underflow below 1e-19: from there on a norm in float32 is wrong, then zero.
    reliable = ours.log10_norms > -15
    assert reliable.sum() >= 15
    np.testing.assert_allclose(hooks.log10_norms[reliable], ours.log10_norms[reliable], atol=1e-4)
    assert hooks.zero_steps > 0
    assert "exactly zero" in hooks.describe()
    assert ours.zero_steps == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_gradient_of_ones_own_at_the_end(framework):
    expected_model, model = networks(framework, "gru", "float64")
    x, grad = sequence(10), np.random.default_rng(1).standard_normal((2, 8))
    expected = reference.bptt_profile(expected_model, x, grad_last=grad)
    for profile in (framework.bptt_profile, framework.hook_profile):
        found = profile(model, x, grad_last=grad)
        np.testing.assert_allclose(found.log10_norms, expected.log10_norms, atol=1e-10)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_saturated_units_have_a_slope_and_not_zero(framework):
    # z = 30: tanh is 1 in float64, and 1 - tanh^2 is 4 exp(-60) = 3.5e-26.
    spec = RecurrentSpec(1, 1, bias=30.0, recurrent_init="identity")
    weights = draw_recurrent_weights(spec, seed=0)
    model = framework.build_recurrent(spec, weights, dtype="float64")
    profile = framework.bptt_profile(model, np.zeros((1, 5, 1)))
    # z_1 = 30 and then 31, as h = 1: each step back costs log10(4 exp(-62)).
    np.testing.assert_allclose(np.diff(profile.log10_norms), -np.log10(4 * np.exp(-62.0)),
                               rtol=1e-12)  # fmt: skip
    assert not np.isfinite(framework.hook_profile(model, np.zeros((1, 5, 1))).log10_norms[0])


def test_dead_units_give_minus_infinity():
    spec = RecurrentSpec(1, 3, "relu_rnn", bias=-1.0, recurrent_init="identity", input_scale=0.0)
    weights = draw_recurrent_weights(spec, seed=0)
    for module in (reference, pytorch, tensorflow):
        model = module.build_recurrent(spec, weights, dtype="float64")
        profile = module.bptt_profile(model, np.zeros((1, 20, 1)))
        assert profile.zero_steps == 19
        assert "to 0 at t = 1" in profile.describe()


@pytest.mark.parametrize("cell", list(GATES))
def test_the_loop_does_not_read_what_it_is_to_fill(cell):
    """The space for the gradients is new, and may hold anything: NaN as well."""
    rng = np.random.default_rng(0)
    steps, batch, n, gates = 5, 2, 3, len(GATES[cell])
    states = rng.random((2, steps, batch, n))
    k = Coefficients(
        rng.random((steps, batch, gates, n)),
        None if cell.endswith("rnn") else states[0],
        states[1] if cell == "lstm" else None,
    )
    w_hh, last = rng.normal(size=(gates * n, n)), rng.normal(size=(batch, n))
    found = []
    for content in (0.0, np.nan):
        hidden, cells = np.full((2, steps, batch, n), content)
        hidden[-1] = last
        backpropagate(k, w_hh, hidden, cells if cell == "lstm" else None)
        found.append(hidden)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("cell", GATES)
def test_the_loop_takes_tensors_as_it_takes_arrays(cell):
    """The way that a device other than the CPU goes, run here on the CPU."""
    from course_lib.pytorch.bptt import _coefficients

    _, model = networks(pytorch, cell, "float64")
    x = torch.tensor(sequence(50)).transpose(0, 1)
    with torch.no_grad():
        k = _coefficients(model.recurrent, x)
        w_hh = model.recurrent.weight_hh_l0.detach()
        hidden = torch.zeros(50, 2, 8, dtype=torch.float64)
        hidden[-1] = 1.0
        cells = None if k.readback is None else torch.empty_like(hidden)
        arrays = [None if t is None else t.numpy().copy() for t in (*k, w_hh, hidden, cells)]
        scale = backpropagate(k, w_hh, hidden, cells, multiply=torch.mul, matmul=torch.mm)
    expected_scale = backpropagate(Coefficients(*arrays[:3]), *arrays[3:])
    np.testing.assert_allclose(
        log10_norms(hidden.numpy(), scale), log10_norms(arrays[4], expected_scale), atol=1e-11
    )


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_pytorch_modules_and_cells_of_ones_own(name):
    torch.manual_seed(0)
    module = getattr(torch.nn, name)(2, 8).double()
    cell = getattr(torch.nn, f"{name}Cell")(2, 8).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})
    x = sequence(30)
    ours = reference.RecurrentNetwork(pytorch.recurrent_weights(module))
    expected = reference.bptt_profile(ours, x).log10_norms
    for model in (module, cell):
        for given in (x, torch.tensor(x)):
            np.testing.assert_allclose(
                pytorch.bptt_profile(model, given).log10_norms, expected, atol=1e-10
            )
        np.testing.assert_allclose(
            pytorch.hook_profile(model, x).log10_norms, expected, atol=1e-10
        )
        assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_keras_layers_and_cells_of_ones_own(name):
    keras.utils.set_random_seed(0)
    layer = getattr(keras.layers, name)(8, dtype="float64")
    x = sequence(30)
    layer(x)
    ours = reference.RecurrentNetwork(tensorflow.recurrent_weights(layer))
    expected = reference.bptt_profile(ours, x).log10_norms
    for model in (layer, layer.cell):
        for profile in (tensorflow.bptt_profile, tensorflow.hook_profile):
            np.testing.assert_allclose(profile(model, x).log10_norms, expected, atol=1e-10)


BAD = [
    (lambda: pytorch.bptt_profile(torch.nn.Linear(2, 2), sequence(3)), TypeError, r"`model` \(a L"),
    (lambda: pytorch.bptt_profile(torch.nn.GRU(2, 4, num_layers=2), sequence(3)), ValueError,
     r"`model` \(num_layers = 2\) must have num_layers = 1"),
    (lambda: pytorch.bptt_profile(torch.nn.LSTM(2, 4, bidirectional=True), sequence(3)),
     ValueError, r"bidirectional = True"),
    (lambda: pytorch.bptt_profile(torch.nn.LSTM(2, 4), sequence(3)[0]), ValueError, r"`x` \(shape"),
    (lambda: pytorch.bptt_profile(torch.nn.LSTM(2, 4), sequence(3), grad_last=np.ones(4)),
     ValueError, r"`grad_last` \(shape"),
    (lambda: pytorch.recurrent_gradient_flow(torch.nn.GRUCell(2, 4), sequence(3)), TypeError,
     r"`model` \(a GRUCell\) must be"),
    (lambda: pytorch.recurrent_gradient_flow(torch.nn.GRU(2, 4).requires_grad_(False),
                                             sequence(3)), ValueError, r"`model` \(frozen\)"),
    (lambda: pytorch.RecurrentNetwork(torch.nn.GRU(2, 4)), ValueError, r"`recurrent` .* batch_f"),
    (lambda: pytorch.RecurrentNetwork(torch.nn.GRU(2, 4, batch_first=True), torch.nn.ReLU()),
     TypeError, r"`readout`"),
    (lambda: tensorflow.bptt_profile(keras.layers.Dense(3), sequence(3)), TypeError,
     r"`model` \(a Dense\)"),
    (lambda: tensorflow.bptt_profile(keras.layers.GRU(3), sequence(3)), ValueError,
     r"`model` \(not built\)"),
    (lambda: tensorflow.bptt_profile(keras.layers.GRU(3, reset_after=False), sequence(3)),
     ValueError, r"reset_after"),
    (lambda: tensorflow.bptt_profile(keras.layers.LSTM(3, activation="relu"), sequence(3)),
     ValueError, r"standard activations"),
    (lambda: tensorflow.bptt_profile(keras.layers.LSTM(3, go_backwards=True), sequence(3)),
     ValueError, r"go_backwards"),
    (lambda: pytorch.bptt_profile(torch.nn.GRU(2, 4), np.full((1, 3, 2), 1e300)), ValueError,
     r"`x` must keep"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_profile_that_is_not_finite_is_a_problem_and_names_the_step(value):
    logs = np.zeros(9)
    logs[:4] = value  # going back, step 4 is the first
    (found,) = diagnose(BPTTProfile("NumPy", "float64", "lstm", "recursion", logs)).findings
    assert (found.code, found.severity) == ("non_finite", "problem")
    assert found.where.endswith("step 4 of 9")
