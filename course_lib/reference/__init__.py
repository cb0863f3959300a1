"""Forward and backward passes written by hand in float64 NumPy: the course's ground truth."""

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
from course_lib.reference.recurrent import (
    RecurrentNetwork,
    bptt_profile,
    build_recurrent,
    connectivity,
    recurrent_gradient_flow,
    state_jacobians,
)
from course_lib.reference.stability import train_monitored
from course_lib.reference.training import train

__all__ = [
    "MLP",
    "ForwardPass",
    "RecurrentNetwork",
    "accuracy",
    "backward",
    "bptt_profile",
    "build_mlp",
    "build_recurrent",
    "central_difference",
    "connectivity",
    "gradient_flow",
    "layer_jacobians",
    "recurrent_gradient_flow",
    "state_jacobians",
    "train",
    "train_monitored",
]
