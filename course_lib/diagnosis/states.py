"""What a trial sees in a model's own state: units drawn alike, and statistics that nobody took.

* Units of a layer whose weights are all the same give the same output and get the same gradient if
  the next layer treats them alike too: then they stay the same for ever, and the layer is as good
  as one unit. A single layer so is harmless, since the next one tells its units apart.
* A batch normalization in evaluation mode divides by statistics that were taken before. If it has
  none yet, it divides by 1: the network trains as without it.
* A layer normalization over one value subtracts the value itself: what is left is 0, and its shift
  is all that comes out. A series with one channel ends so, behind attention as wide as its input.
"""

from __future__ import annotations

from collections.abc import Sequence

from course_lib.diagnosis.report import Finding, say_count

ALIKE_SHARE = 0.5
"""Of the matrices, drawn with all rows alike: then neighbours are among them."""


def check_identical(alike: Sequence[str], count: int) -> list[Finding]:
    """Return a finding if the units of most layers are drawn alike.

    Arguments:
        alike: the matrices whose rows (one per unit) are all the same and not 0, in order.
        count: how many matrices with two rows or more there are.
    """
    if len(alike) < 2 or len(alike) < ALIKE_SHARE * count:
        return []
    return [
        Finding(
            "identical_units", "problem",
            f"in {len(alike)} of {count} weight matrices all units have the same weights",
            alike[0], len(alike) / count, ALIKE_SHARE,
            "They give the same output, get the same gradient and stay the same: each layer is as "
            "good as one unit.",
            "an initialization at random: He for ReLU, Xavier for tanh.",
        )
    ]  # fmt: skip


def check_statistics(unused: Sequence[str], count: int) -> list[Finding]:
    """Return a finding if normalizations stay in evaluation mode, without statistics.

    Arguments:
        unused: those whose mean is 0 and whose variance is 1 everywhere, as they begin.
        count: how many batch normalizations there are.
    """
    if not unused:
        return []
    return [
        Finding(
            "missing_statistics", "problem",
            f"{len(unused)} of {say_count(count, 'batch normalization')} in evaluation mode, with "
            "the statistics that they begin with", unused[0], float(len(unused)), 0.0,
            "They subtract 0 and divide by 1: the network trains as without them.",
            "training mode (train() after eval(); trainable = True in Keras); to keep them fixed, "
            "statistics from data first.",
        )
    ]  # fmt: skip


def check_single_values(names: Sequence[str], count: int) -> list[Finding]:
    """Return a finding if layer normalizations are over a single value.

    Arguments:
        names: those of which every mean is taken over one value, in order.
        count: how many layer normalizations there are.
    """
    if not names:
        return []
    return [
        Finding(
            "normalized_away", "problem",
            f"{len(names)} of {say_count(count, 'layer normalization')} over a single value",
            names[0], 1.0, 2.0,
            "A value less its own mean is 0: what comes out is the shift, whatever goes in, and no "
            "gradient passes.",
            "more features, by a layer in front that widens the input; or another axis.",
        )
    ]  # fmt: skip
