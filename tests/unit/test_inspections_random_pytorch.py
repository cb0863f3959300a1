"""Inspections of PyTorch models that draw random numbers in evaluation mode, as autoencoders do."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from course_lib.pytorch import (
    bptt_gradient_profile,
    dead_units,
    jacobian_spectrum,
    saturation,
)

X = torch.linspace(-1.0, 1.0, 8 * 6).reshape(8, 6)
SEQUENCES = torch.sin(torch.arange(3 * 7 * 6.0)).reshape(3, 7, 6)


class Noisy(nn.Module):
    """Multiplies by factors drawn anew at every call, in both modes."""

    def __init__(self, slope: nn.Module | None = None):
        super().__init__()
        self.a, self.slope, self.b = nn.Linear(6, 6), slope or nn.Tanh(), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.slope(self.a(x) * 6 * torch.rand(6)))


class NoisyReader(nn.Module):
    """Adds noise to what its recurrent layer reads."""

    def __init__(self):
        super().__init__()
        self.body = nn.GRU(6, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x + torch.randn_like(x))[0][:, -1]


INSPECTIONS = {
    "dead_units": (Noisy, lambda m: dead_units(m, X, batch_size=3).layers[0].flat),
    "saturation": (Noisy, lambda m: list(saturation(m, X).values())),
    "exact": (Noisy, lambda m: jacobian_spectrum(m, X[0]).singular_values),
    "randomized": (
        Noisy,
        lambda m: jacobian_spectrum(m, X[0], method="randomized").singular_values,
    ),
    "product": (
        Noisy,
        lambda m: jacobian_spectrum(nn.Sequential(m), X[0], method="product").singular_values,
    ),
    "profile": (NoisyReader, lambda m: bptt_gradient_profile(m, SEQUENCES)["body"].log10_norms),
}


@pytest.mark.parametrize("name", INSPECTIONS)
def test_what_is_found_neither_depends_on_the_readers_generator_nor_moves_it(name):
    kind, inspect = INSPECTIONS[name]
    torch.manual_seed(0)
    model = kind()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(inspect(model))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("slope", [nn.Tanh(), nn.Hardsigmoid()])  # the second goes forwards
def test_every_pass_of_the_randomized_method_sees_the_same_function(slope):
    torch.manual_seed(0)
    model = Noisy(slope)
    exact = jacobian_spectrum(model, X[0]).singular_values
    found = jacobian_spectrum(model, X[0], method="randomized", rank=4).singular_values
    # All four singular values are asked for: what is left is float32's rounding.
    np.testing.assert_allclose(found, exact, rtol=1e-4)


class Packing(nn.Module):
    """Reads sequences of several lengths, packed."""

    def __init__(self, kind: type[nn.RNNBase], **options):
        super().__init__()
        self.body = kind(6, 5, **options)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        x = x if self.body.batch_first else x.transpose(0, 1)
        first = self.body.batch_first
        return self.body(pack_padded_sequence(x, lengths, first, False))[0].data


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_of_packed_sequences_the_longest_have_a_profile(kind, batch_first):
    torch.manual_seed(0)
    model = Packing(kind, num_layers=2, bidirectional=True, batch_first=batch_first)
    found = bptt_gradient_profile(model, (SEQUENCES, torch.tensor([7, 3, 7])))
    longest = SEQUENCES[[0, 2]]
    plain = nn.Sequential(model.body)
    expected = bptt_gradient_profile(plain, longest if batch_first else longest.transpose(0, 1))
    assert [name.removeprefix("body") for name in found] == [
        name.removeprefix("0") for name in expected
    ]
    for ours, theirs in zip(found.values(), expected.values(), strict=True):
        assert ours.length == 7
        # The same arithmetic on the same numbers.
        np.testing.assert_allclose(ours.log10_norms, theirs.log10_norms, rtol=1e-6)
