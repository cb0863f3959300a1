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
from course_lib.reference.training import train

__all__ = [
    "MLP",
    "ForwardPass",
    "accuracy",
    "backward",
    "build_mlp",
    "central_difference",
    "gradient_flow",
    "layer_jacobians",
    "train",
]
