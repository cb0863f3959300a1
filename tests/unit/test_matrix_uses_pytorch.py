"""Matrices out of scale in layers that hold several, and in heads: named, and tables are not."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.uses import shorter_axis  # noqa: E402
from course_lib.pytorch import diagnose_model  # noqa: E402

WIDTH, WORDS, LENGTH = 32, 100, 32


def draw(*shape, std=WIDTH**-0.5):
    return nn.Parameter(std * torch.randn(*shape))


class Attention(nn.Module):
    """All matrices in one layer, with a table of positions, as some write it."""

    def __init__(self, std):
        super().__init__()
        self.q, self.k, self.v, self.out = (draw(WIDTH, WIDTH, std=std) for _ in range(4))
        self.table = draw(LENGTH, WIDTH, std=1.0)

    def forward(self, x):
        x = x + self.table
        q, k, v = x @ self.q, x @ self.k.t(), F.linear(x, self.v)
        return x + (q @ k.mT / WIDTH**0.5).softmax(-1) @ v @ self.out


class Cell(nn.Module):
    """A recurrent layer by hand."""

    def __init__(self, std):
        super().__init__()
        self.w, self.u, self.b = draw(WIDTH, WIDTH, std=std), draw(WIDTH, WIDTH, std=std), draw(1)

    def forward(self, x):
        h = torch.zeros_like(x[:, 0])
        for k in range(4):
            h = torch.tanh(x[:, k] @ self.w + h @ self.u + self.b)
        return h[:, None]


class Heads(nn.Module):
    """A matrix for each head, of rank 3."""

    def __init__(self, std):
        super().__init__()
        self.w, self.back = draw(4, WIDTH, 8, std=std), draw(4, 8, WIDTH, std=std)

    def forward(self, x):
        return torch.einsum("hblk,hkd->bld", torch.einsum("bld,hdk->hblk", x, self.w), self.back)


def network(layer, std=WIDTH**-0.5):
    torch.manual_seed(0)
    parts = (nn.Linear(8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), layer(std),
             nn.Linear(WIDTH, 5))  # fmt: skip
    with torch.no_grad():
        parts[2].weight.normal_(std=std)
        parts[4].weight.normal_(std=std)
    return nn.Sequential(*parts)


def diagnosed(model):
    x = torch.randn(8, LENGTH, 8, generator=torch.Generator().manual_seed(0))
    return diagnose_model(model, x, torch.arange(8) % 5, steps=3,
                          loss=lambda o, y: F.cross_entropy(o.mean(1), y))  # fmt: skip


def scaled(report):
    return [f.where for f in report.findings
            if f.code == "rescaled_layer" and f.severity != "info"]  # fmt: skip


@pytest.mark.parametrize("std", [WIDTH**-0.5, 0.02])
@pytest.mark.parametrize("layer", [Attention, Cell, Heads])
def test_a_sound_layer_with_several_matrices_is_quiet(layer, std):
    assert scaled(diagnosed(network(layer, std))) == []


@pytest.mark.parametrize(
    ("layer", "own"),
    [(Attention, "q"), (Attention, "k"), (Attention, "v"), (Attention, "out"), (Cell, "w"),
     (Cell, "u"), (Heads, "w"), (Heads, "back")],
)  # fmt: skip
def test_one_of_several_matrices_times_100_is_named(layer, own):
    model = network(layer)
    with torch.no_grad():
        getattr(model[3], own).mul_(100)
    report = diagnosed(model)
    assert f"3.{own}" in scaled(report) or report.findings[0].where.startswith("3")
    if layer is Attention:
        assert f"3.{own}" in scaled(report)


def test_a_table_that_is_only_added_is_no_matrix():
    model = network(Attention, 0.02)
    with torch.no_grad():
        model[3].table.mul_(100)
    assert scaled(diagnosed(model)) == []


@pytest.mark.parametrize(
    ("shape", "least"), [((4, 9), 4), ((9, 4), 4), ((3, 8, 5), 5), ((16, 2, 3, 3), 16)]
)
def test_the_shorter_axis_bounds_the_fan(shape, least):
    assert shorter_axis(shape) == least


# Heads -------------------------------------------------------------------------------------


class Language(nn.Module):
    """Words in, words out, as transformers has it: drawn at 0.02, normalized at the end."""

    def __init__(self, *, tied, std=0.02, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.up2, self.down2 = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.head, self.scale = nn.Linear(WIDTH, WORDS, bias=False), scale
        for name, p in self.named_parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=std if name.startswith("embed") else 0.02)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x):
        h = self.embed(x)
        h = h + self.down(F.gelu(self.up(h)))
        h = h + self.down2(F.gelu(self.up2(h)))
        return self.head(self.norm(h) * self.scale)


def language(model):
    x = torch.from_numpy(np.random.default_rng(0).integers(WORDS, size=(4, 16)))
    return diagnose_model(
        model, x, x, steps=3, loss=lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten())
    )


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_times_100_is_named_shared_or_not(tied):
    model = Language(tied=tied)
    assert scaled(language(model)) == []
    with torch.no_grad():
        model.head.weight.mul_(100)
    assert "head" in scaled(language(model))


def test_a_shared_table_drawn_large_whose_input_is_scaled_down_is_sound():
    """T5 draws its table at 1, and divides what the head gets by the root of the width."""
    assert scaled(language(Language(tied=True, std=1.0, scale=WIDTH**-0.5))) == []
