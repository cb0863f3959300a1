"""As `test_bad_input_everywhere.py`, for the modules behind the later chapters."""

import inspect
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import (
    clipped_training,
    clipping,
    contributions,
    cure_results,
    cures,
    data,
    digit_runs,
    dying_units,
    echo,
    gates,
    gradient_histograms,
    growth_in_time,
    learning_rate,
    lecture_checks,
    matrix_powers,
    memory,
    plots,
    recovery,
    recurrent_cures,
    recurrent_results,
    recurrent_specs,
    reference,
    remedies,
    repairs,
    sequence_losses,
    signal_propagation,
    slope_ranges,
    stability,
    stability_map,
    stretching,
    tasks,
    time_contributions,
    triage,
    unit_states,
    unlabelled_runs,
)

TABLE = runpy.run_path(Path(__file__).with_name("bad_input_calls.py"))
SPEC, WEIGHTS, DIGITS = TABLE["SPEC"], TABLE["WEIGHTS"][TABLE["SPEC"]], TABLE["DIGITS"]
RECURRENT, NETWORK = TABLE["RECURRENT"], TABLE["RECURRENT_WEIGHTS"]
X, LABELS, SEQUENCES = TABLE["X"], TABLE["LABELS"], TABLE["SEQUENCES"]
NUMBER, WORD = TABLE["NUMBER"], TABLE["WORD"]
fault_of = TABLE["TABLE"]["fault_of"]
ONE_OUTPUT = TABLE["specs"].draw_weights(TABLE["specs"].NetworkSpec(3, 4, 2), seed=0)
GRADS = [np.ones((2, 3)), np.ones(3)]
MODEL = reference.build_mlp(SPEC, WEIGHTS)
FLOW = reference.recurrent_gradient_flow(reference.build_recurrent(RECURRENT, NETWORK), SEQUENCES)
PLAIN = recurrent_specs.draw_recurrent_weights(TABLE["ECHO"], seed=0)
PLAIN_FLOW = reference.recurrent_gradient_flow(
    reference.build_recurrent(TABLE["ECHO"], PLAIN), np.ones((2, 3, 1))
)
RUN = reference.train_monitored(MODEL, X, np.ones((4, 2)), learning_rate=0.1, steps=1)
RECIPE, REPAIR = TABLE["RECIPE"], TABLE["REPAIR"]
RECALL = recurrent_cures.RECURRENT_PATIENTS["dead"]
TRAINED = dict(
    optimizer=("name", "adam"), learning_rate=("above zero", 0.1),
    clip_norm=("optional above zero", 1.0),
)
RUNS = unlabelled_runs.draw_runs(seed=0)
RUN_SPEC = digit_runs.RunSpec(TABLE["specs"].NetworkSpec(64, 4, 3, n_out=10), 0.1, seed=0)
FINISHED = digit_runs.perform_run(RUN_SPEC)
TRIAL = cures.measure_trial(RECIPE, DIGITS, seeds=[0], steps=0, batch_size=2)
NUMBERS = {**WORD, "None": None, "number": 1.5, "nan": [np.nan], "words": ["a"],
           "deep": [[1.0]]}  # fmt: skip
TABLE["KINDS"] |= {
    "share": {"zero": 0, "two": 2.0, "minus": -0.5, **NUMBER},
    "inside": {"zero": 0, "one": 1.0, "minus": -0.5, **NUMBER},
    "numbers": {**NUMBERS, "inf": [np.inf]},
    "rates": {**NUMBERS, "inf": [np.inf], "zero": [0.0], "minus": [-0.1]},
    "rates or zero": {**NUMBERS, "inf": [np.inf], "minus": [-0.1]},
    "sizes": {**NUMBERS, "zero": [0], "half": [1.5], "minus": [-1]},
    "seeds": {**NUMBERS, "half": [1.5], "minus": [-1]},
    "names": {**WORD, "None": None, "number": 1.5, "numbers": [1.0], "words": ["abc"]},
    "cure": {**WORD, "None": None, "number": 1.5},
    "names or none": {**WORD, "None": None, "number": 1.5, "numbers": [1.0], "words": ["abc"]},
    "tensors by name": {**WORD, "None": None, "number": 1.5, "words": {"w": "a"}},
    "tensors": {**WORD, "None": None, "number": 1.5, "words": ["a"]},
    "function": {**WORD, "None": None, "number": 1.5, "array": X},
    "matrix or none": {**WORD, "number": 1.5, "nan": [[np.nan]], "deep": np.ones((2, 2, 2))},
    "name or none": {**WORD, "number": 1.5},
    "inputs of any width": lambda x: {
        label: value for label, value in TABLE["KINDS"]["inputs"](x).items()
        if label not in ("flat", "longer")
    },
    "matrix": {**WORD, "None": None, "number": 1.5, "nan": [[np.nan]], "inf": [[np.inf]],
               "deep": np.ones((2, 2, 2)), "vector": [1.0]},
    "optional channel": {"half": 1.5, "minus": -1, "nan": np.nan, "true": True, "far": 99, **WORD},
}
MEANT = {  # what an argument of this kind may be, though no other may
    "tensors": {"ragged"},  # two vectors of different length
    "tensors by name": {"mapping"},  # a number by its name
    "names or none": {"empty list", "empty array"},
    "cure": {"empty word"},  # untreated
}
CURE_TABLE = cure_results.CureTable(
    ("dead",), ("Adam",), {("dead", ""): TRIAL, ("dead", "Adam"): TRIAL})
REMEDY_TABLE = remedies.compare_remedies({"a": FINISHED}, remedies=["clip"])
RECURRENT_MODEL = reference.build_recurrent(RECURRENT, NETWORK)
CONNECTED = reference.connectivity(RECURRENT_MODEL, SEQUENCES)
SIZES = dict(sizes=("sizes", [3, 4, 2]), activation=("name", "tanh"), init=("name", "normal"),
             gain=("from zero", 1.0))  # fmt: skip
SEED = dict(seed=("integer", 0))
COUNT = dict(count=("size", 2), **SEED)
PAIR = dict(first=("tensors", GRADS), second=("tensors", GRADS))
LIMIT = dict(grads=("tensors", GRADS), limit=("above zero", 1.0))
SPLIT = ("record", DIGITS, {"arrays": (DIGITS.x_train, DIGITS.y_train)})
FITTED = ("record", DIGITS, TABLE["OTHER_DIGITS"])

CALLS = [  # function, argument -> (kind, a value that is right, what else is wrong)
    (clipping.global_norm, dict(grads=("tensors", GRADS))),
    *((f, LIMIT) for f in (clipping.clip_by_value, clipping.clip_by_norm,
                           clipping.clip_by_global_norm)),
    (clipping.angle_between, PAIR),
    (clipping.say_change, PAIR),
    (clipping.measure_clipping, dict(**LIMIT, way=("name", "tensor"))),
    (clipping.clipped_minimum, dict(targets=("numbers", [0.0, 1.0]), limit=("above zero", 1.0))),
    (learning_rate.linear_warmup, dict(
        step=("integer", 1), warmup_steps=("size", 2), base_rate=("above zero", 0.1))),
    (learning_rate.descend_quadratic, dict(
        curvatures=("numbers", [1.0, 2.0]), start=("numbers", [1.0, 1.0]),
        learning_rate=("above zero", 0.1), steps=("size", 2),
        clip_norm=("optional above zero", 1.0))),
    (learning_rate.respond_to_grads, dict(
        grads=("matrix", np.ones((3, 1))), optimizer=("name", "adam"),
        learning_rate=("above zero", 0.1), clip_norm=("optional above zero", 1.0))),
    (matrix_powers.spectral_radius, dict(matrix=("matrix", np.eye(2)))),
    (matrix_powers.nonnormal_matrix, dict(
        size=("size", 3), eigenvalue=("number", 0.5), coupling=("number", 1.0))),
    (matrix_powers.power_growth, dict(matrix=("matrix", np.eye(2)), steps=("size", 2))),
    (matrix_powers.recurrent_bounds, dict(
        w_hh=("matrix", np.eye(2)), activation=("name", "tanh"))),
    (memory.gate_bias, dict(gate=("inside", 0.5))),
    (memory.required_gate, dict(keep=("inside", 0.5), steps=("size", 3))),
    (memory.add_gate_bias, dict(
        weights=("record", NETWORK), gate=("name", "f"), value=("number", 1.0))),
    (memory.feedback_lstm, dict(
        forget=("inside", 0.5), factor=("number", 0.5), hidden=("size", 1),
        input_scale=("number", 0.1))),
    (memory.additive_path_norms, dict(
        w_hh=("matrix", np.eye(2)), w_xh=("matrix", np.ones((2, 1))),
        x=("matrix", np.ones((5, 1))), keep=("number", 1.0), activation=("name", "tanh"))),
    (memory.summarize_memory, dict(
        networks=("record", [NETWORK]), steps=("size", 3), input_scale=("from zero", 1.0), **SEED)),
    (memory.sweep_gate_bias, dict(
        spec=("record", RECURRENT), biases=("numbers", [0.0]), steps=("size", 3),
        draws=("size", 1), **SEED)),
    (signal_propagation.gaussian_mean, dict(
        function=("function", np.tanh), variance=("from zero", 1.0))),
    (signal_propagation.gaussian_mean_square, dict(
        function=("function", np.tanh), variance=("from zero", 1.0))),
    (signal_propagation.predict_signal, SIZES),
    (signal_propagation.measure_signal, dict(**SIZES, inputs=("size", 2), **SEED)),
    (stretching.rank_one_chain, dict(
        depth=("size", 2), stretch=("above zero", 2.0), angle_degrees=("number", 30.0))),
    (stretching.stretching_chain, dict(
        depth=("size", 2), width=("size", 3), stretch=("from zero", 2.0),
        rest=("from zero", 0.5), **SEED)),
    (stretching.isotropic_factor, dict(
        width=("size", 3), stretch=("from zero", 2.0), rest=("from zero", 0.5))),
    (unit_states.classify_units, dict(
        preactivations=("matrix", X), activation=("name", "relu"), share=("share", 0.1))),
    (unit_states.count_idle_units, dict(preactivations=("arrays", [X]), counts=("sizes", [2]))),
    (stability.detect_explosions, dict(run=("record", RUN), threshold=("above zero", 100.0))),
    (gradient_histograms.count_magnitudes, dict(
        gradients=("tensors by name", {"w": X}), low=("number", -12.0), high=("number", 4.0),
        bins_per_decade=("size", 4))),
    (gradient_histograms.fullest_linear_bin, dict(
        gradients=("tensors", GRADS), bins=("size", 50))),
    (growth_in_time.tanh_fixed_point, dict(gain=("from zero", 1.5))),
    (growth_in_time.sweep_recurrent_gain, dict(
        gains=("numbers", [1.0]), recurrent_init=("name", "orthogonal"), hidden=("size", 3),
        input_scale=("from zero", 0.1), bias=("number", 0.0), length=("size", 20), **SEED)),
    (contributions.input_contributions, dict(
        flow=("record", FLOW), channel=("optional channel", 0))),
    (time_contributions.time_contributions, dict(flow=("record", PLAIN_FLOW))),
    (recurrent_results.format_power, dict(log10=("scalar", 1.0))),
    (recurrent_results.saturation_profile, dict(
        hidden_states=("values", FLOW.hidden_states), threshold=("above zero", 0.95),
        sequence=("integer", 0, {"far": 99}))),
    (clipped_training.train_clipped, dict(
        model=("record", MODEL), x=("inputs", X), y=("labels", LABELS),
        loss=("name", "cross_entropy"), optimizer=("name", "adam"),
        learning_rates=("rates or zero", [0.1]), clip_norm=("optional above zero", 1.0),
        way=("name", "global"), batch_size=("optional size", 2, {"too large": 99}),
        seed=("optional integer", 0))),
    (clipped_training.largest_curvature, dict(
        model=("record", MODEL), x=("inputs", X), y=("labels", LABELS),
        loss=("name", "cross_entropy"), iterations=("size", 2), **SEED)),
    (recovery.draw_shifted_layer, dict(width=("size", 2), depth=("number", 1.0), **SEED)),
    (recovery.train_shifted, dict(
        data=SPLIT, variant=("name", "ReLU"), depth=("from zero", 1.0), width=("size", 2),
        learning_rate=("above zero", 0.1), steps=("size", 1),
        batch_size=("size", 2, {"too large": 99}), record_every=("size", 1), **SEED)),
    (slope_ranges.measure_slope_range, dict(
        name=("name", "tanh"), limit=("above zero", 3.0), points=("size", 11))),
    (slope_ranges.predict_climb_time, dict(
        name=("name", "elu"), depth=("above zero", 1.0), points=("size", 11))),
    (slope_ranges.measure_climb_times, dict(
        name=("name", "elu"), depths=("rates", [1.0]), learning_rate=("above zero", 0.1),
        max_steps=("size", 10))),
    (dying_units.sweep_deaths, dict(
        data=SPLIT, biases=("numbers", [0.0]), learning_rates=("rates", [0.1]), width=("size", 2),
        steps=("size", 1), batch_size=("size", 2, {"too large": 99}), seeds=("seeds", [0]))),
    (dying_units.dead_share, dict(
        model=("record", MODEL), x=("inputs", X), layer=("size", 1, {"far": 99}))),
    (stability_map.gauss_newton_limit, dict(
        weights=("record", ONE_OUTPUT), x=("inputs", X), activation=("name", "linear"))),
    (stability_map.map_stability, dict(
        activation=("name", "linear"), depth=("size", 2), learning_rates=("rates", [0.1]),
        scales=("rates", [1.0]), width=("size", 2), count=("size", 2), steps=("size", 2), **SEED)),
    (gates.gate_kind, dict(cell=("name", "lstm"), gate=("name", "f"))),
    (gates.gate_limits, dict(
        cell=("name", "lstm"), gate=("name", "f"), share=("share", 0.1), steps=("size", 5))),
    (unlabelled_runs.draw_runs, SEED),
    (unlabelled_runs.reveal, dict(run=("record", RUNS[0]))),
    (sequence_losses.check_truncation, dict(truncation=("optional size", 2))),
    (echo.echo_task, dict(**COUNT, lag=("integer", 1))),
    (tasks.adding_problem, dict(**COUNT, length=("size", 4))),
    (tasks.copy_task, dict(**COUNT, gap=("size", 2), symbols=("size", 2), copies=("size", 2))),
    (tasks.recall_task, dict(
        **COUNT, lag=("integer", 1), length=("optional size", 3), symbols=("size", 2),
        noise=("from zero", 0.1))),
    (tasks.digit_rows, dict(**SEED, part=("name", "train"))),
    (tasks.digit_pixels, dict(**SEED, part=("name", "test"))),
    (recurrent_specs.draw_recurrent_weights, dict(spec=("record", RECURRENT), **SEED)),
    (recurrent_specs.check_recurrent_weights, dict(
        spec=("record", RECURRENT), weights=("record", NETWORK))),
    (cures.apply_cures, dict(recipe=("record", RECIPE), cures=("names or none", ["Adam"]))),
    (cures.check_trial, dict(
        recipe=("record", RECIPE), data=FITTED,
        steps=("integer", 1), batch_size=("size", 2, TABLE["BATCH_OF_ONE"]))),
    (cures.measure_trial, dict(
        recipe=("record", RECIPE), data=FITTED,
        seeds=("seeds", [0]), steps=("integer", 1),
        batch_size=("size", 2, TABLE["BATCH_OF_ONE"]))),
    (cures.measure_trials, dict(
        recipes=("record", {"a": RECIPE}), data=FITTED,
        seeds=("seeds", [0]), steps=("integer", 1),
        batch_size=("size", 2, TABLE["BATCH_OF_ONE"]))),
    (cures.compare_cures, dict(
        data=SPLIT, patients=("names", ["dead"]),
        cures=("names", ["Adam"]), seeds=("seeds", [0]), steps=("integer", 1))),
    (repairs.apply_changes, dict(
        repair=("record", REPAIR), changes=("names or none", ["Adam"]))),
    (repairs.check_repair, dict(
        repair=("record", REPAIR), data=FITTED,
        weights=("record", TABLE["WEIGHTS"][REPAIR.network]), epochs=("size", 1),
        batch_size=("size", 2, TABLE["BATCH_OF_ONE"]), **SEED)),
    (cures.Recipe, dict(
        network=("record", RECIPE.network, {"shallow": SPEC}), norm=("name", "batch"),
        shortcut=("flag", True), **TRAINED, weight_decay=("from zero", 0.0))),
    (repairs.Repair, dict(
        network=("record", SPEC), batch_norm=("flag", True),
        dropout=("from zero", 0.5, {"one": 1.0}), **TRAINED,
        batch_share=("share", 0.1))),
    (recurrent_cures.RecurrentRecipe, dict(
        network=("record", RECALL.network, {"of one input": TABLE["ECHO"]}),
        norm=("name", "layer"), shortcut=("flag", True), **TRAINED, lag=("size", 3))),
    (recurrent_cures.apply_recurrent_cures, dict(
        recipe=("record", RECALL, {"other": RECIPE}), cures=("names or none", ["Adam"]))),
    (recurrent_cures.measure_recurrent_trial, dict(
        recipe=("record", RECALL, {"other": RECIPE}), seeds=("seeds", [0]), steps=("integer", 1),
        batch_size=("size", 2, {"too large": 99}), sequences=("size", 4))),
    (recurrent_cures.compare_recurrent_cures, dict(
        patients=("names", ["dead"]), cures=("names", ["Adam"]), seeds=("seeds", [0]),
        steps=("integer", 1), batch_size=("size", 2, {"too large": 999}), sequences=("size", 4))),
    (recurrent_specs.RecurrentSpec, dict(
        n_in=("size", 1), hidden=("size", 1), cell=("name", "lstm"), n_out=("optional size", 1),
        input_init=("name", "normal"), input_scale=("from zero", 1.0),
        recurrent_init=("name", "gaussian"), gain=("from zero", 1.0), bias=("number", 0.0),
        forget_bias=("optional number", 1.0))),
    (recurrent_specs.RecurrentSpec, dict(
        n_in=("size", 1), hidden=("size", 1), cell=("name", "gru"),
        update_bias=("optional number", 1.0))),
    (recurrent_specs.RecurrentSpec, dict(
        n_in=("size", 1), hidden=("size", 1), defaults=("name or none", "keras"))),
    (recurrent_specs.RecurrentWeights, dict(
        cell=("name", "tanh_rnn"), w_xh=("matrix", np.ones((2, 1))), w_hh=("matrix", np.eye(2)),
        b_xh=("optional values", np.ones(2)), b_hh=("optional values", np.ones(2)),
        w_hy=("matrix or none", np.ones((1, 2))), b_y=("optional values", np.ones(1)))),
    (data.DigitsSplit, dict(
        x_train=("inputs of any width", X), y_train=("labels", LABELS), x_test=("inputs", X),
        y_test=("labels", LABELS))),
    (tasks.SequenceTask, dict(
        name=("text", "a task"), x=("inputs of any width", SEQUENCES), y=("labels", LABELS),
        loss=("name", "cross_entropy"), over=("name", "last"), n_out=("size", 2),
        baseline_loss=("number", 0.5), baseline_accuracy=("optional number", 0.5),
        scored_steps=("size", 1, {"far": 99}))),
    (tasks.SequenceTask, dict(
        name=("text", "a task"), x=("inputs of any width", SEQUENCES), y=("targets", TABLE["Y"]),
        loss=("name", "mean_squared_error"), over=("name", "last"), n_out=("size", 2),
        baseline_loss=("number", 0.5))),
    (digit_runs.RunSpec, dict(
        network=("record", RUN_SPEC.network, {"small": SPEC}), learning_rate=("above zero", 0.1),
        **SEED, input_scale=("above zero", 1.0), input_shift=("number", 0.0),
        loss_scale=("above zero", 1.0), silenced_layer=("optional size", 1, {"far": 99}),
        silenced_share=("from zero", 0.5, {"two": 2.0}), clip_norm=("optional above zero", 1.0))),
    *((function, dict(spec=("record", RUN_SPEC))) for function in (
        digit_runs.draw_run_weights, digit_runs.load_run_data, digit_runs.perform_run)),
    (remedies.treat, dict(run=("record", FINISHED), remedy=("name", "clip"))),
    (remedies.is_cured, dict(run=("record", FINISHED))),
    (remedies.compare_remedies, dict(
        runs=("record", {"a": FINISHED}), remedies=("names", ["clip"]))),
    (triage.triage, dict(record=("record", FINISHED.record))),
    (lecture_checks.rescale_loss, dict(
        record=("record", FINISHED.record), factor=("above zero", 2.0))),
    (lecture_checks.judge_runs, dict(
        runs=("record", {"a": FINISHED.record}), causes=("names", ["healthy"]),
        checks=("record", lecture_checks.LECTURE_CHECKS))),
    (lecture_checks.sweep_units, dict(
        runs=("record", {"a": FINISHED.record}), causes=("names", ["healthy"]),
        factors=("rates", [1.0], {"falling": [2.0, 1.0]}))),
    (cure_results.judge_change, dict(
        before=("numbers", [0.1, 0.2]), after=("numbers", [0.3, 0.4]))),
    (cure_results.judge_pair, dict(
        first=("numbers", [0.1]), second=("numbers", [0.3]), both=("numbers", [0.3]))),
    (cure_results.count_alarms, dict(
        trials=("record", [TRIAL]), alarm=("function", lambda trial: trial.grad_norms < 1),
        learned=("from zero", 0.3, {"two": 2.0}))),
    # --- methods of results ---
    (CURE_TABLE.trial, dict(patient=("name", "dead"), cure=("cure", "Adam"))),
    (CURE_TABLE.row, dict(patient=("name", "dead"), cure=("cure", "Adam"))),
    (CURE_TABLE.verdict, dict(patient=("name", "dead"), cure=("cure", "Adam"))),
    (REMEDY_TABLE.find, dict(run=("name", "a"), remedy=("name", "clip"))),
    (REMEDY_TABLE.cures, dict(run=("name", "a"))),
    (echo.EchoCurve("NumPy", np.array([1]), np.array([0.9])).span, dict(
        accuracy=("from zero", 0.9, {"two": 2.0}))),
    (clipped_training.train_clipped(MODEL, X, LABELS, learning_rates=[0.1]).fraction_above, dict(
        limit=("above zero", 1.0))),
    (matrix_powers.recurrent_bounds(np.eye(2)).log10_bound, dict(steps=("integer", 1))),
    (memory.summarize_memory([NETWORK], steps=3, seed=0).median, dict(name=("name", "whole"))),
    (memory.sweep_gate_bias(RECURRENT, [0.0], steps=3, draws=1, seed=0).medians, dict(
        name=("name", "whole"))),
    (CONNECTED.reach, dict(fraction=("share", 0.01))),
    (NETWORK.gate_rows, dict(gate=("name", "f"))),
    (stability_map.map_stability(
        depth=2, learning_rates=[0.1], scales=[1.0], width=2, count=2, steps=2, seed=0).share,
     dict(outcome=("name", "converged"))),
    (time_contributions.time_contributions(PLAIN_FLOW).share_of_last, dict(count=("size", 1))),
    (time_contributions.time_contributions(PLAIN_FLOW).needed_steps, dict(
        error=("above zero", 0.01))),
    (recovery.train_shifted(DIGITS, "ReLU", 1.0, width=2, steps=1, batch_size=2, seed=0).steps_to,
     dict(accuracy=("from zero", 0.5, {"two": 2.0}))),
    (RECURRENT_MODEL.forward, dict(x=("inputs", SEQUENCES))),
]  # fmt: skip
UNCHECKED = {  # what the table does not hold, and why
    "measure_norm": "the inside of loops, and of anything that has a number",
    "measure_echo_with": "called by `measure_echo`, which is in the frameworks' table",
    "score": "called by `evaluate_recurrent`, which is in the frameworks' table",
    "check_sequences": "as `recurrent_gradient_flow` in the frameworks' table",
    "cut_points": "called with what was checked",
    "evaluate_sequence_loss": "called with what was checked",
}


def spoiled():
    for function, call in CALLS:
        for name, (kind, value, *own) in call.items():
            title = f"{function.__qualname__}-{name}"
            wrong = TABLE["wrong_values"](kind, value, *own)
            wrong = {k: v for k, v in wrong.items() if k not in MEANT.get(kind, ())}
            yield pytest.param(function, call, name, wrong, id=title)


@pytest.mark.parametrize(("function", "call", "name", "wrong"), [*spoiled()])
def test_no_argument_takes_nonsense(function, call, name, wrong):
    valid = {key: value for key, (_, value, *_) in call.items()}
    faults = {
        label: fault_of(lambda value=value: function(**{**valid, name: value}), f"`{name}")
        for label, value in wrong.items()
    }
    assert {label: fault for label, fault in faults.items() if fault} == {}


def modules():
    """Return the modules that have a function in the table; a method alone does not count."""
    functions = [function for function, _ in CALLS if inspect.isfunction(function)]
    return dict.fromkeys(map(inspect.getmodule, functions))


def functions_of(module):
    return {
        name for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }  # fmt: skip


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_the_table_leaves_no_public_function_out(module):
    both = (*CALLS, *TABLE["TABLE"]["CALLS"])
    covered = {function.__name__ for function, _ in both}
    assert functions_of(module) - UNCHECKED.keys() <= covered


def test_only_what_exists_goes_unchecked():
    assert set().union(*map(functions_of, modules())) >= UNCHECKED.keys()


PLOTS = [name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_of_nonsense_names_what_it_cannot_draw(name):
    function = getattr(plots, name)
    needed = [p.name for p in inspect.signature(function).parameters.values()
              if p.default is p.empty and p.kind is not p.VAR_KEYWORD]  # fmt: skip
    names = [f"`{argument}" for argument in needed]
    faults = {
        label: fault_of(lambda value=value: function(**dict.fromkeys(needed, value)), *names)
        for label, value in ({**TABLE["NEVER"], **TABLE["THING"]} if needed else {}).items()
    }
    plt.close("all")
    assert {label: fault for label, fault in faults.items() if fault} == {}
