"""Six runs without labels: what they hide, what triage finds in them, and what cures them."""

import json
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import NetworkSpec, plots
from course_lib.digit_runs import RunSpec, draw_run_weights, load_run_data, perform_run
from course_lib.remedies import LEARNED, REMEDIES, compare_remedies, is_cured, treat
from course_lib.triage import QUESTIONS, triage
from course_lib.unlabelled_runs import CAUSES, draw_runs, reveal

SEEDS = (3, 8, 101, 102)
"""None of them is the book's; together they hold both kinds of every trouble."""


@pytest.fixture(scope="module")
def draws():
    return {seed: draw_runs(seed=seed) for seed in SEEDS}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def all_runs(draws):
    return [(seed, run) for seed, runs in draws.items() for run in runs]


def test_each_cause_once_in_an_order_of_its_own(draws):
    orders = [tuple(reveal(run) for run in runs) for runs in draws.values()]
    assert all(sorted(order) == sorted(CAUSES) for order in orders)
    assert len(set(orders)) == len(orders)
    assert [run.name for run in draws[SEEDS[0]]] == list("ABCDEF")


def test_the_seeds_hold_both_kinds_of_every_trouble(draws):
    kinds = {name: set() for name in CAUSES}
    for _, run in all_runs(draws):
        spec = run.run.spec
        network = spec.network
        kinds[reveal(run)].add((network.activation, spec.loss_scale == 1, spec.input_shift == 0))
    assert {kind[0] for kind in kinds["vanishing_gradient"]} == {"relu", "sigmoid"}
    assert {kind[2] for kind in kinds["saturation"]} == {True, False}
    for cause in ("standing_still", "healthy"):
        assert {kind[1] for kind in kinds[cause]} == {True, False}


def test_the_same_seed_gives_the_same_runs(draws):
    again = draw_runs(seed=SEEDS[0])
    for one, two in zip(draws[SEEDS[0]], again, strict=True):
        for name, value in one.measurements().items():
            np.testing.assert_array_equal(value, two.measurements()[name])


def test_triage_names_every_cause(draws):
    found = {(seed, run.name): triage(run.record).verdict for seed, run in all_runs(draws)}
    assert found == {(seed, run.name): reveal(run) for seed, run in all_runs(draws)}


def test_nothing_that_is_shown_tells_the_cause(draws):
    for _, run in all_runs(draws):
        shown = repr(run) + repr(run.run) + run.describe()
        assert not any(cause in shown for cause in CAUSES)
        data = run.measurements()
        assert "cause" not in data
        json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in data.items()})
        assert all(isinstance(v, list) or v.dtype == np.float64 for v in data.values())
        assert data["update_ratios"].shape == (20, len(data["layers"]))
        assert data["losses"].shape == data["steps"].shape == (20,)


def test_the_healthy_run_has_many_zeros_and_learns(draws):
    for runs in draws.values():
        healthy = next(run for run in runs if reveal(run) == "healthy")
        zeros = 1 - healthy.record.active_fractions[:, :-1]
        assert zeros.mean() > 0.3
        assert healthy.run.accuracy > 0.8
        assert is_cured(healthy.run)


CURES = {
    "vanishing_gradient": "rectify",
    "exploding_gradient": "redraw",
    "dead_units": "zero_biases",
    "standing_still": "match_rate",
}


def test_what_cures_and_what_does_not(draws):
    for _, run in all_runs(draws):
        cause = reveal(run)
        if cause == "healthy":
            continue
        assert not is_cured(run.run)
        if cause == "saturation":
            remedy = "redraw" if run.run.spec.input_shift == 0 else "standardize"
        else:
            remedy = CURES[cause]
        cured = treat(run.run, remedy)
        assert is_cured(cured), (run, remedy)
        assert cured.accuracy > run.run.accuracy + 0.1
        assert not is_cured(treat(run.run, "lower_rate"))
        assert not is_cured(treat(run.run, "clip"))


def test_a_remedy_that_changes_nothing_returns_the_run(draws):
    run = next(run for _, run in all_runs(draws) if reveal(run) == "healthy").run
    for remedy in ("zero_biases", "standardize", "redraw", "rectify"):
        assert treat(run, remedy) is run
    matched = REMEDIES["match_rate"](run)
    again = perform_run(matched)
    assert np.median(again.record.update_ratios[0, run.matrices]) == pytest.approx(0.01)


def test_the_table_of_remedies(draws):
    runs = {reveal(run): run.run for run in draws[3] if reveal(run) in ("dead_units", "healthy")}
    table = compare_remedies(runs, remedies=("zero_biases", "clip"))
    assert table.cures("dead_units") == ("zero_biases",)
    assert table.changed.tolist() == [[name == "dead_units", True] for name in runs]
    assert "Run dead_units: zero_biases." in table.describe()
    assert table.find("healthy", "zero_biases") is runs["healthy"]
    assert table.accuracies.shape == (2, 2)
    cured = table.find("dead_units", "zero_biases")
    assert table.accuracies[list(runs).index("dead_units"), 0] == cured.accuracy
    with pytest.raises(ValueError, match="`run`"):
        table.cures("x")
    with pytest.raises(ValueError, match="`remedy`"):
        table.find("healthy", "x")


def test_a_run_at_too_large_a_rate_is_a_long_step():
    spec = RunSpec(NetworkSpec(64, 40, 5, 10, "relu", init="he_normal"), 3.0, 0)
    run = perform_run(spec)
    assert triage(run.record).verdict == "large_update"
    assert is_cured(treat(run, "match_rate"))


def test_cured_asks_for_both_halves():
    spec = RunSpec(NetworkSpec(64, 40, 3, 10, "relu", init="he_normal"), 0.1, 0)
    run = perform_run(spec)
    assert is_cured(run)
    assert not is_cured(replace(run, losses=np.full(80, LEARNED + 0.01)))
    still = perform_run(replace(spec, learning_rate=1e-9))
    assert not is_cured(replace(still, losses=np.zeros(80)))


def test_silenced_units_are_dead_and_the_rest_is_as_drawn():
    spec = RunSpec(NetworkSpec(64, 40, 4, 10, "relu", init="he_normal"), 0.1, 5,
                   silenced_layer=2, silenced_share=0.5)  # fmt: skip
    weights = draw_run_weights(spec)
    assert np.sum(weights.biases[1] == -30) == 20
    plain = draw_run_weights(replace(spec, silenced_layer=None))
    assert all(np.array_equal(a, b) for a, b in zip(weights.matrices, plain.matrices, strict=True))
    assert perform_run(spec).record.dead_fractions[0, 1] >= 0.5


@pytest.mark.parametrize(
    ("activation", "words"),
    [("relu", "inactive and at most"), ("leaky_relu", "inactive; an update"),
     ("tanh", "values are saturated"), ("linear", "no activation is known")],
)  # fmt: skip
def test_a_run_is_described_by_what_applies_to_its_activation(activation, words):
    network = NetworkSpec(64, 16, 4, 10, activation, init="glorot_normal")
    run = perform_run(RunSpec(network, 0.05, 0))
    assert words in run.describe()
    assert "not finite" not in run.describe()
    assert plots.plot_run_chart(run).axes


def test_inputs_are_scaled_and_shifted_in_both_parts():
    spec = RunSpec(NetworkSpec(64, 8, 2, 10), 0.1, 1, input_scale=3.0, input_shift=-5.0)
    one, other = load_run_data(RunSpec(NetworkSpec(64, 8, 2, 10), 0.1, 1)), load_run_data(spec)
    np.testing.assert_allclose(other.x_train, 3 * one.x_train - 5)
    np.testing.assert_allclose(other.x_test, 3 * one.x_test - 5)


def test_rounding_does_not_decide_the_runs_of_the_book():
    """Saturated networks with large weights are chaotic; the book's runs must travel."""
    for run in draw_runs(seed=11):
        spec = replace(run.run.spec, learning_rate=run.run.spec.learning_rate * (1 + 1e-14))
        again = perform_run(spec)
        np.testing.assert_allclose(again.losses, run.run.losses, rtol=1e-8)
        assert again.accuracy == run.run.accuracy


@pytest.mark.parametrize(
    ("name", "value"),
    [("network", 1), ("network", NetworkSpec(3, 4, 2, 10)), ("learning_rate", 0.0),
     ("learning_rate", "a"), ("seed", -1), ("input_scale", 0.0), ("loss_scale", np.nan),
     ("input_shift", np.inf), ("silenced_layer", 0), ("silenced_layer", 4),
     ("silenced_share", 1.5), ("clip_norm", 0.0)],
)  # fmt: skip
def test_a_bad_spec_is_named(name, value):
    valid = dict(network=NetworkSpec(64, 8, 4, 10), learning_rate=0.1, seed=0)
    with pytest.raises((TypeError, ValueError), match=f"`{name}"):
        RunSpec(**{**valid, name: value})


@pytest.mark.parametrize(
    ("function", "name"),
    [(perform_run, "spec"), (draw_run_weights, "spec"), (load_run_data, "spec"), (reveal, "run"),
     (is_cured, "run"), (lambda run: treat(run, "clip"), "run"), (compare_remedies, "runs"),
     (triage, "record"), (plots.plot_run_chart, "run")],
)  # fmt: skip
def test_what_is_no_run_is_refused(function, name):
    with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
        function("x")


def test_bad_seeds_and_remedies(draws):
    with pytest.raises(TypeError, match="`seed`"):
        draw_runs(seed=1.5)
    with pytest.raises(ValueError, match="`remedy`"):
        treat(draws[3][0].run, "prayer")
    with pytest.raises(ValueError, match="`remedies`"):
        compare_remedies({"A": draws[3][0].run}, remedies=())


def test_the_chart_draws_every_run_and_no_cause(draws):
    for run in draws[8]:
        figure = plots.plot_run_chart(run)
        assert len(figure.axes) == 5  # four panels and a color bar
        texts = " ".join(t.get_text() for ax in figure.axes for t in ax.texts)
        assert not any(cause.replace("_", " ") in texts for cause in CAUSES)


def test_every_question_names_another_cause():
    assert len({question.verdict for question in QUESTIONS}) == len(QUESTIONS)
    assert set(CAUSES) - {"healthy"} <= {question.verdict for question in QUESTIONS}
