"""What each position of a sequence contributes: against a direct computation, in all frameworks."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import course_lib.pytorch
import course_lib.tf
from course_lib import RecurrentSpec, RecurrentWeights, draw_recurrent_weights, plots, reference
from course_lib.contributions import input_contributions

SPEC = RecurrentSpec(2, 4, "gru", n_out=1)
X = np.random.default_rng(0).normal(size=(5, 7, 2))


def flow_of(library, x=X):
    weights = draw_recurrent_weights(SPEC, seed=0)
    return library.recurrent_gradient_flow(
        library.build_recurrent(SPEC, weights, dtype="float64"), x
    )


@pytest.mark.parametrize("library", [reference, course_lib.pytorch, course_lib.tf])
def test_is_the_root_mean_square_over_single_sequences(library):
    result = input_contributions(flow_of(library))
    singles = [flow_of(reference, x[None]).input_grads[0] for x in X]
    wanted = np.sqrt(np.mean([np.sum(g**2, axis=1) for g in singles], axis=0))
    assert np.allclose(result.norms, wanted, rtol=1e-10)
    channel = input_contributions(flow_of(library), channel=1)
    assert np.allclose(
        channel.norms, np.sqrt(np.mean([g[:, 1] ** 2 for g in singles], axis=0)), rtol=1e-10
    )


def test_a_running_sum_gives_every_position_the_same():
    # One ReLU unit with weight 1: h_T is the sum of the (positive) inputs.
    weights = RecurrentWeights("relu_rnn", np.ones((1, 1)), np.ones((1, 1)))
    flow = reference.recurrent_gradient_flow(
        reference.RecurrentNetwork(weights), np.full((3, 6, 1), 0.5)
    )
    result = input_contributions(flow)
    assert np.allclose(result.norms, 1.0)
    assert result.span == pytest.approx(0.0, abs=1e-12)
    assert result.describe() == (
        "NumPy, relu_rnn: position 1 contributes 1, position 4 1, position 6 1."
    )


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="`flow`"):
        input_contributions(np.ones(3))
    with pytest.raises(ValueError, match=r"`channel` \(=2\) must be below n_in \(=2\)"):
        input_contributions(flow_of(reference), channel=2)


def test_the_figure_shows_the_norms():
    result = input_contributions(flow_of(reference))
    ax = plots.plot_input_contributions({"GRU": result}, ideal=np.full(7, 0.5))
    assert np.allclose(ax.lines[0].get_ydata(), np.log10(result.norms))
    assert np.allclose(ax.lines[1].get_ydata(), np.log10(0.5))
    plt.close("all")
    with pytest.raises(ValueError, match="`ideal`"):
        plots.plot_input_contributions({"GRU": result}, ideal=np.ones(3))
