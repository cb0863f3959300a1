"""What is asked of autograd before its graph is read."""

import pytest
import torch
from torch.autograd.graph import disable_saved_tensors_hooks, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from course_lib.pytorch import graph

ASKED = [
    pytest.param(True, id="the installed PyTorch's way"),
    pytest.param(False, id="the way of every PyTorch"),
]


def same(x):
    return x


@pytest.fixture(params=ASKED)
def packed(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(graph, "_top_hooks", None)
    return graph.packed


def test_it_is_told_whether_saved_tensors_are_packed_away(packed):
    assert not packed()
    with saved_tensors_hooks(same, same):
        assert packed()
    assert not packed()


def test_a_checkpointed_part_packs_them_away(packed):
    said = []

    def part(x):
        said.append(packed())
        return x.relu()

    x = torch.ones(3, requires_grad=True)
    checkpoint(part, x, use_reentrant=False).sum().backward()
    assert said[0]
    assert torch.equal(x.grad, torch.ones(3))


def test_to_ask_leaves_hooks_as_they_were(packed):
    used = []
    with saved_tensors_hooks(lambda x: used.append("packed") or x, same):
        packed()
        torch.ones(3, requires_grad=True).square()
    assert used == ["packed"]
    with disable_saved_tensors_hooks("None here."):
        assert not packed()
        with pytest.raises(RuntimeError, match="None here"), saved_tensors_hooks(same, same):
            pass
