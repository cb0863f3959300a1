r"""What goes into a model, as a trial sees it: all alike, tiny, or one feature above all others.

* A feature that is r times as large as the others makes the loss r^2 times as steep in its weights:
  a rate that it allows moves the others r^2 times too slowly. A layer normalization divides each
  row by its size, and that is this feature's: behind it the others are r times smaller still. A
  normalization of each feature (batch normalization, Keras's `Normalization`) mends it altogether,
  and then nothing is said.
* Inputs of size s leave the first layer little but its bias, and its gradient is s times as large
  as for inputs of size 1. A normalization does not bring them back where s^2 is below its epsilon,
  1e-5 or 1e-3.
* A number that is none, in inputs or targets, is named where it comes in, if the trial ended in
  such numbers. Zeros and -inf alone are a mask, and no fault.
* Targets that are all one number leave nothing to learn but this number. The targets of a
  discriminator's half step are so on purpose, and those of a residual that is to be 0: a note.
  Class labels are not, on enough samples; then the data are sorted, or the labels lost.
* Large inputs of even size (pixels from 0 to 255) directly in front of a layer or batch
  normalization are harmless: it gives the same for them as for pixels from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import FEATURES_APART, INPUTS_SMALL, INPUTS_WARNING

LABELS_ALIKE = 16
"""Class labels, all the same, that are no chance: among two classes, one time in 32768."""

PER_FEATURE = ("BatchNorm", "InstanceNorm", "Normalization")
"""Kinds of layers that scale every feature by itself; Keras's `LayerNormalization` does not."""


def scale_of(values: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def check_alike(
    inputs: Sequence[Sequence[np.ndarray]], targets: Sequence[np.ndarray | None]
) -> list[Finding]:
    """Return a finding if every sample is the same.

    Arguments:
        inputs: the arrays of every batch, of all inputs, samples along the first axis.
        targets: the targets of every batch, or None.
    """
    if len({len(arrays) for arrays in inputs}) != 1:
        return []
    parts = [part for part in zip(*inputs, strict=True) if all(a.ndim for a in part)]
    counts = {sum(len(a) for a in part) for part in parts}
    targets = [y for y in targets if y is not None and y.ndim]
    if len(counts) != 1 or counts.pop() < 2 or any(not _alike(part) for part in parts):
        return []
    if targets and sum(map(len, targets)) != sum(map(len, parts[0])):
        return []  # samples lie along another axis
    constant = all(np.all(a == part[0].flat[0]) for part in parts for a in part)
    differ = bool(targets) and not _alike(targets)
    what = "every input is one and the same number" if constant else "all samples are the same"
    why = "The model cannot tell them apart, and learns one answer for all."
    if differ:
        why = "Their targets differ, and the model can learn nothing but the mean of these."
    return [
        Finding(
            "constant_inputs", "problem" if differ else "warning", what, "inputs",
            0.0, 0.0, why, "a look at how the batch is made: indexing, broadcasting, a transform "
            "that wipes it out.",
        )
    ]  # fmt: skip


def _alike(arrays: Sequence[np.ndarray]) -> bool:
    """Return whether all samples of all arrays are equal."""
    first = arrays[0][:1]
    return all(a.shape[1:] == first.shape[1:] and bool(np.all(a == first)) for a in arrays)


def check_numbers(
    inputs: Sequence[Sequence[np.ndarray]], targets: Sequence[np.ndarray | None]
) -> list[Finding]:
    """Return a finding for the inputs, and for the targets, that hold something that is no number.

    Arguments:
        inputs: the arrays of every batch, of all inputs.
        targets: the targets of every batch, or None.
    """
    found = []
    for where, parts in (("inputs", [a for arrays in inputs for a in arrays]),
                         ("targets", [y for y in targets if y is not None])):  # fmt: skip
        floats = [a for a in parts if np.issubdtype(a.dtype, np.floating)]
        bad = [a[~np.isfinite(a)] for a in floats if not _is_mask(a)]
        values = np.concatenate([np.zeros(0), *(b.astype(np.float64) for b in bad)])
        if len(values):
            found.append(
                Finding(
                    "non_finite", "problem", f"{len(values)} of the {where} are {values[0]:g}",
                    where, float(values[0]), float("inf"),
                    "What is computed from them is no number either.",
                    "a look at the data: missing values, divisions and logarithms of 0.",
                )
            )  # fmt: skip
    return found


def _is_mask(array: np.ndarray) -> bool:
    return bool(np.all((array == 0) | (array == -np.inf)))


def check_targets(targets: Sequence[np.ndarray | None]) -> list[Finding]:
    """Return a finding if all targets are one and the same number.

    Arguments:
        targets: of every batch, or None.
    """
    known = [y for y in targets if y is not None and y.size]
    count = sum(y.size for y in known)
    if len(known) < len(targets) or count < 2 or any(np.any(y != known[0].flat[0]) for y in known):
        return []
    labels = all(np.issubdtype(y.dtype, np.integer) for y in known) and count >= LABELS_ALIKE
    return [
        Finding(
            "constant_targets", "warning" if labels else "info",
            f"all {count} targets are {known[0].flat[0]:g}", "targets", float(known[0].flat[0]),
            0.0, "A model that gives this whatever goes in has nothing left to learn.",
            "shuffled data, and a look at how the labels are read; nothing, if this is one half of "
            "a discriminator's step, or a residual that is to be 0.",
        )
    ]  # fmt: skip


def check_small(
    inputs: Sequence[np.ndarray], first: np.ndarray | None, where: str
) -> list[Finding]:
    """Return a finding if all inputs are tiny, and the first layer still gets them so.

    Arguments:
        inputs: the arrays of one batch.
        first: what the first layer with parameters gets, or None if that is not known.
        where: that layer.
    """
    parts = [*inputs, *([] if first is None else [first])]
    if first is None or any(not np.issubdtype(a.dtype, np.floating) for a in parts):
        return []  # numbers of words, or of categories, have no size
    size = max(scale_of(a) for a in parts)
    if not 0 < size < INPUTS_SMALL:
        return []
    return [
        Finding(
            "small_inputs", "warning", "the inputs are tiny", where, size, INPUTS_SMALL,
            "The first layer gives little but its bias, and its gradient is as many times smaller; "
            "a normalization behind it does not bring back what is below its epsilon.",
            "standardized inputs: another unit, less the mean, divided by the standard deviation.",
        )
    ]  # fmt: skip


def check_large(
    inputs: Sequence[np.ndarray], first: np.ndarray | None, kind: str, where: str
) -> list[Finding]:
    """Return a finding if the inputs are large, and the first layer gets them so.

    Arguments:
        inputs: the arrays of one batch; of large inputs, the first layer has to get the same ones.
        first: what the first layer with parameters gets, or None if that is not known.
        kind: the class of that layer; a normalization divides by their size.
        where: its name.
    """
    if first is None or "Norm" in kind or not np.issubdtype(first.dtype, np.floating):
        return []
    size = scale_of(first)
    given = [scale_of(a) for a in inputs if np.issubdtype(a.dtype, np.floating)]
    if not INPUTS_WARNING <= size < np.inf or not any(abs(s - size) < 1e-3 * size for s in given):
        return []
    return [
        Finding(
            "large_inputs", "warning", "the inputs are large", where, size, INPUTS_WARNING,
            "They make every gradient of the first layer as much larger than the others, and "
            "saturate what saturates.",
            "standardized inputs (pixels: divided by 255, less their mean).",
        )
    ]  # fmt: skip


def check_features(first: np.ndarray | None, axis: int, kind: str, where: str) -> list[Finding]:
    """Return a finding if one feature is far larger than the others.

    Arguments:
        first: what the first layer with parameters gets, or None if that is not known.
        axis: along which its features lie.
        kind: the class of that layer.
        where: its name.
    """
    if first is None or first.ndim < 2 or not np.issubdtype(first.dtype, np.floating):
        return []
    if kind.startswith(PER_FEATURE) and "Layer" not in kind:
        return []
    others = tuple(k for k in range(first.ndim) if k != axis % first.ndim)
    sizes = np.sqrt(np.mean(np.square(first, dtype=np.float64), axis=others))
    known = np.flatnonzero(np.isfinite(sizes) & (sizes > 0))
    if len(known) < 2:
        return []
    largest = int(known[np.argmax(sizes[known])])
    ratio = float(sizes[largest] / np.median(sizes[known[known != largest]]))
    if ratio < FEATURES_APART:
        return []
    why = "One rate does not fit both: the loss is steeper in its weights by the square of this."
    if "LayerNorm" in kind:
        why = "The normalization divides the row by it: behind it the others are nearly 0."
    return [
        Finding(
            "unequal_features", "warning",
            f"feature {largest} of the inputs is many times as large as the usual one", where,
            ratio, FEATURES_APART, why,
            "each feature standardized by itself; the logarithm of what spans decades.",
        )
    ]  # fmt: skip
