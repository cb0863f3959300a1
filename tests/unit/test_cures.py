"""Cures: what they change, by which rules they are judged, and that verdicts hold on other seeds.

The seeds of the last tests are not those of the chapter.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

import course_lib.tf
from course_lib import plots, pytorch
from course_lib.cure_results import (
    CHANGE,
    THRESHOLDS,
    AlarmCounts,
    CureTrial,
    count_alarms,
    judge_change,
    judge_pair,
)
from course_lib.cure_trials import measure_groups
from course_lib.cures import (
    CURES,
    PATIENTS,
    Recipe,
    apply_cures,
    compare_cures,
    measure_trial,
    measure_trials,
)
from course_lib.data import load_digits_split
from course_lib.recurrent_cures import (
    RECURRENT_PATIENTS,
    RecurrentRecipe,
    apply_recurrent_cures,
    compare_recurrent_cures,
    measure_recurrent_trial,
)

DIGITS = load_digits_split(seed=0)
OTHER_SEEDS = range(1000, 1005)


def trial(**fields):
    shape = {"decades": 0.0, "dead_shares": 0.0, "slope_shares": 0.9, "zero_shares": 0.0,
             "grad_norms": 1.0, "smallest_grad_norms": 0.1, "weight_scales": 0.2,
             "accuracies": 0.9, "finite": True}  # fmt: skip
    arrays = {k: np.full(5, v) for k, v in (shape | fields).items() if np.ndim(v) == 0}
    return CureTrial(**arrays | {k: np.array(v) for k, v in fields.items() if np.ndim(v)})


def test_cures_are_applied_in_their_own_order():
    """He's weights belong to the activation that the network ends up with."""
    for names in (["ReLU", "He / Xavier"], ["He / Xavier", "ReLU"]):
        assert apply_cures(PATIENTS["vanishing"], names).network.init == "he_normal"
    assert apply_cures(PATIENTS["saturated"], ["He / Xavier"]).network.init == "glorot_normal"
    assert apply_cures(PATIENTS["dead"], ["He / Xavier"]).network.bias == 0.0
    assert apply_cures(PATIENTS["dead"], []) == PATIENTS["dead"]


@pytest.mark.parametrize("cure", ["clip to 1", "rate / 10", "decay 1e-5", "Adam"])
@pytest.mark.parametrize("patient", PATIENTS)
def test_what_acts_on_the_step_leaves_the_first_gradient(patient, cure):
    before = measure_trial(PATIENTS[patient], DIGITS, seeds=[3], steps=0)
    after = measure_trial(apply_cures(PATIENTS[patient], [cure]), DIGITS, seeds=[3], steps=0)
    assert before.decades == after.decades
    assert before.grad_norms == after.grad_norms


@settings(max_examples=10, deadline=None)
@given(c=st.floats(0.5, 8.0))
def test_scale_adds_decades_and_batch_norm_absorbs_it(c):
    he = apply_cures(PATIENTS["exploding"], ["He / Xavier"])
    scaled = replace(he, network=replace(he.network, gain=c))
    plain, grown = (measure_trial(r, DIGITS, seeds=[1], steps=0) for r in (he, scaled))
    # The Jacobian gains exactly this; but larger outputs make the loss weigh the images otherwise.
    np.testing.assert_allclose(grown.decades - plain.decades, 8 * np.log10(c), atol=0.2)
    normed = [
        measure_trial(replace(r, norm="batch"), DIGITS, seeds=[1], steps=0) for r in (he, scaled)
    ]
    # The same here, by the output layer, which is not normalized; test_ensemble is exact.
    np.testing.assert_allclose(normed[0].decades, normed[1].decades, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ([0.25, 0.25, 0.3, 0.25, -0.1], "helps"),
        ([0.25, 0.25, 0.3, -0.1, -0.1], "varies"),
        ([-0.25, -0.3, -0.25, -0.25, 0.1], "harms"),
        ([0.1, -0.1, 0.0, 0.19, 0.5], "no effect"),
        ([0.0, 0.0, 0.0, 0.5, 0.5], "varies"),
        ([CHANGE] * 5, "helps"),
    ],
)
def test_judge_change(changes, verdict):
    before = np.zeros(5)
    assert judge_change(before, np.array(changes)) == verdict
    assert judge_change(before, np.array(changes)[::-1]) == verdict


def test_judge_pair():
    low, high = np.full(3, 0.4), np.full(3, 0.6)
    assert judge_pair(low, high, np.full(3, 0.9)) == "adds"
    assert judge_pair(low, high, np.full(3, 0.65)) == "no better than the better one"
    assert judge_pair(high, low, np.full(3, 0.4)) == "spoils"


def test_conditions_are_told_apart():
    assert trial().condition == "healthy"
    assert trial(decades=-2.1).condition == "vanishing"
    assert trial(decades=np.inf).condition == "exploding"
    assert trial(decades=np.nan).condition == "exploding"
    assert trial(dead_shares=0.5, slope_shares=0.1).condition == "dead"
    assert trial(slope_shares=0.1).condition == "saturated"
    assert trial(decades=[-3.0, -3.0, 0.0, 0.0, 0.0]).condition == "varies"
    assert trial(decades=[-3.0, 0.0, 0.0, 0.0, 0.0]).condition == "healthy"  # 4 of 5 agree
    assert trial(decades=[-3.0, -3.0, -3.0, -3.0, 0.0]).condition == "vanishing"


def test_alarms_are_counted_once_for_each_trial():
    sick, well = trial(decades=-5.0, accuracies=0.1), trial()
    counts = count_alarms([sick, sick, well], THRESHOLDS["our four conditions"][1])
    assert (counts.sick, counts.healthy, counts.found, counts.accused) == (5, 5, 5, 0)
    assert count_alarms([sick], lambda t: t.grad_norms > 100).found == 0
    assert counts.describe() == "finds all of the sick, accuses none of the healthy"
    some = AlarmCounts(sick=100, healthy=100, found=37, accused=9)
    assert some.describe() == "finds about 40 % of the sick, accuses under 10 % of the healthy"
    nearly = AlarmCounts(sick=100, healthy=100, found=99, accused=90)
    assert nearly.describe() == "finds over 90 % of the sick, accuses about 90 % of the healthy"


@pytest.mark.parametrize("framework", [pytorch, course_lib.tf], ids=["pytorch", "tf"])
@pytest.mark.parametrize(
    ("patient", "cures"),
    [("vanishing", ["batch norm", "shortcuts"]), ("exploding", ["layer norm"]),
     ("dead", ["leaky ReLU", "He / Xavier"]), ("vanishing", ["ReLU", "clip to 1"])],
)  # fmt: skip
def test_both_frameworks_do_what_the_ensemble_does(framework, patient, cures):
    recipe = apply_cures(PATIENTS[patient], cures)
    ours = measure_trial(recipe, DIGITS, seeds=[2, 5], steps=25)
    decades, accuracy = framework.run_recipe(recipe, DIGITS, seed=5, steps=25)
    assert abs(decades - ours.decades[1]) < 1e-9
    # Keras's running variance is the biased one, and its Adam has another epsilon: two points
    assert abs(accuracy - ours.accuracies[1]) < 0.02


FEED_FORWARD = {
    "vanishing": {"ReLU": "helps", "He / Xavier": "no effect", "batch norm": "helps",
                  "layer norm": "no effect", "shortcuts": "helps", "clip to 1": "no effect"},
    "exploding": {"He / Xavier": "helps", "batch norm": "helps", "shortcuts": "no effect",
                  "clip to 1": "no effect", "rate / 10": "no effect"},
    "dead": {"leaky ReLU": "no effect", "He / Xavier": "helps", "batch norm": "helps",
             "shortcuts": "helps", "rate / 10": "no effect"},
    "saturated": {"ReLU": "no effect", "He / Xavier": "helps", "batch norm": "helps",
                  "layer norm": "helps", "clip to 1": "no effect"},
}  # fmt: skip
CONDITIONS = {
    ("vanishing", ""): "vanishing", ("vanishing", "batch norm"): "healthy",
    ("vanishing", "layer norm"): "vanishing", ("exploding", ""): "exploding",
    ("exploding", "shortcuts"): "exploding", ("exploding", "batch norm"): "healthy",
    ("dead", ""): "vanishing + dead", ("dead", "shortcuts"): "dead",
    ("dead", "leaky ReLU"): "vanishing + saturated", ("saturated", ""): "saturated",
    ("saturated", "ReLU"): "exploding", ("saturated", "He / Xavier"): "healthy",
}  # fmt: skip


@pytest.mark.parametrize("patient", FEED_FORWARD)
def test_the_chapters_verdicts_hold_on_other_seeds(patient):
    expected = FEED_FORWARD[patient]
    table = compare_cures(DIGITS, patients=[patient], cures=list(expected), seeds=OTHER_SEEDS)
    assert {cure: table.verdict(patient, cure) for cure in expected} == expected
    found = table.conditions()
    for key, condition in CONDITIONS.items():
        if key in found:
            assert found[key] == condition, key
    assert patient in table.describe()
    assert table.row(patient).startswith(patient)


def test_recurrent_verdicts_hold_on_other_seeds():
    expected = {"orthogonal": "helps", "LSTM, bias 1": "helps", "shortcut": "helps",
                "clip to 1": "no effect"}  # fmt: skip
    table = compare_recurrent_cures(patients=["vanishing"], cures=list(expected),
                                    seeds=OTHER_SEEDS)  # fmt: skip
    assert {cure: table.verdict("vanishing", cure) for cure in expected} == expected
    table = compare_recurrent_cures(patients=["exploding"], cures=["clip to 1", "orthogonal"],
                                    seeds=OTHER_SEEDS, steps=60)  # fmt: skip
    assert table.verdict("exploding", "clip to 1") == "helps"
    assert table.verdict("exploding", "orthogonal") == "no effect"


@pytest.mark.parametrize("cures", [["He / Xavier"], ["batch norm"], ["Adam", "layer norm"]])
def test_recipes_of_one_structure_are_measured_as_each_alone(cures):
    """Side by side are different weights, rates, limits and decays; none acts on a neighbour."""
    recipe = apply_cures(PATIENTS["dead"], cures)
    recipes = {"": recipe, "bias": replace(recipe, network=replace(recipe.network, bias=-0.1)),
               "clip": replace(recipe, clip_norm=0.3), "rate": replace(recipe, learning_rate=0.02),
               "decay": replace(recipe, weight_decay=0.3), "same": replace(recipe)}  # fmt: skip
    together = measure_trials(recipes, DIGITS, seeds=[4, 9], steps=12)
    assert list(together) == list(recipes)
    assert together["same"] is together[""]
    for label, other in recipes.items():
        alone = measure_trial(other, DIGITS, seeds=[9], steps=12)
        for name, values in vars(alone).items():
            # one network's arithmetic is the same in any company, but for the order of a sum
            np.testing.assert_allclose(vars(together[label])[name][1:], values, rtol=1e-12,
                                       err_msg=f"{label}, {name}")  # fmt: skip
    different = {trial.accuracies.tobytes() for trial in together.values()}
    assert len(different) > 3  # what is compared are not copies of one run


def test_what_diverges_does_not_stop_its_neighbours():
    he = apply_cures(PATIENTS["exploding"], ["He / Xavier"])
    wild = replace(he, learning_rate=1e6)
    together = measure_trials({"he": he, "wild": wild}, DIGITS, seeds=[0], steps=20)
    assert not together["wild"].finite[0]
    assert together["wild"].accuracies[0] == 0.1
    assert together["he"].accuracies == measure_trial(he, DIGITS, seeds=[0], steps=20).accuracies


def test_a_group_of_recurrent_recipes_is_measured_as_each_alone():
    cures = ["orthogonal", "identity"]
    table = compare_recurrent_cures(patients=["saturated"], cures=cures, seeds=[4, 9], steps=3,
                                    sequences=32)  # fmt: skip
    for cure in ("", *cures):
        recipe = apply_recurrent_cures(RECURRENT_PATIENTS["saturated"], [cure] if cure else [])
        alone = measure_recurrent_trial(recipe, seeds=[9], steps=3, sequences=32)
        np.testing.assert_allclose(table.trial("saturated", cure).decades[1], alone.decades[0])
        assert table.trial("saturated", cure).accuracies[1] == alone.accuracies[0]


def test_plots_name_every_cell():
    table = compare_cures(DIGITS, patients=["dead"], cures=["ReLU", "batch norm"], seeds=[0],
                          steps=1)  # fmt: skip
    rows = ["untreated", "ReLU", "batch norm"]
    for plot, names in ((plots.plot_cure_conditions, rows), (plots.plot_cure_verdicts, rows[1:])):
        ax = plot(table)
        assert len(ax.texts) == len(ax.patches) == len(names)
        assert [t.get_text() for t in ax.get_yticklabels()] == names
    with pytest.raises(TypeError, match="`table`"):
        plots.plot_cure_verdicts({})


def test_the_seeds_of_every_cell_are_points_unless_rounding_decides():
    table = compare_cures(DIGITS, patients=["exploding", "dead"], cures=["clip to 1"],
                          seeds=[0, 1, 2], steps=1)  # fmt: skip
    figure = plots.plot_cure_seeds(table, unsettled=[("exploding", "clip to 1")])
    left, right = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["exploding", "dead"]
    assert [t.get_text() for t in left.get_yticklabels()] == ["untreated", "clip to 1"]
    assert right.yaxis.get_tick_params()["labelleft"]
    (untreated,) = left.lines
    np.testing.assert_array_equal(untreated.get_xdata(), 100 * table.trial("exploding").accuracies)
    assert [t.get_text() for t in left.texts] == ["chaotic, no effect"]
    assert len(right.lines) == 2
    before = plots.plot_cure_seeds(table, quantity="decades").axes
    np.testing.assert_array_equal(before[0].lines[0].get_xdata(), table.trial("exploding").decades)
    assert not before[1].lines  # nothing arrives at the first layer of any dead network
    assert [t.get_text() for t in before[1].texts] == ["nothing arrives"] * 2
    for options in ({"quantity": "finite"}, {"unsettled": ["dead"]}, {"unsettled": [["dead", ""]]},
                    {"unsettled": [("dead", "hope")]}):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{next(iter(options))}"):
            plots.plot_cure_seeds(table, **options)


@pytest.mark.parametrize("patient", PATIENTS)
def test_rounding_decides_only_where_weights_are_too_large(patient):
    """What the chapter looks for among the exploding and the saturated is nowhere else."""
    cures = [cure for cure in CURES if cure not in ("decay 1e-5", "Adam")]
    nudged = replace(DIGITS, x_train=DIGITS.x_train * (1 + 2.0**-52))
    here, there = (compare_cures(d, patients=[patient], cures=cures, seeds=range(5))
                   for d in (DIGITS, nudged))  # fmt: skip
    moved = {
        cure
        for (_, cure), trial in here.trials.items()
        if not np.array_equal(trial.accuracies, there.trial(patient, cure).accuracies)
    }
    assert moved == {
        "exploding": {"clip to 1"},
        "saturated": {"", "shortcuts", "clip to 1", "rate / 10"},
    }.get(patient, set())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: Recipe("relu"), "network"),
        (lambda: replace(PATIENTS["dead"], norm="group"), "norm"),
        (lambda: replace(PATIENTS["dead"], shortcut=1), "shortcut"),
        (lambda: replace(PATIENTS["dead"], optimizer="sgdm"), "optimizer"),
        (lambda: replace(PATIENTS["dead"], learning_rate=0.0), "learning_rate"),
        (lambda: replace(PATIENTS["dead"], clip_norm=-1.0), "clip_norm"),
        (lambda: replace(PATIENTS["dead"], weight_decay=-1.0), "weight_decay"),
        (lambda: apply_cures(PATIENTS["dead"], ["hope"]), "cures"),
        (lambda: apply_cures("dead", ["ReLU"]), "recipe"),
        (lambda: measure_trial(PATIENTS["dead"], DIGITS, seeds=[]), "seeds"),
        (lambda: measure_trial(PATIENTS["dead"], DIGITS, seeds=[-1]), "seeds"),
        (lambda: measure_trial(PATIENTS["dead"], DIGITS.x_train, seeds=[0]), "data"),
        (lambda: measure_trial(PATIENTS["dead"], DIGITS, seeds=[0], steps=-1), "steps"),
        (lambda: measure_trials({}, DIGITS, seeds=[0]), "recipes"),
        (lambda: measure_trials({"a": "dead"}, DIGITS, seeds=[0]), "recipes"),
        (lambda: compare_cures(DIGITS, patients=["old"], seeds=[0]), "patients"),
        (lambda: RecurrentRecipe("lstm"), "network"),
        (lambda: replace(RECURRENT_PATIENTS["dead"], lag=0), "lag"),
        (lambda: apply_recurrent_cures(RECURRENT_PATIENTS["dead"], ["hope"]), "cures"),
        (lambda: measure_recurrent_trial(PATIENTS["dead"], seeds=[0]), "recipe"),
        (lambda: compare_recurrent_cures(patients=["old"], seeds=[0]), "patients"),
        (lambda: judge_change(np.zeros(2), np.zeros(3)), "after"),
        (lambda: count_alarms([], lambda t: t), "trials"),
        (lambda: count_alarms([trial()], "alarm"), "alarm"),
    ],
)
def test_bad_input_names_the_argument(call, name):
    with pytest.raises((TypeError, ValueError), match=f"`{name}"):
        call()


def test_every_cure_changes_some_patient():
    for name in CURES:
        assert any(apply_cures(p, [name]) != p for p in PATIENTS.values()), name


def test_trials_run_on_one_thread_of_numpys_and_give_the_others_back():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    def measure(group):
        seen.append(threads())
        return group

    before, seen = threads(), []
    assert measure_groups({"a": 1, "b": 2}, structure=bool, measure=measure) == {"a": 1, "b": 2}
    assert set(seen[0]) <= {1}
    assert threads() == before
