"""`diagnose_model`: one call that trains a copy of the reader's model and says what is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from course_lib._validation import require_integer, require_real, require_seed
from course_lib.diagnosis import Report, diagnose
from course_lib.diagnosis.connections import tell_unused
from course_lib.diagnosis.trial import describe_trial
from course_lib.pytorch.compiled import as_written, unwrapped
from course_lib.pytorch.monitor import GradientFlowMonitor
from course_lib.pytorch.randomness import generators_kept
from course_lib.pytorch.trial_facts import check_trial
from course_lib.pytorch.trial_steps import Trial


def diagnose_model(
    model: nn.Module,
    inputs: object,
    targets: object = None,
    *,
    loss: Callable | None = None,
    optimizer: object = None,
    learning_rate: float | None = None,
    steps: int = 10,
    every: int = 1,
    share: float = 0.1,
    seed: int = 0,
) -> Report:
    """Train a copy of a model for a few steps, watch it, and return what is wrong and where.

    The model, its gradients and modes, the optimizer and its state, and the random number
    generators are left as they are. `report.results[0]` is the record of what was measured. The
    loss is called on a few made-up outputs besides.

    Arguments:
        model: any module, in training or in evaluation mode; the copy is trained, uncompiled.
        inputs: one batch (a tensor or an array for `model(inputs)`, a tuple for `model(*inputs)`, a
            dict for `model(**inputs)`), or an iterable of batches such as a `DataLoader`, each a
            pair (inputs, targets) or, with a loss that needs no targets, inputs alone. Batches are
            gone through again if there are fewer than `steps`.
        targets: of one batch; None if there are none, or if the batches bring theirs.
        loss: `loss(output, targets)`, or `loss(output)` where there are no targets; the output's
            own `loss` if None.
        optimizer: the optimizer in use, which is copied with its settings and its state; or a
            function from parameters to an optimizer; or None for Adam.
        learning_rate: > 0, in place of the optimizer's own; 1e-3 for Adam if None.
        steps: how many training steps, at least 1; it stops at a loss that is not finite.
        every: sampling interval in steps.
        share: a value is saturated if its slope is below this share of the largest slope.
        seed: of the randomness in the model, such as dropout.

    Raises TypeError or ValueError, naming the argument, for anything else, for an empty batch, a
    loss that is not one number, and a model that cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a torch.nn.Module.")
    model = unwrapped(model)
    if loss is not None and not callable(loss):
        raise TypeError(f"`loss` (={loss!r}) must be a function of the output and the targets.")
    steps = require_integer("steps", steps, minimum=1)
    every = require_integer("every", every, minimum=1)
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    if learning_rate is not None:
        learning_rate = require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    seed = require_seed(seed)
    with _untouched_randomness(seed), torch.inference_mode(False), torch.enable_grad():
        trial = Trial(model, inputs, targets, loss, steps)
        rule = trial.make_rule(optimizer, learning_rate)
        profiles = trial.profile_layers()
        monitor = GradientFlowMonitor(trial.model, optimizer=rule, every=every, share=share)
        losses = trial.train(rule, monitor)
        record = tell_unused(
            trial.look_at_weights(monitor.record),
            lambda: trial.loss_changes(seed) if np.isfinite(losses[-1]) else None,
        )
        shown = check_trial(record, trial.model, trial.batches, trial.loss, trial.first,
                            trial.rounding, losses, rule, trial.turned)  # fmt: skip
        shown += [*trial.check_states(), *trial.check_uses(record)]
    report = diagnose(record, *profiles).with_findings(shown)
    rates = {float(group["lr"]) for group in rule.param_groups}
    sentence = describe_trial(
        type(model).__name__, sum(p.numel() for p in trial.model.parameters()), steps,
        type(rule).__name__, rates.pop() if len(rates) == 1 else None, losses,
    )  # fmt: skip
    return replace(report, subjects=(sentence, *report.subjects))


@contextmanager
def _untouched_randomness(seed: int) -> Iterator[None]:
    """Seed every generator, and give each its own state back on leaving; nothing runs compiled."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with generators_kept(seed), as_written():
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
