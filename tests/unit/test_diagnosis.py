"""The framework-free half of the diagnosis: trends, masks, the recorder, clipping, the picture."""

import math
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from course_lib.activations import get_activation
from course_lib.diagnosis import Finding, Report, depth_trend, diagnose
from course_lib.flow_recorder import FlowRecorder
from course_lib.inspection import angle_between, audit_clipping
from course_lib.monitoring import (
    ParameterState,
    Sample,
    Site,
    flat_mask,
)
from course_lib.plots import plot_flow_record
from course_lib.recurrent_results import BPTTProfile


def record(norms, *, steps=4, grads=None, ratios=1e-3, max_records=50):
    """A record of layers with the given activation-gradient norms, the same at every step."""
    recorder = FlowRecorder(framework="PyTorch", every=1, max_records=max_records, share=0.1)
    for step in range(steps):
        sites = [
            Site(f"l{k}", "ReLU", "relu", 8, 4, 1.0, float(g), np.array([4.0, 2.0]))
            for k, g in enumerate(norms)
        ]
        grads_now = norms if grads is None else grads
        states = [
            ParameterState(f"l{k}.weight", f"l{k}", 2, True, float(g), 1.0, ratios)
            for k, g in enumerate(grads_now)
        ]
        if recorder.wants(step):
            recorder.add(Sample(step, sites, states))
    return recorder.record()


def test_the_trend_counts_decades_towards_the_input():
    assert depth_trend(10.0 ** np.arange(-9, 1)) == pytest.approx(-9)
    assert depth_trend(np.full(10, 1e-12)) == 0  # small is not vanishing
    branches = 10.0 ** np.zeros(20)
    branches[::5] = 1e-6
    assert depth_trend(branches) == 0
    assert depth_trend(np.repeat([1e-4, 1.0], 8)) == 0  # two networks, one after the other
    assert depth_trend(np.geomspace(1e-4, 1.0, 16)) == pytest.approx(-4)
    assert math.isnan(depth_trend(np.array([1.0, 2.0, np.nan, 3.0])))
    assert depth_trend(np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])) < -100


@pytest.mark.parametrize("name", ["relu", "relu6", "sigmoid", "tanh", "elu", "softplus", "gelu",
                                  "silu"])  # fmt: skip
def test_flat_masks_agree_with_the_derivative(name):
    z = np.linspace(-12, 12, 2001)
    if name == "relu6":
        h, slope, top = np.clip(z, 0, 6), ((z > 0) & (z < 6)).astype(float), 1.0
    else:
        f = get_activation(name)
        h, slope, top = f.function(z), f.derivative(z), f.supremum
    mask = flat_mask(name, h, z, 0.1)
    expected = np.abs(slope) < 0.1 * top
    if name == "gelu":  # the zero of the slope at the minimum is not the flat tail
        expected &= z < -1.5
    assert np.mean(mask != expected) < 0.005  # at borders of the grid
    if name in ("gelu", "silu"):
        assert flat_mask(name, h, None, 0.1) is None


def test_thresholds_are_relative_to_the_run():
    for size in (1e-20, 1.0, 1e20):
        assert diagnose(record(size * np.ones(8))).codes == ()
        falls = diagnose(record(size * 10.0 ** np.arange(-7, 1)))
        assert falls.codes[0] == "vanishing_gradient"


def test_flat_weight_gradients_do_not_hide_dying_activation_gradients():
    finding = diagnose(record(10.0 ** np.arange(-7, 1), grads=np.ones(8))).findings[0]
    assert finding.code == "vanishing_gradient"
    assert finding.value == pytest.approx(-7)
    assert "do not show it" in finding.why
    assert finding.where == "l7 to l0"


@pytest.mark.parametrize(("decades", "severity", "limit"), [(-2.5, "warning", -2), (-4, "problem",
    -3), (2.5, "warning", 2), (4, "problem", 3)])  # fmt: skip
def test_the_threshold_that_is_told_is_the_one_that_was_crossed(decades, severity, limit):
    plain = record(10.0 ** np.linspace(decades, 0, 8))
    kinds = tuple("LayerNorm" if k % 4 == 0 else kind for k, kind in enumerate(plain.kinds))
    for found, slack in ((plain, 1), (replace(plain, kinds=kinds), 2)):
        steeper = replace(found, activation_grad_norms=found.activation_grad_norms**slack)
        first = diagnose(steeper).findings[0]
        assert (first.severity, first.threshold) == (severity, slack * limit)


def test_a_slow_loss_by_relus_alone_is_a_note_with_its_reason():
    (note,) = diagnose(record(2.0 ** (np.arange(-16, 1) / 2))).findings  # 1/sqrt(2) per layer
    assert (note.severity, note.code) == ("info", "vanishing_gradient")
    assert note.why.startswith("Each ReLU halves the variance")
    (slower,) = diagnose(record(10.0 ** np.linspace(-2.5, 0, 12))).findings  # as PyTorch draws
    assert (slower.severity, slower.code) == ("info", "vanishing_gradient")
    steep = diagnose(record(10.0 ** (np.arange(-8, 1) * 0.3))).findings[0]
    assert (steep.severity, steep.code) == ("warning", "vanishing_gradient")
    assert diagnose(record(2.0 ** (np.arange(-24, 1) / 2))).findings[0].severity == "problem"


def test_in_normalized_networks_three_decades_are_a_note():
    plain = record(10.0 ** np.linspace(3.5, 0, 16))
    kinds = tuple("LayerNorm" if k % 4 == 0 else kind for k, kind in enumerate(plain.kinds))
    normalized = replace(plain, kinds=kinds)
    assert [(f.severity, f.code) for f in diagnose(plain).findings] == [
        ("problem", "exploding_gradient")]  # fmt: skip
    (note,) = diagnose(normalized).findings
    assert (note.severity, note.code) == ("info", "exploding_gradient")
    assert "skip connections" in note.why
    assert diagnose(replace(record(10.0 ** np.linspace(2.5, 0, 16)), kinds=kinds)).codes == ()


def test_the_recorder_thins_out_and_stays_even():
    steps = record(np.ones(4), steps=100, max_records=10).steps
    assert len(steps) <= 10
    assert steps[0] == 0
    assert set(np.diff(steps)) == {16}


def test_a_record_in_words_and_numbers():
    result = record(np.array([1e-3, 1e-2, 1e-1, 1.0]))
    assert "4 sampled steps from 0 to 3" in result.describe()
    assert "-3.0 decades" in result.describe()
    assert result.active_fractions[0].tolist() == [0.75] * 4
    assert result.always_on_fractions[0].tolist() == [0.5] * 4
    assert result.unit_last_active[0].tolist() == [3, 3]
    np.testing.assert_allclose(result.global_norms, np.sqrt(1.010101), rtol=1e-6)


def test_angles_are_exact_near_zero():
    assert angle_between([1.0, 0.0], [1.0, 1e-12]) == pytest.approx(np.degrees(1e-12))
    assert angle_between([1e-200, 0.0], [0.0, 1e200]) == pytest.approx(90)
    assert math.isnan(angle_between([0.0], [1.0]))


def test_clipping_audit_against_the_definitions():
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=s) for s in (4, 3)]
    flat = np.concatenate(grads)
    for method, expected in (
        ("value", np.clip(flat, -0.5, 0.5)),
        ("global_norm", flat * 0.5 / np.linalg.norm(flat)),
        ("norm", np.concatenate([g * 0.5 / np.linalg.norm(g) for g in grads])),
    ):
        audit = audit_clipping(["a", "b"], grads, method=method, threshold=0.5,
                               reported_norm=np.linalg.norm(flat), framework="NumPy")  # fmt: skip
        parts = [np.linalg.norm(expected[:4]), np.linalg.norm(expected[4:])]
        np.testing.assert_allclose(audit.clipped_norms, parts, rtol=1e-12)
        assert audit.angle == pytest.approx(angle_between(flat, expected), abs=1e-9)
        assert audit.changed == ("a", "b")


def test_the_picture_has_layers_by_steps():
    result = record(10.0 ** np.arange(-7, 1))
    for quantity in ("activation_grad_norms", "update_ratios", "active_fractions"):
        ax = plot_flow_record(result, quantity=quantity)
        assert ax.collections[0].get_array().shape == (8, 4)
        plt.close(ax.figure)
    ax = plot_flow_record(result)
    assert ax.collections[0].get_array()[0, 0] == pytest.approx(-7)  # the input is at the bottom
    plt.close(ax.figure)
    with pytest.raises(TypeError, match="`record`"):
        plot_flow_record("x")
    with pytest.raises(ValueError, match="`quantity`"):
        plot_flow_record(result, quantity="x")


def test_what_cannot_be_diagnosed_is_refused():
    with pytest.raises(TypeError, match="`results`"):
        diagnose("a model")
    with pytest.raises(ValueError, match="`results`"):
        diagnose()
    with pytest.raises(ValueError, match=r"0 samples.*callbacks of `fit`.*optimizer\.step"):
        diagnose(record(np.ones(4), steps=0))
    short = BPTTProfile("PyTorch", "float32", "lstm", "recursion", np.zeros(5))
    report = diagnose({"lstm": short})
    assert isinstance(report, Report)
    assert report.describe().startswith("Nothing found")


def test_a_report_counts_what_it_has():
    def told(*severities):
        findings = tuple(Finding("code", s, "what", "where", 1.0, 0.5, "why", "remedy")
                         for s in severities)  # fmt: skip
        return Report(findings, ()).describe()

    end = "; first: what at where."
    assert told("problem") == "Found 1 problem" + end
    assert told("warning", "warning", "info") == "Found 2 warnings, 1 info" + end
    assert told("problem", "problem", "warning") == "Found 2 problems, 1 warning" + end


def test_a_fault_that_two_checks_see_is_named_once():
    first, second = (
        Finding("rescaled_layer", "problem", what, "block.0", 9.0, 4.0, "why", "remedy")
        for what in ("by its signal", "by its peers")
    )
    elsewhere = replace(second, where="block.1")
    report = Report((first,), ()).with_findings([second, elsewhere])
    assert report.findings == (first, elsewhere)
    mild = Report((replace(first, severity="warning"),), ())
    assert mild.with_findings([second]).findings == (second,)
