"""The hand-written recurrent passes against central differences and against closed forms."""

import numpy as np
import pytest

from course_lib import RecurrentSpec, RecurrentWeights, draw_recurrent_weights, reference
from course_lib.recurrent_specs import GATES
from course_lib.reference.recurrent import RecurrentNetwork
from course_lib.sequence_losses import cut_points, evaluate_sequence_loss

BATCH, STEPS, N_IN, HIDDEN, N_OUT = 2, 5, 2, 3, 2
# Central differences at step 1e-5 are good to about 1e-10 of a value of order 1; the bar is 1e-6.
RELATIVE = 1e-6


def network(cell, *, n_out=N_OUT, seed=0, hidden=HIDDEN):
    spec = RecurrentSpec(N_IN, hidden, cell, n_out=n_out, defaults="pytorch")
    return reference.build_recurrent(spec, draw_recurrent_weights(spec, seed=seed))


def batch(loss, over, *, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((BATCH, STEPS, N_IN))
    shape = (BATCH,) if over == "last" else (BATCH, STEPS)
    if loss == "cross_entropy":
        return x, rng.integers(0, N_OUT, size=shape)
    return x, rng.standard_normal((*shape, N_OUT)) if loss == "mean_squared_error" else None


def with_parameter(model, name, value):
    w = model.weights
    names = ("w_xh", "w_hh", "b_xh", "b_hh", "w_hy", "b_y")
    return RecurrentNetwork(
        RecurrentWeights(w.cell, **{n: getattr(w, n) for n in names} | {name: value})
    )


def loss_of(model, x, y, loss, over):
    return evaluate_sequence_loss(model(x), y, loss=loss, over=over)[0]


def assert_close(analytic, numeric, what):
    error = np.linalg.norm(analytic - numeric)
    assert error <= RELATIVE * max(np.linalg.norm(numeric), 1e-3), (
        f"{what}: by hand\n{analytic}\nby differences\n{numeric}"
    )


@pytest.mark.parametrize("over", ["last", "sum", "mean"])
@pytest.mark.parametrize("loss", ["mean_output", "mean_squared_error", "cross_entropy"])
@pytest.mark.parametrize("cell", GATES)
def test_gradients_against_central_differences(cell, loss, over):
    model = network(cell)
    x, y = batch(loss, over)
    flow = reference.recurrent_gradient_flow(model, x, y, loss=loss, over=over)
    assert flow.loss == loss_of(model, x, y, loss, over)
    for name, grad in flow.parameter_grads.items():
        numeric = reference.central_difference(
            lambda v, name=name: loss_of(with_parameter(model, name, v), x, y, loss, over),
            getattr(model.weights, name),
        )
        assert_close(grad, numeric, name)
    numeric = reference.central_difference(lambda v: loss_of(model, v, y, loss, over), x)
    assert_close(flow.input_grads, numeric, "input")


def continue_from(model, hidden, cell, x):
    """Run the rest of a sequence from a state, step by step, and return the mean of h_T."""
    from course_lib.reference.recurrent import CELLS

    w = model.weights
    for t in range(x.shape[1]):
        done = CELLS[w.cell].step(
            w.cell, x[:, t] @ w.w_xh.T + w.b_xh, hidden @ w.w_hh.T + w.b_hh, hidden, cell
        )
        hidden, cell = done.hidden, done.cell
    return hidden.mean()


@pytest.mark.parametrize("cell", GATES)
def test_state_gradients_against_central_differences(cell):
    model = network(cell, n_out=None)
    x, _ = batch("mean_output", "last")
    flow = reference.recurrent_gradient_flow(model, x)
    for t in (1, STEPS - 1):
        hidden = flow.hidden_states[:, t - 1]
        memory = None if flow.cell_states is None else flow.cell_states[:, t - 1]
        rest = x[:, t:]
        numeric = reference.central_difference(
            lambda h, m=memory, r=rest: continue_from(model, h, m, r), hidden
        )
        assert_close(flow.hidden_grads[:, t - 1], numeric, f"h_{t}")
        if memory is None:
            continue
        # C_t also feeds h_t = o tanh(C_t), with the gate o given.
        gate = hidden / np.tanh(memory)
        numeric = reference.central_difference(
            lambda c, o=gate, r=rest: continue_from(model, o * np.tanh(c), c, r), memory
        )
        assert_close(flow.cell_grads[:, t - 1], numeric, f"C_{t}")


@pytest.mark.parametrize("cell", GATES)
def test_profile_is_the_gradient_flow_in_logarithms(cell):
    model = network(cell, n_out=None)
    x = np.random.default_rng(0).standard_normal((3, 20, N_IN))
    flow = reference.recurrent_gradient_flow(model, x)
    profile = reference.bptt_profile(model, x)
    # Two orders of the same float64 operations.
    np.testing.assert_allclose(profile.log10_norms, flow.profile.log10_norms, atol=1e-12)
    if cell == "lstm":
        np.testing.assert_allclose(
            profile.log10_cell_norms, flow.profile.log10_cell_norms, atol=1e-12
        )
    np.testing.assert_allclose(profile.norms, flow.hidden_grad_norms, rtol=1e-11)


@pytest.mark.parametrize(("factor", "steps"), [(0.1, 1000), (10.0, 300), (0.5, 1500)])
def test_profile_of_a_linear_network_is_exact_far_outside_float64(factor, steps):
    # ReLU units kept open by a positive bias are linear: h_t = w h_{t-1} + 1, and the gradient is
    # w^(T - t). At 0.1 and T = 1000 the first norm is 1e-999.
    weights = RecurrentWeights("relu_rnn", [[0.0]], [[factor]], [1.0])
    profile = reference.bptt_profile(RecurrentNetwork(weights), np.zeros((1, steps, 1)))
    expected = np.log10(factor) * np.arange(steps - 1, -1, -1)
    np.testing.assert_allclose(profile.log10_norms, expected, rtol=1e-12, atol=1e-12)


def test_profile_takes_any_gradient_at_the_end():
    model = network("lstm", n_out=None)
    x = np.random.default_rng(0).standard_normal((2, 6, N_IN))
    grad = np.random.default_rng(1).standard_normal((2, HIDDEN))
    one = reference.bptt_profile(model, x, grad_last=grad)
    ten = reference.bptt_profile(model, x, grad_last=1e-200 * grad)
    assert one.log10_norms[-1] == pytest.approx(np.log10(np.linalg.norm(grad)))
    np.testing.assert_allclose(ten.log10_norms, one.log10_norms - 200, atol=1e-10)


@pytest.mark.parametrize("cell", GATES)
def test_state_jacobians_against_central_differences(cell):
    from course_lib.reference.recurrent import CELLS

    model = network(cell, n_out=None)
    w, x = model.weights, np.random.default_rng(2).standard_normal((4, N_IN))
    result = reference.state_jacobians(model, x)
    passed = model.forward(x[None])
    for t in range(2, 5):
        before = [passed.previous[t - 1][0]]
        if cell == "lstm":
            before.append(passed.steps[t - 2].cell[0])

        def advance(state, t=t):
            parts = np.split(state, 2) if cell == "lstm" else [state, None]
            hidden, memory = (None if p is None else p[None] for p in parts)
            done = CELLS[cell].step(
                cell, x[None, t - 1] @ w.w_xh.T + w.b_xh, hidden @ w.w_hh.T + w.b_hh, hidden, memory
            )
            return np.concatenate([p[0] for p in (done.hidden, done.cell) if p is not None])

        numeric = reference.central_difference(advance, np.concatenate(before))
        assert_close(result.jacobians[t - 1], numeric, f"Jacobian of step {t}")


@pytest.mark.parametrize("cell", ["tanh_rnn", "lstm", "gru"])
def test_path_norms_against_the_state_gradients(cell):
    """The rows of dm_T/dm_t are gradients of single entries of m_T."""
    model = network(cell, n_out=None)
    x = np.random.default_rng(3).standard_normal((7, N_IN))
    jacobians = reference.state_jacobians(model, x)
    paths = jacobians.path_norms()
    assert paths.log10_whole[-1] == paths.log10_direct[-1] == 0.0
    passed = model.forward(x[None])
    from course_lib.reference.recurrent import CELLS

    rows = []
    for j in range(HIDDEN):
        # Backpropagate entry j of m_T by the steps' reverse, from zero gradients.
        grad, memory = np.zeros((1, HIDDEN)), np.zeros((1, HIDDEN))
        (memory if cell == "lstm" else grad)[0, j] = 1.0
        complete = []
        for done in reversed(passed.steps):
            back = CELLS[cell].step_backward(done, grad, memory)
            complete.append(back.total_cell[0] if cell == "lstm" else grad[0])
            grad = back.u @ model.weights.w_hh + back.hidden
            memory = back.cell
        rows.append(complete[::-1])
    whole = np.linalg.norm(np.stack(rows, axis=1), 2, axis=(1, 2))
    np.testing.assert_allclose(10.0**paths.log10_whole, whole, rtol=1e-10)
    gates = np.stack([d.f[0] if cell == "lstm" else d.z[0] for d in passed.steps]) if (
        cell != "tanh_rnn"
    ) else np.zeros((7, HIDDEN))  # fmt: skip
    for t in range(1, 7):
        direct = np.prod(gates[t:], axis=0).max()
        assert 10.0 ** paths.log10_direct[t - 1] == pytest.approx(direct, rel=1e-12)


def test_open_forget_gates_make_the_direct_path_a_highway():
    spec = RecurrentSpec(N_IN, 8, "lstm", forget_bias=50.0, gain=0.0, input_scale=0.1)
    model = reference.build_recurrent(spec, draw_recurrent_weights(spec, seed=0))
    x = np.random.default_rng(0).standard_normal((100, N_IN))
    paths = reference.state_jacobians(model, x).path_norms()
    # sigmoid(50) is 1 in float64, and without W_hh there is no other path.
    np.testing.assert_allclose(paths.log10_whole, 0.0, atol=1e-12)
    np.testing.assert_allclose(paths.log10_direct, 0.0, atol=1e-12)


@pytest.mark.parametrize("wrt", ["input", "hidden"])
def test_connectivity_is_one_row_per_loss(wrt):
    model = network("gru")
    x, y = batch("mean_squared_error", "sum")
    result = reference.connectivity(model, x, y, loss="mean_squared_error", wrt=wrt)
    assert result.norms.shape == (STEPS, STEPS)
    assert np.all(np.triu(result.norms, 1) == 0.0)
    assert np.all(np.tril(result.norms)[np.tril_indices(STEPS)] > 0.0)
    last = reference.recurrent_gradient_flow(model, x, y[:, -1], loss="mean_squared_error")
    grads = last.input_grads if wrt == "input" else last.hidden_grads
    np.testing.assert_allclose(result.last_row, np.linalg.norm(grads, axis=(0, 2)), rtol=1e-12)


def test_the_sum_of_the_losses_is_the_sum_of_the_gradients():
    model = network("lstm")
    x, y = batch("cross_entropy", "sum")
    together = reference.recurrent_gradient_flow(model, x, y, loss="cross_entropy", over="sum")
    mean = reference.recurrent_gradient_flow(model, x, y, loss="cross_entropy", over="mean")
    parts = [
        reference.recurrent_gradient_flow(model, x[:, :t], y[:, t - 1], loss="cross_entropy")
        for t in range(1, STEPS + 1)
    ]
    assert together.loss == pytest.approx(sum(p.loss for p in parts), rel=1e-12)
    assert together.loss == pytest.approx(STEPS * mean.loss, rel=1e-12)
    for name, grad in together.parameter_grads.items():
        total = sum(p.parameter_grads[name] for p in parts)
        np.testing.assert_allclose(grad, total, rtol=1e-10, atol=1e-14)


def test_truncation_lets_the_last_loss_reach_exactly_so_many_steps():
    model = network("gru", n_out=None)
    x = np.random.default_rng(0).standard_normal((2, 10, N_IN))
    whole = reference.recurrent_gradient_flow(model, x)
    for length in (1, 3, 10, 40):
        cut = reference.recurrent_gradient_flow(model, x, truncation=length)
        reached = np.any(cut.hidden_grads != 0.0, axis=(0, 2))
        assert reached.sum() == min(length, 10)
        last = slice(-length, None)
        np.testing.assert_array_equal(cut.hidden_grads[:, last], whole.hidden_grads[:, last])


def test_cut_points_align_with_the_end():
    assert cut_points(10, None) == []
    assert cut_points(10, 3) == [1, 4, 7]
    assert cut_points(9, 3) == [3, 6]
    assert cut_points(4, 4) == cut_points(4, 9) == []


def test_a_batch_is_its_sequences():
    model = network("lstm", n_out=None)
    x = np.random.default_rng(5).standard_normal((3, 6, N_IN))
    together = model.forward(x).hidden_states
    for k in range(3):
        np.testing.assert_allclose(model.forward(x[k : k + 1]).hidden_states[0], together[k],
                                   rtol=1e-12)  # fmt: skip


GOOD = network("lstm")
X = np.zeros((2, 4, N_IN))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GOOD.forward(np.zeros((4, N_IN))), ValueError, r"`x` \(shape \(4, 2\)\)"),
        (lambda: GOOD.forward(np.zeros((2, 4, 7))), ValueError, r"`x` .* must have shape"),
        (lambda: GOOD.forward(np.full((1, 2, N_IN), np.nan)), ValueError, r"`x` \(=nan at"),
        (lambda: reference.recurrent_gradient_flow(GOOD, X, loss="hinge"), ValueError, r"`loss`"),
        (lambda: reference.recurrent_gradient_flow(GOOD, X, over="first"), ValueError, r"`over`"),
        (lambda: reference.recurrent_gradient_flow(GOOD, X, X), ValueError, r"`y` must be None"),
        (lambda: reference.recurrent_gradient_flow(GOOD, X, loss="cross_entropy"), ValueError,
         r"`y` \(=None\)"),
        (lambda: reference.recurrent_gradient_flow(GOOD, X, [0, 1], loss="cross_entropy",
                                                   over="sum"), ValueError, r"`y` \(shape \(2,\)"),
        (lambda: reference.recurrent_gradient_flow(GOOD, X, [0, 2], loss="cross_entropy"),
         ValueError, r"`y` \(values 0 to 2\)"),
        (lambda: reference.recurrent_gradient_flow(GOOD, X, truncation=0), ValueError,
         r"`truncation` \(=0\)"),
        (lambda: reference.recurrent_gradient_flow(None, X), TypeError, r"`model` \(a NoneType\)"),
        (lambda: reference.bptt_profile(GOOD, X, grad_last=np.zeros((2, HIDDEN))), ValueError,
         r"`grad_last` \(all zeros\)"),
        (lambda: reference.bptt_profile(GOOD, X, grad_last=np.ones((1, 3))), ValueError,
         r"`grad_last` \(shape"),
        (lambda: reference.bptt_profile("lstm", X), TypeError, r"`model` \(a str\)"),
        (lambda: reference.state_jacobians(GOOD, X), ValueError, r"`x` \(shape"),
        (lambda: reference.state_jacobians(3, X[0]), TypeError, r"`model` \(a int\)"),
        (lambda: reference.connectivity(GOOD, X, wrt="loss"), ValueError, r"`wrt` \(='loss'\)"),
        (lambda: reference.connectivity(None, X), TypeError, r"`model` \(a NoneType\)"),
        (lambda: reference.build_recurrent(RecurrentSpec(N_IN, 4, "lstm"), GOOD.weights),
         ValueError, r"`weights` \(hidden 3\) must have the spec's hidden 4"),
        (lambda: reference.build_recurrent(None, GOOD.weights), TypeError, r"`spec` \(=None\)"),
        (lambda: reference.build_recurrent(RecurrentSpec(2, 3), None), TypeError, r"`weights`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_overflowing_state_is_named_with_its_step():
    weights = RecurrentWeights("relu_rnn", [[0.0]], [[1e100]], [1.0])
    with pytest.raises(ValueError, match=r"`x` must keep the states finite; at step 5"):
        RecurrentNetwork(weights).forward(np.zeros((1, 9, 1)))
