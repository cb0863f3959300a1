"""Bad input to any public function: the message names the argument, its value and the rule."""

import numpy as np
import pytest

from course_lib import (
    LayerJacobians,
    MLPWeights,
    NetworkSpec,
    draw_matrix,
    draw_weights,
    get_activation,
    orthogonal_matrix,
    reference,
    rescale_spectral_norms,
    theory,
)
from course_lib.data import draw_batches, gaussian_batch, load_digits_split
from course_lib.losses import check_batch
from course_lib.reference.training import SGD, Adam

NAN, INF = float("nan"), float("inf")
RNG = np.random.default_rng(0)
SPEC = NetworkSpec(3, 4, 2, n_out=2)
WEIGHTS = draw_weights(SPEC, seed=0)
X, Y, LABELS = np.ones((5, 3)), np.zeros((5, 2)), np.array([0, 1, 0, 1, 1])


def spec(**changed):
    return NetworkSpec(**{"n_in": 3, "width": 4, "depth": 2, **changed})


CASES = [
    # (call, error, words that the message must hold)
    # --- networks as data ---
    (lambda: spec(depth=0), ValueError, ["`depth` (=0) must be an integer >= 1."]),
    (lambda: spec(width=-3), ValueError, ["`width` (=-3) must be an integer >= 1."]),
    (lambda: spec(n_in=2.0), TypeError, ["`n_in` (=2.0) must be an integer >= 1."]),
    (lambda: spec(n_out=True), TypeError, ["`n_out` (=True) must be an integer >= 1."]),
    (lambda: spec(depth="3"), TypeError, ["`depth` (='3') must be an integer >= 1."]),
    (lambda: spec(activation="sigmod"), ValueError, ["`activation` (='sigmod')", "sigmoid, tanh"]),
    (lambda: spec(output_activation="softmax"), ValueError, ["`output_activation` (='softmax')"]),
    (lambda: spec(activation=None), TypeError, ["`activation` (=None) must be a string"]),
    (lambda: spec(init="xavier"), ValueError, ["`init` (='xavier')", "glorot_uniform"]),
    (lambda: spec(gain=-1.0), ValueError, ["`gain` (=-1.0) must be >= 0.0."]),
    (lambda: spec(gain=NAN), ValueError, ["`gain` (=nan) must be finite."]),
    (lambda: spec(bias=INF), ValueError, ["`bias` (=inf) must be finite."]),
    (lambda: spec(bias="0"), TypeError, ["`bias` (='0') must be a real number."]),
    (lambda: spec(gain=True), TypeError, ["`gain` (=True) must be a real number."]),
    (lambda: draw_weights(SPEC, seed=1.5), TypeError, ["`seed` (=1.5) must be an integer >= 0."]),
    (lambda: draw_weights(SPEC, seed=True), TypeError, ["`seed` (=True)", "integer"]),
    (lambda: draw_weights(SPEC, seed=None), TypeError, ["`seed` (=None)", "integer"]),
    (lambda: draw_weights(SPEC, seed=-1), ValueError, ["`seed` (=-1) must be an integer >= 0."]),
    (lambda: draw_weights("mlp", seed=0), TypeError, ["`spec` (='mlp') must be a NetworkSpec."]),
    (lambda: get_activation("swish"), ValueError, ["`activation` (='swish') must be one of"]),
    (lambda: get_activation(3), TypeError, ["`activation` (=3) must be a string"]),
    # --- weights ---
    (lambda: MLPWeights([]), ValueError, ["`matrices`", "at least one"]),
    (lambda: MLPWeights(None), TypeError, ["`matrices` (a NoneType) must be a list of matrices."]),
    (lambda: MLPWeights([np.ones(3)]), ValueError, ["`matrices[0]` (shape (3,))", "2 dim"]),
    (
        lambda: MLPWeights([np.ones((2, 3)), np.full((1, 2), NAN)]),
        ValueError,
        ["`matrices[1]` (=nan at index (0, 0)) must be finite everywhere."],
    ),
    (
        lambda: MLPWeights([np.ones((2, 3)), np.ones((1, 3))]),
        ValueError,
        ["`matrices[1]` (shape (1, 3)) must have 2 columns", "`matrices[0]`"],
    ),
    (
        lambda: MLPWeights([np.ones((2, 3))], [np.ones(3)]),
        ValueError,
        ["`biases[0]` (shape (3,)) must have shape (2,)."],
    ),
    (
        lambda: MLPWeights([np.ones((2, 3))], [np.ones(2), np.ones(2)]),
        ValueError,
        ["`biases` (length 2) must have 1 entries."],
    ),
    (
        lambda: MLPWeights([np.ones((2, 3))], [np.array([0.0, INF])]),
        ValueError,
        ["`biases[0]` (=inf at index (1,))"],
    ),
    (lambda: MLPWeights([[["a"]]]), TypeError, ["`matrices[0]`", "array of real numbers"]),
    (lambda: MLPWeights([np.ones((2, 2)) * 1j]), TypeError, ["`matrices[0]`", "real numbers"]),
    (lambda: MLPWeights([np.ones((0, 2))]), ValueError, ["`matrices[0]` (shape (0, 2))", "empty"]),
    (
        lambda: rescale_spectral_norms(WEIGHTS, 0.0),
        ValueError,
        ["`norm` (=0.0) must be > 0.0."],
    ),
    (
        lambda: rescale_spectral_norms(MLPWeights([np.zeros((2, 2))]), 1.0),
        ValueError,
        ["`weights.matrices[0]` (all zeros)"],
    ),
    (
        lambda: rescale_spectral_norms([np.eye(2)], 1.0),
        TypeError,
        ["`weights` (a list) must be MLPWeights."],
    ),
    (
        lambda: draw_matrix("he", fan_in=1, fan_out=1, rng=RNG),
        ValueError,
        ["`init` (='he') must be one of"],
    ),
    (
        lambda: draw_matrix("normal", fan_in=0, fan_out=1, rng=RNG),
        ValueError,
        ["`fan_in` (=0) must be an integer >= 1."],
    ),
    (
        lambda: draw_matrix("normal", fan_in=1, fan_out=1.0, rng=RNG),
        TypeError,
        ["`fan_out` (=1.0) must be an integer >= 1."],
    ),
    (
        lambda: draw_matrix("normal", fan_in=1, fan_out=1, gain=-2, rng=RNG),
        ValueError,
        ["`gain` (=-2.0) must be >= 0.0."],
    ),
    (
        lambda: draw_matrix("normal", fan_in=1, fan_out=1, rng=0),
        TypeError,
        ["`rng` (=0) must be a numpy.random.Generator."],
    ),
    (
        lambda: orthogonal_matrix(0, 2, rng=RNG),
        ValueError,
        ["`rows` (=0) must be an integer >= 1."],
    ),
    (lambda: orthogonal_matrix(2, 2, rng=3), TypeError, ["`rng` (=3)", "Generator"]),
    # --- data and losses ---
    (lambda: load_digits_split(seed="0"), TypeError, ["`seed` (='0') must be an integer >= 0."]),
    (
        lambda: load_digits_split(seed=0, test_fraction=1.0),
        ValueError,
        ["`test_fraction` (=1.0) must be below 1."],
    ),
    (
        lambda: load_digits_split(seed=0, test_fraction=0.0),
        ValueError,
        ["`test_fraction` (=0.0) must be > 0.0."],
    ),
    (
        lambda: load_digits_split(seed=0, test_fraction=1e-6),
        ValueError,
        ["`test_fraction` (=1e-06)", "both parts"],
    ),
    (lambda: gaussian_batch(0, 2, seed=0), ValueError, ["`count` (=0)"]),
    (lambda: gaussian_batch(2, 2.5, seed=0), TypeError, ["`n_in` (=2.5)"]),
    (
        lambda: draw_batches(4, batch_size=5, steps=1, seed=0),
        ValueError,
        ["`batch_size` (=5) must be at most 4"],
    ),
    (
        lambda: draw_batches(4, batch_size=0, steps=1, seed=0),
        ValueError,
        ["`batch_size` (=0) must be an integer >= 1."],
    ),
    (
        lambda: draw_batches(4, batch_size=2, steps=1, seed=None),
        TypeError,
        ["`seed` (=None) must be an integer >= 0."],
    ),
    (lambda: draw_batches(4, batch_size=2, steps=-1, seed=0), ValueError, ["`steps` (=-1)"]),
    (
        lambda: check_batch(X, Y, loss="mse", n_in=3, n_out=2),
        ValueError,
        ["`loss` (='mse') must be one of mean_squared_error, cross_entropy, mean_output."],
    ),
    # --- the reference's own parts ---
    (
        lambda: reference.MLP([np.eye(2)], [np.zeros(2)], ("relu", "relu")),
        ValueError,
        ["`activations`", "1 entries"],
    ),
    (
        lambda: reference.MLP([np.eye(2)], [np.zeros(2)], ("rleu",)),
        ValueError,
        ["`activations[0]` (='rleu')"],
    ),
    (
        lambda: reference.MLP([np.eye(2), np.eye(3)], [np.zeros(2), np.zeros(3)], ("relu",) * 2),
        ValueError,
        ["`matrices[1]` (shape (3, 3)) must have 2 columns"],
    ),
    (
        lambda: reference.build_mlp(SPEC, WEIGHTS)(np.ones((5, 4))),
        ValueError,
        ["`x` (shape (5, 4)) must have shape (any, 3)."],
    ),
    (
        lambda: reference.backward(
            reference.build_mlp(SPEC, WEIGHTS),
            reference.build_mlp(SPEC, WEIGHTS).forward(X),
            np.ones((4, 2)),
        ),
        ValueError,
        ["`output_grad` (shape (4, 2)) must have shape (5, 2)."],
    ),
    (
        lambda: reference.build_mlp(SPEC, WEIGHTS, dtype="float32"),
        ValueError,
        ["`dtype` (='float32') must be one of float64."],
    ),
    (
        lambda: reference.central_difference(np.sum, np.ones(2), step=0.0),
        ValueError,
        ["`step` (=0.0) must be > 0.0."],
    ),
    (
        lambda: reference.central_difference(np.sum, [NAN]),
        ValueError,
        ["`x` (=nan at index (0,)) must be finite everywhere."],
    ),
    (lambda: SGD(0.0), ValueError, ["`learning_rate` (=0.0) must be > 0"]),
    (lambda: Adam(-1.0), ValueError, ["`learning_rate` (=-1.0) must be > 0"]),
    (lambda: Adam(1.0, epsilon=0.0), ValueError, ["`epsilon` (=0.0) must be > 0"]),
    # --- theory and results ---
    (lambda: theory.spectral_bound([np.eye(2)], "tanh"), TypeError, ["`weights` (a list)"]),
    (lambda: theory.spectral_bound(WEIGHTS, "tan"), ValueError, ["`activation` (='tan')"]),
    (lambda: theory.power_chain(NAN, 3), ValueError, ["`factor` (=nan) must be finite."]),
    (lambda: theory.power_chain(0.5, 0), ValueError, ["`depth` (=0)"]),
    (
        lambda: theory.power_chain(0.5, 3, dtype="int8"),
        ValueError,
        ["`dtype` (='int8')", "float16"],
    ),
    (
        lambda: theory.mean_field_rate("tanh", weight_scale=-1.0),
        ValueError,
        ["`weight_scale` (=-1.0) must be >= 0.0."],
    ),
    (
        lambda: theory.mean_field_rate("tanh", weight_scale=1.0, bias_scale=INF),
        ValueError,
        ["`bias_scale` (=inf) must be finite."],
    ),
    (
        lambda: theory.mean_field_rate("tanh", weight_scale=1.0, iterations=0),
        ValueError,
        ["`iterations` (=0)"],
    ),
    (lambda: theory.product_norm_bounds([]), ValueError, ["`matrices` (=[])", "at least one"]),
    (
        lambda: theory.product_norm_bounds([np.eye(2), np.eye(3)]),
        ValueError,
        ["`matrices[1]` (shape (3, 3)) must have 2 columns."],
    ),
    (
        lambda: LayerJacobians("NumPy", "float64", (np.eye(2),)).product(first=0),
        ValueError,
        ["`first` (=0) must be an integer >= 1."],
    ),
]


def words_found_in(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value)
    for word in words:
        assert word in message
    assert message.endswith(".")


def named(cases):
    """Turn a table into parameters that carry the expected message as their name."""
    return [pytest.param(*case, id=case[2][0].replace("`", "")) for case in cases]


@pytest.mark.parametrize(("call", "error", "words"), named(CASES))
def test_the_core_names_argument_value_and_rule(call, error, words):
    words_found_in(call, error, words)


# --- the same calls in all three implementations -------------------------------------------------


@pytest.fixture(params=["reference", "pytorch", "tf"], scope="module")
def backend(request):
    return pytest.importorskip(f"course_lib.{request.param}", exc_type=ImportError)


@pytest.fixture(scope="module")
def model(backend):
    return backend.build_mlp(SPEC, WEIGHTS)


def run(backend, model, **changed):
    """Call `train` with one bad argument."""
    settings = {"x": X, "y": LABELS, "learning_rate": 0.1, "steps": 2, **changed}
    return backend.train(model, settings.pop("x"), settings.pop("y"), **settings)


def nan_at(shape):
    array = np.zeros(shape)
    array[1] = NAN
    return array


SHARED = [
    (lambda b, m: b.build_mlp("s", WEIGHTS), TypeError, ["`spec` (='s') must be a NetworkSpec."]),
    (lambda b, m: b.build_mlp(SPEC, [1]), TypeError, ["`weights` (a list) must be MLPWeights."]),
    (
        lambda b, m: b.build_mlp(spec(depth=3), WEIGHTS),
        ValueError,
        ["`weights` (layer sizes (3, 4, 2)) must have the spec's layer sizes (3, 4, 4, 1)."],
    ),
    (
        lambda b, m: b.build_mlp(SPEC, WEIGHTS, dtype="float16"),
        ValueError,
        ["`dtype` (='float16')"],
    ),
    (lambda b, m: b.build_mlp(SPEC, WEIGHTS, dtype=32), TypeError, ["`dtype` (=32)", "string"]),
    (lambda b, m: b.gradient_flow("m", X, Y), TypeError, ["`model` (a str) must be a "]),
    (lambda b, m: b.layer_jacobians(None, X[0]), TypeError, ["`model` (a NoneType) must be a "]),
    (lambda b, m: b.accuracy(3, X, LABELS), TypeError, ["`model` (a int) must be a "]),
    (lambda b, m: run(b, "m"), TypeError, ["`model` (a str) must be a "]),
    (
        lambda b, m: b.gradient_flow(m, np.ones((5, 4)), Y),
        ValueError,
        ["`x` (shape (5, 4)) must have shape (any, 3)."],
    ),
    (lambda b, m: b.gradient_flow(m, np.ones(3), Y), ValueError, ["`x` (shape (3,))", "2 dim"]),
    (lambda b, m: b.gradient_flow(m, "x", Y), TypeError, ["`x` (='x')", "real numbers"]),
    (lambda b, m: b.gradient_flow(m, np.ones((0, 3)), Y), ValueError, ["`x`", "empty"]),
    (
        lambda b, m: b.gradient_flow(m, nan_at((5, 3)), Y),
        ValueError,
        ["`x` (=nan at index (1, 0)) must be finite everywhere."],
    ),
    (
        lambda b, m: b.gradient_flow(m, X, np.zeros((5, 3))),
        ValueError,
        ["`y` (shape (5, 3)) must have shape (5, 2)."],
    ),
    (
        lambda b, m: b.gradient_flow(m, X, nan_at((5, 2))),
        ValueError,
        ["`y` (=nan at index (1, 0))"],
    ),
    (lambda b, m: b.gradient_flow(m, X), ValueError, ["`y` (=None) must hold the targets"]),
    (
        lambda b, m: b.gradient_flow(m, X, Y, loss="mean_output"),
        ValueError,
        ["`y` must be None", "mean_output"],
    ),
    (lambda b, m: b.gradient_flow(m, X, Y, loss="l2"), ValueError, ["`loss` (='l2')", "one of"]),
    (lambda b, m: b.gradient_flow(m, X, Y, loss=None), TypeError, ["`loss` (=None)", "string"]),
    (
        lambda b, m: b.gradient_flow(m, X, LABELS + 1, loss="cross_entropy"),
        ValueError,
        ["`y` (values 1 to 2) must lie in 0..1."],
    ),
    (
        lambda b, m: b.gradient_flow(m, X, LABELS - 1, loss="cross_entropy"),
        ValueError,
        ["`y` (values -1 to 0) must lie in 0..1."],
    ),
    (
        lambda b, m: b.gradient_flow(m, X, LABELS[:4], loss="cross_entropy"),
        ValueError,
        ["`y` (shape (4,)) must have shape (5,)."],
    ),
    (
        lambda b, m: b.gradient_flow(m, X, LABELS * 1.0, loss="cross_entropy"),
        TypeError,
        ["`y` (dtype float64) must hold integer class labels."],
    ),
    (
        lambda b, m: b.layer_jacobians(m, X),
        ValueError,
        ["`x` (shape (5, 3)) must have 1 dimension(s)."],
    ),
    (
        lambda b, m: b.layer_jacobians(m, np.ones(2)),
        ValueError,
        ["`x` (shape (2,)) must have shape (3,)."],
    ),
    (lambda b, m: b.layer_jacobians(m, [0, INF, 0]), ValueError, ["`x` (=inf at index (1,))"]),
    (lambda b, m: b.accuracy(m, X, LABELS + 5), ValueError, ["`y` (values 5 to 6)", "0..1"]),
    (lambda b, m: b.accuracy(m, X[:, :2], LABELS), ValueError, ["`x` (shape (5, 2))"]),
    (lambda b, m: b.accuracy(m, X, Y), ValueError, ["`y` (shape (5, 2)) must have shape (5,)."]),
    (lambda b, m: run(b, m, optimizer="rmsprop"), ValueError, ["`optimizer` (='rmsprop')", "adam"]),
    (lambda b, m: run(b, m, learning_rate=0), ValueError, ["`learning_rate` (=0.0) must be > 0"]),
    (lambda b, m: run(b, m, learning_rate="1"), TypeError, ["`learning_rate` (='1')"]),
    (lambda b, m: run(b, m, steps=0), ValueError, ["`steps` (=0) must be an integer >= 1."]),
    (lambda b, m: run(b, m, steps=1.5), TypeError, ["`steps` (=1.5) must be an integer >= 1."]),
    (lambda b, m: run(b, m, record_every=0), ValueError, ["`record_every` (=0)"]),
    (
        lambda b, m: run(b, m, batch_size=6, seed=0),
        ValueError,
        ["`batch_size` (=6) must be at most 5"],
    ),
    (lambda b, m: run(b, m, batch_size=2), TypeError, ["`seed` (=None) must be an integer >= 0."]),
    (lambda b, m: run(b, m, seed=0.5), TypeError, ["`seed` (=0.5) must be an integer >= 0."]),
    (lambda b, m: run(b, m, seed=True), TypeError, ["`seed` (=True) must be an integer >= 0."]),
    (lambda b, m: run(b, m, epsilon=0.0), ValueError, ["`epsilon` (=0.0) must be > 0"]),
    (lambda b, m: run(b, m, y=LABELS[:3]), ValueError, ["`y` (shape (3,)) must have shape (5,)."]),
]


@pytest.mark.parametrize(("call", "error", "words"), named(SHARED))
def test_each_implementation_names_argument_value_and_rule(backend, model, call, error, words):
    words_found_in(lambda: call(backend, model), error, words)
