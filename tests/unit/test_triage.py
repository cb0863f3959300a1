"""The order of questions, the lectures' checks, and the units of the loss."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import NetworkSpec, draw_weights, plots, reference
from course_lib.data import gaussian_batch
from course_lib.flow_recorder import FlowRecorder
from course_lib.lecture_checks import (
    LECTURE_CHECKS,
    TRIAGE_CHECK,
    judge_runs,
    rescale_loss,
    sweep_units,
)
from course_lib.monitoring import ParameterState, Sample, Site
from course_lib.reference.flow_recording import train_recorded
from course_lib.triage import QUESTIONS, triage

LAYERS = 6
CHECKS = {check.name: check for check in LECTURE_CHECKS}


def make_record(*, grads=None, kind="relu", dead=0, flat=None, ratio=1e-3, norms=None, steps=4,
                spoil=None, ratios=None):  # fmt: skip
    """A record of six layers of 8 units on 4 inputs, the same at every step unless `spoil` acts."""
    grads = np.ones(LAYERS) if grads is None else grads
    norms = np.ones(LAYERS) if norms is None else norms
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=50, share=0.1)
    for step in range(steps):
        sites, states = [], []
        for k in range(LAYERS):
            active = np.full(8, 2.0)
            active[: dead if k == 2 else 0] = 0
            site = Site(f"l{k}", "Dense", kind, 32, 4, 1.0, float(grads[k]), active)
            site.flat = None if flat is None else np.full(8, 4.0 * (flat if k == 3 else 0.0))
            sites.append(site)
            update = ratio if ratios is None else ratios[k]
            states.append(
                ParameterState(f"l{k}.weight", f"l{k}", 2, True, float(norms[k]), 1.0, update)
            )
        sample = Sample(step, sites, states)
        if spoil:
            spoil(sample)
        recorder.add(sample)
    return recorder.record()


def spoil_from(step, change):
    return lambda sample: change(sample) if sample.step >= step else None


def set_nan(sample):
    sample.sites[1].grad_norm = float("nan")


def kill(sample):
    sample.sites[4].active = np.zeros(8)


CASES = {
    "healthy": {},
    "non_finite": {"spoil": spoil_from(0, set_nan)},
    "dead_units": {"dead": 4},
    "saturation": {"kind": "tanh", "flat": 0.5},
    "vanishing_gradient": {"grads": 10.0 ** np.linspace(-2.05, 0, LAYERS)},
    "exploding_gradient": {"grads": 10.0 ** np.linspace(2.05, 0, LAYERS)},
    "large_update": {"ratio": 0.51},
    "lost_units": {"spoil": spoil_from(2, kill)},
    "standing_still": {"ratio": 0.9e-6},
}
JUST_BELOW = {
    "dead_units": {"dead": 3},
    "saturation": {"kind": "tanh", "flat": 0.49},
    "vanishing_gradient": {"grads": 10.0 ** np.linspace(-1.95, 0, LAYERS)},
    "exploding_gradient": {"grads": 10.0 ** np.linspace(1.95, 0, LAYERS)},
    "large_update": {"ratio": 0.49},
    "standing_still": {"ratio": 1.1e-6},
}


@pytest.mark.parametrize("verdict", CASES)
def test_each_question_has_its_run(verdict):
    assert triage(make_record(**CASES[verdict])).verdict == verdict


@pytest.mark.parametrize("verdict", JUST_BELOW)
def test_just_below_the_threshold_is_healthy(verdict):
    assert triage(make_record(**JUST_BELOW[verdict])).verdict == "healthy"


def test_the_place_is_named():
    places = {"dead_units": "l2", "saturation": "l3", "vanishing_gradient": "l5 to l0",
              "lost_units": "l4"}  # fmt: skip
    for verdict, place in places.items():
        assert triage(make_record(**CASES[verdict])).answers[-1].where == place
    slow = triage(make_record(ratios=[1e-3, 1e-3, 1e-9, 1e-3, 1e-3, 1e-3]))
    assert (slow.verdict, slow.answers[-1].where) == ("standing_still", "l2.weight")


def test_causes_come_before_their_consequences():
    both = make_record(dead=6, grads=10.0 ** np.linspace(-5, 0, LAYERS), ratio=2.0)
    assert triage(both).verdict == "dead_units"
    later = make_record(grads=10.0 ** np.linspace(4, 0, LAYERS), spoil=spoil_from(2, kill))
    assert triage(later).verdict == "exploding_gradient"


def test_a_run_that_breaks_later_is_a_long_step():
    result = triage(make_record(spoil=spoil_from(2, set_nan)))
    assert result.verdict == "large_update"
    assert result.answers[-1].value == np.inf
    assert result.answers[-1].where == "step 2: activation gradient of l1"


def test_an_inactive_half_is_not_saturated():
    """A ReLU is flat on its off side, which is what it is for."""
    assert triage(make_record(kind="relu", flat=1.0)).verdict == "healthy"


def test_the_words_hold_the_numbers():
    result = triage(make_record(**CASES["vanishing_gradient"]))
    assert result.describe().startswith("vanishing_gradient: decades")
    assert "Yes: -2 at l5 to l0 (yes means at most -2)" in result.answers[-1].describe()
    assert result.answers[2].describe().endswith("first update? Does not apply.")
    rows = str(result).split("\n")
    assert rows[-1] == "yes       -2 (<= -2)    Does the gradient fall towards the input? l5 to l0"
    assert rows[2] == "-          -            Are units saturated before the first update?"
    healthy = triage(make_record())
    assert healthy.describe() == f"healthy: {len(QUESTIONS)} questions, all answered with no."


@given(st.floats(-9, 9), st.sampled_from(sorted(CASES)))
def test_the_units_of_the_loss_do_not_matter_to_triage(power, verdict):
    record = make_record(**CASES[verdict])
    assert triage(rescale_loss(record, 10.0**power)).verdict == verdict


def test_other_units_are_what_a_scaled_loss_gives():
    """`rescale_loss` against the same training with the loss times 64 and the rate over 64."""
    spec = NetworkSpec(6, 8, 4, 3, "relu", init="he_normal")
    x, y = gaussian_batch(30, 6, seed=0), np.arange(30) % 3

    def run(factor):
        model = reference.build_mlp(spec, draw_weights(spec, seed=0))
        return train_recorded(model, x, y, learning_rate=0.2 / factor, steps=6, every=2,
                              loss_scale=factor).record  # fmt: skip

    told, trained = rescale_loss(run(1.0), 64.0), run(64.0)
    for name in ("activation_grad_norms", "weight_grad_norms", "update_ratios", "weight_norms",
                 "activation_scales", "dead_fractions"):  # fmt: skip
        np.testing.assert_allclose(getattr(told, name), getattr(trained, name), rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in CHECKS if n != "1 check_dead_neurons"])
@given(st.floats(0.1, 10))
def test_every_absolute_check_can_be_turned(name, size):
    """The theorem of the chapter: some unit of the loss makes each of them accuse any run."""
    record = make_record(norms=np.full(LAYERS, size))
    assert CHECKS[name].accuse(record) == frozenset()
    assert CHECKS[name].accuse(rescale_loss(record, 1e6)) == {"exploding_gradient"}
    if "vanishing_gradient" in CHECKS[name].claims:
        assert CHECKS[name].accuse(rescale_loss(record, 1e-9)) == {"vanishing_gradient"}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("0 check_gradient_flow", 1e-7, 1e3), ("1 monitoring loop", 1e-6, 100.0),
     ("2 check_gradients", 1e-7, 1e3), ("3 detection", None, 100.0)],
)  # fmt: skip
def test_the_limits_are_those_of_the_lectures(name, low, high):
    count = {"0": 1.0, "3": LAYERS}.get(name[0], np.sqrt(LAYERS))  # each, sum, or root of squares
    accuse = CHECKS[name].accuse
    for size, said in ((1.01 * high, {"exploding_gradient"}), (0.99 * high, set())):
        assert accuse(make_record(norms=np.full(LAYERS, size / count))) == said
    if low is not None:
        small = make_record(norms=np.full(LAYERS, 0.99 * low / count))
        assert accuse(small) == {"vanishing_gradient"}


def test_a_total_norm_does_not_see_the_first_layers():
    record = make_record(norms=10.0 ** np.linspace(-300, 0, LAYERS))
    assert CHECKS["2 check_gradients"].accuse(record) == frozenset()
    assert CHECKS["0 check_gradient_flow"].accuse(record) == {"vanishing_gradient"}


def test_a_nan_passes_all_checks_but_one():
    def spoil(sample):
        sample.parameters[0].grad_norm = float("nan")

    record = make_record(spoil=spoil)
    said = {name: check.accuse(record) for name, check in CHECKS.items()}
    assert said.pop("3 detection") == {"exploding_gradient"}
    said.pop("1 check_dead_neurons")
    assert set(said.values()) == {frozenset()}


def test_the_twenty_percent_rule_counts_zeros():
    zeros = CHECKS["1 check_dead_neurons"]
    assert zeros.accuse(make_record()) == {"dead_units"}  # half of the values are zero, none dead
    assert zeros.accuse(make_record(kind="tanh")) == frozenset()


def test_verdicts_are_counted():
    runs = {"a": make_record(), "b": make_record(**CASES["dead_units"]),
            "c": make_record(norms=np.full(LAYERS, 1e4))}  # fmt: skip
    table = judge_runs(runs, ["healthy", "dead_units", "healthy"])
    row = {name: k for k, name in enumerate(table.checks)}
    assert table.right[row["triage"]].tolist() == [True, True, True]
    zeros = row["1 check_dead_neurons"]
    assert table.right[zeros].tolist() == [False, True, False]
    assert table.false[zeros].tolist() == [True, False, True]
    total = row["2 check_gradients"]
    assert table.right[total].tolist() == [True, True, False]
    vanishing = judge_runs({"v": make_record(**CASES["vanishing_gradient"])},
                           ["vanishing_gradient"])  # fmt: skip
    assert vanishing.missed[row["2 check_gradients"], 0]
    assert not vanishing.missed[row["3 detection"], 0]  # it never claimed to see that
    assert "triage: 3 right, 0 missed, 0 falsely accused" in table.describe()


def test_the_sweep_over_units():
    runs = {"a": make_record(), "b": make_record(**CASES["vanishing_gradient"])}
    sweep = sweep_units(runs, ["healthy", "vanishing_gradient"], [1e-9, 1.0, 1e9])
    row = {name: k for k, name in enumerate(sweep.checks)}
    assert sweep.right[row["triage"]].tolist() == [2, 2, 2]
    assert sweep.right[row["2 check_gradients"]].tolist() == [1, 1, 0]
    assert "18 decades" in sweep.describe()


def test_pictures_of_the_questions_and_of_the_sweep():
    for result in (None, *(triage(make_record(**case)) for case in CASES.values())):
        ax = plots.plot_triage(result)
        texts = "\n".join(text.get_text() for text in ax.texts)
        assert all(question.text in texts for question in QUESTIONS)
        plt.close(ax.figure)
    sweep = sweep_units({"a": make_record()}, ["healthy"], [0.1, 1.0, 10.0])
    ax = plots.plot_units_sweep(sweep)
    assert len(ax.lines) == len(sweep.checks)
    plt.close(ax.figure)


RECORD = make_record()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: triage("x"), "record"),
        (lambda: triage(make_record(steps=0)), "record"),
        (lambda: rescale_loss("x", 1.0), "record"),
        (lambda: rescale_loss(RECORD, 0.0), "factor"),
        (lambda: judge_runs({}, ["healthy"]), "runs"),
        (lambda: judge_runs({"a": RECORD}, ["unknown"]), "causes"),
        (lambda: judge_runs({"a": RECORD}, ["healthy", "healthy"]), "causes"),
        (lambda: judge_runs({"a": RECORD}, ["healthy"], checks=["x"]), r"checks\[0\]"),
        (lambda: judge_runs({"a": RECORD}, ["healthy"], checks=()), "checks"),
        (lambda: sweep_units({"a": RECORD}, ["healthy"], [1.0, 0.5]), "factors"),
        (lambda: sweep_units({"a": RECORD}, ["healthy"], [-1.0, 0.5]), "factors"),
        (lambda: sweep_units("x", ["healthy"], [1.0]), "runs"),
        (lambda: plots.plot_triage("x"), "result"),
        (lambda: plots.plot_units_sweep("x"), "sweep"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
        call()


def test_triage_is_one_of_the_checks():
    assert TRIAGE_CHECK.is_right(make_record(**CASES["lost_units"]), "lost_units")
    assert not TRIAGE_CHECK.is_right(RECORD, "saturation")
