"""Figures from results: every `plot_*` draws on an Axes and returns it; only `show` displays.

No function here computes, draws random numbers, or touches Matplotlib's global settings.
"""

from course_lib.plots.display import show
from course_lib.plots.flow import plot_gradient_norms
from course_lib.plots.training import plot_losses, plot_weight_changes

__all__ = ["plot_gradient_norms", "plot_losses", "plot_weight_changes", "show"]
