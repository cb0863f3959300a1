"""The reference answers, against an independent computation of the same thing.

The references of the tasks are written to be read; here they meet `course_lib.reference`, central
differences, and the frameworks' automatic differentiation.
"""

from __future__ import annotations

import numpy as np
import pytest

from course_lib import MLPWeights, get_activation, memory, theory
from course_lib.checks.calling import run_cases
from course_lib.checks.judging import judge_task
from course_lib.checks.task import draw_cases, get_task
from course_lib.jacobians import measure_product
from course_lib.matrix_powers import recurrent_bounds
from course_lib.reference import gru, lstm
from course_lib.stability import measure_norm

# Both sides are float64 by different formulas; central differences lose half of the digits.
CLOSE = dict(rtol=1e-9, atol=1e-12)
NUMERIC = dict(rtol=1e-5, atol=1e-7)


def cases(task_id, seeds=(0, 1, 2)):
    """(reference's answer, arguments) for each case under each seed."""
    task = get_task(task_id)
    for seed in seeds:
        for case in draw_cases(task, seed):
            answer = None if task.reference is None else task.reference(*case.args)
            yield answer, case.args


def numeric_gradient(function, arrays, key, step=1e-6):
    """Central differences of a number in one of several arrays."""
    grad = np.zeros_like(arrays[key])
    for place in np.ndindex(grad.shape):
        moved = []
        for sign in (1, -1):
            copies = {name: array.copy() for name, array in arrays.items()}
            copies[key][place] += sign * step
            moved.append(function(**copies))
        grad[place] = (moved[0] - moved[1]) / (2 * step)
    return grad


def numeric_jacobian(function, x, step=1e-6):
    columns = []
    for unit in np.eye(len(x)):
        columns.append((function(x + step * unit) - function(x - step * unit)) / (2 * step))
    return np.array(columns).T


def test_layer_jacobian():
    for answer, (weight, bias, h) in cases("chain_rule/layer_jacobian"):
        found = numeric_jacobian(lambda x, w=weight, b=bias: np.tanh(w @ x + b), h)
        np.testing.assert_allclose(answer, found, **NUMERIC)


def test_ordered_product():
    for answer, (jacobians,) in cases("chain_rule/ordered_product"):
        np.testing.assert_allclose(answer, np.linalg.multi_dot(jacobians[::-1]), **CLOSE)


def test_repaired_gradient():
    for answer, (weights, z, output_grad) in cases("chain_rule/repaired_gradient"):
        slopes = [get_activation("sigmoid").derivative(z_l) for z_l in z]
        row = output_grad
        for weight, slope in zip(weights[::-1], slopes[:0:-1], strict=True):
            row = row @ np.diag(slope) @ weight
        np.testing.assert_allclose(answer, row, **CLOSE)


def test_perceptron_gradients():
    for answer, (w1, b1, w2, b2, x, y) in cases("chain_rule/perceptron_gradients"):

        def loss(w1, b1, w2, b2, x=x, y=y):
            out = np.tanh(x @ w1.T + b1) @ w2.T + b2
            return np.sum((out - y) ** 2) / (2 * len(x))

        arrays = dict(w1=w1, b1=b1, w2=w2, b2=b2)
        for key in arrays:
            np.testing.assert_allclose(answer[key], numeric_gradient(loss, arrays, key), **NUMERIC)


def test_product_bounds():
    for (lower, norm, upper), (matrices,) in cases("chain_rule/product_bounds"):
        growth = measure_product(matrices)
        np.testing.assert_allclose(lower, growth.smallest_products[-1], **CLOSE)
        np.testing.assert_allclose(norm, growth.norms[-1], **CLOSE)
        np.testing.assert_allclose(upper, growth.norm_products[-1], **CLOSE)


def test_sigmoid_slope():
    for answer, (z,) in cases("sigmoid_bound/sigmoid_slope"):
        # s (1 - s) loses digits where s is almost 1; at z = 18 about eight are left.
        np.testing.assert_allclose(answer, get_activation("sigmoid").derivative(z), rtol=1e-7)


def test_largest_slope():
    z = np.linspace(-60, 60, 600_001)
    for answer, (name, a, b) in cases("sigmoid_bound/largest_slope", seeds=(0,)):
        slope = np.gradient(a * get_activation(name).function(b * z), z)
        assert answer == pytest.approx(slope.max(), rel=1e-4)
        assert answer == pytest.approx(a * b * get_activation(name).supremum, rel=1e-9)


def test_jacobian_bound():
    for answer, (weights,) in cases("sigmoid_bound/jacobian_bound"):
        width = len(weights[0])
        whole = MLPWeights([np.eye(width), *weights], [np.zeros(width)] * (len(weights) + 1))
        assert answer == pytest.approx(theory.spectral_bound(whole, "sigmoid"), rel=1e-9)


def test_measured_factor():
    for answer, (norms,) in cases("sigmoid_bound/measured_factor"):
        steps = np.diff(np.log(norms[::-1]))
        assert answer == pytest.approx(np.exp(steps.mean()), rel=1e-9)


def log_norm_of_power(matrix, doublings):
    """The logarithm of the norm of matrix^(2^doublings), without overflow."""
    log = 0.0
    for _ in range(doublings):
        size = np.linalg.norm(matrix)
        matrix, log = matrix @ matrix / size**2, 2 * (log + np.log(size))
    return log + np.log(np.linalg.norm(matrix))


def test_two_sizes():
    for (radius, norm), (matrix,) in cases("exploding_gradients/two_sizes"):
        assert norm == pytest.approx(np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix).max()))
        # The definition as a limit; the 2^20-th root leaves nothing of a constant.
        assert radius == pytest.approx(np.exp(log_norm_of_power(matrix, 20) / 2**20), rel=1e-4)


def test_steps_to_overflow():
    for answer, (factor, dtype) in cases("exploding_gradients/steps_to_overflow", seeds=range(20)):
        assert answer == theory.chain_limits(factor, dtype=dtype).first_infinite


def test_guarded_update():
    for answer, (weights, grads, learning_rate, limit) in cases(
        "exploding_gradients/guarded_update"
    ):
        norm = measure_norm(np.concatenate([grad.ravel() for grad in grads]))
        assert answer["skipped"] is (not np.isfinite(norm) or norm > limit)
        for new, old, grad in zip(answer["weights"], weights, grads, strict=True):
            step = 0.0 if answer["skipped"] else learning_rate * grad
            np.testing.assert_allclose(new, old - step, **CLOSE)


def test_worst_gradient():
    rng = np.random.default_rng(0)
    task = get_task("exploding_gradients/worst_gradient")
    for seed in range(3):
        for case in draw_cases(task, seed):
            matrix, steps = case.args
            tries = rng.normal(size=(2000, len(matrix)))
            lengths = np.linalg.norm(tries @ np.linalg.matrix_power(matrix, steps), axis=1)
            best = (lengths / np.linalg.norm(tries, axis=1)).max()
            wrong = task.judge(case, tries[0] / np.linalg.norm(tries[0]), None)
            assert float(wrong.split()[-1].rstrip(".")) >= best * (1 - 1e-6)


def run_rnn(w_hh, z_rest, start):
    """h_1 to h_T if the preactivations without the recurrent part are `z_rest`."""
    states, h = [], start
    for rest in z_rest:
        h = np.tanh(w_hh @ h + rest)
        states.append(h)
    return np.array(states)


def inputs_behind(w_hh, states):
    """What must have come from outside at each step for the network to be in these states."""
    return np.arctanh(states[1:]) - states[:-1] @ w_hh.T


def test_total_gradients():
    for answer, (w_hh, states, direct) in cases("bptt/total_gradients"):
        rest = inputs_behind(w_hh, states)
        for t in range(len(states)):

            def loss(h, t=t, w_hh=w_hh, rest=rest, direct=direct):
                later = run_rnn(w_hh, rest[t:], h)
                return direct[t] @ h + (np.sum(direct[t + 1 :] * later) if len(later) else 0.0)

            found = numeric_gradient(loss, dict(h=states[t]), "h")
            np.testing.assert_allclose(answer[t], found, **NUMERIC)


def weight_gradient(w_hh, states, last_grad, first):
    """Central differences in the matrix as it is used from step `first` on (0: all steps)."""
    rest = inputs_behind(w_hh, states)

    def loss(changed):
        early = run_rnn(w_hh, rest[:first], states[0])
        start = early[-1] if first else states[0]
        return last_grad @ run_rnn(changed, rest[first:], start)[-1]

    return numeric_gradient(loss, dict(changed=w_hh), "changed")


def test_truncated_gradient():
    for answer, (w_hh, states, last_grad, window) in cases("bptt/truncated_gradient"):
        first = len(states) - 1 - window
        found = weight_gradient(w_hh, states, last_grad, first)
        np.testing.assert_allclose(answer, found, **NUMERIC)


def test_recurrent_weight_gradient():
    total_gradients = get_task("bptt/total_gradients").reference
    gradient = get_task("bptt/recurrent_weight_gradient").reference
    for _, (w_hh, states, last_grad, _) in cases("bptt/truncated_gradient", seeds=(3,)):
        direct = np.zeros_like(states[1:])
        direct[-1] = last_grad
        total = total_gradients(w_hh, states[1:], direct)
        found = weight_gradient(w_hh, states, last_grad, 0)
        np.testing.assert_allclose(gradient(states, total), found, **NUMERIC)


def test_sequence_gradients():
    for answer, (w_xh, w_hh, b, x, y) in cases("bptt/sequence_gradients"):

        def loss(w_xh, w_hh, b, x=x, y=y):
            h = run_rnn(w_hh, x @ w_xh.T + b, np.zeros(len(b)))[-1]
            return np.sum((h - y) ** 2) / 2

        arrays = dict(w_xh=w_xh, w_hh=w_hh, b=b)
        for key in arrays:
            np.testing.assert_allclose(answer[key], numeric_gradient(loss, arrays, key), **NUMERIC)


def test_rate_and_bound():
    for (rate, bound), (w_hh, states) in cases("bptt/rate_and_bound"):
        rest = inputs_behind(w_hh, states)
        whole = numeric_jacobian(lambda h, w=w_hh, r=rest: run_rnn(w, r, h)[-1], states[0])
        steps = len(states) - 1
        assert rate == pytest.approx(np.linalg.norm(whole, 2) ** (1 / steps), rel=1e-4)
        assert bound == pytest.approx(recurrent_bounds(w_hh).sigma_max, rel=1e-9)
        assert rate <= bound


def lstm_reference(w_xh, w_hh, b, x, h, c):
    return lstm.step("lstm", (w_xh @ x + b)[None], (w_hh @ h)[None], h[None], c[None])


def test_lstm_step_and_its_jacobian():
    for answer, args in cases("lstm_highway/lstm_step"):
        done = lstm_reference(*args)
        np.testing.assert_allclose(answer["h"], done.hidden[0], **CLOSE)
        np.testing.assert_allclose(answer["c"], done.cell[0], **CLOSE)
    step = get_task("lstm_highway/lstm_step").reference
    for answer, (w_xh, w_hh, b, x, h, c) in cases("lstm_highway/full_jacobian"):
        done = lstm_reference(w_xh, w_hh, b, x, h, c)
        np.testing.assert_allclose(answer, lstm.state_jacobian(done, w_hh), **CLOSE)

        def both(state, w_xh=w_xh, w_hh=w_hh, b=b, x=x):
            new = step(w_xh, w_hh, b, x, *np.split(state, 2))
            return np.concatenate([new["h"], new["c"]])

        found = numeric_jacobian(both, np.concatenate([h, c]))
        np.testing.assert_allclose(answer, found, **NUMERIC)


def test_forget_bias():
    for answer, (steps, keep) in cases("lstm_highway/forget_bias"):
        assert answer == pytest.approx(memory.gate_bias(memory.required_gate(keep, steps=steps)))


def test_gru_direct_path():
    for answer, (w_xh, w_hh, b, x) in cases("lstm_highway/gru_direct_path"):
        h, path = np.zeros((1, len(b) // 3)), 1.0
        for x_t in x:
            done = gru.step("gru", (w_xh @ x_t + b)[None], h @ w_hh.T, h, None)
            path, h = path * gru.direct_path(done), done.hidden
        np.testing.assert_allclose(answer, path, **CLOSE)


def test_exploding_highway_counts_all_paths():
    """The judge's closed form against a network that is moved a little and run."""
    task = get_task("lstm_highway/exploding_highway")
    case = draw_cases(task, 0)[0]
    steps, gate = case.args
    step = get_task("lstm_highway/lstm_step").reference
    for weight, passes in ((0.1, False), (2.0, True)):
        biases = [1.0, memory.gate_bias(gate), 0.0, 1.5]
        w_hh = np.array([[0.0], [0.0], [weight], [0.0]])
        answer = {"forget_bias": biases[1], "input_bias": 1.0, "output_bias": 1.5,
                  "candidate_weight": weight}  # fmt: skip

        def last_cell(c, w_hh=w_hh, biases=biases):
            o = 1 / (1 + np.exp(-1.5))
            h, c = np.array([o * np.tanh(c)]), np.array([c])
            for _ in range(steps):
                new = step(np.zeros((4, 1)), w_hh, np.array(biases), np.zeros(1), h, c)
                h, c = new["h"], new["c"]
            return float(c[0])

        # Small enough to stay near 0 although every step multiplies it.
        derivative = last_cell(1e-25) / 1e-25
        sentence = task.judge(case, answer, None)
        assert (sentence is None) is passes is bool(abs(derivative) >= 1000)
        if sentence:
            assert f"{derivative:.3g}" in sentence


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_tasks_can_be_solved_in_a_framework(framework):
    """Automatic differentiation, tensors returned as they are: full marks."""
    library = pytest.importorskip(framework)
    solve = solve_in_torch if framework == "torch" else solve_in_tensorflow
    task = get_task("bptt/sequence_gradients")
    drawn = draw_cases(task, 0)
    verdict = judge_task(task, 0, run_cases(task, solve(library), drawn))
    assert verdict.passed, verdict.describe()


def solve_in_torch(torch):
    def sequence_gradients(w_xh, w_hh, b, x, y):
        w_xh, w_hh, b = (torch.tensor(a, requires_grad=True) for a in (w_xh, w_hh, b))
        h = torch.zeros_like(b)
        for x_t in torch.tensor(x):
            h = torch.tanh(w_xh @ x_t + w_hh @ h + b)
        (0.5 * ((h - torch.tensor(y)) ** 2).sum()).backward()
        return {"w_xh": w_xh.grad, "w_hh": w_hh.grad, "b": b.grad}

    return sequence_gradients


def solve_in_tensorflow(tf):
    def sequence_gradients(w_xh, w_hh, b, x, y):
        w = {"w_xh": tf.Variable(w_xh), "w_hh": tf.Variable(w_hh), "b": tf.Variable(b)}
        with tf.GradientTape() as tape:
            h = tf.zeros_like(w["b"])
            for x_t in tf.constant(x):
                z = tf.linalg.matvec(w["w_xh"], x_t) + tf.linalg.matvec(w["w_hh"], h) + w["b"]
                h = tf.tanh(z)
            loss = 0.5 * tf.reduce_sum((h - y) ** 2)
        return tape.gradient(loss, w)

    return sequence_gradients
