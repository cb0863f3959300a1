"""The demo functions in TensorFlow: `keras.Sequential`, `tf.GradientTape`, `keras.optimizers`.

Same names and signatures as `course_lib.reference` and `course_lib.pytorch`, same results as
NumPy arrays in the same layout: weight gradients are (n_l, n_{l-1}), the transpose of a Keras
kernel. Models may be built here with `build_mlp` or written by hand. What an argument cannot be
raises TypeError or ValueError with its name, its value and what was required.
"""

import contextlib
import os
import sys

if "tensorflow" not in sys.modules:
    # A PyTorch built for CUDA brings triton, and imports it when the first optimizer is made. If
    # TensorFlow is loaded by then, the process crashes; loaded first, triton does no harm.
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401

# TensorFlow reads this once, when it is loaded: without it, every notebook opens with log lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

try:
    import keras
    import tensorflow  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("keras", "tensorflow"):
        raise
    raise ImportError(
        '`course_lib.tf` needs TensorFlow: pip install "gradient-flow-course[tensorflow]".'
    ) from error

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"`course_lib.tf` needs Keras on TensorFlow, but its backend is "
        f"{keras.backend.backend()}: set the environment variable KERAS_BACKEND=tensorflow."
    )

from course_lib.tf.bptt import bptt_profile, hook_profile
from course_lib.tf.cures import run_recipe
from course_lib.tf.echo import measure_echo
from course_lib.tf.flow import gradient_flow, layer_jacobians
from course_lib.tf.initialize import initialize_model
from course_lib.tf.inspection import (
    bptt_gradient_profile,
    clip_audit,
    dead_units,
    jacobian_spectrum,
    saturation,
)
from course_lib.tf.models import accuracy, build_mlp, load_weights
from course_lib.tf.monitor import GradientFlowMonitor
from course_lib.tf.recurrent import (
    build_recurrent,
    connectivity,
    recurrent_gradient_flow,
    recurrent_weights,
    state_jacobians,
)
from course_lib.tf.recurrent_training import evaluate_recurrent, train_recurrent
from course_lib.tf.repair import train_repair
from course_lib.tf.stability import train_monitored
from course_lib.tf.stack import build_stack, stack_accuracy, stack_gradient_flow
from course_lib.tf.training import train
from course_lib.tf.trial import diagnose_model

__all__ = [
    "GradientFlowMonitor",
    "accuracy",
    "bptt_gradient_profile",
    "bptt_profile",
    "build_mlp",
    "build_recurrent",
    "build_stack",
    "clip_audit",
    "connectivity",
    "dead_units",
    "diagnose_model",
    "evaluate_recurrent",
    "gradient_flow",
    "hook_profile",
    "initialize_model",
    "jacobian_spectrum",
    "layer_jacobians",
    "load_weights",
    "measure_echo",
    "recurrent_gradient_flow",
    "recurrent_weights",
    "run_recipe",
    "saturation",
    "stack_accuracy",
    "stack_gradient_flow",
    "state_jacobians",
    "train",
    "train_monitored",
    "train_recurrent",
    "train_repair",
]
