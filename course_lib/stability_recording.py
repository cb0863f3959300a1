"""What the three implementations of `train_monitored` share: their arguments and the record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from course_lib._validation import require_integer, require_real
from course_lib.stability import MonitoredRun, NonFinite, measure_norm


class StabilityRecorder:
    """Collects what a `MonitoredRun` holds, step by step, and when a quantity left the numbers."""

    def __init__(self, *, stop_above: float | None, clip_norm: float | None) -> None:
        self.stop_above, self.clip_norm = stop_above, clip_norm
        self.rows: list[tuple] = []
        self.first: dict[str, NonFinite] = {}
        self.stopped_at: int | None = None
        self.step = 0

    def _notice(self, quantity: str, values: object) -> None:
        values = np.asarray(values)
        if quantity not in self.first and not np.all(np.isfinite(values)):
            kind = "nan" if np.any(np.isnan(values)) else "inf"
            self.first[quantity] = NonFinite(self.step, quantity, kind)

    def measure(
        self,
        step: int,
        *,
        output: np.ndarray,
        loss: float,
        weight_grads: Sequence[np.ndarray],
        bias_grads: Sequence[np.ndarray],
        weights: Sequence[np.ndarray],
        reported_norm: float,
    ) -> bool:
        """Store one step's numbers, taken before its update; return whether to make the update."""
        self.step = step
        self._notice("output", output)
        self._notice("loss", loss)
        for k in reversed(range(len(weight_grads))):
            self._notice(f"gradient of W_{k + 1}", weight_grads[k])
        self._notice("global norm", reported_norm)
        row = (weight_grads, bias_grads, weights)
        self.rows.append(
            (step, float(loss), float(reported_norm), *[[measure_norm(a) for a in g] for g in row])
        )
        if self.stop_above is None or reported_norm <= self.stop_above:
            return True
        self.stopped_at = step  # a NaN, too, is not <= anything
        return False

    def updated(self, weights: Sequence[np.ndarray]) -> None:
        """Look at the weights after the step's update."""
        for k, weight in enumerate(weights, start=1):
            self._notice(f"W_{k}", weight)

    def factor(self, norm: float) -> float:
        """Return the factor that clips a gradient of this global norm to `clip_norm`."""
        return 1.0 if self.clip_norm is None or norm <= self.clip_norm else self.clip_norm / norm

    def result(
        self, parameters: Sequence[np.ndarray], *, framework: str, dtype: str, learning_rate: float
    ) -> MonitoredRun:
        """Return the record; `parameters` are all weights and biases after the run."""
        steps, losses, reported, grads, bias_grads, weights = zip(*self.rows, strict=True)
        return MonitoredRun(
            framework=framework,
            dtype=dtype,
            learning_rate=learning_rate,
            steps=np.array(steps),
            losses=np.array(losses),
            weight_grad_norms=np.array(grads),
            bias_grad_norms=np.array(bias_grads),
            reported_norms=np.array(reported),
            weight_norms=np.array(weights),
            nonfinite=tuple(self.first.values()),
            stopped_at=self.stopped_at,
            weights_finite=all(bool(np.all(np.isfinite(p))) for p in parameters),
        )


def check_monitoring(
    *,
    learning_rate: object,
    steps: object,
    loss_scale: object,
    stop_above: object,
    clip_norm: object,
) -> tuple[float, int, float, StabilityRecorder]:
    """Return the checked learning rate, steps and loss scale of a `train_monitored` call, and
    the recorder of its run.
    """
    learning_rate = require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    steps = require_integer("steps", steps, minimum=1)
    loss_scale = require_real("loss_scale", loss_scale, minimum=0.0, exclusive=True)
    if stop_above is not None:
        stop_above = require_real("stop_above", stop_above, minimum=0.0, exclusive=True)
    if clip_norm is not None:
        clip_norm = require_real("clip_norm", clip_norm, minimum=0.0, exclusive=True)
    recorder = StabilityRecorder(stop_above=stop_above, clip_norm=clip_norm)
    return learning_rate, steps, loss_scale, recorder
