"""Forward and backward passes written by hand in float64 NumPy: the course's ground truth."""

from course_lib.reference.convolution import ConvBlock, convolve, convolve_backward
from course_lib.reference.differences import central_difference
from course_lib.reference.mlp import (
    MLP,
    ForwardPass,
    accuracy,
    backward,
    build_mlp,
    gradient_flow,
    layer_jacobians,
)
from course_lib.reference.normalization import BatchNorm, LayerNorm, norm_backward
from course_lib.reference.recurrent import (
    RecurrentNetwork,
    bptt_profile,
    build_recurrent,
    connectivity,
    recurrent_gradient_flow,
    state_jacobians,
)
from course_lib.reference.stability import train_monitored
from course_lib.reference.stack import (
    Stack,
    build_stack,
    stack_accuracy,
    stack_gradient_flow,
    stack_jacobians,
)
from course_lib.reference.stack_training import measure_gradient_shift, train_stack
from course_lib.reference.training import train

__all__ = [
    "MLP",
    "BatchNorm",
    "ConvBlock",
    "ForwardPass",
    "LayerNorm",
    "RecurrentNetwork",
    "Stack",
    "accuracy",
    "backward",
    "bptt_profile",
    "build_mlp",
    "build_recurrent",
    "build_stack",
    "central_difference",
    "connectivity",
    "convolve",
    "convolve_backward",
    "gradient_flow",
    "layer_jacobians",
    "measure_gradient_shift",
    "norm_backward",
    "recurrent_gradient_flow",
    "stack_accuracy",
    "stack_gradient_flow",
    "stack_jacobians",
    "state_jacobians",
    "train",
    "train_monitored",
    "train_stack",
]
