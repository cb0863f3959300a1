"""What only the PyTorch half promises: native models are read, and left as they were found."""

import numpy as np
import pytest

from course_lib import NetworkSpec, draw_weights, reference

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from course_lib import pytorch  # noqa: E402

SPEC = NetworkSpec(3, 4, 3, n_out=2, bias=0.1)
WEIGHTS = draw_weights(SPEC, seed=0)
X, Y = np.random.default_rng(0).normal(size=(5, 3)), np.random.default_rng(1).normal(size=(5, 2))
EXPECTED = reference.gradient_flow(reference.build_mlp(SPEC, WEIGHTS), X, Y)


def native(**kwargs):
    """The network of SPEC as a reader would write it."""
    return nn.Sequential(
        nn.Linear(3, 4, **kwargs), nn.Sigmoid(), nn.Linear(4, 4, **kwargs), nn.Sigmoid(),
        nn.Linear(4, 2, **kwargs),
    )  # fmt: skip


def assert_as_expected(flow, tolerance=1e-5):
    for found, expected in (
        *zip(flow.weight_grads, EXPECTED.weight_grads, strict=True),
        *zip(flow.activation_grads, EXPECTED.activation_grads, strict=True),
    ):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 0.01)


def test_a_native_model_with_loaded_weights():
    model = native()
    assert pytorch.load_weights(model, WEIGHTS) is model
    assert_as_expected(pytorch.gradient_flow(model, X, Y))


def test_nested_models_and_one_activation_module_for_all_layers():
    shared = nn.Sigmoid()
    model = nn.Sequential(
        nn.Sequential(nn.Linear(3, 4), shared),
        nn.Sequential(nn.Linear(4, 4), shared),
        nn.Linear(4, 2),
    )
    flow = pytorch.gradient_flow(pytorch.load_weights(model, WEIGHTS), X, Y)
    assert flow.depth == 3
    assert_as_expected(flow)


def test_an_inplace_relu():
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inplace = nn.Sequential(plain[0], nn.ReLU(inplace=True), plain[2])
    one, two = (pytorch.gradient_flow(m, X, Y) for m in (plain, inplace))
    for a, b in zip(one.activation_grads, two.activation_grads, strict=True):
        np.testing.assert_array_equal(a, b)
    a, b = (pytorch.layer_jacobians(m, X[0]).jacobians[0] for m in (plain, inplace))
    np.testing.assert_array_equal(a, b)


def test_a_layer_without_bias():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2))
    flow = pytorch.gradient_flow(model, X, Y)
    assert [b.shape for b in flow.bias_grads] == [(0,), (2,)]
    run = pytorch.train(model, X, Y, loss="mean_squared_error", learning_rate=0.1, steps=2)
    assert run.weight_changes[-1].min() > 0.0


def test_gradients_hooks_mode_and_random_state_are_left_as_found():
    model = pytorch.load_weights(native(), WEIGHTS)
    model.eval()
    kept = torch.ones_like(model[0].weight)
    model[0].weight.grad = kept
    state = torch.get_rng_state()
    pytorch.build_mlp(SPEC, WEIGHTS)
    pytorch.gradient_flow(model, X, Y)
    pytorch.layer_jacobians(model, X[0])
    assert model[0].weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert not any(m._forward_hooks for m in model.modules())
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32


def test_an_exception_leaves_no_hook_and_no_gradient(monkeypatch):
    from course_lib.pytorch import flow

    def fails(*args, **kwargs):
        raise RuntimeError("interrupted")

    monkeypatch.setattr(flow, "compute_loss", fails)
    model = native()
    with pytest.raises(RuntimeError, match="interrupted"):
        pytorch.gradient_flow(model, X, Y)
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_it_works_under_no_grad():
    model = pytorch.load_weights(native(), WEIGHTS)
    with torch.no_grad():
        assert_as_expected(pytorch.gradient_flow(model, X, Y))
        pytorch.layer_jacobians(model, X[0])
        run = pytorch.train(model, X, Y, loss="mean_squared_error", learning_rate=0.1, steps=2)
    assert run.weight_changes[-1].min() > 0.0


def test_training_leaves_no_gradient_behind():
    model = native()
    pytorch.train(model, X, Y, loss="mean_squared_error", learning_rate=0.1, steps=2)
    assert all(p.grad is None for p in model.parameters())


def test_the_default_dtype_is_float32_and_weights_are_copies():
    model = pytorch.build_mlp(SPEC, WEIGHTS)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    wide = pytorch.build_mlp(SPEC, WEIGHTS, dtype="float64")
    with torch.no_grad():
        wide[0].weight.zero_()
    assert np.abs(WEIGHTS.matrices[0]).min() > 0.0


def test_build_mlp_writes_the_model_a_reader_would_write():
    kinds = [type(m).__name__ for m in pytorch.build_mlp(SPEC, WEIGHTS)]
    assert kinds == ["Linear", "Sigmoid", "Linear", "Sigmoid", "Linear"]


def frozen():
    model = native()
    model[0].weight.requires_grad_(False)
    return model


def tied():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


UNREADABLE = [
    (lambda: nn.Linear(3, 2), TypeError, ["`model` (a Linear)", "torch.nn.Sequential"]),
    (lambda: nn.Sequential(), ValueError, ["`model`", "at least one Linear"]),
    (lambda: nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), ValueError, ["module 0 is ReLU()"]),
    (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.ReLU()),
        ValueError,
        ["module 2 is ReLU()", "at most one"],
    ),
    (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Tanh(), nn.Dropout())),
        ValueError,
        ["module 1.1 is Dropout", "Linear layers"],
    ),
    (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)),
        ValueError,
        ["module 1 is Softmax", "elementwise"],
    ),
    (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        ValueError,
        ["module 1 is BatchNorm1d"],
    ),
    (lambda: nn.Sequential(nn.LazyLinear(3)), ValueError, ["module 0 is LazyLinear"]),
    (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)),
        ValueError,
        ["layer 2 takes 5 inputs", "layer 1 has 4 outputs"],
    ),
    (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, dtype=torch.float64)),
        ValueError,
        ["layer 2 is torch.float64", "all float32 or all float64"],
    ),
    (
        lambda: nn.Sequential(nn.Linear(3, 2, dtype=torch.bfloat16)),
        ValueError,
        ["layer 1 is torch.bfloat16"],
    ),
    (tied, ValueError, ["layer 2 is an earlier layer", "tie"]),
    (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))),
        ValueError,
        ["layer 1", "plain weight"],
    ),
    (frozen, ValueError, ["layer 1 is frozen", "requires_grad"]),
]


@pytest.mark.parametrize(("build", "error", "words"), UNREADABLE)
def test_models_that_cannot_be_read_name_the_layer(build, error, words):
    with pytest.raises(error) as caught:
        pytorch.gradient_flow(build(), X, Y)
    for word in words:
        assert word in str(caught.value)


def test_load_weights_names_the_layer_that_does_not_fit():
    with pytest.raises(ValueError, match=r"`weights.matrices\[1\]` \(shape \(4, 4\)\) must .* 2"):
        pytorch.load_weights(
            nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)), WEIGHTS
        )
    with pytest.raises(ValueError, match=r"`weights` \(depth 3\) must have the model's depth 1"):
        pytorch.load_weights(nn.Sequential(nn.Linear(3, 4)), WEIGHTS)
    with pytest.raises(ValueError, match=r"`weights.biases\[0\]` \(not zero\).*layer 1 has no"):
        pytorch.load_weights(native(bias=False), WEIGHTS)
    with pytest.raises(TypeError, match=r"`weights` \(a list\) must be MLPWeights"):
        pytorch.load_weights(native(), [np.ones((4, 3))])


def test_load_weights_changes_nothing_if_a_layer_does_not_fit():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 7))
    before = model[0].weight.detach().clone()
    with pytest.raises(ValueError, match="layer 3"):
        pytorch.load_weights(model, WEIGHTS)
    assert torch.equal(model[0].weight, before)
