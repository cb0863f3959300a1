"""What is drawn small, or as 0, on purpose, and what only looks like it: notes and findings."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.diagnosis.depth import main_path  # noqa: E402
from course_lib.diagnosis.local import check_scale  # noqa: E402
from course_lib.diagnosis.training import check_updates, is_scale  # noqa: E402
from course_lib.diagnosis.units import dead_finding, missed_by_chance  # noqa: E402
from course_lib.diagnosis.zeros import check_exact_zeros  # noqa: E402
from course_lib.flow_recorder import FlowRecorder  # noqa: E402
from course_lib.monitoring import ParameterState, Sample, Site  # noqa: E402
from course_lib.pytorch import diagnose_model  # noqa: E402
from course_lib.pytorch.weight_watch import rank_of  # noqa: E402

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 4


def record(ratios, names=None, *, norms=None, grads=None):
    """A record of one step of layers with one matrix each, whose updates are `ratios` of them."""
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    names = names or [f"l{k}.weight" for k in range(len(ratios))]
    norms = norms or [1.0] * len(ratios)
    grads = grads or [1.0] * len(ratios)
    layers = [name.rpartition(".")[0] for name in names]
    sites = [Site(layer, "Linear", None, 64, 1, 8.0, 1.0) for layer in layers]
    states = [ParameterState(name, layer, 2, True, g, n, n * r)
              for name, layer, r, n, g in zip(names, layers, ratios, norms, grads,
                                              strict=True)]  # fmt: skip
    recorder.add(Sample(0, sites, states))
    return recorder.record()


def told(findings):
    return [(f.severity, f.code, f.where) for f in findings]


def test_one_matrix_of_many_that_stands_still_is_a_note_and_several_are_not():
    usual = [1e-3] * 19
    assert told(check_updates(record([*usual, 5e-7]))) == [("info", "standing_still", "l19.weight")]
    assert told(check_updates(record([*usual[:8], 5e-7])))[0][0] == "warning"
    lost = told(check_updates(record([*usual, 5e-9])))  # even if rounded away: as above
    assert lost == [("info", "standing_still", "l19.weight")]
    assert told(check_updates(record([*usual[:8], 5e-9])))[0][0] == "problem"


def test_a_rate_at_which_even_the_fastest_matrix_hardly_moves():
    slow = told(check_updates(record([2e-6, 3e-6, 1e-5, 2e-6])))
    assert slow == [("warning", "standing_still", "l2.weight")]
    assert check_updates(record([2e-6, 3e-6, 3e-5, 2e-6])) == []  # as a branch that is quiet
    for rate, codes in ((1e-3, ()), (1e-7, ("standing_still",))):
        report = diagnose_model(plain_network(), X, Y, loss=F.cross_entropy, learning_rate=rate)
        assert report.codes == codes


def test_a_scale_of_channels_is_no_matrix_whatever_its_rank():
    for name in ("stem.gamma", "block.layer_scale", "conv.gain", "norm/gamma"):
        assert is_scale(name)
    for name in ("gate.weight", "scaled.kernel", "gamma.weight", "scale.0.weight"):
        assert not is_scale(name)
    shapes = {(1, 8, 1, 1): 1, (8, 1, 1): 1, (1, 1, 1, 1): 1, (8, 1, 3): 3, (1, 8): 2, (8, 1): 2}
    assert {shape: rank_of(shape) for shape in shapes} == shapes
    names = ["a.weight", "b.weight", "b.branch.layer_scale.gamma", "c.weight"]
    assert check_updates(record([1e-3, 1e-3, 50.0, 1e-3], names)) == []


def test_matrices_as_good_as_zero_are_a_choice_at_the_end_or_in_every_block():
    head = [1e-3] * 7 + [25.0]
    assert check_updates(record(head)) == []
    assert told(check_updates(record(head[::-1]))) == [("problem", "large_update", "l0.weight")]
    names = [f"blocks.{k}.{part}.weight" for k in range(3) for part in ("fc1", "fc2", "gate")]
    assert check_updates(record([1e-3, 1e-3, 700.0] * 3, names)) == []
    one = [1e-3, 1e-3, 1e-3] * 2 + [1e-3, 1e-3, 700.0]
    assert check_updates(record([1e-3, 1e-3, 700.0] + one[:6], names)) != []
    assert check_updates(record([25.0] * 8)) != []  # all of them: the rate


def test_branches_drawn_smaller_from_block_to_block_are_no_large_update():
    names = [f"blocks.{k}.fc{j}.weight" for k in range(8) for j in (1, 2)]
    ratios = [r for k in range(1, 9) for r in (0.03, 0.083 * np.sqrt(k))]
    assert 0.2 < max(ratios) < 0.3
    assert check_updates(record(ratios, names)) == []
    ratios[5] = 0.25  # an fc2 among these, and an fc1 that stands out of its kind
    assert check_updates(record(ratios, names)) == []
    ratios[4] = 0.25
    assert told(check_updates(record(ratios, names))) == [
        ("warning", "large_update", "blocks.2.fc1.weight")]  # fmt: skip


def test_units_off_on_four_values_by_chance():
    rng = np.random.default_rng(0)
    for p, n in ((0.3, 4), (0.5, 8), (0.1, 32)):
        units = rng.binomial(n, p, size=4000) / n
        off = np.mean(units == 0)
        # The mean is of the units that are on, and so too high: what is missed is a lower bound.
        assert 0.2 * off < missed_by_chance(units) <= 1.1 * off
    assert missed_by_chance(np.zeros(5)) == 0
    assert missed_by_chance(np.ones(5)) == 0
    few = rng.binomial(4, 0.3, size=400) / 4
    assert dead_finding("l", 0.3, "", always_on=0.01, units=few) == []
    many = np.where(np.arange(400) < 120, 0.0, 0.3)
    many[200] = 1 / 1024  # so many values were seen
    assert told(dead_finding("l", 0.3, "", always_on=0.0, units=many)) == [
        ("warning", "dead_units", "l")]  # fmt: skip


def block_network(norm=True, width=32):
    """Four residual blocks."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(width) if norm else nn.Identity()
            self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x):
            return x + self.down(torch.tanh(self.up(self.norm(x))))

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, width), *[Block() for _ in range(4)], nn.Linear(width, 4))


def plain_network(depth=6):
    torch.manual_seed(0)
    parts = [part for k in range(depth) for part in (nn.Linear(16, 16), nn.Tanh())]
    return nn.Sequential(*parts, nn.Linear(16, 4))


def report_of(model, change=None):
    if change is not None:
        with torch.no_grad():
            change(model)
    report = diagnose_model(model, X, Y, loss=F.cross_entropy, steps=2)
    return [x for x in told(report.findings) if x[0] != "info"]


@pytest.mark.parametrize("norm", [True, False])
def test_sound_residual_networks_raise_no_alarm(norm):
    assert report_of(block_network(norm)) == []


def test_one_matrix_of_zeros_is_named_and_cuts_a_plain_network():
    found = report_of(plain_network(), lambda m: m[6].weight.zero_())
    assert found[0] == ("problem", "zero_weights", "6.weight")
    inside = report_of(block_network(), lambda m: m[2].up.weight.zero_())
    assert inside == [("warning", "zero_weights", "2.up.weight")]


@pytest.mark.parametrize("norm", [True, False])
def test_matrices_that_are_all_0_are_named_and_nothing_grows_from_nothing(norm):
    def clear(model):
        for p in model.parameters():
            if p.ndim > 1:
                p.zero_()

    for model in (plain_network(), block_network(norm)):
        found = report_of(model, clear)
        assert ("problem", "zero_weights", "0.weight") in found
        assert "growing_signal" not in [code for _, code, _ in found]


def test_zeros_by_plan_are_none():
    assert report_of(plain_network(), lambda m: m[-1].weight.zero_()) == []
    every = lambda m: [block.down.weight.zero_() for block in m[1:-1]]  # noqa: E731
    assert report_of(block_network(), every) == []
    scales = lambda m: [block.norm.weight.zero_() for block in m[1:-1]]  # noqa: E731
    assert report_of(block_network(), scales) == []


def test_no_weights_beside_a_bias_of_whole_numbers_are_set_by_hand():
    """As a spatial transformer begins: with the identity."""
    def begin(model):
        model[6].weight.zero_()
        model[6].bias.copy_(torch.eye(4).flatten())

    assert report_of(plain_network(), begin) == []


def test_one_normalization_that_gives_nothing_is_named():
    found = report_of(block_network(), lambda m: m[2].norm.weight.zero_())
    assert found == [("warning", "zero_scale", "2.norm")]


def test_a_normalization_fed_with_zeros_is_not_blamed():
    model = block_network()
    model[2].norm.register_forward_pre_hook(lambda module, inputs: (0 * inputs[0],))
    assert "zero_scale" not in [code for _, code, _ in report_of(model)]


def test_scales_of_zero_do_not_hide_a_matrix_of_zeros():
    names = ["a.weight", "a.gain", "b.weight", "c.weight", "d.weight", "d.gain"]
    table = record([1.0] * 6, names, norms=[1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    assert [f.where for f in check_exact_zeros(table)] == ["b.weight"]


def test_zeros_need_others_to_be_alone_among():
    ones, zero = [1.0] * 5, [1.0, 1.0, 0.0, 1.0, 1.0]
    assert check_exact_zeros(record(ones, norms=ones)) == []
    assert len(check_exact_zeros(record(ones, norms=zero))) == 1
    assert check_exact_zeros(record(ones, norms=[1.0, 0.0, 0.0, 1.0, 1.0])) == []
    assert check_exact_zeros(record(ones[:3], norms=zero[1:4])) == []
    assert check_exact_zeros(record(ones, norms=[1.0, 1.0, 1.0, 1.0, 0.0])) == []
    assert len(check_exact_zeros(record(ones, norms=[1.0, 1.0, 0.0, 1.0, 0.0]))) == 1
    (cut,) = check_exact_zeros(record(ones, norms=zero, grads=[0.0, 0.0, 1.0, 1.0, 1.0]))
    assert (cut.severity, cut.where) == ("problem", "l2.weight")


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_a_layer_or_a_head_times_a_hundred_is_named_in_networks_of_any_depth(depth):
    for place in range(2, 2 * depth + 1, 2):
        found = report_of(plain_network(depth), lambda m, k=place: m[k].weight.mul_(100))
        assert found[0][1:] == ("rescaled_layer", str(place))
    assert report_of(plain_network(depth)) == []


@pytest.mark.parametrize("norm", [True, False])
def test_a_layer_times_a_hundred_is_named_in_residual_networks(norm):
    found = report_of(block_network(norm), lambda m: m[2].down.weight.mul_(100))
    assert found[0][1:] == ("rescaled_layer", "2.down")
    found = report_of(block_network(norm), lambda m: m[-1].weight.mul_(100))
    assert found[:1] == [("warning", "rescaled_layer", "5")]


def test_a_head_behind_a_mean_over_positions_is_told_by_what_it_gives():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(*[part for k in range(4) for part in (
                nn.Conv1d(8, 8, 3, padding=1), nn.ReLU())])  # fmt: skip
            self.head = nn.Sequential(nn.Linear(8, 4), nn.Softplus())

        def forward(self, x):
            return self.head(self.body(x).mean(2))

    torch.manual_seed(0)
    model = Pooled()
    for layer in model.body[::2]:
        nn.init.kaiming_normal_(layer.weight)
    x = torch.randn(32, 8, 400, generator=torch.Generator().manual_seed(0))

    def places(model):
        report = diagnose_model(model, x, Y, loss=F.cross_entropy, steps=1)
        return [f.where for f in report.findings if f.code == "rescaled_layer"]

    assert places(model) == []
    with torch.no_grad():
        model.head[0].weight *= 300
    assert places(model) == ["head.0"]


def test_what_follows_a_branch_drawn_small_is_no_rescaled_layer():
    base = record([1e-3] * 8)
    scales = np.array([[1.0, 1.0, 1.0, 1e-5, 1.0, 1.0, 1.0, 1.0]])  # the fourth: a scaled branch
    grads = np.array([[1.0, 1.0, 1.0, 1e5, 1.0, 1.0, 1.0, 1.0]])
    assert check_scale(replace(base, activation_scales=scales, activation_grad_norms=grads)) == []
    assert diagnose(base).findings == ()


# What lies beside the path from the input to the loss -----------------------------------------


def test_heads_that_the_loss_left_out_and_levels_that_share_one_are_no_depth():
    names = [f"l{k}" for k in range(12)]
    body, again = np.full(12, 1.0), [f"head#{k}" for k in range(2, 8)]
    left_out = main_path(np.array([*body, 0.0, 0.0]), (*names, "a", "b"))
    assert np.isnan(left_out[12:]).all()
    levels = main_path(np.array([*body, *[1e-6] * 7]), (*names, "head", *again))
    assert levels[12] == pytest.approx(np.sqrt(7) * 1e-6)  # all calls as one
    assert np.isnan(levels[13:]).all()
    lost = np.array([0.0, 0.0, 1e-30, 1.0])  # towards the input: vanished altogether
    assert np.array_equal(main_path(lost, ("a", "b", "c", "d")), lost)
    assert np.array_equal(main_path(np.zeros(4), ("a", "b", "c", "d")), np.zeros(4))


def test_among_many_layers_the_worst_of_chance_is_worse():
    units = np.array([1.0] * 3 + [0.0] * 13)  # as 16 tosses of a coin may fall
    options = dict(always_on=3 / 16, units=units)
    assert len(dead_finding("se", 13 / 16, "here", **options)) == 1
    assert dead_finding("se", 13 / 16, "here", among=30, **options) == []
    assert len(dead_finding("se", 1.0, "here", always_on=0.0, units=np.zeros(8), among=30)) == 1


@pytest.mark.parametrize(("bias", "alarms"), [(-4.6, 0), (0.0, 0), (4.6, 1)])
def test_a_sigmoid_that_says_no_at_the_output_is_a_prior(bias, alarms):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    nn.init.constant_(model[2].bias, bias)
    report = diagnose_model(model, X, (Y == 0).float()[:, None], steps=2,
                            loss=F.binary_cross_entropy)  # fmt: skip
    found = [f for f in report.findings if f.code == "saturation"]
    assert len(found) == alarms


@pytest.mark.parametrize(
    ("end", "low", "factor", "alarms"),
    [(nn.Sigmoid, 0.0, 1, 0), (nn.Tanh, -1.0, 1, 0), (nn.Tanh, -1.0, 1000, 1)],
)
def test_an_output_that_training_made_sure_is_no_saturation(end, low, factor, alarms):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1), end())
    with torch.no_grad():
        model[2].weight *= factor
    targets = torch.where(X[:, :1] > 0, 1.0, low)
    report = diagnose_model(model, X, targets, loss=F.mse_loss, learning_rate=0.02, steps=40)
    flat = report.results[0].saturated_fractions
    assert flat[-1, -1] > 0.5
    assert (flat[0, -1] > 0.5) == (factor > 1)
    assert sum(f.code == "saturation" for f in report.findings) == alarms


def test_a_layer_that_never_runs_is_a_note_among_many():
    class Net(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.body = nn.Sequential(*(nn.Linear(16, 16) for _ in range(depth)))
            self.spare = nn.Linear(16, 16)

        def forward(self, x):
            return self.body(x)

    def severities(depth):
        report = diagnose_model(Net(depth), X, Y, loss=F.cross_entropy, steps=2)
        return [f.severity for f in report.findings if f.code == "no_gradient"]

    assert severities(4) == ["warning"]
    assert severities(12) == ["info"]


def test_a_loss_that_leaves_the_last_head_out_is_a_note():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(16, 8), nn.Linear(8, 4), nn.Linear(8, 2)

        def forward(self, x):
            h = self.body(x)
            return self.a(h), self.b(h)

    def first(weights):
        report = diagnose_model(
            Heads(), X, Y, steps=2, loss=lambda out, y:
            weights[0] * F.cross_entropy(out[0], y) + weights[1] * out[1].square().mean(),
        )  # fmt: skip
        return [(f.severity, f.where) for f in report.findings if f.code == "zero_gradient"]

    assert first((1.0, 0.0)) == [("info", "b.weight")]
    assert first((0.0, 1.0)) == [("warning", "a.weight")]  # what runs after it has a gradient


def test_units_that_are_on_wherever_any_is_are_on():
    padded = np.array([0.0] * 18 + [0.3, 0.6, 0.9, 0.9] + [0.95] * 10)  # of 32; 5 % of rows are 0
    assert dead_finding("l", 18 / 32, "here", always_on=0.0, units=padded) == []
    lost = np.array([0.0] * 18 + [*np.linspace(0.3, 0.95, 14)])
    assert len(dead_finding("l", 18 / 32, "here", always_on=0.0, units=lost)) == 1


def test_a_part_of_the_last_block_that_the_loss_leaves_out_is_a_note():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.context = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x, c):
            return x + torch.tanh(self.main(x + c)), c + torch.tanh(self.context(c))

    class Net(nn.Module):
        def __init__(self, shares):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))
            self.head, self.shares = nn.Linear(16, 4), shares

        def forward(self, x):
            c = x
            for block, share in zip(self.blocks, self.shares, strict=True):
                x, new = block(x, c)
                c = c + share * (new - c)
            return self.head(x + 0 * c)

    def first(*shares):
        torch.manual_seed(0)
        report = diagnose_model(Net(shares), X, Y, loss=F.cross_entropy, steps=2)
        return [(f.severity, f.where) for f in report.findings if f.code == "zero_gradient"]

    assert first(1.0, 1.0, 1.0) == [("info", "blocks.2.context.weight")]
    assert first(0.0, 1.0, 1.0) == [("warning", "blocks.2.context.weight")]
