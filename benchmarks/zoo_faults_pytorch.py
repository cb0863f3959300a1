"""`diagnose_model` on public PyTorch models that were broken on purpose: right finding, and place?

    python benchmarks/zoo_faults_pytorch.py [NAME ...]

Needs what `zoo_pytorch.py` needs. With names, only models whose name holds one of them. Exit
status 1 if a trial raised, a healthy model was alarmed, or a fault was missed.
"""

import sys
import warnings
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from zoo_faults import Tally
from zoo_pytorch import LABELS, RNG, build, hf, vision

from course_lib.pytorch import diagnose_model

MODELS = (
    "nn.lstm", "nn.gru", "nn.rnn", "hf.bert", "hf.electra", "hf.gpt2", "hf.llama", "hf.t5",
    "tv.squeezenet1_1", "tv.shufflenet_v2_x0_5", "timm.convnext_atto", "timm.vit_tiny_patch16_224",
    "tv.mobilenet_v2", "tv.resnet18", "timm.mixer_s32_224", "timm.nf_resnet26", "tv.alexnet",
    "tv.vgg11", "tv.resnet50",
)  # fmt: skip
RATES = {"rate x1000": 1.0, "bfloat16": 1e-5}
MATRICES = (nn.Linear, nn.Conv2d, hf.pytorch_utils.Conv1D)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
SMOOTH = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)


def make(name):
    """Return a model and its batch, always the same."""
    torch.manual_seed(0)
    RNG.manual_seed(0)
    model, given = build(name)
    if name == "tv.alexnet":
        given = (torch.randn(4, 3, 96, 96, generator=RNG),)
    return model.train(), given


def order_of(model, given):
    """Return the names of the leaves in the order in which they run."""
    names, handles = [], []
    for name, module in model.named_modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(lambda *_, name=name: names.append(name)))
    with torch.no_grad():
        model(**given) if isinstance(given, dict) else model(*given)
    for handle in handles:
        handle.remove()
    return list(dict.fromkeys(names))


def middle(model, order):
    """Return the name of the matrix in the middle of the run."""
    modules = dict(model.named_modules())
    found = [n for n in order if isinstance(modules[n], MATRICES)]
    return found[len(found) // 2] if len(found) > 3 else None


def replace(model, kinds, fresh):
    """Replace all modules of some kinds."""
    count = 0
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, kinds):
                setattr(module, name, fresh())
                count += 1
    return count


def freeze(model, where):
    """Freeze the block that holds a layer."""
    block = model.get_submodule(where.rpartition(".")[0] or where)
    block.requires_grad_(False)
    trained = sum(p.requires_grad for p in model.parameters())
    return [where.rpartition(".")[0]] if 2 * trained > len(list(model.parameters())) else None


def change_gates(model, kind, value):
    """Set a gate's bias of the first recurrent layer."""
    n = model.body.hidden_size
    places = [0] if kind == "lstm" else [1]  # the LSTM's i, the GRU's z
    for k in places:
        model.body.bias_ih_l0[k * n : (k + 1) * n] = value


@torch.no_grad()
def break_model(model, given, name, fault):
    """Break the model; return the places that a finding may name, None for any, False if n/a."""
    order = order_of(model, given)
    modules, where = dict(model.named_modules()), middle(model, order_of(model, given))
    normed = any(isinstance(m, NORMS) or "Norm" in type(m).__name__ for m in modules.values())
    recurrent = name.startswith("nn.")
    if fault in ("recurrent x3", "gate +20", "gate -20", "weights x20"):
        kind = name.partition(".")[2]
        if not recurrent or (fault.startswith("gate") and kind == "rnn"):
            return False
        if fault == "recurrent x3":
            if kind != "rnn":
                return False  # harmless: gates divide the slope by four
            model.body.weight_hh_l0 *= 3
        elif fault == "weights x20":
            for p in (model.body.weight_hh_l0, model.body.weight_ih_l0):
                p *= 20
        else:
            change_gates(model, kind, float(fault.split()[1]))
        return ["body_l0"]
    if fault in ("healthy", "rate x1000"):
        return None
    if fault in DRAWN_FAULTS:
        return draw_badly(model, modules, order, fault)
    if fault in DATA_FAULTS:
        return change_data(model, given, fault)
    if fault == "no skips":
        if name != "tv.resnet50":
            return False
        cut_shortcuts(model)
        return None
    if fault.startswith("branch"):
        if not normed or name == "timm.nf_resnet26":  # it scales its own weights
            return False
        return rescale_branch(modules, order, float(fault.split(" x")[1]))
    if fault == "attention x100":
        return sharpen(model)
    if fault == "sigmoid":
        return None if not normed and replace(model, SMOOTH, nn.Sigmoid) else False
    if fault == "no norm":
        return None if replace(model, NORMS, nn.Identity) else False
    if fault == "dead":
        return kill(modules, order)
    if fault == "head x100" and not name.startswith("hf."):  # theirs are so small that 100 is not
        head = [n for n in order if isinstance(modules[n], MATRICES)][-1]
        modules[head].weight *= 100
        return False if not modules[head].weight.any() else [head]
    if fault == "zero scale":
        return silence(modules, order)
    if where is None or fault == "head x100":
        return False
    layer = modules[where]
    after = order[order.index(where) + 1 :][:2]
    if fault == "nan":
        layer.weight[(0,) * layer.weight.ndim] = torch.nan
        return [where, *after]
    if fault == "zero weights":
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
        return [where, *after]
    if fault == "frozen":
        return freeze(model, where) or False
    if fault in ("cut", "zero"):
        hook = (lambda m, i, o: o.detach()) if fault == "cut" else (lambda m, i, o: 0 * o)
        layer.register_forward_hook(hook)
        return None
    if normed or name == "timm.nf_resnet26":
        return False  # normalization, of the signal or of the weights, takes the factor back
    layer.weight *= float(fault[1:])
    return [where]


DRAWN_FAULTS = ("std 1", "alike", "norm x100", "statistics")


def draw_badly(model, modules, order, fault):
    """Draw all weights too large or alike, one in front of a normalization too large, or keep
    normalizations in evaluation mode without statistics.
    """
    if fault == "std 1":
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_()
        return None
    found = [n for n in order if isinstance(modules[n], MATRICES)]
    if fault == "alike":
        for n in found:
            modules[n].weight.fill_(0.05)
        return None if len(found) > 3 else False
    if fault == "norm x100":
        places = [n for n, after in pairwise(order) if n in found and isinstance(
            modules[after], NORMS[:1])]  # fmt: skip
        if len(places) < 4:
            return False
        where = places[len(places) // 2]
        modules[where].weight *= 100
        return [where]
    norms = [m for m in modules.values() if isinstance(m, NORMS[0])]
    for m in norms:
        m.eval()
        m.reset_running_stats()
    return None if norms else False


DATA_FAULTS = ("inputs x1000", "inputs x1e-6", "inputs alike", "channel x1e4", "softmax twice",
               "bfloat16")  # fmt: skip


def change_data(model, given, fault):
    """Change what goes in, what comes out, or the numbers' type; return None, or False if n/a."""
    values = given["input_ids"] if isinstance(given, dict) else given[0]
    if fault == "inputs alike":
        values.copy_(values[:1].expand_as(values).clone())
        return None
    if fault == "bfloat16":
        model.bfloat16()
        model.register_forward_pre_hook(lambda module, inputs: tuple(
            x.bfloat16() if x.is_floating_point() else x for x in inputs))  # fmt: skip
        return None
    if isinstance(given, dict):
        return False
    if fault == "softmax twice":
        model.register_forward_hook(lambda module, inputs, output: output.softmax(-1))
        return None
    if not values.is_floating_point():
        return False
    if fault == "channel x1e4":
        values[:, 1] *= 1e4
    else:
        values.mul_(float(fault.split(" x")[1]))
    return None


def cut_shortcuts(model):
    """Take the skip connections out of a ResNet of torchvision, and what is left over of them."""
    for block in model.modules():
        if isinstance(block, vision.resnet.Bottleneck):
            block.downsample = Zero()


class Zero(nn.Module):
    """Nothing, in place of a skip connection."""

    def forward(self, x):
        return 0.0


def rescale_branch(modules, order, factor):
    """Rescale the matrix nearest to the middle that is followed by no normalization."""
    found = [n for n, after in pairwise(order) if isinstance(modules[n], MATRICES)
             and "Norm" not in type(modules[after]).__name__][:-1]  # fmt: skip
    if len(found) < 4:
        return False
    where = found[len(found) // 2]
    modules[where].weight *= factor
    return [where]


def sharpen(model):
    """Multiply queries and keys of the last attention by a hundred."""
    found = [(n, m) for n, m in model.named_modules() if n.rpartition(".")[2] in
             ("qkv", "query", "key", "q_proj", "k_proj", "c_attn", "q", "k")
             and isinstance(m, MATRICES)]  # fmt: skip
    if not found:
        return False
    owner = found[-1][0].rpartition(".")[0]
    for n, m in found:
        if n.startswith(owner):
            m.weight *= 100
    return [owner.rpartition(".")[0] or owner]


def kill(modules, order):
    """Shift the biases before a ReLU in the middle far below 0."""
    relus = [n for k, n in enumerate(order[1:], 1) if isinstance(modules[n], (nn.ReLU, nn.ReLU6))
             and getattr(modules[order[k - 1]], "bias", None) is not None
             and sum(o == n for o in order) == 1]  # fmt: skip
    if not relus:
        return False
    relu = relus[len(relus) // 2]
    before = order[order.index(relu) - 1]
    modules[before].bias.fill_(-1e4)
    after = order[order.index(relu) + 1 :][:1]
    return [relu, before, *after]


def silence(modules, order):
    """Set the scale of the normalization in the middle to 0, unless some are 0 already."""
    norms = [n for n in order if "Norm" in type(modules[n]).__name__
             and getattr(modules[n], "weight", None) is not None]  # fmt: skip
    if len(norms) < 4 or any(not modules[n].weight.any() for n in norms):
        return False
    where = norms[len(norms) // 2]
    modules[where].weight.zero_()
    return [where, *order[order.index(where) + 1 :][:1]]


def main() -> int:
    from zoo_faults import EXPECTED

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    tally = Tally()
    wanted = [n for n in MODELS if not sys.argv[1:] or any(part in n for part in sys.argv[1:])]
    for name in wanted:
        for fault in EXPECTED:
            model, given = make(name)
            try:
                places = break_model(model, given, name, fault)
                if places is False:
                    continue
                own = isinstance(given, dict)
                report = diagnose_model(
                    model, given, None if own else LABELS, steps=2,
                    loss=None if own else F.cross_entropy,
                    learning_rate=RATES.get(fault, 1e-3),
                )  # fmt: skip
                tally.add(name, fault, report, places)
            except Exception as error:  # one model's failure must not hide the others
                tally.crash(name, fault, error)
    print(tally.describe())
    return int(tally.crashed + tally.alarms + tally.trials - tally.placed > 0)


if __name__ == "__main__":
    sys.exit(main())
