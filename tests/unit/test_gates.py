"""Gates inside fused recurrent layers: computed again as they are, and judged as they should be."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from course_lib import pytorch, reference
from course_lib import tf as course_tf
from course_lib.diagnosis import diagnose
from course_lib.gates import gate_kind, gate_limits
from course_lib.monitoring import Site
from course_lib.pytorch.gates import measure_gates
from course_lib.recurrent_specs import GATES, RecurrentSpec, draw_recurrent_weights
from course_lib.triage import triage

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 12, 5)).astype("float32"), np.arange(8) % 4
N = 6
MODULES = {"tanh_rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("cell", "gate"), [(c, g) for c, gs in GATES.items() for g in gs])
def test_limits_are_those_of_the_slope_and_of_the_sequence(cell, gate, share):
    z = np.linspace(-30, 30, 60002)
    low, high = gate_limits(cell, gate, share=share, steps=20)
    stuck = (z < low) | (z > high)
    if gate in ("g", "n", "h"):
        expected = (z < 0) if cell == "relu_rnn" else 1 - np.tanh(z) ** 2 < share
    else:
        s = sigmoid(z)
        expected = 4 * s * (1 - s) < share
        if (cell, gate) == ("lstm", "i"):
            expected = np.where(z < 0, expected & (20 * s < share), expected)
        if (cell, gate) == ("gru", "z"):
            expected = np.where(z > 0, expected & (20 * (1 - s) < share), expected)
    assert np.mean(stuck != expected) < 1e-3  # at the borders of the grid


def test_biases_for_memories_as_long_as_the_sequence_are_not_stuck():
    steps = 1000
    forget = np.log(np.random.default_rng(0).uniform(1, steps - 1, size=5000))  # tallec2018
    low, high = gate_limits("lstm", "i", share=0.1, steps=steps)
    assert np.all((-forget > low) & (-forget < high))
    low, high = gate_limits("gru", "z", share=0.1, steps=steps)
    assert np.all((forget > low) & (forget < high))
    assert gate_kind("lstm", "f") == "forget_gate"


def test_bad_arguments_are_named():
    for arguments, name in (((("rnn", "h"), {}), "`cell`"), ((("lstm", "z"), {}), "`gate`"),
                            ((("lstm", "i"), {"share": 0.0}), "`share`"),
                            ((("lstm", "i"), {"steps": 0}), "`steps`")):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            gate_limits(*arguments[0], **{"share": 0.1, "steps": 5, **arguments[1]})
    with pytest.raises(ValueError, match="`gate`"):
        gate_kind("gru", "f")


def expected_fractions(spec, weights):
    """The share of stuck values of every gate, from the float64 reference's own steps."""
    model = reference.build_recurrent(spec, weights)
    h = np.concatenate([np.zeros((len(X), 1, N)), model.forward(X).hidden_states[:, :-1]], axis=1)
    a = X @ weights.w_xh.T + weights.b_xh
    u = h @ weights.w_hh.T + weights.b_hh
    parts = dict(zip(GATES[spec.cell], np.split(a + u, len(GATES[spec.cell]), axis=2), strict=True))
    if spec.cell == "gru":
        r = sigmoid(parts["r"])
        parts["n"] = np.split(a, 3, axis=2)[2] + r * np.split(u, 3, axis=2)[2]
    found = {}
    for gate, z in parts.items():
        low, high = gate_limits(spec.cell, gate, share=0.1, steps=X.shape[1])
        found[gate] = np.mean((z < low) | (z > high))
    return found


@pytest.mark.parametrize("cell", ["tanh_rnn", "lstm", "gru"])
def test_both_frameworks_measure_what_the_reference_does(cell):
    spec = RecurrentSpec(5, N, cell, input_scale=4.0, gain=3.0, bias=0.3)
    weights = draw_recurrent_weights(spec, seed=1)
    expected = expected_fractions(spec, weights)
    assert all(0.05 < value < 0.95 for value in expected.values())
    net = pytorch.build_recurrent(spec, weights)
    twin = course_tf.build_recurrent(spec, weights)
    for found in (pytorch.saturation(net, X), course_tf.saturation(twin, X)):
        assert len(found) == len(expected)
        for name, value in found.items():
            gate = name.rpartition("(")[2].rstrip(")")
            assert value == pytest.approx(expected[gate], abs=2 / X.size)  # float32, at a border


def gates_of(module, *given):
    sites = []

    def new_site(name, kind, activation):
        sites.append(Site(name, kind, activation, 0, 1))
        return sites[-1]

    measure_gates(module, given, share=0.1, new_site=new_site, name="m")
    return {s.name: (s.flat.numpy() / s.rows).tolist() for s in sites}


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # of PyTorch, whoever calls it
def test_packed_unbatched_projected_and_stacked_layers_are_looked_into():
    torch.manual_seed(0)
    x = torch.tensor(X)
    module = nn.LSTM(5, N, 2, batch_first=True, bidirectional=True, proj_size=3)
    with torch.no_grad():
        module.bias_ih_l1_reverse[:N] = 9.0
    found = gates_of(module, x)
    assert len(found) == 16
    assert found["m_l1_reverse (i)"] == [1.0] * N
    assert max(found["m_l1 (i)"]) < 0.5
    single = nn.GRU(5, N, batch_first=True)
    with torch.no_grad():
        single.weight_ih_l0.mul_(6)
    padded = gates_of(single, x)
    lengths = [12] * 8
    assert padded == gates_of(single, nn.utils.rnn.pack_padded_sequence(x, lengths, True))
    other = nn.GRU(5, N)
    other.load_state_dict(single.state_dict())
    assert padded == gates_of(other, x.transpose(0, 1))
    assert gates_of(single, x[:1]) == gates_of(single, x[0])
    state = torch.full((1, 8, N), 9.0)
    assert gates_of(single, x, state) != padded
    short = nn.utils.rnn.pack_padded_sequence(x, [3, 12, 5, 7, 12, 2, 2, 1], True, False)
    assert len(gates_of(single, short, state)) == 3


def torch_model(cell, change=None):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = MODULES[cell](5, N, batch_first=True)
            self.head = nn.Linear(N, 4)

        def forward(self, x):
            return self.head(self.body(x)[0][:, -1])

    torch.manual_seed(0)
    model = Last()
    if change is not None:
        with torch.no_grad():
            change(model.body)
    return model


def keras_model(cell, change=None):
    keras.utils.set_random_seed(0)
    kinds = {"tanh_rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}
    body = kinds[cell](N, name="body")
    model = keras.Sequential([layers.Input((12, 5)), body, layers.Dense(4)])
    if change is not None:
        change(body.cell)
    return model


def in_pytorch(model):
    return pytorch.diagnose_model(model, X, Y, loss=nn.functional.cross_entropy, steps=2)


def in_keras(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return course_tf.diagnose_model(model, X, Y, loss=loss, steps=2)


def set_bias(gate, value):
    def change(module):
        bias = module.bias_ih_l0 if isinstance(module, nn.Module) else module.bias
        if isinstance(module, nn.Module):
            bias[gate * N : (gate + 1) * N] = value
            return
        changed = bias.numpy()
        changed[..., gate * N : (gate + 1) * N] = value
        bias.assign(changed)

    return change


def alarms(report):
    return [(f.code, f.where) for f in report.findings if f.severity != "info"]


@pytest.mark.parametrize("cell", ["tanh_rnn", "lstm", "gru"])
def test_layers_as_the_frameworks_make_them_are_healthy(cell):
    assert alarms(in_pytorch(torch_model(cell))) == []
    assert alarms(in_keras(keras_model(cell))) == []


@pytest.mark.parametrize("value", [-20.0, 20.0])
@pytest.mark.parametrize(("cell", "gate"), [("lstm", "i"), ("lstm", "g"), ("lstm", "o"),
                                            ("gru", "r"), ("gru", "z"), ("gru", "n")])  # fmt: skip
def test_a_stuck_gate_is_named(cell, gate, value):
    place = GATES[cell].index(gate)
    report = in_pytorch(torch_model(cell, set_bias(place, value)))
    assert alarms(report)[0] == ("stuck_gate", f"body ({gate})")
    assert report.findings[0].severity == "problem"


@pytest.mark.parametrize(("cell", "place", "gate"), [("lstm", 0, "i"), ("gru", 0, "z"),
                                                     ("gru", 1, "r")])  # fmt: skip
def test_a_stuck_gate_is_named_in_keras(cell, place, gate):
    report = in_keras(keras_model(cell, set_bias(place, 20.0)))
    assert alarms(report)[0] == ("stuck_gate", f"body ({gate})")


def test_an_open_forget_gate_is_no_fault_and_a_shut_one_is_seen_over_time():
    for run, model in ((in_pytorch, torch_model), (in_keras, keras_model)):
        assert alarms(run(model("lstm", set_bias(1, 10.0)))) == []
        assert alarms(run(model("lstm", set_bias(1, -10.0))))[0][0] == "vanishing_over_time"


def test_a_recurrent_matrix_three_times_too_large_is_named():
    def three_times(module):
        if isinstance(module, nn.Module):
            module.weight_hh_l0.mul_(3)
        else:
            module.recurrent_kernel.assign(3 * module.recurrent_kernel)

    for run, model in ((in_pytorch, torch_model), (in_keras, keras_model)):
        found = alarms(run(model("tanh_rnn", three_times)))
        assert found[0] == ("large_recurrent_matrix", "body, tanh_rnn, time steps")
    profile = pytorch.bptt_gradient_profile(torch_model("lstm"), X)["body"]
    assert 0.5 < profile.recurrent_gain < 0.65  # uniform on (-1, 1)/sqrt(n)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("factor", "severity"), [(1, None), (3, "info"), (10, "warning")])
def test_gates_damp_a_recurrent_matrix_three_times_too_large_and_not_ten_times(
    cell, factor, severity
):
    def enlarge(module):
        if isinstance(module, nn.Module):
            module.weight_hh_l0.mul_(factor)
        else:
            module.recurrent_kernel.assign(factor * module.recurrent_kernel)

    for run, model in ((in_pytorch, torch_model), (in_keras, keras_model)):
        found = [(f.severity, f.where) for f in run(model(cell, enlarge)).findings
                 if f.code == "large_recurrent_matrix"]  # fmt: skip
        assert found == ([] if severity is None else [(severity, f"body, {cell}, time steps")])


def test_growth_is_told_on_a_short_sample():
    def grow(module):
        module.weight_hh_l0.copy_(1.3 * torch.eye(N))
        module.weight_ih_l0.mul_(0.01)
        module.bias_ih_l0.zero_()
        module.bias_hh_l0.zero_()

    report = diagnose(pytorch.bptt_gradient_profile(torch_model("tanh_rnn", grow), X))
    assert [(f.severity, f.code) for f in report.findings] == [("warning", "exploding_over_time")]
    assert report.findings[0].value == pytest.approx(11 * np.log10(1.3), rel=0.05)


def test_the_monitor_does_not_change_a_recurrent_layer_that_hands_out_its_last_state():
    outputs = []
    for monitored in (False, True):
        model = keras_model("lstm")
        model.compile("sgd", "mse")
        calls = [course_tf.GradientFlowMonitor(every=1)] if monitored else []
        model.fit(X, np.eye(4)[Y], epochs=2, verbose=0, shuffle=False, callbacks=calls)
        assert model.layers[0].return_sequences is False
        outputs.append([w.numpy() for w in model.weights])
    for plain, watched in zip(*outputs, strict=True):
        np.testing.assert_array_equal(plain, watched)
    assert "body (i)" in calls[0].record.layers


def swing(module):
    """Let the input gate follow the input: flat on most values, now shut and now open."""
    if isinstance(module, nn.Module):
        module.weight_ih_l0[:N] *= 60.0
    else:
        kernel = module.kernel.numpy()
        kernel[:, :N] *= 60.0
        module.kernel.assign(kernel)


def test_a_gate_that_swings_from_end_to_end_is_a_note_and_one_that_holds_still_a_problem():
    for run, model in ((in_pytorch, torch_model), (in_keras, keras_model)):
        swings = run(model("lstm", swing))
        record = swings.results[0]
        k = record.layers.index("body (i)")
        assert record.saturated_fractions[0, k] > 0.7
        assert record.held_fractions[0, k] < 0.4
        found = [f for f in swings.findings if f.code == "stuck_gate"]
        assert [(f.severity, f.where) for f in found] == [("info", "body (i)")]
        assert triage(record).verdict == "healthy"
        held = run(model("lstm", set_bias(0, 20.0)))
        assert held.results[0].held_fractions[0, k] == 1
        assert held.findings[0].severity == "problem"
        assert triage(held.results[0]).verdict == "saturation"


def test_a_gate_that_training_has_made_flat_is_nothing():
    module = torch_model("lstm", swing)
    record = in_pytorch(module).results[0]
    flat = record.saturated_fractions.copy()
    flat[0] = 0.1
    learned = replace(record, saturated_fractions=flat)
    assert not [f for f in diagnose(learned).findings if f.code == "stuck_gate"]
    report = diagnose(pytorch.dead_units(module, X))  # of a trained model, there is no first sample
    assert not [f for f in report.findings if f.code == "stuck_gate" and f.severity != "info"]


def test_held_fractions_count_units_and_only_those_of_gates():
    module = torch_model("lstm")
    with torch.no_grad():
        module.body.bias_ih_l0[:2] = -30.0  # two of the input gate's six units
    record = in_pytorch(module).results[0]
    held = dict(zip(record.layers, record.held_fractions[0], strict=True))
    assert held["body (i)"] == pytest.approx(2 / N)
    assert held["body (o)"] == 0
    assert np.isnan(held["head"])
