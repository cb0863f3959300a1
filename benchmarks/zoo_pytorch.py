"""The monitor and `diagnose` on public models with random weights: no change, no false alarm.

    python benchmarks/zoo_pytorch.py [NAME ...]

Needs torchvision, timm and transformers besides the course; nothing is downloaded. Each model is
trained for four steps of AdamW twice, with and without the monitor: the weights must agree bit by
bit, and nothing above "info" may be found. Then `dead_units`, `saturation`, `jacobian_spectrum` and
`clip_audit` must run, give sane numbers, and leave every weight and mode as it is.
With names, only models whose name holds one of them.
Exit status 1 if a model was changed, alarmed, or raised.
"""

import copy
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the course need not be installed

import timm
import torch
import torch.nn.functional as F
import torchvision.models as vision
import transformers as hf
from torch import nn

from course_lib import diagnose
from course_lib.pytorch import (
    GradientFlowMonitor,
    clip_audit,
    dead_units,
    jacobian_spectrum,
    saturation,
)

RNG = torch.Generator()
LABELS = torch.tensor([0, 1, 2, 3])
STEPS = 4
VISION = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121",
    "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "regnet_y_400mf", "convnext_tiny",
    "swin_t",
)  # fmt: skip
TIMM = (
    "resnet26d", "convnext_atto", "regnetx_002", "efficientnet_lite0", "mobilenetv4_conv_small",
    "xcit_nano_12_p16_224", "ghostnet_100", "nf_resnet26",
)  # fmt: skip
TIMM_SIZED = ("vit_tiny_patch16_224", "mixer_s32_224", "deit_tiny_patch16_224", "cait_xxs24_224",
              "coatnet_nano_rw_224")  # fmt: skip
SMALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
             vocab_size=100)  # fmt: skip
CLASSIFIERS = {
    "hf.bert": (hf.BertForSequenceClassification, hf.BertConfig(**SMALL, num_labels=5)),
    "hf.electra": (hf.ElectraForSequenceClassification,
                   hf.ElectraConfig(**SMALL, embedding_size=16, num_labels=5)),
    "hf.distilbert": (hf.DistilBertForSequenceClassification,
                      hf.DistilBertConfig(dim=32, n_layers=3, n_heads=4, hidden_dim=64,
                                          vocab_size=100, num_labels=5)),
}  # fmt: skip
LANGUAGE = {
    "hf.gpt2": (hf.GPT2LMHeadModel,
                hf.GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=100, n_positions=64)),
    "hf.llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**SMALL, num_key_value_heads=2)),
    "hf.gpt_neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig(**SMALL)),
    "hf.mamba": (hf.MambaForCausalLM, hf.MambaConfig(hidden_size=32, num_hidden_layers=2,
                                                     vocab_size=100, state_size=8)),
    "hf.t5": (hf.T5ForConditionalGeneration,
              hf.T5Config(d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, vocab_size=100,
                          decoder_start_token_id=0, pad_token_id=0)),
}  # fmt: skip


class Recurrent(nn.Module):
    """An embedding, a recurrent layer, and a head on the mean over time."""

    def __init__(self, kind, **options):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.body = kind(16, 12, 2, batch_first=True, bidirectional=True, **options)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.body(self.embed(x))[0].mean(1))


def tokens():
    return torch.randint(100, (4, 16), generator=RNG)


def images():
    return torch.randn(4, 3, 32, 32, generator=RNG)


def build(name):
    """Return a model, what it is called with, and its loss."""
    family, _, kind = name.partition(".")
    if family == "tv":
        options = dict(aux_logits=False, init_weights=True) if kind == "googlenet" else {}
        return getattr(vision, kind)(weights=None, num_classes=10, **options), (images(),)
    if family == "timm":
        options = dict(img_size=32) if kind in TIMM_SIZED else {}
        return timm.create_model(kind, pretrained=False, num_classes=10, **options), (images(),)
    if family == "nn":
        return Recurrent({"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]), (tokens(),)
    if name in CLASSIFIERS:
        make, config = CLASSIFIERS[name]
        return make(config), dict(input_ids=tokens(), labels=LABELS)
    make, config = LANGUAGE[name]
    x = tokens()
    return make(config), dict(input_ids=x, labels=x)


def train(model, given):
    """Train a model for a few steps."""
    torch.manual_seed(3)
    rule = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        rule.zero_grad()
        out = model(**given) if isinstance(given, dict) else model(*given)
        loss = out.loss if isinstance(given, dict) else F.cross_entropy(out, LABELS)
        loss.backward()
        rule.step()


def inspect(model, given) -> str:
    """Run the four inspections; return their numbers in words, or what is wrong."""
    kept = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    x = {k: v for k, v in given.items() if k != "labels"} if isinstance(given, dict) else given[0]
    if isinstance(given, dict) and isinstance(model, hf.T5PreTrainedModel):
        x["decoder_input_ids"] = x["input_ids"]
    units, flat = dead_units(model, x), saturation(model, x)
    audit = clip_audit(model, threshold=1.0)
    words = f"{len(units.layers)} activations, global norm {audit.global_norm:.2g}"
    sane = all(0 <= v <= 1 for v in flat.values()) and audit.global_norm > 0
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        norm = jacobian_spectrum(model, x[0], method="randomized", rank=2, iterations=2).norm
        words, sane = f"{words}, Jacobian's norm {norm:.2g}", sane and norm > 0
    pairs = zip(kept.values(), model.state_dict().values(), strict=True)
    same = all(torch.equal(a, b) for a, b in pairs) and modes == [
        m.training for m in model.modules()]  # fmt: skip
    return words + ("" if sane else " NOT SANE") + ("" if same else " CHANGED")


def check(name) -> bool:
    """Print one line about a model; return whether all is well."""
    torch.manual_seed(0)
    RNG.manual_seed(0)
    start = time.process_time()
    model, given = build(name)
    plain = copy.deepcopy(model.train())
    with GradientFlowMonitor(model, every=2) as monitor:
        train(model, given)
    train(plain, given)
    pairs = zip(model.state_dict().values(), plain.state_dict().values(), strict=True)
    same = all(torch.equal(a, b) for a, b in pairs)
    alarms = [f for f in diagnose(monitor).findings if f.severity != "info"]
    print(f"{name:<32} {len(monitor.record.layers):4} sites  {time.process_time() - start:5.1f} s  "
          f"{'' if same else 'CHANGED'}{'' if alarms else 'ok'}", flush=True)  # fmt: skip
    for finding in alarms:
        print(f"    {finding}")
    words = inspect(model, given)
    print(f"    {words}", flush=True)
    return same and not alarms and not words.endswith(("SANE", "CHANGED"))


def main() -> int:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    names = [*(f"tv.{n}" for n in VISION), *(f"timm.{n}" for n in (*TIMM, *TIMM_SIZED)),
             *CLASSIFIERS, *LANGUAGE, "nn.lstm", "nn.gru", "nn.rnn"]  # fmt: skip
    wanted = [n for n in names if not sys.argv[1:] or any(part in n for part in sys.argv[1:])]
    good = 0
    for name in wanted:
        try:
            good += check(name)
        except Exception as error:  # one model's failure must not hide the others
            print(f"{name:<32} {type(error).__name__}: {error}")
    print(f"{good} of {len(wanted)} models unchanged and without alarm")
    return int(good < len(wanted))


if __name__ == "__main__":
    sys.exit(main())
