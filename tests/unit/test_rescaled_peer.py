"""One matrix of a block five times too large or too small, where a normalization may hide it."""

from dataclasses import replace

import numpy as np
import pytest

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.peers import check_peers, roles_of  # noqa: E402
from course_lib.flow_recorder import FlowRecorder  # noqa: E402
from course_lib.monitoring import ParameterState, Sample, Site  # noqa: E402
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 6, 16)).astype("float32"), np.arange(32) % 4
BLOCKS = 4


def record(norms, *, outputs=None, grads=None, names=None, kind="GELU"):
    """A record of blocks of one matrix and what follows it, each fed with a signal of size 1."""
    outputs = norms if outputs is None else outputs
    grads = [1.0] * len(norms) if grads is None else grads
    names = names or [f"blocks.{k}.up.weight" for k in range(len(norms))]
    sites, states = [Site("stem", "LayerNorm", None, 64, 1, 8.0, 1.0)], []
    for name, norm, output, grad in zip(names, norms, outputs, grads, strict=True):
        layer = name.rpartition(".")[0]
        sites.append(Site(layer, "Linear", None, 64, 1, 8.0 * output, grad))
        sites.append(Site(f"{layer}.after", kind, None, 64, 1, 8.0, 1.0))
        states.append(ParameterState(name, layer, 2, True, 1.0, norm, 1e-3 * norm))
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    recorder.add(Sample(0, sites, states))
    return recorder.record()


def peers(found, sizes=None):
    return check_peers(found, sizes or dict.fromkeys(found.parameters, 256))


def told(findings):
    return [(f.severity, f.where) for f in findings if f.code == "rescaled_layer"]


def odd(factor, count=6, place=2):
    return [factor if k == place else 1.0 for k in range(count)]


@pytest.mark.parametrize("factor", [5.0, 0.2, 4.1, 1 / 4.1])
def test_a_matrix_that_stands_out_of_its_role_is_named_and_its_factor_measured(factor):
    (finding,) = peers(record(odd(factor)))
    assert (finding.severity, finding.where) == ("warning", "blocks.2.up")
    assert finding.value == pytest.approx(np.log10(factor))
    assert ("large" if factor > 1 else "small") in finding.what
    assert peers(record(odd(factor, count=5, place=2))) != []


@pytest.mark.parametrize("factor", [1.0, 3.9, 1 / 3.9])
def test_factors_below_four_are_none(factor):
    assert peers(record(odd(factor))) == []


def test_in_front_of_a_normalization_it_is_a_note_if_the_gradient_makes_up_for_it():
    far, back = odd(5.0), odd(1 / 5.0)
    assert told(peers(record(far, grads=back, kind="BatchNorm2d"))) == [
        ("info", "blocks.2.up")]  # fmt: skip
    assert told(peers(record(far, kind="BatchNorm2d"))) == [("warning", "blocks.2.up")]
    assert told(peers(record(far, grads=back))) == [("warning", "blocks.2.up")]
    unknown = record(far, grads=[0.0] * 6, kind="LayerNorm")
    assert told(peers(unknown)) == [("info", "blocks.2.up")]
    later = np.vstack([unknown.activation_grad_norms, np.ones_like(unknown.activation_grad_norms)])
    assert told(peers(replace(unknown, activation_grad_norms=later))) == [
        ("warning", "blocks.2.up")]  # fmt: skip


def test_every_condition_can_withhold_the_finding():
    ones, far = odd(1.0), odd(5.0)
    assert peers(record(far, outputs=ones)) == []  # a layer that scales its own weights
    assert peers(record(ones, outputs=far)) == []
    two = far.copy()
    two[4] = 5.0
    assert peers(record(two)) == []
    assert peers(record([1.0, 5.0, 1.0, 1.0])) == []  # one other is no role
    assert peers(record(list(np.sqrt(np.arange(1, 7)) * np.array(far)))) == []  # by depth
    named = [f"part{'abcdef'[k]}.up.weight" for k in range(6)]
    assert peers(record(far, names=named)) == []
    wider = dict.fromkeys(record(far).parameters, 256) | {"blocks.2.up.weight": 4096}
    assert peers(record(far), wider) == []
    plain = record(far)
    plain = replace(plain, kinds=tuple(kind.replace("Norm", "") for kind in plain.kinds))
    assert peers(plain) == []  # `check_scale` sees it, and more


def test_a_small_matrix_at_the_end_of_a_chain_is_a_choice():
    for place, expected in ((5, 0), (4, 1)):
        assert len(peers(record(odd(0.2, place=place)))) == expected
        assert len(peers(record(odd(5.0, place=place)))) == 1
    for names in ([f"actor.{k}.weight" for k in range(7)], [f"dense_{k}/kernel" for k in range(7)]):
        for place, expected in ((6, 0), (5, 0), (4, 1), (2, 1)):
            small = record(odd(0.01, 7, place), names=[n.replace("/", ".") for n in names])
            assert len(peers(small)) == expected
            large = record(odd(100.0, 7, place), names=[n.replace("/", ".") for n in names])
            assert len(peers(large)) == 1


def test_names_are_compared_by_each_number_and_by_all():
    assert list(roles_of("stages.2.blocks.1.fc.weight")) == [
        "stages.#.blocks.1.fc.weight", "stages.2.blocks.#.fc.weight", "stages.#.blocks.#.fc.weight"
    ]  # fmt: skip
    assert list(roles_of("dense_3/kernel")) == list(roles_of("dense_12/kernel"))
    assert list(roles_of("head.weight")) == []
    both = ["encoder.layers.0.fc.weight", "decoder.layers.1.fc.weight"]
    assert [list(roles_of(name))[-1] for name in both] == ["#coder.layers.#.fc.weight"] * 2
    assert list(roles_of("autoencoder.0.weight")) == ["autoencoder.#.weight"]
    stages = [f"stages.{k // 4}.blocks.{k % 4}.up.weight" for k in range(8)]
    shapes = [1.0, 1.0, 1.0, 1.0, 3.0, 15.0, 3.0, 3.0]  # another width in the second stage
    assert told(peers(record(shapes, names=stages))) == [
        ("warning", "stages.1.blocks.1.up")]  # fmt: skip


def transformer_pytorch(*, seed, change=None):
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, BLOCKS, enable_nested_tensor=False)
    for block in encoder.layers:  # else all blocks begin alike
        nn.init.xavier_uniform_(block.linear1.weight)
        nn.init.xavier_uniform_(block.linear2.weight)
    if change is not None:
        with torch.no_grad():
            getattr(encoder.layers[1], change[0]).weight.mul_(change[1])
    model = nn.Sequential(encoder, nn.Flatten(), nn.Linear(96, 4))
    report = diagnose_pytorch(model, torch.from_numpy(X), torch.from_numpy(Y),
                              loss=nn.functional.cross_entropy, steps=1)  # fmt: skip
    return told(report.findings)


@pytest.mark.parametrize("factor", [5.0, 0.2])
@pytest.mark.parametrize("part", ["linear1", "linear2"])
def test_inside_a_branch_in_pytorch(part, factor):
    for seed in range(3):
        assert transformer_pytorch(seed=seed) == []
        found = transformer_pytorch(seed=seed, change=(part, factor))
        assert found == [("warning", f"0.layers.1.{part}")]


def translator(change=None):
    """An encoder and a decoder of two blocks each, normalized after each sum."""
    torch.manual_seed(0)
    body = nn.Transformer(16, 2, 2, 2, 32, dropout=0.0, batch_first=True)
    for p in body.parameters():
        if p.ndim > 1:
            nn.init.xavier_uniform_(p)

    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = body, nn.Linear(16, 4)

        def forward(self, x):
            return self.head(self.body(x, x).mean(1))

    if change is not None:
        with torch.no_grad():
            body.get_submodule(change[0]).weight.mul_(change[1])
    report = diagnose_pytorch(Translator(), torch.from_numpy(X), torch.from_numpy(Y),
                              loss=nn.functional.cross_entropy, steps=2)  # fmt: skip
    return told(report.findings)


@pytest.mark.parametrize("factor", [5.0, 0.2, 0.01])
@pytest.mark.parametrize("where", ["decoder.layers.0.linear1", "encoder.layers.1.linear2"])
def test_two_blocks_of_an_encoder_and_two_of_a_decoder_are_four(where, factor):
    assert translator() == []
    assert translator((where, factor)) == [("warning", f"body.{where}")]


def transformer_keras(*, change=None):
    keras.utils.set_random_seed(0)
    x = h = keras.Input((6, 16))
    for k in range(BLOCKS):
        n = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.MultiHeadAttention(2, 8)(n, n)])
        n = layers.LayerNormalization()(h)
        up = layers.Dense(32, "gelu", name=f"up{k}")(n)
        h = layers.Add()([h, layers.Dense(16, name=f"down{k}")(up)])
    model = keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling1D()(h)))
    if change is not None:
        kernel = model.get_layer(change[0]).kernel
        kernel.assign(change[1] * kernel)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return told(diagnose_keras(model, X, Y, loss=loss, steps=1).findings)


def test_inside_a_branch_in_keras():
    assert transformer_keras() == []
    assert transformer_keras(change=("down1", 5.0)) == [("warning", "down1")]
    assert transformer_keras(change=("up1", 0.2)) == [("warning", "up1")]


def batch_normalized(*, seed, factor=1.0):
    torch.manual_seed(seed)
    parts = [part for _ in range(6) for part in (nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16),
                                                 nn.ReLU())]  # fmt: skip
    model = nn.Sequential(*parts, nn.Linear(16, 4))
    with torch.no_grad():
        model[6].weight.mul_(factor)
    return model


@pytest.mark.parametrize("factor", [5.0, 0.2])
def test_directly_in_front_of_a_normalization_the_function_is_the_same_and_it_is_a_note(factor):
    x, y = torch.from_numpy(X[:, 0]), torch.from_numpy(Y)
    for seed in range(3):
        sound, scaled = batch_normalized(seed=seed), batch_normalized(seed=seed, factor=factor)
        # The variance that the factor meets is about 1/3, of which epsilon is 3e-5.
        torch.testing.assert_close(sound(x), scaled(x), rtol=1e-2, atol=1e-2)
        for model, expected in ((sound, []), (scaled, [("info", "6")])):
            report = diagnose_pytorch(model, x, y, loss=nn.functional.cross_entropy, steps=1)
            assert told(report.findings) == expected
