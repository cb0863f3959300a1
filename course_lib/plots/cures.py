"""Tables of cures by patients as figures: what is wrong before training, what training makes of it.

Every cell says in words what its color says, so the color is only there to find it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib._validation import require_choice, require_sequence, require_type
from course_lib.cure_results import DECADES, CureTable
from course_lib.plots.style import BLUE, INK, THEORY, VERMILLION, new_axes, number_every_panel

CONDITION_COLORS = {
    "healthy": "#cfe8f7",
    "vanishing": "#fbe3b5",
    "exploding": "#f6c3a5",
    "dead": "#d5d5d5",
    "saturated": "#e6cde6",
    "varies": "#ffffff",
}
VERDICT_COLORS = {
    "helps": "#cfe8f7",
    "no effect": "#eeeeee",
    "harms": "#f6c3a5",
    "varies": "#fbe3b5",
}
SEED_COLORS = {"helps": BLUE, "healthy": BLUE, "harms": VERMILLION}
"""Of the points of a cell, by its verdict or its condition; all others are open and gray."""
SHORT = {
    "healthy": "healthy", "vanishing": "vanishes", "exploding": "explodes", "dead": "dead",
    "saturated": "saturated", "varies": "varies",
}  # fmt: skip


def plot_cure_conditions(table: CureTable, *, ax: Axes | None = None) -> Axes:
    """Plot what is wrong before training: a row per cure, a column per patient, words in cells.

    The number is the median change of the gradient from the last hidden layer (or step) to the
    first, in decades. Of several conditions the cell names all and has the color of one.
    """
    require_type("table", table, CureTable)
    cells = {}
    for key, trial in table.trials.items():
        names = trial.condition.split(" + ")
        decades = float(np.percentile(trial.decades, 50, method="nearest"))
        number = f"{round(decades, 1) + 0.0:+.1f}" if np.isfinite(decades) else "−∞"
        words = " +\n".join(SHORT[name] for name in names)
        gap = "\n" if len(names) == 1 else " "  # two lines in any case
        color = CONDITION_COLORS["dead" if "dead" in names else names[0]]
        cells[key] = (f"{words}{gap}{number}", color)
    return _draw_cells(table, cells, ("", *table.cures), ax)


def plot_cure_verdicts(table: CureTable, *, ax: Axes | None = None) -> Axes:
    """Plot the verdicts on training: a row per cure, a column per patient, words in cells."""
    require_type("table", table, CureTable)
    cells = {key: (word, VERDICT_COLORS[word]) for key, word in table.verdicts().items()}
    return _draw_cells(table, cells, table.cures, ax)


def plot_cure_seeds(
    table: CureTable, *, quantity: str = "accuracies", unsettled: Sequence[tuple[str, str]] = ()
) -> Figure:
    """Plot one quantity for every seed: a panel per patient, a row per cure, a circle per seed.

    Arguments:
        table: of trials.
        quantity: "accuracies" after training, in percent, filled where the cure helps or harms; or
            "decades" before it, filled where the network is healthy. What is not finite has no
            circle.
        unsettled: (patient, cure) of the cells whose accuracies hang on rounding errors; they have
            no circles, and say in words that the run is chaotic, and the verdict.
    """
    require_type("table", table, CureTable)
    require_choice("quantity", quantity, ("accuracies", "decades"))
    for k, key in enumerate(require_sequence("unsettled", unsettled, of="pairs", empty=True)):
        if not isinstance(key, tuple) or key not in table.trials:
            raise ValueError(f"`unsettled[{k}]` (={key!r}) must be a (patient, cure) of the table.")
    rows, trained = ("", *table.cures), quantity == "accuracies"
    down = -(-len(table.patients) // 2)
    figure, axes = plt.subplots(
        down, min(2, len(table.patients)), figsize=(7.2, down * (0.7 + 0.22 * len(rows))),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax in axes.flat[len(table.patients) :]:
        ax.set_axis_off()
    for ax, patient in zip(axes.flat, table.patients, strict=False):
        new_axes(ax)
        ax.set_title(patient, fontsize=9)
        if trained:
            ax.set_xlim(-5, 105)
            ax.set_xticks([0, 50, 100])
        else:
            ax.axvspan(-DECADES, DECADES, color="#eeeeee", linewidth=0)
        for row, cure in enumerate(rows):
            _draw_seeds(
                ax, row, table, (patient, cure), trained, hidden=(patient, cure) in unsettled
            )
        ax.set_xlabel("unseen digits read, in %" if trained else "decades", fontsize=9)
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    axes[0, 0].set_yticks(range(len(rows)), [row or "untreated" for row in rows], fontsize=9)
    number_every_panel(figure)
    return figure


def _draw_seeds(
    ax: Axes, row: int, table: CureTable, key: tuple[str, str], trained: bool, *, hidden: bool
) -> None:
    trial = table.trials[key]
    values = 100 * trial.accuracies if trained else trial.decades
    word = trial.condition if not trained else table.verdict(*key) if key[1] else ""
    color = SEED_COLORS.get(word, THEORY)
    if hidden or not np.isfinite(values).any():
        words = ", ".join(filter(None, ("chaotic", word))) if hidden else "nothing arrives"
        ax.text(0.5, row, words, transform=ax.get_yaxis_transform(), ha="center", va="center",
                fontsize=7.5, color=color)  # fmt: skip
        return
    values = values[np.isfinite(values)]
    ax.plot(values, np.full(len(values), row), linestyle="none", marker="o", markersize=5,
            color=color, markerfacecolor=color if word in SEED_COLORS else "none")  # fmt: skip


def _draw_cells(
    table: CureTable, cells: dict[tuple[str, str], tuple[str, str]], rows: tuple[str, ...],
    ax: Axes | None,
) -> Axes:  # fmt: skip
    columns = table.patients
    ax = new_axes(ax, size=(1.3 + 0.85 * len(columns), 0.4 + 0.36 * len(rows)))
    for j, patient in enumerate(columns):
        for i, cure in enumerate(rows):
            text, color = cells[patient, cure]
            ax.add_patch(Rectangle((j - 0.48, i - 0.47), 0.96, 0.94, color=color, linewidth=0))
            ax.text(j, i, text, ha="center", va="center", fontsize=7.5, color=INK,
                    linespacing=1.05)  # fmt: skip
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xticks(range(len(columns)), columns, fontsize=9)
    ax.set_yticks(range(len(rows)), [row or "untreated" for row in rows], fontsize=9)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax
