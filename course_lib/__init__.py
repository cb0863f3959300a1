"""Demo functions shared by every chapter of the gradient-flow course.

This package imports NumPy and nothing heavier. The framework code lives in
`course_lib.pytorch` and `course_lib.tf`, the hand-written float64 ground truth in
`course_lib.reference`, and the figures in `course_lib.plots`; import the one you need.
"""

from course_lib.activations import ACTIVATIONS, Activation, get_activation
from course_lib.initialization import draw_matrix, orthogonal_matrix
from course_lib.recurrent_specs import (
    RecurrentSpec,
    RecurrentWeights,
    draw_recurrent_weights,
)
from course_lib.results import GradientFlow, LayerJacobians, TrainingRun
from course_lib.specs import (
    MLPWeights,
    NetworkSpec,
    draw_weights,
    rescale_spectral_norms,
)

__version__ = "0.1.0.dev0"

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Finding",
    "GradientFlow",
    "LayerJacobians",
    "MLPWeights",
    "NetworkSpec",
    "RecurrentSpec",
    "RecurrentWeights",
    "Report",
    "TrainingRun",
    "diagnose",
    "draw_matrix",
    "draw_recurrent_weights",
    "draw_weights",
    "get_activation",
    "orthogonal_matrix",
    "rescale_spectral_norms",
]


def __getattr__(name: str) -> object:
    """Load the diagnosis when it is first asked for: it would double the time of this import."""
    if name in ("Finding", "Report", "diagnose"):
        from course_lib import diagnosis

        return getattr(diagnosis, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
