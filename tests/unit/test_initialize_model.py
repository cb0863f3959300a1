"""Whole models get the right weights, and the same weights in both frameworks."""

import numpy as np
import pytest

from course_lib.initialization import INITIALIZERS, draw_kernel

torch = pytest.importorskip("torch")
pytorch = pytest.importorskip("course_lib.pytorch")
tensorflow = pytest.importorskip("course_lib.tf")
import keras  # noqa: E402  (only after course_lib.tf, which silences TensorFlow's log)
from torch import nn  # noqa: E402


def torch_model():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.ReLU()),
        nn.Conv2d(16, 32, 3, groups=16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).double()  # fmt: skip


def keras_model():
    options = {"dtype": "float64"}
    inner = keras.Sequential([
        keras.Input((8, 8, 8), **options),
        keras.layers.Conv2D(16, 3, groups=4, activation="relu", **options),
    ])  # fmt: skip
    return keras.Sequential([
        keras.Input((8, 8, 3), **options),
        keras.layers.Conv2D(8, 3, padding="same", use_bias=False, **options),
        keras.layers.BatchNormalization(epsilon=1e-5, **options), keras.layers.ReLU(**options),
        inner, keras.layers.DepthwiseConv2D(3, depth_multiplier=2, **options),
        keras.layers.GlobalAveragePooling2D(**options), keras.layers.Dense(10, **options),
    ])  # fmt: skip


@pytest.mark.parametrize("scheme", sorted(set(INITIALIZERS) - {"identity"}))
def test_both_frameworks_compute_the_same(scheme):
    ours = pytorch.initialize_model(torch_model(), scheme, gain=1.5, bias=0.1, seed=3).eval()
    theirs = tensorflow.initialize_model(keras_model(), scheme, gain=1.5, bias=0.1, seed=3)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    with torch.no_grad():
        a = ours(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    b = theirs(images).numpy()
    assert np.linalg.norm(a - b) <= 1e-10 * np.linalg.norm(a)
    assert np.linalg.norm(a - a.mean(axis=0)) > 0


def test_the_numbers_are_those_of_draw_kernel():
    model = pytorch.initialize_model(torch_model(), "he_normal", seed=5)
    rng = np.random.default_rng(5)
    for name, groups in (("0", 1), ("3.0", 4), ("4", 16), ("7", 1)):
        weight = model.get_submodule(name).weight.detach().numpy()
        expected = draw_kernel("he_normal", shape=weight.shape, groups=groups, rng=rng)
        np.testing.assert_array_equal(weight, expected)
    assert not model.get_submodule("3.0").bias.any()


def test_normalization_starts_anew_in_pytorch():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4), nn.BatchNorm1d(4, affine=False))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(7)
    pytorch.initialize_model(model, "he_normal", seed=0)
    for norm in (model[0], model[1]):
        assert bool((norm.weight == 1).all() and (norm.bias == 0).all())
    for norm in (model[0], model[2]):
        assert bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())
        assert norm.num_batches_tracked == 0


def test_normalization_starts_anew_in_keras():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.LayerNormalization()]
    )
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 7.0))
    tensorflow.initialize_model(model, "he_normal", seed=0)
    batch, layer = model.layers
    for weight in (batch.gamma, batch.moving_variance, layer.gamma):
        np.testing.assert_array_equal(weight.numpy(), 1.0)
    for weight in (batch.beta, batch.moving_mean, layer.beta):
        np.testing.assert_array_equal(weight.numpy(), 0.0)


def test_a_shared_layer_is_drawn_once():
    shared = nn.Linear(4, 4)
    pytorch.initialize_model(nn.Sequential(shared, nn.Tanh(), shared), "he_normal", seed=0)
    expected = draw_kernel("he_normal", shape=(4, 4), rng=np.random.default_rng(0))
    np.testing.assert_allclose(shared.weight.detach().numpy(), expected, rtol=1e-6)


def test_no_generator_of_the_framework_is_touched():
    before = torch.get_rng_state()
    pytorch.initialize_model(nn.Sequential(nn.Identity(), nn.Flatten()), "he_normal", seed=0)
    model = torch.nn.utils.skip_init(nn.Linear, 4, 4)
    pytorch.initialize_model(model, "he_normal", seed=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (lambda: nn.LSTM(3, 3), "LSTM"),
        (lambda: nn.Embedding(3, 3), "Embedding"),
        (lambda: nn.ConvTranspose2d(3, 3, 2), "ConvTranspose2d"),
        (lambda: nn.LazyLinear(3), "LazyLinear"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), "Linear"),
        (lambda: nn.PReLU(), "PReLU"),
    ],
)
def test_pytorch_refuses_what_it_does_not_know_and_changes_nothing(layer, kind):
    model = nn.Sequential(nn.Linear(3, 3), layer())
    before = model[0].weight.detach().clone()
    with pytest.raises(ValueError, match=rf"module 1[^)]* is a \w*{kind}"):
        pytorch.initialize_model(model, "he_normal", seed=0)
    assert torch.equal(before, model[0].weight)


def test_keras_refuses_what_it_does_not_know_and_changes_nothing():
    model = keras.Sequential([
        keras.Input((3, 2)), keras.layers.Dense(4), keras.layers.LSTM(3, name="memory"),
    ])  # fmt: skip
    before = model.layers[0].kernel.numpy()
    with pytest.raises(ValueError, match="layer memory is a LSTM"):
        tensorflow.initialize_model(model, "he_normal", seed=0)
    np.testing.assert_array_equal(before, model.layers[0].kernel.numpy())
    with pytest.raises(ValueError, match="not built"):
        tensorflow.initialize_model(keras.Sequential([keras.layers.Dense(2)]), "he_normal", seed=0)


@pytest.mark.parametrize("framework", [pytorch, tensorflow])
def test_bad_input_is_named(framework):
    dense = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model = nn.Linear(2, 2) if framework is pytorch else dense
    for call, error, words in (
        (dict(model=3, scheme="he_normal", seed=0), TypeError, "`model` (a int)"),
        (dict(model=model, scheme="xavier", seed=0), ValueError, "`scheme` (='xavier')"),
        (dict(model=model, scheme="he_normal", seed=-1), ValueError, "`seed` (=-1)"),
        (dict(model=model, scheme="he_normal", seed=0, gain=-1.0), ValueError, "`gain` (=-1.0)"),
        (dict(model=model, scheme="he_normal", seed=0, bias="0"), TypeError, "`bias` (='0')"),
    ):
        with pytest.raises(error) as caught:
            framework.initialize_model(**call)
        assert words in str(caught.value)
