"""Profiles over time of recurrent networks written by hand: cells in a loop, arguments by name."""

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.pytorch import (
    bptt_gradient_profile,
    bptt_profile,
    diagnose_model,
    hook_profile,
)

X = torch.sin(torch.arange(3 * 9 * 4.0)).reshape(3, 9, 4)
CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}


class Unrolled(nn.Module):
    """Two cells, one on top of the other, called step by step; a readout of the last state."""

    def __init__(self, kind: type[nn.RNNCellBase], n: int = 5, keep: float = 1.0):
        super().__init__()
        self.low, self.high, self.keep = kind(4, n), kind(n, n), keep
        self.head = nn.Linear(n, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = high = None
        for x_t in x.unbind(1):
            low = self.low(x_t, low)
            h = low[0] if isinstance(low, tuple) else low
            high = self.high(hx=high, input=h)
            if self.keep != 1.0:
                high = high * self.keep
        return self.head(high[0] if isinstance(high, tuple) else high)


def unrolled(kind, **options):
    torch.manual_seed(0)
    return Unrolled(kind, **options)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_in_a_loop_are_layers(kind):
    model = unrolled(CELLS[kind])
    found = bptt_gradient_profile(model, X)
    assert list(found) == ["low", "high"]
    with torch.no_grad():
        state, states = None, []
        for x_t in X.unbind(1):
            state = model.low(x_t, state)
            states.append(state[0] if kind == "lstm" else state)
    for name, given in (("low", X), ("high", torch.stack(states, dim=1))):
        expected = bptt_profile(model.get_submodule(name), given)
        np.testing.assert_allclose(found[name].log10_norms, expected.log10_norms, rtol=1e-6)


def test_a_state_that_is_changed_on_the_way_is_no_chain():
    model = unrolled(nn.GRUCell, keep=0.5)
    assert list(bptt_gradient_profile(model, X)) == ["low"]
    report = diagnose_model(model, X, torch.tensor([0, 1, 0]), loss=nn.functional.cross_entropy)
    assert len(report.results) == 2  # the record, and the one profile that can be taken
    np.testing.assert_allclose(
        report.results[1].log10_norms, bptt_profile(model.low, X).log10_norms, rtol=1e-6
    )


def test_a_single_step_is_no_sequence():
    with pytest.raises(ValueError, match="`model` must call a recurrent layer, or a cell"):
        bptt_gradient_profile(unrolled(nn.RNNCell), X[:, :1])


@pytest.mark.parametrize("by_name", [True, False])
def test_a_fused_layer_may_be_given_its_input_by_name(by_name):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x):
            return self.body(input=x)[0] if by_name else self.body(x)[0]

    torch.manual_seed(0)
    model = Reader()
    expected = bptt_profile(model.body, X)
    found = bptt_gradient_profile(model, X)["body"]
    np.testing.assert_allclose(found.log10_norms, expected.log10_norms, rtol=1e-6)


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_the_trial_names_a_loop_of_cells_whose_gradient_explodes(gain):
    x = torch.sin(torch.arange(3 * 60 * 4.0)).reshape(3, 60, 4)
    model = unrolled(nn.RNNCell, n=32)
    with torch.no_grad():
        model.low.weight_hh.mul_(gain)
    cross_entropy = nn.functional.cross_entropy
    report = diagnose_model(model, x, torch.tensor([0, 1, 0]), loss=cross_entropy, steps=2)
    exploding = {f.where.split(",")[0] for f in report.findings if f.code == "exploding_over_time"}
    profile = hook_profile(model.low, x)  # autograd's, independent of what is tested
    assert (profile.log10_norms[0] - profile.log10_norms[-1] > 2) == (gain == 4.0)
    assert exploding == ({"low"} if gain == 4.0 else set())
