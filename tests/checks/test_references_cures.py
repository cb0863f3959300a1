"""The references of the tasks on cures and diagnosis, against an independent computation.

Frameworks, brute force, quadrature and simulation stand on the other side. What students may write
in PyTorch or Keras is run as they would write it, and must pass.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from course_lib import pytorch, reference
from course_lib.checks.calling import run_cases
from course_lib.checks.judging import judge_task
from course_lib.checks.task import draw_cases, get_task
from course_lib.checks.tasks import _patients
from course_lib.initialization import weight_variance
from course_lib.signal_propagation import gaussian_mean_square
from course_lib.slope_ranges import predict_climb_time
from course_lib.unit_states import classify_units

torch = pytest.importorskip("torch")

SEEDS = (0, 1, 2)
# Both sides are float64, by formulas that differ in their order of operations.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def cases(task_id, seeds=SEEDS):
    """(reference's answer, case) for each case under each seed."""
    task = get_task(task_id)
    for seed in seeds:
        for case in draw_cases(task, seed):
            yield task.reference(*case.args), case


def passes(task_id, function, seeds=SEEDS):
    """Assert that `function` solves the task under each seed."""
    task = get_task(task_id)
    for seed in seeds:
        drawn = draw_cases(task, seed)
        verdict = judge_task(task, seed, run_cases(task, function, drawn), cases=drawn)
        assert verdict.passed, verdict.describe()


# --- initialization


def test_the_weight_std_keeps_the_mean_square():
    for std, case in cases("initialization/weight_std"):
        fan_in, slope = case.args
        kept = gaussian_mean_square(
            lambda z, slope=slope: np.where(z > 0, z, slope * z), fan_in * std**2
        )
        assert kept == pytest.approx(1.0, rel=1e-6)


def test_relu_moments_are_those_of_a_normal_law():
    nodes = 1e-3 * (np.arange(-9000, 9000) + 0.5)
    masses = np.exp(-0.5 * nodes**2) / np.exp(-0.5 * nodes**2).sum()
    for answer, case in cases("initialization/relu_moments"):
        m, n, v, bias = case.args
        h = np.maximum(np.sqrt(n * v * m + bias) * nodes, 0.0)
        mean, square = masses @ h, masses @ h**2
        wanted = [n * v * m + bias, mean, square, square - mean**2]
        np.testing.assert_allclose(answer, wanted, rtol=1e-5)


def test_the_defaults_are_those_of_the_laws_and_of_the_layer():
    laws = {"torch.nn.Linear": "pytorch_default", "keras.layers.Dense": "glorot_uniform"}
    for (variance, factor), case in cases("initialization/default_factor"):
        layer, n = case.args
        assert variance == pytest.approx(weight_variance(laws[layer], fan_in=n, fan_out=n))
        assert factor == pytest.approx(np.sqrt(n * variance / 2))
        if layer == "torch.nn.Linear":
            drawn = torch.nn.Linear(n, n).weight.detach().double()
            limit = np.sqrt(3 * variance)
            assert drawn.abs().max().item() == pytest.approx(limit, rel=0.02)  # of >= 1024 draws


def torch_he(fan_in, fan_out, seeds):
    drawn = []
    for seed in seeds:
        weight = torch.empty(fan_out, fan_in)
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
        drawn.append(weight)
    return torch.stack(drawn)


def torch_orthogonal(rows, columns, seeds):
    drawn = [torch.empty(rows, columns) for _ in seeds]
    for weight, seed in zip(drawn, seeds, strict=True):
        torch.nn.init.orthogonal_(weight, generator=torch.Generator().manual_seed(seed))
    return drawn


def test_the_laws_of_pytorch_pass():
    passes("initialization/draw_he", torch_he, range(20))
    passes("initialization/draw_orthogonal", torch_orthogonal, range(20))


def test_the_laws_of_keras_pass():
    keras = pytest.importorskip("keras")

    def he(fan_in, fan_out, seeds):
        kernels = [keras.initializers.HeNormal(seed=s)((fan_in, fan_out)) for s in seeds]
        return [np.asarray(kernel).T for kernel in kernels]

    def orthogonal(rows, columns, seeds):
        return [keras.initializers.Orthogonal(seed=s)((rows, columns)) for s in seeds]

    passes("initialization/draw_he", he, (0,))
    passes("initialization/draw_orthogonal", orthogonal, (0,))


# --- activations and dead units


def test_the_inactive_share_is_a_frequency():
    rng = np.random.default_rng(0)
    for share, case in cases("activations_and_dead_units/inactive_share", (0,)):
        bias, q = case.args
        found = np.mean(np.sqrt(q) * rng.standard_normal(40_000) + bias <= 0)
        assert found == pytest.approx(share, abs=5 * np.sqrt(0.25 / 40_000))


def test_unit_states_are_those_of_the_library():
    for answer, case in cases("activations_and_dead_units/unit_states"):
        states = classify_units(case.args[0], case.hidden)
        np.testing.assert_array_equal(answer["dead"], states.dead)
        np.testing.assert_array_equal(answer["always_on"], states.always_on)
        assert answer["inactive"].mean() == pytest.approx(states.inactive_share)
        assert answer["saturated"].mean() == pytest.approx(states.saturated_share)


def test_dead_units_do_not_depend_on_the_batches():
    for answer, case in cases("activations_and_dead_units/count_dead"):
        (batches,) = case.args
        assert answer == np.sum(np.vstack(batches).max(axis=0) == 0.0)


def test_climb_times_are_the_integral():
    for answer, case in cases("activations_and_dead_units/climb_time"):
        name, depth, rate = case.args
        wanted = predict_climb_time(name, depth) / rate
        assert answer == wanted or answer == pytest.approx(wanted, rel=1e-3)


# --- normalization and residual connections


def test_normalizations_are_those_of_pytorch():
    functional = torch.nn.functional
    for answer, case in cases("normalization_and_residuals/layer_norm"):
        x, gamma, beta = map(torch.tensor, case.args[:3])
        wanted = functional.layer_norm(x, x.shape[1:], gamma, beta, case.args[3])
        np.testing.assert_allclose(answer, wanted, **CLOSE)
    for answer, case in cases("normalization_and_residuals/batch_norm"):
        x, gamma, beta, mean, var = (torch.tensor(a) for a in case.args[:5])
        training, momentum, eps = case.args[5:]
        y = functional.batch_norm(x, mean, var, gamma, beta, training, momentum, eps)
        for key, wanted in (("y", y), ("running_mean", mean), ("running_var", var)):
            np.testing.assert_allclose(answer[key], wanted, **CLOSE)


def test_the_backward_pass_is_that_of_pytorch():
    for answer, case in cases("normalization_and_residuals/batch_norm_backward"):
        dy, x, gamma, eps = case.args
        inputs = [torch.tensor(a, requires_grad=True) for a in (x, gamma, np.zeros_like(gamma))]
        y = torch.nn.functional.batch_norm(inputs[0], None, None, *inputs[1:], True, 0.1, eps)
        y.backward(torch.tensor(dy))
        for key, value in zip(("dx", "dgamma", "dbeta"), inputs, strict=True):
            np.testing.assert_allclose(answer[key], value.grad, **CLOSE)


def test_the_terms_of_the_expansion_add_up():
    for terms, case in cases("normalization_and_residuals/expansion"):
        (jacobians,) = case.args
        product = np.eye(len(jacobians[0]))
        for jacobian in jacobians:
            product = (np.eye(len(jacobian)) + jacobian) @ product
        np.testing.assert_allclose(terms.sum(axis=0), product, **CLOSE)
        np.testing.assert_allclose(terms[1], np.sum(jacobians, axis=0), **CLOSE)
        second = [b @ a for a, b in itertools.combinations(jacobians, 2)]
        np.testing.assert_allclose(terms[2], np.sum(second, axis=0), **CLOSE)


def test_the_branch_scale_makes_the_growth_that_was_asked_for():
    for scale, case in cases("normalization_and_residuals/branch_scale"):
        depth, growth, normalized = case.args
        square = 1.0
        for _ in range(depth):
            square += scale**2 * (1.0 if normalized else square)
        assert square == pytest.approx(growth, rel=1e-9)


def train_in_float64(x, y, weights, activation, rate, steps, *, normalize):
    modules = []
    for w in weights:
        layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=torch.float64)
        layer.weight = torch.nn.Parameter(torch.tensor(w))
        modules.append(layer)
        if normalize:
            modules.append(torch.nn.BatchNorm1d(len(w), dtype=torch.float64))
        modules.append(torch.nn.Sigmoid() if activation == "sigmoid" else torch.nn.ReLU())
    model = torch.nn.Sequential(*modules[: -2 if normalize else -1])
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=rate), []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y))
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return losses


def test_both_trainings_are_those_of_pytorch():
    for answer, case in cases("normalization_and_residuals/compare_runs"):
        for key in ("plain", "normalized"):
            losses = train_in_float64(*case.args, normalize=key == "normalized")
            np.testing.assert_allclose(answer[key], losses, rtol=1e-8)
        assert answer["better"] == min(("plain", "normalized"), key=lambda k: answer[k][-1])


# --- clipping and the learning rate


def test_clipping_is_that_of_the_frameworks():
    for answer, case in cases("clipping_and_learning_rate/clip_global"):
        grads, limit = case.args
        parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = torch.tensor(grad)
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        for own, parameter in zip(answer, parameters, strict=True):
            np.testing.assert_allclose(own, parameter.grad, rtol=3e-6, atol=1e-12)  # its 1e-6


def test_the_angle_is_that_of_keras():
    keras = pytest.importorskip("keras")

    for angle, case in cases("clipping_and_learning_rate/clipnorm_angle"):
        grads, limit = case.args
        variables = [keras.Variable(np.zeros(g.shape), dtype="float64") for g in grads]
        keras.optimizers.SGD(1.0, clipnorm=limit).apply(
            [keras.ops.convert_to_tensor(g) for g in grads], variables
        )
        before = np.concatenate([g.ravel() for g in grads])
        after = np.concatenate([-np.asarray(v).ravel() for v in variables])
        cosine = before @ after / (np.linalg.norm(before) * np.linalg.norm(after))
        assert angle == pytest.approx(np.degrees(np.arccos(min(cosine, 1.0))), abs=1e-3)


def test_a_clipped_step_is_a_step_at_the_equivalent_rate():
    from course_lib.clipping import clip_by_global_norm

    for rates, case in cases("clipping_and_learning_rate/equivalent_rates"):
        norms, rate, limit = case.args
        for norm, equivalent in zip(norms, rates, strict=True):
            grad = norm * np.array([0.6, 0.8])
            clipped = clip_by_global_norm([grad], limit)[0]
            np.testing.assert_allclose(rate * clipped, equivalent * grad, **CLOSE)


def descend(hessian, rate, momentum, steps):
    """The size of w after `steps` steps from a start with a part in every direction."""
    before = w = np.linalg.eigh(hessian)[1].sum(axis=1)
    for _ in range(steps):
        w, before = w - rate * hessian @ w + momentum * (w - before), w
        if np.linalg.norm(w) > 1e6:
            break
    return np.linalg.norm(w)


def test_the_largest_rate_is_where_descent_turns():
    for limit, case in cases("clipping_and_learning_rate/largest_rate"):
        hessian, momentum = case.args
        assert descend(hessian, 0.98 * limit, momentum, 20_000) < 1e-3
        assert descend(hessian, 1.02 * limit, momentum, 4000) > 1e3


# --- choosing a cure


def scaled_layer(w, x, target, rule):
    """Output, gradient and relative step of one step with batch normalization, eps = 0."""
    w = torch.tensor(w, requires_grad=True)
    z = x @ w.T
    y = (z - z.mean(0)) / z.var(0, correction=0).sqrt()
    (y * target).sum().backward()
    optimizer, before = rule([w]), w.detach().clone()
    optimizer.step()
    step = (w.detach() - before).norm() / before.norm()
    return y.detach(), w.grad.norm(), step


def test_the_factors_behind_a_normalization():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(4, 6)), torch.tensor(rng.normal(size=(20, 6)))
    target = torch.tensor(rng.normal(size=(20, 4)))
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    adam = lambda p: torch.optim.Adam(p, lr=0.1, eps=1e-300)  # noqa: E731
    for (output, grad, sgd_step, adam_step), case in cases("choosing_a_cure/after_scaling", (0,)):
        (c,) = case.args
        for rule, wanted in ((sgd, sgd_step), (adam, adam_step)):
            plain, scaled = scaled_layer(w, x, target, rule), scaled_layer(c * w, x, target, rule)
            np.testing.assert_allclose(scaled[0], output * plain[0], rtol=1e-8)
            np.testing.assert_allclose(scaled[1] / plain[1], grad, rtol=1e-8)
            np.testing.assert_allclose(scaled[2] / plain[2], wanted, rtol=1e-6)


RIGHT_CURES = (
    {"nothing"},
    {"double the weights", "ReLU with He's weights"},
    {"halve the weights", "ReLU with He's weights"},
    {"set the biases to zero"},
    {"divide the learning rate by ten"},
    {"ReLU with He's weights"},
    {"double the weights", "ReLU with He's weights"},
    {"nothing"},
)


@pytest.mark.parametrize("number", range(len(RIGHT_CURES)))
def test_each_patient_has_the_cures_that_are_expected(number):
    """Clipping may help the one whose rate is too large; nothing else varies with the seed."""
    illness = _patients.ILLNESSES[number]
    for seed in (11, 12, 13):
        patient = _patients.Patient(seed=seed, **illness)
        healthy = _patients.is_healthy(_patients.examine(patient))
        assert healthy == (RIGHT_CURES[number] == {"nothing"})
        if healthy:
            continue
        found = {
            name for name, treat in _patients.CURES.items()
            if _patients.is_healthy(_patients.examine(treat(patient)))
        }  # fmt: skip
        assert found - {"clip the gradient"} == RIGHT_CURES[number]
        assert "clip the gradient" not in found or "rate" in illness


# --- diagnosis and the capstone


def test_norms_are_those_of_the_scaled_gradient():
    for norm, case in cases("diagnosis/safe_norm"):
        (g,) = case.args
        assert g.dtype == np.float32
        top = float(np.abs(g).max()) or 1.0
        assert norm == pytest.approx(top * np.linalg.norm(g.astype(np.float64) / top), rel=1e-12)


def test_the_histogram_counts_every_entry_once():
    for answer, case in cases("diagnosis/histogram"):
        g, edges = case.args
        assert answer["counts"].sum() + answer["zeros"] + answer["nonfinite"] == len(g)
        for count, low, high in zip(answer["counts"], edges[:-1], edges[1:], strict=True):
            assert count == sum(10**low <= abs(v) < 10**high for v in g)


def test_monitored_norms_are_those_of_autograd():
    for answer, case in cases("diagnosis/monitor_training", (0, 1)):
        x, y, weights, biases, rate, steps = case.args
        model = reference.MLP(
            [w.copy() for w in weights], [b.copy() for b in biases],
            ("tanh",) * (len(weights) - 1) + ("linear",),
        )  # fmt: skip
        for step in range(steps):
            twin = torch.nn.Sequential()
            for k, w in enumerate(model.matrices):
                twin.append(torch.nn.Linear(w.shape[1], w.shape[0], dtype=torch.float64))
                twin.extend([torch.nn.Tanh()] if k < len(weights) - 1 else [])
            pytorch.load_weights(twin, _as_weights(model))
            flow = pytorch.gradient_flow(twin, x, y, loss="cross_entropy")
            np.testing.assert_allclose(answer[step], flow.weight_grad_norms, rtol=1e-9)
            for w, grad in zip(model.matrices, flow.weight_grads, strict=True):
                w -= rate * grad
            for b, grad in zip(model.biases, flow.bias_grads, strict=True):
                b -= rate * grad


def _as_weights(model):
    from course_lib import MLPWeights

    return MLPWeights(model.matrices, model.biases)


def test_rescaled_layers_have_preactivations_of_size_one():
    for answer, case in cases("capstone/rescale"):
        x, weights, activation = case.args
        biases = [np.zeros(len(w)) for w in answer]
        model = reference.MLP(answer, biases, (activation,) * len(answer))
        for z in model.forward(x).preactivations:
            assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0)
        for w, new in zip(weights, answer, strict=True):
            ratio = new / w
            assert ratio.min() > 0
            np.testing.assert_allclose(ratio, ratio.flat[0])
