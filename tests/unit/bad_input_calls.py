"""Valid calls of every public function of a framework, each argument with what is wrong for it.

Read by `test_bad_input_frameworks.py`. An argument is (kind, a value that is right) or (kind,
value, what else is wrong for this one); a kind is a mapping of wrong values, or a function from
the right value to one.
"""

import runpy
from pathlib import Path

import numpy as np

from course_lib import cures, data, echo, recurrent_specs, repairs, specs, stack_specs

TABLE = runpy.run_path(Path(__file__).with_name("test_bad_input_everywhere.py"))
NEVER, WORD, NUMBER, Thing = (TABLE[name] for name in ("NEVER", "WORD", "NUMBER", "Thing"))

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))
SEQUENCES, LABELS = RNG.normal(size=(4, 6, 3)), np.array([0, 1, 1, 0])
SPEC = specs.NetworkSpec(3, 4, 2, n_out=2)
STACK = stack_specs.StackSpec(3, 4, 2, n_out=2, norm="batch")
RECURRENT = recurrent_specs.RecurrentSpec(3, 4, cell="lstm", n_out=2)
ECHO = recurrent_specs.RecurrentSpec(1, 2, n_out=2)
TASK = echo.echo_task(4, lag=1, seed=0)
_SPLIT = data.load_digits_split(seed=0)
DIGITS = data.DigitsSplit(_SPLIT.x_train[:32], _SPLIT.y_train[:32] % 8, _SPLIT.x_test[:8],
                          _SPLIT.y_test[:8] % 8)  # fmt: skip
REPAIR = repairs.Repair(specs.NetworkSpec(64, 4, 2, n_out=8), batch_norm=True)
RECIPE = cures.Recipe(specs.NetworkSpec(64, 4, 3, n_out=8), norm="batch")
OTHER_DIGITS = {
    "of fewer pixels": data.DigitsSplit(DIGITS.x_train[:, 1:], DIGITS.y_train,
                                        DIGITS.x_test[:, 1:], DIGITS.y_test),
    "of more classes": data.DigitsSplit(DIGITS.x_train, _SPLIT.y_train[:32], DIGITS.x_test,
                                        DIGITS.y_test),
    "arrays": (DIGITS.x_train, DIGITS.y_train),
}  # fmt: skip
BATCH_OF_ONE = {"too large": 99, "one, under batch norm": 1}
WEIGHTS = {spec: specs.draw_weights(spec, seed=0) for spec in (SPEC, REPAIR.network)}
STACK_WEIGHTS = stack_specs.draw_stack_weights(STACK, seed=0)
RECURRENT_WEIGHTS = recurrent_specs.draw_recurrent_weights(RECURRENT, seed=0)


def wrong_arrays(x):
    """Return arrays that look like x, and are not what the function takes."""
    nan, inf = np.array(x, dtype=float), np.array(x, dtype=float)
    nan.flat[-1], inf.flat[0] = np.nan, np.inf
    return {**WORD, "number": 1.5, "nan": nan, "inf": inf, "deep": x[None], "flat": x.ravel()[None],
            "longer": np.concatenate([x, x], axis=-1), "as words": x.astype(str)}  # fmt: skip


def wrong_labels(y):
    """Return what are no labels 0 or 1 of as many inputs."""
    return {**WORD, "None": None, "real": y + 0.5, "nan": np.full(y.shape, np.nan), "minus": y - 2,
            "large": y + 10, "more": np.concatenate([y, y]), "deep": y[None], "true": y == 1,
            "scalar": 1}  # fmt: skip


def wrong_gradients(grads):
    """Return lists as long as the right one, of what are no gradients of these variables."""
    arrays = [np.ones(tuple(g.shape)) for g in grads]
    return {
        "words": ["a"] * len(grads), "things": [Thing()] * len(grads), "flags": [True] * len(grads),
        "numbers": [1.0] * len(grads), "integers": [a.astype(int) for a in arrays],
        "complex numbers": [a * 1j for a in arrays], "rows": [a[:1] for a in arrays],
        "turned": [a[::-1].T[..., None] for a in arrays], "one more": [*grads, grads[0]],
        "by name": {str(k): g for k, g in enumerate(grads)}, "word": "a" * len(grads),
    }  # fmt: skip


def wrong_inputs(x):
    return {**wrong_arrays(x), "None": None}


def wrong_targets(y):
    """Return what are no real targets; a loss with targets cannot do without."""
    return {**wrong_arrays(y), "None": None, "fewer": y[:-1]}


THING = {**WORD, "None": None, "number": 1.5, "array": X}
KINDS = {
    **TABLE["KINDS"],
    "model": THING,
    "record": {**THING, "numbers": [1.0]},
    "optional model": {name: thing for name, thing in THING.items() if name != "None"},
    "targets of a batch": {**WORD, "None": None, "number": 1.5},
    "batch": {**WORD, "None": None, "number": 1.5},
    "data": lambda x: {**KINDS["batch"], "nan": np.where(np.arange(x.size).reshape(x.shape) == 5,
                                                         np.float32(np.nan), x)},
    "inputs": wrong_inputs,
    "targets": wrong_targets,
    "labels": wrong_labels,
    "optional values": wrong_arrays,
    "no targets": {**WORD, "number": 1.5, "labels": LABELS, "array": Y},
    "loss": {**WORD, "number": 1.5, "array": X},
    "optional function": {**WORD, "number": 1.5, "array": X},
    "function": {**WORD, "None": None, "number": 1.5, "array": X},
    "optimizer": {**WORD, "number": 1.5, "array": X},
    "optional gradients": lambda right: {"number": 1.5, **wrong_gradients(right)},
    "optional above zero": {"zero": 0, "minus": -0.5, "nan": np.nan, "inf": np.inf, "true": True,
                            "array": np.ones(3), **WORD},
    "optional size": {"zero": 0, "half": 1.5, "minus": -1, "nan": np.nan, "true": True,
                      "array": np.ones(3), **WORD},
    "share": {"zero": 0, "two": 2.0, "minus": -0.5, **NUMBER},
    "lags": {**WORD, "None": None, "number": 3, "minus": [-1], "half": [1.5], "nan": [np.nan],
             "words": ["a"], "true": [True], "deep": [[1]]},
}  # fmt: skip


def wrong_values(kind, value, extra=None):
    """Return every value that is wrong for an argument, by what is wrong with it."""
    own = KINDS[kind]
    return {**NEVER, **(own(value) if callable(own) else own), **(extra or {})}


TRAINING = dict(
    learning_rate=("above zero", 0.1), steps=("size", 1),
    batch_size=("optional size", 2, {"too large": 99}), seed=("optional integer", 0))  # fmt: skip
DTYPE = dict(dtype=("name", "float64"))


def offered(module, calls):
    """Return the calls of the functions that a module has, with these in place of their names."""
    return [(getattr(module, name), call) for name, call in calls if hasattr(module, name)]


def dense_calls(module, model, others):
    """Return calls on a network of dense layers; `others` are models that are no such network."""
    model = ("model", model, others)
    batch = dict(model=model, x=("inputs", X))
    labelled = dict(**batch, y=("labels", LABELS), loss=("name", "cross_entropy"))
    real = dict(**batch, y=("targets", Y), loss=("name", "mean_squared_error"))
    alone = dict(**batch, y=("no targets", None), loss=("name", "mean_output"))
    weights = ("record", WEIGHTS[SPEC], {"of another": WEIGHTS[REPAIR.network]})
    return offered(module, [
        ("build_mlp", dict(spec=("record", SPEC), weights=weights,
                                **DTYPE)),
        ("load_weights", dict(model=model, weights=weights)),
        ("accuracy", dict(**batch, y=("labels", LABELS))),
        *(("gradient_flow", call) for call in (labelled, real, alone)),
        ("layer_jacobians", dict(model=model, x=("inputs", X[0]))),
        *(("train", dict(
            **call, optimizer=("name", "adam"), **TRAINING, record_every=("size", 1),
            epsilon=("above zero", 1e-8))) for call in (labelled, real)),
        ("train_monitored", dict(
            **real, **TRAINING, loss_scale=("above zero", 1.0),
            stop_above=("optional above zero", 1.0), clip_norm=("optional above zero", 1.0))),
        ("train_repair", dict(
            repair=("record", REPAIR, {"other": RECIPE}), data=("record", DIGITS, OTHER_DIGITS),
            weights=("record", WEIGHTS[REPAIR.network], {"of another": WEIGHTS[SPEC]}),
            epochs=("size", 1), batch_size=("size", 16, BATCH_OF_ONE), seed=("integer", 0))),
        ("run_recipe", dict(
            recipe=("record", RECIPE, {"other": REPAIR}), data=("record", DIGITS, OTHER_DIGITS),
            seed=("integer", 0), steps=("integer", 1), batch_size=("size", 16, BATCH_OF_ONE))),
    ])  # fmt: skip


def stack_calls(module, others):
    """Return calls on a stack of blocks."""
    model = ("model", module.build_stack(STACK, STACK_WEIGHTS), others)
    batch = dict(model=model, x=("inputs", X))
    incomplete = dict(list(STACK_WEIGHTS.items())[1:])
    odd = {name: np.full(w.shape, np.nan) for name, w in STACK_WEIGHTS.items()}
    training = ("flag", True)
    return offered(module, [
        ("build_stack", dict(
            spec=("record", STACK, {"other": SPEC}), **DTYPE,
            weights=("record", STACK_WEIGHTS, {"incomplete": incomplete, "nan": odd}))),
        ("stack_accuracy", dict(**batch, y=("labels", LABELS))),
        ("stack_gradient_flow", dict(**batch, y=("labels", LABELS), training=training,
                                          loss=("name", "cross_entropy"))),
        ("stack_gradient_flow", dict(**batch, y=("targets", Y), training=training)),
        ("stack_gradient_flow", dict(
            model=model, x=("inputs", X, {"one, under batch norm": X[:1]}), training=training,
            y=("no targets", None), loss=("name", "mean_output"))),
    ])  # fmt: skip


def recurrent_calls(module, others):
    """Return calls on a recurrent network."""
    network = module.build_recurrent(RECURRENT, RECURRENT_WEIGHTS)
    small = recurrent_specs.draw_recurrent_weights(ECHO, seed=0)
    model, small = ("model", network, others), module.build_recurrent(ECHO, small)
    batch = dict(model=model, x=("inputs", SEQUENCES))
    last = dict(y=("targets", Y), loss=("name", "mean_squared_error"), over=("name", "last"),
                truncation=("optional size", 2))  # fmt: skip
    each = dict(y=("labels", np.ones((4, 6), int)), loss=("name", "cross_entropy"))
    profile = dict(**batch, grad_last=("optional values", np.ones((4, 4))))
    other_task = dict(other=echo.echo_task(4, lag=1, seed=0).x,
                      wide=TABLE["course_lib"].tasks.adding_problem(4, length=5, seed=0))
    task = dict(model=("model", small, others), task=("record", TASK, other_task))
    return offered(module, [
        ("build_recurrent", dict(
            spec=("record", RECURRENT), **DTYPE,
            weights=("record", RECURRENT_WEIGHTS, {"of another": WEIGHTS[SPEC]}))),
        ("recurrent_weights", dict(model=model)),
        ("recurrent_gradient_flow", dict(**batch, **last)),
        ("recurrent_gradient_flow", dict(**batch, **each, over=("name", "mean"))),
        ("connectivity", dict(**batch, **each, wrt=("name", "hidden"))),
        ("state_jacobians", dict(model=model, x=("inputs", SEQUENCES[0]))),
        ("bptt_profile", profile),
        ("hook_profile", profile),
        ("train_recurrent", dict(
            **task, optimizer=("name", "rmsprop"), **TRAINING,
            clip_norm=("optional above zero", 1.0), truncation=("optional size", 2),
            record_every=("size", 1))),
        ("evaluate_recurrent", task),
        ("measure_echo", dict(
            spec=("record", ECHO, {"other": RECURRENT}), lags=("lags", [1]), steps=("size", 1),
            learning_rate=("above zero", 0.1), truncation=("optional size", 2),
            seed=("integer", 0))),
    ])  # fmt: skip


def reader_calls(module, *, model, recurrent, others, loss, gradients, initialized):
    """Return calls on a reader's own model."""
    models = ("model", model, others)
    look = dict(model=models, x=("data", SEQUENCES.astype("float32")), batch_size=("size", 2),
                share=("share", 0.1))  # fmt: skip
    return offered(module, [
        ("diagnose_model", dict(
            model=models, inputs=("batch", SEQUENCES.astype("float32")),
            targets=("targets of a batch", LABELS), loss=("loss", loss),
            optimizer=("optimizer", None), learning_rate=("optional above zero", 1e-3),
            steps=("size", 1), every=("size", 1), share=("share", 0.1), seed=("integer", 0))),
        ("dead_units", look),
        ("saturation", look),
        ("jacobian_spectrum", dict(
            model=models, x=("data", SEQUENCES[0].astype("float32")),
            method=("name", "randomized"), rank=("size", 2), iterations=("size", 1),
            seed=("integer", 0))),
        ("clip_audit", dict(
            model=models, gradients=("optional gradients", gradients), method=("name", "norm"),
            threshold=("above zero", 1.0))),
        ("bptt_gradient_profile", dict(
            model=("model", recurrent, others), x=("data", SEQUENCES.astype("float32")))),
        ("initialize_model", dict(
            model=("model", initialized, others), scheme=("name", "he_normal"),
            gain=("from zero", 1.0), bias=("number", 0.0), seed=("integer", 0))),
        ("GradientFlowMonitor", dict(
            model=("optional model", model, others), optimizer=("optimizer", None),
            every=("size", 1), max_records=("size", 5), share=("share", 0.1),
            max_calls=("size", 1))),
    ])  # fmt: skip
