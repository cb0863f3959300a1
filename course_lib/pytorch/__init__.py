"""The demo functions in PyTorch: `nn.Sequential`, forward hooks, `torch.func`, `torch.optim`.

Same names and signatures as `course_lib.reference` and `course_lib.tf`, same results as NumPy
arrays in the same layout. Models may be built here with `build_mlp` or written by hand. What an
argument cannot be raises TypeError or ValueError with its name, its value and what was required.
"""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        '`course_lib.pytorch` needs PyTorch: pip install "gradient-flow-course[torch]".'
    ) from error

from course_lib.pytorch.bptt import bptt_profile, hook_profile
from course_lib.pytorch.cures import run_recipe
from course_lib.pytorch.echo import measure_echo
from course_lib.pytorch.flow import gradient_flow, layer_jacobians
from course_lib.pytorch.initialize import initialize_model
from course_lib.pytorch.inspection import (
    bptt_gradient_profile,
    clip_audit,
    dead_units,
    jacobian_spectrum,
    saturation,
)
from course_lib.pytorch.models import accuracy, build_mlp, load_weights
from course_lib.pytorch.monitor import GradientFlowMonitor
from course_lib.pytorch.recurrent import (
    RecurrentNetwork,
    build_recurrent,
    connectivity,
    recurrent_gradient_flow,
    recurrent_weights,
    state_jacobians,
)
from course_lib.pytorch.recurrent_training import evaluate_recurrent, train_recurrent
from course_lib.pytorch.repair import train_repair
from course_lib.pytorch.stability import train_monitored
from course_lib.pytorch.stack import build_stack, stack_accuracy, stack_gradient_flow
from course_lib.pytorch.threads import use_one_thread
from course_lib.pytorch.training import train
from course_lib.pytorch.trial import diagnose_model

__all__ = [
    "GradientFlowMonitor",
    "RecurrentNetwork",
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
    "use_one_thread",
]
