"""Every argument of every public function of the core is given things that cannot be meant.

`test_bad_input.py` checks messages word by word; here a table of valid calls is spoiled one
argument at a time. Each spoiled call must raise TypeError or ValueError, naming the argument.
"""

import inspect
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pytest

import course_lib
from course_lib import (
    activations,
    data,
    initialization,
    jacobians,
    losses,
    normalization,
    plots,
    rates,
    reference,
    residuals,
    results,
    saturation,
    specs,
    stack_results,
    stack_specs,
    theory,
)
from course_lib.reference.training import SGD, Adam


class Thing:
    """An object of no use."""


NAN_MATRIX = np.full((2, 2), np.nan)
# Nothing in the core takes any of these, whatever the argument.
NEVER = {
    "object": Thing(),
    "set": {1, 2},
    "bytes": b"ab",
    "complex": 1 + 2j,
    "complex array": np.ones((5, 3)) * 1j,
    "objects": np.array([Thing(), 1], dtype=object),
    "strings": np.array(["a", "b"]),
    "ragged": [[1, 2], [3]],
    "list of None": [None],
    "empty list": [],
    "empty mapping": {},
    "mapping": {"a": 1},
    "empty array": np.zeros((0, 3)),
}
WORD = {"word": "abc", "digit": "0", "empty word": ""}
NUMBER = {"nan": np.nan, "inf": np.inf, "true": True, **WORD, "None": None, "array": np.ones(3)}
KINDS = {  # what besides NEVER is wrong for an argument of this kind
    "integer": {"half": 1.5, "minus": -1, **NUMBER},
    "size": {"zero": 0, "half": 1.5, "minus": -1, **NUMBER},
    "optional integer": {"half": 1.5, "minus": -1, "nan": np.nan, "true": True, **WORD},
    "row": {"half": 1.5, "nan": np.nan, "true": True, "far": 99, **WORD, "None": None},
    "number": NUMBER,
    "optional number": {k: v for k, v in NUMBER.items() if k != "None"},
    "scalar": {**WORD, "None": None, "vector": np.ones(3)},
    "above zero": {"zero": 0, "minus": -0.5, **NUMBER},
    "from zero": {"minus": -0.5, **NUMBER},
    "flag": {"one": 1, "half": 0.5, **WORD, "None": None},
    "name": {"number": 1, "nan": np.nan, "None": None, **WORD},
    "text": {"number": 1, "nan": np.nan, "None": None},
    "array": {**WORD, "None": None, "rank 3": np.ones((2, 2, 2)), "nan": NAN_MATRIX},
    "values": {**WORD, "None": None},
    "arrays": {**WORD, "None": None, "number": 1.5, "numbers": [1.0], "nan": [NAN_MATRIX]},
    "records": {**WORD, "None": None, "number": 1.5, "numbers": [1.0], "words": ["a"]},
    "axes": {**WORD, "number": 1.5},
}

SPEC = specs.NetworkSpec(3, 4, 2, n_out=2)
WEIGHTS = specs.draw_weights(SPEC, seed=0)
X, Y = data.gaussian_batch(5, 3, seed=0), np.zeros((5, 2))
LABELS = np.array([0, 1, 0, 1, 1])
MODEL = reference.build_mlp(SPEC, WEIGHTS)
PASSED = MODEL.forward(X)
FLOW = reference.gradient_flow(MODEL, X, Y)
JACOBIANS = reference.layer_jacobians(MODEL, X[0])
RUN = reference.train(reference.build_mlp(SPEC, WEIGHTS), X, LABELS, learning_rate=0.1, steps=2)
GROWTH = {"a": jacobians.measure_product([0.5 * np.eye(2)] * 3)}
SWEEP = rates.sweep_weight_scale([1.0], width=4, depth=3, inputs=2, seed=0)
RNG = np.random.default_rng(0)
ORIGIN = dict(framework=("name", "NumPy"), dtype=("name", "float64"))
FAN = dict(init=("name", "normal"), gain=("from zero", 1.0))
BATCH = dict(x=("array", X), y=("array", Y), loss=("name", "mean_squared_error"))
STACK_SPEC = stack_specs.StackSpec(3, 4, 2, n_out=2, norm="batch")
STACK_WEIGHTS = stack_specs.draw_stack_weights(STACK_SPEC, seed=0)
STACK = reference.build_stack(STACK_SPEC, STACK_WEIGHTS)
STACK_RUN = stack_results.StackRun(STACK_SPEC, np.ones(3), 1.0, np.ones(2))
NORMED = reference.LayerNorm(3).forward(X)
IMAGES, KERNEL = np.ones((2, 1, 3, 3)), np.ones((1, 1, 3, 3))
PLAIN = stack_specs.StackSpec(3, 4, 2, n_out=2, norm="batch", shortcut=False)
RATES = dict(inputs=[4], depths=[2], seeds=[0])
BRANCHED = stack_specs.StackSpec(3, 4, 2, n_out=2, layers=2)
BRANCHED_WEIGHTS = stack_specs.draw_stack_weights(BRANCHED, seed=0)


def fields(result, kinds):
    return {name: (kind, getattr(result, name)) for name, kind in kinds.items()}


CALLS = [  # function, argument -> (kind, a value that is right)
    (course_lib.NetworkSpec, dict(
        n_in=("size", 1), width=("size", 1), depth=("size", 1), n_out=("size", 1),
        activation=("name", "relu"), output_activation=("name", "relu"), init=("name", "normal"),
        gain=("from zero", 1.0), bias=("number", 0.0))),
    (course_lib.MLPWeights, dict(matrices=("arrays", [np.eye(2)]))),
    (course_lib.MLPWeights, dict(matrices=("arrays", WEIGHTS.matrices),
                                 biases=("axes", WEIGHTS.biases))),
    (specs.draw_weights, dict(spec=("records", SPEC), seed=("integer", 0))),
    (specs.check_weights, dict(spec=("records", SPEC), weights=("arrays", WEIGHTS))),
    (specs.rescale_spectral_norms, dict(weights=("arrays", WEIGHTS), norm=("above zero", 1.0))),
    (course_lib.draw_matrix, dict(
        **FAN, fan_in=("size", 1), fan_out=("size", 1), rng=("records", RNG))),
    (initialization.weight_variance, dict(**FAN, fan_in=("size", 1), fan_out=("size", 1))),
    (initialization.compute_fans, dict(shape=("records", (4, 3)), groups=("size", 1))),
    (initialization.draw_kernel, dict(
        **FAN, shape=("records", (4, 3)), groups=("size", 1), rng=("records", RNG))),
    (course_lib.orthogonal_matrix, dict(
        rows=("size", 1), columns=("size", 1), rng=("records", RNG))),
    (course_lib.get_activation, dict(activation=("name", "relu"))),
    (activations.sigmoid, dict(z=("values", np.zeros(3)))),
    (activations.sigmoid_and_slope, dict(z=("values", np.zeros(3)))),
    *((function, dict(z=("values", np.zeros(3)))) for activation in course_lib.ACTIVATIONS.values()
      for function in (activation.function, activation.derivative)),
    (data.load_digits_split, dict(seed=("integer", 0), test_fraction=("above zero", 0.25))),
    (data.gaussian_batch, dict(count=("size", 1), n_in=("size", 1), seed=("integer", 0))),
    (data.draw_batches, dict(count=("size", 4), batch_size=("optional integer", 2),
                             steps=("integer", 1), seed=("integer", 0))),
    (losses.check_batch, dict(**BATCH, n_in=("size", 3), n_out=("size", 2))),
    (losses.evaluate_loss, dict(outputs=("values", Y), y=("array", Y),
                                loss=("name", "mean_squared_error"))),
    (losses.evaluate_loss, dict(outputs=("values", Y), y=("array", LABELS),
                                loss=("name", "cross_entropy"))),
    (jacobians.measure_product, dict(matrices=("arrays", [np.eye(2)]))),
    (jacobians.draw_chain, dict(
        kind=("name", "random"), width=("size", 1), depth=("size", 1), seed=("integer", 0))),
    (jacobians.compare_readings, dict(
        model=("records", MODEL), x=("array", X[0]), output_grad=("array", np.ones(2)))),
    (rates.bound_activation_grads, dict(
        spec=("records", SPEC), weights=("arrays", WEIGHTS), output_norm=("from zero", 1.0))),
    (rates.sweep_weight_scale, dict(
        scales=("array", [1.0]), activation=("name", "tanh"), centered=("flag", False),
        width=("size", 4), depth=("size", 3), inputs=("size", 2), seed=("integer", 0))),
    (results.decades, dict(first=("scalar", 1.0), last=("scalar", 2.0))),
    (results.format_number, dict(value=("scalar", 1.0))),
    (results.per_layer_factor, dict(norms=("values", np.ones(3)))),
    (JACOBIANS.product, dict(first=("size", 1), last=("optional integer", 2))),
    (JACOBIANS.singular_values, dict(first=("size", 1), last=("optional integer", 2))),
    (saturation.sample_activation_curves, dict(
        names=("records", ["relu"]), limit=("above zero", 1.0), points=("size", 3))),
    (saturation.measure_saturation, dict(
        preactivations=("values", PASSED.preactivations),
        activations=("records", MODEL.activations), share=("above zero", 0.1))),
    (saturation.center_sigmoid_inputs, dict(weights=("arrays", WEIGHTS))),
    (theory.spectral_bound, dict(weights=("arrays", WEIGHTS), activation=("name", "relu"))),
    (theory.power_chain, dict(
        factor=("number", 0.5), depth=("size", 3), dtype=("name", "float32"))),
    (theory.chain_limits, dict(factor=("above zero", 0.5), dtype=("name", "float32"))),
    (theory.mean_field_rate, dict(
        activation=("name", "tanh"), weight_scale=("from zero", 1.2), bias_scale=("from zero", 0.0),
        iterations=("size", 500))),
    (theory.product_norm_bounds, dict(matrices=("arrays", [np.eye(2)]))),
    (course_lib.GradientFlow, dict(
        **ORIGIN, loss=("scalar", 1.0), **fields(FLOW, dict.fromkeys(
            ("weight_grads", "bias_grads", "activation_grads", "activations"), "values")))),
    (course_lib.LayerJacobians, dict(**ORIGIN, jacobians=("values", JACOBIANS.jacobians))),
    (course_lib.TrainingRun, dict(
        **ORIGIN, optimizer=("name", "sgd"), learning_rate=("scalar", 0.1),
        **fields(RUN, dict(steps="array", losses="values", weight_grad_norms="values",
                           weight_changes="values")))),
    (reference.MLP, dict(
        matrices=("arrays", [np.eye(2)]), biases=("arrays", [np.zeros(2)]),
        activations=("records", ("relu",)))),
    (MODEL.forward, dict(x=("array", X))),
    (reference.build_mlp, dict(
        spec=("records", SPEC), weights=("arrays", WEIGHTS), dtype=("name", "float64"))),
    (reference.backward, dict(
        model=("records", MODEL), passed=("records", PASSED), output_grad=("values", Y))),
    (reference.gradient_flow, dict(model=("records", MODEL), **BATCH)),
    (reference.layer_jacobians, dict(model=("records", MODEL), x=("array", X[0]))),
    (reference.accuracy, dict(model=("records", MODEL), x=("array", X), y=("array", LABELS))),
    (reference.train, dict(
        model=("records", reference.build_mlp(SPEC, WEIGHTS)), **BATCH, optimizer=("name", "adam"),
        learning_rate=("above zero", 0.1), steps=("size", 1), batch_size=("optional integer", 2),
        seed=("integer", 0), record_every=("size", 1), epsilon=("above zero", 1e-8),
        epsilon_on_raw=("flag", False))),
    (reference.central_difference, dict(
        function=("records", np.sum), x=("values", np.ones(2)), step=("above zero", 1e-5))),
    (SGD, dict(learning_rate=("above zero", 0.1))),
    (Adam, dict(learning_rate=("above zero", 0.1), epsilon=("above zero", 1e-8),
                epsilon_on_raw=("flag", False))),
    *((rule.update, dict(parameters=("records", [np.ones(2)]), grads=("records", [np.ones(2)])))
      for rule in (SGD(0.1), Adam(0.1))),
    (plots.show, dict(figure=("records", plt.Figure()), words=("text", "What can be seen here."))),
    (plots.add_bound_line, dict(
        ax=("records", plt.Figure().gca()), norms=("array", [1.0]), text=("text", "limit"))),
    (plots.plot_activation_slopes, dict(
        curves=("records", saturation.sample_activation_curves(["tanh"])), ax=("axes", None))),
    (plots.plot_flow_balance, dict(flow=("records", FLOW), ax=("axes", None))),
    (plots.plot_rate_sweeps, dict(sweeps=("records", {"a": SWEEP}))),
    (plots.plot_first_layers, dict(
        runs=("records", {"a": [RUN]}), row=("row", -1), ax=("axes", None))),
    (plots.plot_gradient_norms, dict(
        flows=("records", [FLOW]), quantity=("name", "weight"),
        theory_rate=("optional number", 0.5), ax=("axes", None))),
    (plots.plot_shape_chain, dict(layer_sizes=("records", [2, 3, 4]), ax=("axes", None))),
    (plots.plot_power_chains, dict(
        chains=("records", {"a": theory.power_chain(0.5, 5)}), ax=("axes", None))),
    (plots.plot_product_norms, dict(
        growths=("records", GROWTH), bound=("flag", False), ax=("axes", None))),
    (plots.plot_condition_numbers, dict(growths=("records", GROWTH), ax=("axes", None))),
    (plots.plot_spectra, dict(growths=("records", GROWTH), lines=("size", 3))),
    (stack_specs.StackSpec, dict(
        n_in=("size", 1), width=("size", 1), blocks=("size", 1), n_out=("size", 1),
        layers=("size", 1), activation=("name", "relu"), norm=("name", "batch"),
        placement=("name", "pre"), shortcut=("flag", True), scale=("number", 1.0),
        init=("name", "normal"), gain=("from zero", 1.0), epsilon=("from zero", 1e-5))),
    (stack_specs.draw_stack_weights, dict(spec=("records", STACK_SPEC), seed=("integer", 0))),
    (stack_specs.check_stack_weights, dict(
        spec=("records", STACK_SPEC), weights=("records", STACK_WEIGHTS))),
    (stack_specs.check_stack_batch, dict(
        spec=("records", STACK_SPEC), **BATCH, training=("flag", True))),
    (stack_specs.apply_fixup, dict(
        spec=("records", BRANCHED), weights=("records", BRANCHED_WEIGHTS),
        zero_head=("flag", True))),
    (normalization.normalized_rate, dict(activation=("name", "relu"), norm=("name", "layer"))),
    (normalization.predict_stack, dict(spec=("records", STACK_SPEC))),
    (normalization.measure_stack, dict(
        spec=("records", STACK_SPEC), inputs=("size", 4), seed=("integer", 0))),
    (normalization.measure_norm_rates, dict(
        spec=("records", PLAIN), **{name: ("records", value) for name, value in RATES.items()})),
    (residuals.expand_product, dict(branches=("arrays", [np.eye(2)]))),
    (residuals.shortcut_range, dict(branch=("array", np.eye(2)))),
    (residuals.branch_scale, dict(blocks=("size", 1), growth=("above zero", 2.0))),
    (reference.BatchNorm, dict(
        units=("size", 1), epsilon=("from zero", 1e-5), new_share=("from zero", 0.1),
        unbiased_running=("flag", True))),
    (reference.LayerNorm, dict(units=("size", 1), epsilon=("from zero", 1e-5))),
    (reference.BatchNorm(3).forward, dict(x=("values", X), training=("flag", True))),
    (reference.LayerNorm(3).forward, dict(x=("values", X), training=("flag", True))),
    (reference.norm_backward, dict(passed=("records", NORMED), output_grad=("values", X))),
    (reference.normalization.standardize_backward, dict(
        passed=("records", NORMED), grad=("values", X))),
    (reference.convolve, dict(x=("array", IMAGES), kernel=("array", KERNEL))),
    (reference.convolve_backward, dict(
        x=("array", IMAGES), kernel=("array", KERNEL), output_grad=("array", IMAGES))),
    (reference.ConvBlock, dict(
        kernels=("arrays", [KERNEL, KERNEL]), shortcut=("flag", True),
        epsilon=("from zero", 1e-5))),
    (reference.build_stack, dict(
        spec=("records", STACK_SPEC), weights=("records", STACK_WEIGHTS),
        dtype=("name", "float64"), unbiased_running=("flag", True))),
    (reference.stack_gradient_flow, dict(
        model=("records", STACK), **BATCH, training=("flag", True))),
    (reference.stack_jacobians, dict(model=("records", STACK), x=("array", X[0]))),
    (reference.stack_accuracy, dict(
        model=("records", STACK), x=("array", X), y=("array", LABELS))),
    (reference.train_stack, dict(
        model=("records", reference.build_stack(STACK_SPEC, STACK_WEIGHTS)), **BATCH,
        optimizer=("name", "adam"), learning_rate=("above zero", 0.1), steps=("size", 1),
        batch_size=("optional integer", 2), seed=("integer", 0),
        disturbance=("from zero", 0.1))),
    (reference.measure_gradient_shift, dict(
        model=("records", STACK), **BATCH, learning_rate=("above zero", 0.1),
        block=("integer", 0))),
    (plots.plot_shared_entries, dict(inputs=("size", 3), units=("size", 3))),
    (plots.plot_stack_profiles, dict(
        profiles=("records", {"a": normalization.measure_stack(STACK_SPEC, inputs=4, seed=0)}),
        every=("size", 1))),
    (plots.plot_norm_rates, dict(
        tables=("records", {"a": normalization.measure_norm_rates(PLAIN, **RATES)}),
        ax=("axes", None))),
    (plots.plot_stack_runs, dict(runs=("records", {"a": [STACK_RUN]}), ax=("axes", None))),
    (plots.plot_path_lengths, dict(
        expansions=("records", {"a": residuals.expand_product([np.eye(2)])}),
        ax=("axes", None))),
    (plots.plot_losses, dict(runs=("records", {"a": RUN}), ax=("axes", None))),
    (plots.plot_weight_changes, dict(runs=("records", {"a": RUN}), ax=("axes", None))),
]  # fmt: skip

# Where the error rightly names another argument: the two must have one size, and the other's is
# looked at second; or the value is itself right.
ELSEWHERE = MappingProxyType({
    ("evaluate_loss", "outputs"): "`y`",
    ("measure_saturation", "preactivations"): "`activations`",
    ("TrainingRun", "steps"): "`losses`",
    ("update", "parameters"): "`grads`",
})  # fmt: skip


def spoiled():
    for function, arguments in CALLS:
        valid = {name: value for name, (_, value) in arguments.items()}
        for name, (kind, _) in arguments.items():
            title = getattr(function, "__qualname__", repr(function))
            yield pytest.param(function, valid, name, kind, id=f"{title}-{name}")


def fault_of(call, *names):
    """Return how a call fails to refuse with a sentence that has one of the names; "" if not."""
    try:
        call()
    except Exception as error:
        said = str(error)
        clear = any(name in said for name in names) and said.endswith(".")
        if clear and isinstance(error, (TypeError, ValueError)):
            return ""
        return f"{type(error).__name__}: {said}"
    return "accepted"


@pytest.mark.parametrize(("function", "valid", "name", "kind"), [*spoiled()])
def test_no_argument_takes_nonsense(function, valid, name, kind):
    other = ELSEWHERE.get((function.__name__, name), f"`{name}`")
    faults = {
        label: fault_of(lambda value=value: function(**{**valid, name: value}), f"`{name}", other)
        for label, value in {**NEVER, **KINDS[kind]}.items()
    }
    plt.close("all")
    assert {label: fault for label, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    "module",
    [activations, data, initialization, jacobians, losses, normalization, rates, residuals,
     results, saturation, specs, stack_specs, theory, reference.convolution, reference.mlp,
     reference.normalization, reference.stack, reference.stack_training],
    ids=lambda module: module.__name__,
)  # fmt: skip
def test_the_table_leaves_no_public_function_out(module):
    here = {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    checks = {"require_mlp"}  # it is a check itself
    covered = {getattr(function, "__name__", "") for function, _ in CALLS}
    assert here - checks <= covered
