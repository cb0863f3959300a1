"""`diagnose_model` on further public PyTorch models with random weights: no false alarm.

    python benchmarks/zoo_more_pytorch.py [NAME ...]

Needs what `zoo_pytorch.py` needs. Two steps of Adam at 1e-3 on four images of 32 or 96 pixels, or
of the model's own size where that is fixed. With names, only models whose name holds one of them.
Exit status 1 if a model was alarmed or raised.
"""

import sys
import time
import warnings

import torch
import torch.nn.functional as F
from zoo_pytorch import LABELS, RNG, hf, timm, vision

from course_lib.pytorch import diagnose_model

TORCHVISION = ("vgg11", "vgg16_bn", "alexnet", "resnext50_32x4d", "googlenet", "wide_resnet50_2",
               "maxvit_t")  # fmt: skip
TIMM = (
    "resnet18 resnet50 seresnet18 skresnet18 dla34 hrnet_w18_small vovnet39a "
    "res2net50_26w_4s efficientnet_b0 tf_efficientnetv2_b0 mobilenetv3_small_100 "
    "mnasnet_small rexnet_100 regnety_002 repvgg_a0 dm_nfnet_f0 nf_regnet_b0 "
    "convnext_femto convnextv2_atto convmixer_768_32 poolformer_s12 edgenext_xx_small "
    "fastvit_t8 inception_next_atto mambaout_femto xception41 inception_v3 selecsls42 "
    "darknet53 cspresnet50 ese_vovnet19b_dw lcnet_050 tinynet_e repghostnet_050 "
    "hardcorenas_a gernet_s botnet26t_256 lambda_resnet26t resnetv2_50 ghostnetv2_100 "
    "efficientvit_b0 mobileone_s0 starnet_s1 nextvit_small vgg11 pit_ti_224 levit_128s "
    "crossvit_tiny_240 resmlp_12_224 gmlp_ti16_224 eva02_tiny_patch14_224 "
    "beit_base_patch16_224 volo_d1_224 visformer_tiny swin_tiny_patch4_window7_224 "
    "twins_pcpvt_small gcvit_xxtiny tiny_vit_5m_224 deit3_small_patch16_224 "
    "maxvit_nano_rw_256 sequencer2d_s focalnet_tiny_srf davit_tiny "
    "vit_relpos_small_patch16_224 mvitv2_tiny pvt_v2_b0 efficientformer_l1 coat_tiny "
    "tnt_s_patch16_224 convit_tiny"
)


def make(name):
    """Return a model and four images for it, always the same."""
    torch.manual_seed(0)
    RNG.manual_seed(0)
    family, _, kind = name.partition(".")
    if family == "tv":
        size = {"alexnet": 96, "googlenet": 96, "maxvit_t": 224}.get(kind, 32)
        options = dict(aux_logits=False, init_weights=True) if kind == "googlenet" else {}
        model = getattr(vision, kind)(weights=None, num_classes=10, **options)
    else:
        model = timm.create_model(kind, pretrained=False, num_classes=10)
        fixed = model.pretrained_cfg.get("fixed_input_size")
        size = model.pretrained_cfg["input_size"][-1] if fixed else 96
    return model, torch.randn(4, 3, size, size, generator=RNG)


def main() -> int:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    names = [*(f"tv.{n}" for n in TORCHVISION), *(f"timm.{n}" for n in TIMM.split())]
    wanted = [n for n in names if not sys.argv[1:] or any(part in n for part in sys.argv[1:])]
    quiet = 0
    for name in wanted:
        start = time.process_time()
        try:
            model, x = make(name)
            report = diagnose_model(model, x, LABELS, loss=F.cross_entropy, steps=2)
            alarms = [f for f in report.findings if f.severity != "info"]
            quiet += not alarms
            said = "; ".join(f"{f.code} at {f.where}" for f in alarms) or "quiet"
        except Exception as error:  # one model's failure must not hide the others
            said = f"{type(error).__name__}: {error}"
        print(f"{name:<36}{time.process_time() - start:5.1f} s  {said}", flush=True)
    print(f"{quiet} of {len(wanted)} models without alarm")
    return int(quiet < len(wanted))


if __name__ == "__main__":
    sys.exit(main())
