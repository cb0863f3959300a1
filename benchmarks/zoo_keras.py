"""The monitor and the inspections on public Keras models with random weights: no change, no alarm.

    python benchmarks/zoo_keras.py [NAME ...]

The networks of `keras.applications` and, if keras-hub is installed, its backbones; nothing is
downloaded. `diagnose_model` may find nothing above "info" and must leave every weight as it is;
`dead_units`, `saturation`, `jacobian_spectrum` and `clip_audit` must run and give sane numbers.
Each model is then broken in turn (see `zoo_faults.py`). Exit status 1 if anything fails.
"""

import os
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the course need not be installed

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from zoo_faults import EXPECTED, Tally

from course_lib.tf import (
    clip_audit,
    dead_units,
    diagnose_model,
    jacobian_spectrum,
    saturation,
)
from course_lib.tf.layer_names import named_layers

LABELS = np.array([0, 1, 2, 3])
CROSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
APPLICATIONS = ("MobileNet", "MobileNetV2", "VGG16", "ResNet50", "ResNet50V2", "DenseNet121",
                "EfficientNetB0", "EfficientNetV2B0", "MobileNetV3Small", "MobileNetV3Large",
                "NASNetMobile", "ConvNeXtTiny", "Xception", "InceptionV3",
                "InceptionResNetV2")  # fmt: skip
LARGER = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
"""Sides of the images that these need at least."""
WIDTHS = dict(hidden_dim=32, intermediate_dim=64)
SMALL = dict(vocabulary_size=100, num_layers=3, num_heads=4, **WIDTHS)
SHORT = dict(max_sequence_length=16)
GROUPED = dict(vocabulary_size=100, num_layers=3, num_query_heads=4, num_key_value_heads=2,
               **WIDTHS)  # fmt: skip
ATTENTION = dict(num_attention_heads=4, num_key_value_heads=2, attention_bias=False,
                 attention_dropout=0.0)  # fmt: skip
IMAGE = dict(image_shape=(32, 32, 3))
BACKBONES = {
    **{f"{kind}Backbone": {**SMALL, **SHORT} for kind in
       ("Bert", "GPT2", "Roberta", "OPT", "DistilBert", "DebertaV3", "XLMRoberta", "Bart",
        "GPTNeoX")},
    **{f"{kind}Backbone": SMALL for kind in ("T5", "Bloom", "XLNet")},
    **{f"{kind}Backbone": GROUPED for kind in ("Llama", "Llama3", "Mistral", "Phi3", "Qwen")},
    **{f"{kind}Backbone": {**GROUPED, "head_dim": 8} for kind in ("Gemma", "Qwen3")},
    "Gemma3Backbone": {**GROUPED, "head_dim": 8, "image_size": 16, "vision_encoder": None},
    "MixtralBackbone": {**GROUPED, "num_experts": 3},
    "Qwen3MoeBackbone": {**GROUPED, "moe_intermediate_dim": 32, "num_experts": 4, "top_k": 2,
                         "head_dim": 8},
    "QwenMoeBackbone": {**GROUPED, "moe_intermediate_dim": 32, "num_experts": 4, "top_k": 2,
                        "shared_expert_intermediate_dim": 32},
    "GptOssBackbone": {**GROUPED, "num_experts": 4, "head_dim": 8},
    "ESM2Backbone": {**SMALL, **SHORT},
    "RoformerV2Backbone": {**SMALL, "head_size": 8},
    "RWKV7Backbone": {"hidden_size": 32, "head_size": 8, "num_layers": 3, "vocabulary_size": 100,
                      "intermediate_dim": 64, "gate_lora": 8, "mv_lora": 8, "aaa_lora": 8,
                      "decay_lora": 8},
    "SwinTransformerBackbone": {**IMAGE, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
                                "window_size": 4},
    "AlbertBackbone": {**SMALL, **SHORT, "embedding_dim": 16},
    "ElectraBackbone": {"vocab_size": 100, "num_layers": 3, "num_heads": 4, **WIDTHS, **SHORT,
                        "embedding_dim": 16},
    "FNetBackbone": {"vocabulary_size": 100, "num_layers": 3, **WIDTHS, **SHORT},
    "FalconBackbone": {"vocabulary_size": 100, "num_layers": 3, "num_attention_heads": 4, **WIDTHS},
    "ViTBackbone": {**IMAGE, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 32,
                    "mlp_dim": 64},
    "DeiTBackbone": {**IMAGE, "patch_size": 8, "num_layers": 3, "num_heads": 4, **WIDTHS},
    "ResNetBackbone": {**IMAGE, "input_conv_filters": [64], "input_conv_kernel_sizes": [3],
                       "stackwise_num_filters": [64, 64], "stackwise_num_blocks": [2, 2],
                       "stackwise_num_strides": [1, 2], "block_type": "basic_block"},
    "DenseNetBackbone": {**IMAGE, "stackwise_num_repeats": [2, 2, 2], "growth_rate": 8},
    "VGGBackbone": {**IMAGE, "stackwise_num_repeats": [1, 1, 2], "stackwise_num_filters": [8] * 3},
    "MiTBackbone": {**IMAGE, "layerwise_depths": [1, 1], "num_layers": 2, "hidden_dims": [16, 32],
                    "layerwise_num_heads": [1, 2], "layerwise_sr_ratios": [2, 1],
                    "max_drop_path_rate": 0.1, "layerwise_patch_sizes": [7, 3],
                    "layerwise_strides": [4, 2]},
}  # fmt: skip
"""Small configurations of keras-hub's backbones, each with a type of its own."""


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def recurrent(kind):
    body = {"rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}[kind]
    model = keras.Sequential([layers.Input((16,)), layers.Embedding(100, 16),
                              body(12, return_sequences=True, name="body"),
                              body(12, name="top"), layers.Dense(5)])  # fmt: skip
    return model, np.random.default_rng(0).integers(100, size=(4, 16))


def build(name):
    """Return a model and its inputs, always the same."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    family, _, kind = name.partition(".")
    if family == "layers":
        return recurrent(kind)
    if family == "app":
        size = LARGER.get(kind, 32)
        make = getattr(keras.applications, kind)
        small = {"alpha": 0.25} if kind == "MobileNet" else {}
        model = make(input_shape=(size, size, 3), weights=None, classes=5,
                     classifier_activation=None, **small)  # fmt: skip
        return model, draw(4, size, size, 3) * (64.0 if "V3" in kind or "Eff" in kind else 1.0)
    import keras_hub

    backbone = getattr(keras_hub.models, kind)(**BACKBONES[kind])
    tokens = np.random.default_rng(0).integers(1, 100, size=(4, 16)).astype("int32")
    if len(backbone.inputs) == 1 and len(backbone.inputs[0].shape) == 4:
        return backbone, draw(4, 32, 32, 3)
    names = [i.name for i in backbone.inputs]
    given = {n: np.ones_like(tokens) if "mask" in n else np.zeros_like(tokens) if "segment" in n
             else tokens for n in names}  # fmt: skip
    return backbone, given


def loss(output, y):
    """Cross-entropy on the logits, or on the mean over positions of what a backbone gives."""
    if isinstance(output, dict):
        output = output.get("sequence_output", next(iter(output.values())))
    if len(output.shape) > 2:
        output = tf.reduce_mean(output, range(1, len(output.shape) - 1))
    return CROSS(y, output)


def check(name, tally):
    """Diagnose and inspect a healthy model; print a line about it."""
    start = time.process_time()
    model, x = build(name)
    before = [w.numpy() for w in model.weights]
    tally.add(name, "healthy", diagnose_model(model, x, LABELS, loss=loss, steps=2), None)
    units = dead_units(model, x)
    flat = saturation(model, x)
    with tf.GradientTape() as tape:
        value = loss(model(x, training=False), LABELS)
    audit = clip_audit(model, tape.gradient(value, model.trainable_variables), threshold=1.0)
    words = f"{len(units.layers)} activations; global norm {audit.global_norm:.2g}"
    if isinstance(x, np.ndarray) and x.dtype == np.float32:
        spectrum = jacobian_spectrum(model, x[0], method="randomized", rank=2, iterations=2)
        words += f"; Jacobian's norm {spectrum.norm:.2g}"
    same = all(np.array_equal(a, w.numpy(), equal_nan=True)
               for a, w in zip(before, model.weights, strict=True))  # fmt: skip
    sane = all(0 <= v <= 1 for v in flat.values()) and np.isfinite(audit.global_norm)
    tally.changed += not (same and sane)
    print(f"{'':<24}{'' if same and sane else 'CHANGED OR NOT SANE; '}{words}; "
          f"{time.process_time() - start:.0f} s", flush=True)  # fmt: skip


def matrices(model):
    """Return the layers with a kernel, in the order of the model."""
    kinds = (layers.Dense, layers.Conv2D, layers.EinsumDense)
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)
            and not isinstance(layer, layers.DepthwiseConv2D)]  # fmt: skip


def break_model(model, x, name, fault):
    """Break the model; return the inputs and the places that a finding may name, or None if n/a.

    A third item is a model to take in place of this one.
    """
    found = matrices(model)
    layer = found[len(found) // 2] if len(found) > 3 else None
    normed = any("Norm" in type(m).__name__ for m in model._flatten_layers())
    body = next((m for m in model.layers if m.name == "body"), None)
    if fault == "rate x1000":
        return x, None
    if fault in DATA_FAULTS:
        return change_data(model, x, name, fault)
    if fault.startswith("branch"):
        return rescale_branch(model, x, float(fault.split(" x")[1]))
    if body is not None:
        return break_gates(body, x, fault)
    if fault == "head x100" and name.startswith("app"):
        found[-1].kernel.assign(100 * found[-1].kernel)
        return x, [found[-1].name]
    if layer is None:
        return None
    if fault == "zero weights":
        layer.kernel.assign(0 * layer.kernel)
        return x, [layer.name]
    if fault == "zero scale":
        return silence(model, x)
    if fault == "nan":
        kernel = layer.kernel.numpy()
        kernel[(0,) * kernel.ndim] = np.nan
        layer.kernel.assign(kernel)
        return x, [layer.name]
    if fault == "frozen":
        layer.trainable = False
        return x, [layer.name]
    if fault == "dead":
        return shut(model, x)
    if fault in ("x10", "x0.05") and not normed:
        layer.kernel.assign(layer.kernel * float(fault[1:]))
        return x, [layer.name]
    if fault == "attention x100":
        return sharpen(model, x)
    return None


DATA_FAULTS = ("inputs x1000", "inputs x1e-6", "inputs alike", "channel x1e4", "softmax twice")
RESCALING = ("MobileNet", "EfficientNet", "ConvNeXt")
"""Families of which some bring pixels to size 1 themselves, by a factor and a shift."""


def change_data(model, x, name, fault):
    """Change what goes in, or what comes out."""
    if fault == "inputs alike":
        return tf.nest.map_structure(lambda a: np.repeat(a[:1], len(a), axis=0), x), None
    if not name.startswith("app"):
        return None
    if fault == "softmax twice":  # a reshape: else Keras's losses take the logits behind it
        ends = [layers.Activation("softmax"), layers.Reshape((5,))]
        return x, None, keras.Sequential([model, *ends])
    if fault == "inputs x1000":
        return 1000 * x, None
    if name.partition(".")[2].startswith(RESCALING):
        return None
    if fault == "channel x1e4":
        return x * np.array([1, 1e4, 1], "float32"), None
    return np.float32(fault.split(" x")[1]) * x, None


def rescale_branch(model, x, factor):
    """Rescale the first of two dense layers in the feed-forward part of the block in the middle."""
    found = [(name, layer) for name, layer in named_layers(model)
             if layer.name in ("feedforward_intermediate_dense", "dense_1")]  # fmt: skip
    if len(found) < 3:
        return None
    where, layer = found[len(found) // 2]
    layer.kernel.assign(factor * layer.kernel)
    return x, [where]


def break_gates(body, x, fault):
    cell, name = body.cell, type(body).__name__
    if fault == "recurrent x3" and name == "SimpleRNN":
        cell.recurrent_kernel.assign(3 * cell.recurrent_kernel)
    elif fault == "weights x20":
        cell.recurrent_kernel.assign(20 * cell.recurrent_kernel)
        cell.kernel.assign(200 * cell.kernel)  # Keras draws an embedding at 0.03
    elif fault.startswith("gate") and name != "SimpleRNN":
        bias = cell.bias.numpy()
        bias[..., : body.units] = float(fault.split()[1])  # the LSTM's i, the GRU's z
        cell.bias.assign(bias)
    else:
        return None
    return x, ["body"]


def shut(model, x):
    """Shift the betas of a batch normalization before a ReLU in the middle far below 0."""
    order = model._flatten_layers()
    order = [m for m in order if not getattr(m, "_layers", None)]
    pairs = [(a, b) for a, b in pairwise(order)
             if isinstance(a, layers.BatchNormalization) and "relu" in type(b).__name__.lower() +
             str(getattr(getattr(b, "activation", None), "__name__", ""))]  # fmt: skip
    if not pairs:
        return None
    norm, relu = pairs[len(pairs) // 2]
    norm.beta.assign(np.full(norm.beta.shape, -1e4, "float32"))
    return x, [relu.name, norm.name]


def silence(model, x):
    """Set the scale of the normalization in the middle to 0."""
    norms = [(m, w) for m in model._flatten_layers() if "Norm" in type(m).__name__
             for w in m.trainable_weights if w.name in ("gamma", "scale")]  # fmt: skip
    if len(norms) < 4:
        return None
    norm, scale = norms[len(norms) // 2]
    scale.assign(0 * scale)
    return x, [norm.name]


def sharpen(model, x):
    """Multiply queries and keys of the last attention by a hundred."""
    found = [m for m in model._flatten_layers() if hasattr(m, "_query_dense")]
    if not found:
        return None
    for dense in (found[-1]._query_dense, found[-1]._key_dense):
        dense.kernel.assign(100 * dense.kernel)
    return x, [found[-1].name]


def main() -> int:
    warnings.filterwarnings("ignore")
    names = [*(f"layers.{k}" for k in ("rnn", "lstm", "gru")), *(f"app.{k}" for k in APPLICATIONS)]
    try:
        import keras_hub  # noqa: F401

        names += [f"hub.{k}" for k in BACKBONES]
    except ImportError:
        print("keras-hub is not installed: its backbones are left out")
    tally = Tally()
    tally.changed = 0
    for name in names:
        if sys.argv[1:] and not any(part in name for part in sys.argv[1:]):
            continue
        for fault in EXPECTED:
            try:
                if fault == "healthy":
                    check(name, tally)
                    continue
                model, x = build(name)
                broken = break_model(model, x, name, fault)
                if broken is None:
                    continue
                x, places, *instead = broken
                model = instead[0] if instead else model
                rate = 1.0 if fault == "rate x1000" else 1e-3
                report = diagnose_model(model, x, LABELS, loss=loss, steps=2, learning_rate=rate)
                tally.add(name, fault, report, places)
            except Exception as error:  # one model's failure must not hide the others
                tally.crash(name, fault, error)
    print(tally.describe())
    missed = tally.trials - tally.placed
    return int(tally.crashed + tally.alarms + tally.changed + missed > 0)


if __name__ == "__main__":
    sys.exit(main())
