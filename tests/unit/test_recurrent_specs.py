"""Recurrent networks as data: layouts, laws, the frameworks' defaults."""

import numpy as np
import pytest

from course_lib import RecurrentSpec, RecurrentWeights, draw_recurrent_weights
from course_lib.matrix_powers import spectral_radius
from course_lib.recurrent_specs import GATES, RECURRENT_INITIALIZERS


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("init", RECURRENT_INITIALIZERS)
def test_shapes_and_determinism(cell, init):
    spec = RecurrentSpec(3, 5, cell, n_out=2, recurrent_init=init)
    first, again, other = (draw_recurrent_weights(spec, seed=s) for s in (7, 7, 8))
    gates = len(spec.gates)
    assert first.w_xh.shape == (5 * gates, 3)
    assert first.w_hh.shape == (5 * gates, 5)
    assert first.b_xh.shape == first.b_hh.shape == (5 * gates,)
    assert (first.n_in, first.hidden, first.n_out) == (3, 5, 2)
    assert np.array_equal(first.w_xh, again.w_xh)
    assert np.array_equal(first.w_hh, again.w_hh)
    assert not np.array_equal(first.w_xh, other.w_xh)
    assert not first.w_hh.flags.writeable


def test_orthogonal_blocks_are_orthogonal_and_scaled():
    spec = RecurrentSpec(1, 6, "lstm", gain=1.5)
    weights = draw_recurrent_weights(spec, seed=0)
    for gate in spec.gates:
        block = weights.w_hh[weights.gate_rows(gate)]
        # Products of orthogonal factors: exact up to a few rounding errors.
        np.testing.assert_allclose(block @ block.T, 2.25 * np.eye(6), atol=1e-13)


def test_gaussian_gain_is_the_spectral_radius():
    spec = RecurrentSpec(1, 400, recurrent_init="gaussian", gain=1.3)
    # The circular law at n = 400: the largest modulus lies within a few percent of the gain.
    assert spectral_radius(draw_recurrent_weights(spec, seed=0).w_hh) == pytest.approx(1.3, rel=0.1)


@pytest.mark.parametrize(("cell", "name", "gate"), [("lstm", "forget_bias", "f"),
                                                    ("gru", "update_bias", "z")])  # fmt: skip
def test_the_memory_gate_has_a_bias_of_its_own(cell, name, gate):
    spec = RecurrentSpec(2, 4, cell, bias=0.5, **{name: 3.0})
    weights = draw_recurrent_weights(spec, seed=0)
    for other in spec.gates:
        expected = 3.0 if other == gate else 0.5
        assert np.all(weights.b_xh[weights.gate_rows(other)] == expected)
    assert not weights.b_hh.any()


@pytest.mark.parametrize("cell", GATES)
def test_pytorch_defaults_have_pytorchs_law(cell):
    torch = pytest.importorskip("torch")
    from course_lib.pytorch.recurrent import MODULES

    spec = RecurrentSpec(7, 64, cell, n_out=3, defaults="pytorch")
    weights = draw_recurrent_weights(spec, seed=0)
    torch.manual_seed(0)
    module = MODULES[cell](7, 64)
    for ours, theirs in (
        (weights.w_xh, module.weight_ih_l0), (weights.w_hh, module.weight_hh_l0),
        (weights.b_xh, module.bias_ih_l0), (weights.b_hh, module.bias_hh_l0),
    ):  # fmt: skip
        theirs = theirs.detach().numpy()
        assert ours.shape == theirs.shape
        assert np.abs(ours).max() <= 1 / 8
        # At least 64 draws of a uniform law: its standard deviation is known to about 10 %.
        assert ours.std() == pytest.approx(theirs.std(), rel=0.25)
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.1)


@pytest.mark.parametrize("cell", GATES)
def test_keras_defaults_have_keras_law(cell):
    keras = pytest.importorskip("course_lib.tf.recurrent").keras
    from course_lib.tf.recurrent import LAYERS, recurrent_weights

    spec = RecurrentSpec(7, 64, cell, defaults="keras")
    ours = draw_recurrent_weights(spec, seed=0)
    keras.utils.set_random_seed(0)
    layer = LAYERS[cell](64, activation="relu" if cell == "relu_rnn" else "tanh")
    layer.build((None, 4, 7))
    theirs = recurrent_weights(layer)
    assert np.abs(ours.w_xh).max() == pytest.approx(np.abs(theirs.w_xh).max(), rel=0.05)
    for weights in (ours, theirs):  # one orthogonal kernel over all gates; float32 in Keras
        np.testing.assert_allclose(weights.w_hh.T @ weights.w_hh, np.eye(64), atol=1e-5)
    np.testing.assert_array_equal(ours.b_xh + ours.b_hh, theirs.b_xh + theirs.b_hh)


def test_a_forget_bias_of_one_is_keras_and_not_pytorch():
    for defaults, expected in (("keras", 1.0), ("pytorch", 0.0)):
        spec = RecurrentSpec(2, 400, "lstm", defaults=defaults)
        weights = draw_recurrent_weights(spec, seed=0)
        bias = (weights.b_xh + weights.b_hh)[weights.gate_rows("f")]
        # PyTorch's mean of 400 draws within +-0.1: the mean's own deviation is below 0.005.
        assert bias.mean() == pytest.approx(expected, abs=0.02)


BASE = {"cell": "gru", "w_xh": np.ones((6, 3)), "w_hh": np.ones((6, 2))}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RecurrentSpec(0, 2), ValueError, r"`n_in` \(=0\) must be an integer >= 1"),
        (lambda: RecurrentSpec(1, 2.0), TypeError, r"`hidden` \(=2.0\)"),
        (lambda: RecurrentSpec(1, 2, "rnn"), ValueError, r"`cell` \(='rnn'\) must be one of tanh"),
        (lambda: RecurrentSpec(1, 2, n_out=0), ValueError, r"`n_out` \(=0\)"),
        (lambda: RecurrentSpec(1, 2, gain=-1), ValueError, r"`gain` \(=-1.0\) must be >= 0"),
        (lambda: RecurrentSpec(1, 2, bias=np.nan), ValueError, r"`bias` \(=nan\) must be finite"),
        (lambda: RecurrentSpec(1, 2, recurrent_init="x"), ValueError, r"`recurrent_init` \(='x'\)"),
        (lambda: RecurrentSpec(1, 2, forget_bias=1.0), ValueError, r"`forget_bias` \(=1.0\) must"),
        (lambda: RecurrentSpec(1, 2, "lstm", update_bias=1.0), ValueError, r"`update_bias`"),
        (lambda: RecurrentSpec(1, 2, defaults="jax"), ValueError, r"`defaults` \(='jax'\)"),
        (lambda: RecurrentSpec(1, 2, defaults="keras", gain=2.0), ValueError,
         r"`gain` \(=2.0\) must be left out"),
        (lambda: draw_recurrent_weights(None, seed=0), TypeError, r"`spec` \(=None\)"),
        (lambda: draw_recurrent_weights(RecurrentSpec(1, 2), seed=0.5), TypeError, r"`seed`"),
        (lambda: RecurrentWeights(**BASE | {"w_hh": np.ones((4, 2))}), ValueError, r"`w_hh`"),
        (lambda: RecurrentWeights(**BASE | {"w_xh": np.ones((5, 3))}), ValueError, r"`w_xh`"),
        (lambda: RecurrentWeights(**BASE | {"w_xh": np.full((6, 3), np.inf)}), ValueError,
         r"`w_xh` \(=inf at index \(0, 0\)\)"),
        (lambda: RecurrentWeights(**BASE, b_xh=np.ones(2)), ValueError, r"`b_xh`"),
        (lambda: RecurrentWeights(**BASE, w_hy=np.ones((1, 3))), ValueError, r"`w_hy`"),
        (lambda: RecurrentWeights(**BASE, b_y=np.ones(1)), ValueError, r"`b_y` must be None"),
        (lambda: RecurrentWeights(**BASE).gate_rows("f"), ValueError, r"`gate` \(='f'\)"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
