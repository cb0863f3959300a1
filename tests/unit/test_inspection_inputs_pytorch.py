"""What inspections of PyTorch models are given in practice: inference mode, mappings, bfloat16."""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from course_lib.pytorch import (
    bptt_gradient_profile,
    dead_units,
    jacobian_spectrum,
    saturation,
)

X = torch.sin(torch.arange(6 * 5.0)).reshape(6, 5)
SEQUENCES = torch.sin(torch.arange(3 * 7 * 5.0)).reshape(3, 7, 5)
METHODS = ("exact", "randomized")


class Functional(nn.Module):
    """An activation that leaves no module, and a cut where asked for."""

    def __init__(self, cut: str = ""):
        super().__init__()
        self.a, self.b, self.cut = nn.Linear(5, 8), nn.Linear(8, 4), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.cut == "reentrant":
            return self.b(checkpoint(self.a, x, use_reentrant=True))
        if self.cut == "no_grad":
            with torch.no_grad():
                return self.b(torch.relu(self.a(x)))
        h = torch.relu(self.a(x))
        return self.b(h.detach() if self.cut == "detach" else h)


def build(kind=Functional, *args, **options):
    torch.manual_seed(0)
    return kind(*args, **options)


@pytest.mark.parametrize("method", METHODS)
def test_the_jacobian_is_the_same_in_inference_mode(method):
    model = build()
    expected = jacobian_spectrum(model, X[0], method=method).singular_values
    with torch.inference_mode():
        for x in (X[0], X[0].clone()):  # the second is a tensor of inference mode itself
            found = jacobian_spectrum(model, x, method=method).singular_values
            np.testing.assert_array_equal(found, expected)
    assert expected[0] > 0


def test_functional_activations_are_found_in_inference_mode():
    model = build()
    expected = dead_units(model, X).layers
    assert [layer.activation for layer in expected] == ["relu"]
    with torch.inference_mode():
        for x in (X, X.clone()):
            (found,) = dead_units(model, x).layers
            np.testing.assert_array_equal(found.active, expected[0].active)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cut", ["no_grad", "detach"])
def test_a_cut_between_input_and_output_is_no_jacobian_of_zeros(method, cut):
    with pytest.raises(ValueError, match="`model` must have a gradient path from `x` to its"):
        jacobian_spectrum(build(Functional, cut), X[0], method=method)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # of PyTorch
@pytest.mark.parametrize("method", METHODS)
def test_what_pytorch_cannot_differentiate_is_said(method):
    with pytest.raises(ValueError, match=r"`model` must be differentiable at `x` \(RuntimeError"):
        jacobian_spectrum(build(Functional, "reentrant"), X[0], method=method)


def test_any_mapping_holds_arguments_by_name():
    model = build()
    named = UserDict(x=X)  # as tokenizers return
    assert saturation(model, named) == saturation(model, {"x": X})
    recurrent = build(nn.GRU, 5, 4, batch_first=True)
    (found,) = bptt_gradient_profile(recurrent, UserDict(input=SEQUENCES)).values()
    (expected,) = bptt_gradient_profile(recurrent, SEQUENCES).values()
    np.testing.assert_array_equal(found.log10_norms, expected.log10_norms)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_in_bfloat16_have_a_profile(kind):
    model = build(kind, 5, 4, batch_first=True)
    (expected,) = bptt_gradient_profile(model, SEQUENCES).values()
    (found,) = bptt_gradient_profile(model.bfloat16(), SEQUENCES).values()
    # Eight bits of mantissa over seven steps: within a twentieth of a decade.
    np.testing.assert_allclose(found.log10_norms, expected.log10_norms, atol=0.05)


def test_parts_with_different_first_axes_are_run_at_once():
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.EmbeddingBag(9, 8), nn.Linear(8, 2)

        def forward(self, words, starts):
            return self.head(torch.relu(self.words(words, starts)))

    torch.manual_seed(0)
    model, words, starts = Bags(), torch.arange(40) % 9, torch.arange(0, 40, 4)
    expected = (model.words(words, starts) > 0).double().mean(0)
    (layer,) = dead_units(model, (words, starts), batch_size=2).layers
    np.testing.assert_allclose(layer.active, expected)
    with pytest.raises(ValueError, match="`x` must be what `model` can be called on"):
        dead_units(nn.Bilinear(5, 5, 2), (torch.ones(3, 5), torch.ones(4, 5)))


class Detector(nn.Module):
    """Takes a list of images of unequal sizes, as torchvision's detectors do, and an option."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images, scale=True, mode=None):
        assert isinstance(images, list)
        assert scale is True
        height = max(image.shape[1] for image in images)
        even = [nn.functional.pad(image, (0, 0, 0, height - image.shape[1])) for image in images]
        return self.conv(torch.stack(even)).relu().mean((2, 3))


def test_a_list_of_images_is_a_list_of_inputs_and_options_are_handed_on():
    images = [torch.randn(3, 8 + k, 9) for k in range(5)]
    whole = dead_units(Detector(), {"images": images, "scale": True, "mode": None})
    assert "5 inputs" in whole.describe()
    parts = dead_units(model := Detector(), {"images": images, "scale": True}, batch_size=2)
    again = dead_units(model, {"images": images, "scale": True})
    assert [a.name for a in parts.layers] == [b.name for b in again.layers]
    with pytest.raises(TypeError, match=r"`x` \(a dict\) must be a tensor or an array"):
        dead_units(Detector(), {"scale": True})
