"""Watch the gradient flow of any PyTorch model while it trains, without changing a bit of it.

    with GradientFlowMonitor(model, every=10) as monitor:
        train(model)                       # your loop, as it is
    monitor.record.describe()

Hooks are on the model only during sampled steps; between them nothing but the optimizer's step is
counted. Norms are accumulated on the device in float64, and one transfer brings a sample over.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from course_lib._validation import require_integer
from course_lib.flow_recorder import FlowRecorder
from course_lib.monitoring import FlowRecord, Sample
from course_lib.pytorch import graph
from course_lib.pytorch.compiled import Silence, unwrapped
from course_lib.pytorch.probe import FlowProbe
from course_lib.pytorch.weight_watch import WeightWatch


def fetch_sample(sample: Sample) -> Sample:
    """Bring a sample's numbers from the device to the host in one transfer."""
    here = not any(isinstance(o.norm, torch.Tensor) for o in (*sample.sites, *sample.parameters))
    if here and sample.gradient_scale is None and sample.left_over is None:
        for site in sample.sites:
            if site.active is not None:
                site.active = site.active.numpy()
            if site.flat is not None:
                site.flat = site.flat.numpy()
        return sample
    slots = sample.slots(torch.Tensor)
    values = [getattr(owner, name) for owner, name in slots]
    remote = next((value.device for value in values if not value.is_cpu), None)
    if remote is None:
        values = [value.numpy() for value in values]
    else:
        precise = torch.float32 if remote.type == "mps" else torch.float64
        ends = np.cumsum([value.numel() for value in values])
        packed = torch.cat([value.reshape(-1).to(remote, precise) for value in values])
        values = np.split(packed.cpu().numpy(), ends[:-1])
    sample.fill(values, slots)
    sample.unscale()
    return sample


class GradientFlowMonitor:
    r"""Record gradients, activations and updates of any `nn.Module` at every `every`-th step.

    Use it as a context manager around a training loop; the loop stays as it is:

        with GradientFlowMonitor(model) as monitor:
            train(model)
        print(diagnose(monitor))                      # of course_lib.diagnosis
        plot_flow_record(monitor.record)              # of course_lib.plots

    A step ends when the optimizers that move the model have stepped, or, if they step within the
    backward pass, with that. With loops that update by hand, pass `optimizer=False` and call
    `monitor.step()` after each update.

    Arguments:
        model: any module, not handed to `torch.jit`, which runs no hooks in order. What is behind
            `torch.compile` runs uncompiled in sampled steps, as compiled code has no layers to see.
        optimizer: one optimizer, a sequence of them, None for whichever optimizers step the
            model's parameters, or False for updates by hand.
        every: sampling interval in steps.
        max_records: bound on the samples kept; beyond it every second one is dropped and the
            interval doubles, so a record always spans the run.
        share: a value is saturated if its slope is below this share of the largest slope.
        scaler: the `torch.amp.GradScaler` in use, so that gradients are reported unscaled.
        max_calls: how many calls of one module are recorded in a pass (an unrolled cell has many).

    Where a step makes several passes (accumulation, a second loss), the activations and their
    gradients are those of the last pass that was differentiated; the weight gradients are the
    accumulated ones, before clipping. Training stays the same to the last bit, with one exception:
    where `torch.compile` rounds, or draws its dropout, in another way than the code as written,
    sampled steps do as written. Raises TypeError or ValueError for what is not of these.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: object = None,
        every: int = 10,
        max_records: int = 500,
        share: float = 0.1,
        scaler: torch.amp.GradScaler | None = None,
        max_calls: int = 8,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"`model` (a {type(model).__name__}) must be a torch.nn.Module.")
        if isinstance(model, torch.jit.ScriptModule):
            raise ValueError(
                "`model` (a scripted or traced module) must be the module before torch.jit, which "
                "runs no hooks in order."
            )
        if not (scaler is None or isinstance(scaler, torch.amp.GradScaler)):
            raise TypeError(f"`scaler` (={scaler!r}) must be a torch.amp.GradScaler or None.")
        self.model, self.scaler = unwrapped(model), scaler
        self.optimizers = _check_optimizers(optimizer)
        self._recorder = FlowRecorder(
            framework="PyTorch", every=every, max_records=max_records, share=share
        )
        max_calls = require_integer("max_calls", max_calls, minimum=1)
        self._probe = FlowProbe(self.model, share=self._recorder.share, max_calls=max_calls)
        self._handles: list = []
        self._entered = self._sampling = False
        self._step, self._expected = 0, None
        self._first: Sample | None = None

    # Context -------------------------------------------------------------------------------

    def __enter__(self) -> GradientFlowMonitor:
        if self._entered:
            raise RuntimeError("This monitor is already in use; make a second one.")
        self._entered = True
        self._weights = WeightWatch(self.model)
        self._probe.on_gradient = self._queue
        self._handles = [Silence()]
        if self.optimizers != ():  # a step may be compiled too; these are not to be part of it
            before = torch.compiler.disable(self._before_step)
            after = torch.compiler.disable(self._after_step)
            if self.optimizers is None:
                self._handles.append(register_optimizer_step_pre_hook(before))
                self._handles.append(register_optimizer_step_post_hook(after))
            for rule in self.optimizers or ():
                self._handles.append(rule.register_step_pre_hook(before))
                self._handles.append(rule.register_step_post_hook(after))
        rules = self.optimizers or ()
        self._alone = len(rules) == 1 and bool(self._weights.owned(rules[0]))
        self._begin_step()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._sampling and self._done and exception[0] is None:
            self._finish_sample()
        self._end_sampling()
        while self._handles:
            self._handles.pop().remove()
        self._entered = False
        self._weights = self._probe.on_gradient = None

    @property
    def record(self) -> FlowRecord:
        """What was recorded so far."""
        return self._recorder.record()

    def step(self) -> None:
        """Say that an update by hand is done; only with `optimizer=False`."""
        if self.optimizers != ():
            raise RuntimeError("Optimizers are watched already; step() is for optimizer=False.")
        if not self._entered:
            raise RuntimeError("step() must be called inside `with monitor:`.")
        if self._sampling:
            self._catch_up()
            self._weights.after_update(self._weights.parameters)
        self._close_step()

    # Steps ---------------------------------------------------------------------------------

    def _begin_step(self) -> None:
        self._done: list[int] = []
        self._covered: set[int] = set()
        self._closing = False
        if not self._recorder.wants(self._step):
            return
        self._sampling, self._queued, self._scale = True, False, None
        self._left_over, self._looked, self._added = None, False, False
        self._probe.attach()
        if self.optimizers == ():
            self._weights.before_update(self._weights.parameters)

    def _queue(self) -> bool:
        """Ask the backward pass that runs to call back when it is through; say if it is new."""
        new, self._queued = not self._queued, True
        if new:
            self._look_for_left_over()
            torch.autograd.Variable._execution_engine.queue_callback(self._backward_done)
        return new

    @torch.no_grad()
    def _look_for_left_over(self) -> None:
        """See whether a backward pass begins with gradients of the step before.

        That is so on purpose if they are set to 0 between two passes of one step, as those of a
        discriminator through which its generator was trained; and it is nothing if no pass adds to
        them, as where those of `torch.autograd.grad` take their place.
        """
        found = self._weights.find_left_over()
        if not self._step or (self._looked and self._left_over is None):
            return
        if self._looked and found is not None:
            found = found & self._left_over
        self._left_over, self._looked = found, True

    def _backward_done(self) -> None:
        self._queued = False
        if self._sampling:
            self._probe.settle()
            fresh = self._weights.find_fresh()
            self._added = self._added or bool(fresh)
            self._weights.measure_gradients(fresh)

    def _catch_up(self) -> None:
        if self._probe.catch_up():
            self._weights.measure_gradients()

    def _end_sampling(self) -> None:
        if self._sampling:
            self._probe.detach()
            self._probe.clear()
            self._weights.clear()
        self._sampling = False

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        if not self._sampling and id(optimizer) not in self._done:
            return
        owned = self._weights.owned(optimizer)
        if not owned:
            return
        if id(optimizer) in self._done:  # it steps again: the step before has ended
            self._expected = set(self._done)
            self._close_late()
        if self._sampling:
            if not graph.within_backward():
                self._catch_up()
            if self.scaler is not None and self.scaler.is_enabled():
                self._scale = self.scaler.scale(torch.ones((), device=owned[0].device)).double()
            closure = len(args) > 1 or kwargs.get("closure") is not None
            self._weights.before_update(owned, optimizer, closure=closure)

    def _after_step(self, optimizer: torch.optim.Optimizer, *unused: object) -> None:
        if self._alone and not self._sampling:
            self._step += 1
            self._begin_step()
            return
        owned = self._weights.owned(optimizer)
        if not owned:
            return
        if self._sampling:
            self._weights.after_update(owned)
        self._done.append(id(optimizer))
        if graph.within_backward():  # a rule for each parameter, as soon as its gradient is there
            if not self._closing:
                self._closing = True
                torch.autograd.Variable._execution_engine.queue_callback(self._close_step)
        elif self._alone or self._all_moved(owned):
            self._close_step()
        elif self._sampling and self._step == 0:  # it may be all that steps
            sites = [copy.copy(site) for site in self._probe.best_pass().sites]
            states = [copy.copy(state) for state in self._weights.states()]
            self._first = Sample(0, sites, states, self._scale)

    def _all_moved(self, owned: list[torch.Tensor]) -> bool:
        """Return whether every optimizer that is part of a step has stepped."""
        if self._expected is not None:
            return self._expected <= set(self._done)
        self._covered |= {id(p) for p in owned}
        return all(
            id(p) in self._covered
            for p in self._weights.parameters if p.requires_grad and p.grad is not None
        )  # fmt: skip

    def _close_step(self) -> None:
        if self._sampling:
            self._finish_sample()
        self._end_sampling()
        self._first = None
        self._step += 1
        self._begin_step()

    def _close_late(self) -> None:
        """Close a step of which it was not known that all of its optimizers had stepped.

        What was measured since belongs to the step that is about to be made. The very first sample
        is the one that was taken at its end; the step at hand is not sampled.
        """
        if self._step or self._first is None:
            self._close_step()
            return
        self._recorder.add(fetch_sample(self._first))
        self._end_sampling()
        self._first, self._done, self._step = None, [], 1

    def _finish_sample(self) -> None:
        sites = self._probe.best_pass().sites
        left = self._left_over
        left = left.any() if left is not None and self._added else None
        sample = Sample(self._step, sites, self._weights.states(), self._scale, left)
        self._recorder.add(fetch_sample(sample))


def _check_optimizers(optimizer: object) -> tuple[torch.optim.Optimizer, ...] | None:
    if optimizer is None:
        return None
    if optimizer is False:
        return ()
    rules = (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    rules = tuple(rules) if isinstance(rules, (list, tuple)) else None
    if not rules or not all(isinstance(r, torch.optim.Optimizer) for r in rules):
        raise TypeError(
            f"`optimizer` (={optimizer!r}) must be a torch.optim.Optimizer, a sequence of them, "
            "None or False."
        )
    return rules
