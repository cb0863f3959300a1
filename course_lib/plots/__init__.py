"""Figures from results: every `plot_*` draws on an Axes and returns it; only `show` displays.

No function here computes, draws random numbers, or touches Matplotlib's global settings.
"""

from course_lib.plots.activations import (
    add_bound_line,
    plot_activation_slopes,
    plot_first_layers,
    plot_flow_balance,
    plot_rate_sweeps,
)
from course_lib.plots.bptt import (
    plot_echo_curves,
    plot_gain_sweeps,
    plot_time_contributions,
    plot_unrolled_graph,
)
from course_lib.plots.clipping import (
    plot_clip_norms,
    plot_clip_regions,
    plot_descents,
    plot_final_losses,
    plot_spike_responses,
)
from course_lib.plots.cures import plot_cure_conditions, plot_cure_seeds, plot_cure_verdicts
from course_lib.plots.diagnosis import (
    plot_magnitude_history,
    plot_magnitudes,
    plot_run_chart,
    plot_triage,
    plot_units_sweep,
)
from course_lib.plots.display import show
from course_lib.plots.flow import plot_gradient_norms
from course_lib.plots.initialization import plot_signal_profiles, plot_weight_sizes
from course_lib.plots.jacobians import (
    plot_condition_numbers,
    plot_power_chains,
    plot_product_norms,
    plot_shape_chain,
    plot_spectra,
)
from course_lib.plots.memory import (
    plot_gate_bias_sweep,
    plot_input_contributions,
    plot_lstm_paths,
    plot_path_panels,
)
from course_lib.plots.monitor import plot_flow_record
from course_lib.plots.normalization import (
    plot_norm_rates,
    plot_path_lengths,
    plot_shared_entries,
    plot_stack_profiles,
    plot_stack_runs,
)
from course_lib.plots.recurrent import (
    plot_bptt_profile,
    plot_connectivity,
    plot_path_norms,
    plot_power_growth,
    plot_recurrent_runs,
    plot_saturation,
)
from course_lib.plots.stability import (
    plot_monitored_run,
    plot_norm_distributions,
    plot_overflow,
    plot_run_comparison,
    plot_stability_maps,
    plot_stretching,
)
from course_lib.plots.training import plot_losses, plot_weight_changes
from course_lib.plots.unit_states import (
    plot_climb_times,
    plot_death_sweep,
    plot_idle_counts,
    plot_shifted_training,
    plot_slope_families,
    plot_unit_ranges,
)

__all__ = [
    "add_bound_line",
    "plot_activation_slopes",
    "plot_bptt_profile",
    "plot_climb_times",
    "plot_clip_norms",
    "plot_clip_regions",
    "plot_condition_numbers",
    "plot_connectivity",
    "plot_cure_conditions",
    "plot_cure_seeds",
    "plot_cure_verdicts",
    "plot_death_sweep",
    "plot_descents",
    "plot_echo_curves",
    "plot_final_losses",
    "plot_first_layers",
    "plot_flow_balance",
    "plot_flow_record",
    "plot_gain_sweeps",
    "plot_gate_bias_sweep",
    "plot_gradient_norms",
    "plot_idle_counts",
    "plot_input_contributions",
    "plot_losses",
    "plot_lstm_paths",
    "plot_magnitude_history",
    "plot_magnitudes",
    "plot_monitored_run",
    "plot_norm_distributions",
    "plot_norm_rates",
    "plot_overflow",
    "plot_path_lengths",
    "plot_path_norms",
    "plot_path_panels",
    "plot_power_chains",
    "plot_power_growth",
    "plot_product_norms",
    "plot_rate_sweeps",
    "plot_recurrent_runs",
    "plot_run_chart",
    "plot_run_comparison",
    "plot_saturation",
    "plot_shape_chain",
    "plot_shared_entries",
    "plot_shifted_training",
    "plot_signal_profiles",
    "plot_slope_families",
    "plot_spectra",
    "plot_spike_responses",
    "plot_stability_maps",
    "plot_stack_profiles",
    "plot_stack_runs",
    "plot_stretching",
    "plot_time_contributions",
    "plot_triage",
    "plot_unit_ranges",
    "plot_units_sweep",
    "plot_unrolled_graph",
    "plot_weight_changes",
    "plot_weight_sizes",
    "show",
]
