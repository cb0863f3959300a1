"""A copy of a PyTorch model on trial: a few steps with the reader's loss and optimizer."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from course_lib.diagnosis.gains import measure_gains
from course_lib.diagnosis.local import measure_drawn
from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.states import check_identical, check_statistics
from course_lib.diagnosis.trial import FirstCall
from course_lib.diagnosis.uses import check_heads, check_several
from course_lib.monitoring import FlowRecord
from course_lib.pytorch.batches import Batch, call_model, read_batches
from course_lib.pytorch.compiled import uncompile
from course_lib.pytorch.inspection import evaluating
from course_lib.pytorch.model_profiles import profile_recurrent_layers, recurrent_modules
from course_lib.pytorch.monitor import GradientFlowMonitor
from course_lib.pytorch.randomness import seed_generators
from course_lib.pytorch.trial_facts import FirstPass, RoundingWatch, list_tensors, show_output
from course_lib.pytorch.trial_uses import least_gains, multiplied, shared_heads
from course_lib.pytorch.trial_weights import (
    InnerWatch,
    NormalizedWatch,
    fans_in,
    find_identical,
    find_unused_statistics,
)


def made_tensors(model: nn.Module) -> dict[int, torch.Tensor]:
    """Return what stands for the tensors with a history that modules hold, by their id.

    Such a tensor cannot be copied: a weight made by `torch.nn.utils.weight_norm`, which is made
    again in every pass, or a state that was kept from the last one.
    """
    return {
        id(held): held.detach().clone()
        for module in model.modules() for held in list_tensors(list(vars(module).values()))
        if not held.is_leaf
    }  # fmt: skip


class Trial:
    """A copy of a model, the batches for it, and its loss."""

    def __init__(
        self, model: nn.Module, inputs: object, targets: object, loss: Callable | None, steps: int
    ) -> None:
        self.loss = loss and FirstCall(
            "targets", "`loss` takes beside the model's output", loss, show_output
        )
        self.steps = steps
        self.call = FirstCall("inputs", "`model` can be called on", call_model)
        self.memo: dict = made_tensors(model)
        try:
            self.model = uncompile(copy.deepcopy(model, self.memo))
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise TypeError(
                f"`model` (a {type(model).__name__}) must be one that copy.deepcopy can copy: "
                f"{error}"
            ) from error
        if not self.model.training:
            self.model.train()
        self.first, self.output = FirstPass(self.model), None
        self.turned: bool | None = None
        self.normalized, self.inner = NormalizedWatch(self.model), InnerWatch(self.model)
        first = next(iter(self.model.parameters()), torch.empty(0))
        self.batches = read_batches(inputs, targets, limit=steps, like=first)
        if any(is_lazy(p) for p in self.model.parameters()):
            with torch.no_grad():  # the first pass gives lazy layers their shapes
                self.call(self.model, self.batches[0][0])
        self.identical = find_identical(self.model)
        self.unused_statistics = find_unused_statistics(self.model)
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ValueError("`model` must have a parameter that requires a gradient.")

    # Steps ---------------------------------------------------------------------------------

    def measure_loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of one batch, a tensor of one number."""
        x, y = batch
        self.output = output = self.call(self.model, x)
        if self.loss is not None:
            value = self.loss(output) if y is None else self.loss(output, y)
        else:
            value = output.get("loss") if isinstance(output, dict) else None
            value = getattr(output, "loss", None) if value is None else value
            if value is None:
                raise ValueError(
                    "`loss` (=None) must be a function, because the model's output "
                    f"(a {type(output).__name__}) holds no loss of its own."
                )
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else repr(value)
            raise ValueError(f"`loss` (which returned {shape}) must return a tensor of one number.")
        own = getattr(output, "loss", None)
        if self.turned is None and isinstance(own, torch.Tensor) and own.numel() == 1:
            minus = value is not own and bool((value == -own) & (own != 0))
            self.turned = True if minus else False if value is own else None
        return value.reshape(())

    def make_rule(self, optimizer: object, learning_rate: float | None) -> torch.optim.Optimizer:
        """Return an optimizer of the copy's parameters."""
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        if optimizer is None:
            return torch.optim.Adam(trainable, lr=learning_rate or 1e-3)
        if isinstance(optimizer, torch.optim.Optimizer):
            rule = copy.deepcopy(optimizer, self.memo)
            ours = {id(p) for p in self.model.parameters()}
            if not any(id(p) in ours for g in rule.param_groups for p in g["params"]):
                raise ValueError("`optimizer` must be one that moves the parameters of `model`.")
        elif callable(optimizer):
            rule = optimizer(trainable)
        else:
            rule = optimizer
        if not isinstance(rule, torch.optim.Optimizer):
            raise TypeError(
                f"`optimizer` (={optimizer!r}) must be a torch.optim.Optimizer, a function from "
                "parameters to one, or None."
            )
        for group in rule.param_groups if learning_rate is not None else ():
            group["lr"] = learning_rate
        return rule

    def train(self, rule: torch.optim.Optimizer, monitor: GradientFlowMonitor) -> list[float]:
        """Train the copy under the monitor, and return the losses."""
        losses = []
        steps = itertools.islice(itertools.cycle(self.batches), self.steps)
        self.rounding = RoundingWatch(self.model, rule)
        with monitor:
            for batch in steps:
                rule.zero_grad()
                try:
                    with nullcontext() if losses else self._looking():
                        value = self.measure_loss(batch)
                except Exception:
                    if not self.refused(batch):
                        raise
                    losses.append(float("nan"))
                    rule.step()  # no weight has a gradient, and none moves: the sample is complete
                    break
                if value.requires_grad:
                    value.backward()
                losses.append(value.item())
                if isinstance(rule, torch.optim.LBFGS):
                    rule.step(lambda batch=batch: self._closure(rule, batch))
                else:
                    rule.step()
                self.rounding.after_step()
                if not np.isfinite(losses[-1]):
                    break
        return losses

    @contextmanager
    def _looking(self) -> Iterator[None]:
        with self.first, self.normalized, self.inner:
            yield

    def refused(self, batch: Batch) -> bool:
        """Return whether the loss, or the model, was given or holds a number that is none, and may
        have raised for that.
        """
        made = [*list_tensors(self.output), *self.model.parameters()]
        given = [t for t in list_tensors(batch) if t.layout is torch.strided]
        return any(t.is_floating_point() and not t.isfinite().all() for t in made) or any(
            t.is_floating_point() and bool((t.isnan() | t.isposinf()).any()) for t in given
        )  # -inf is a mask

    def _closure(self, rule: torch.optim.Optimizer, batch: Batch) -> torch.Tensor:
        rule.zero_grad()
        value = self.measure_loss(batch)
        value.backward()
        return value

    def loss_changes(self, seed: int) -> Callable[[list[str]], bool] | None:
        """Return a function that says whether the loss depends on the named parameters.

        It computes the loss of the first batch with them changed, and puts them back: in training
        mode, since the statistics of a few steps may let next to no signal through, or else in
        evaluation mode. None where the loss is not finite, or not the same twice.
        """
        parameters = dict(self.model.named_parameters())

        def evaluate(mode: Callable) -> float:
            seed_generators(seed)
            with mode(self.model), torch.no_grad():
                return self.measure_loss(self.batches[0]).item()

        for mode in (nullcontext, evaluating):
            before = evaluate(mode)
            if np.isfinite(before) and evaluate(mode) == before:
                break
        else:
            return None

        def changes_loss(names: list[str]) -> bool:
            kept = [(parameters[name], parameters[name].detach().clone()) for name in names]
            with torch.no_grad():
                for parameter, value in kept:
                    parameter.copy_(value + value.abs() + 0.5)
                try:
                    return evaluate(mode) != before
                finally:
                    for parameter, value in kept:
                        parameter.copy_(value)

        return changes_loss

    def look_at_weights(self, record: FlowRecord) -> FlowRecord:
        """Return the record with how the matrices were drawn, and what a normalization takes."""
        sizes = {name: p.numel() for name, p in self.model.named_parameters()}
        norms, self.fans = measure_drawn(record)[0], fans_in(self.model)
        gains = measure_gains(record.parameters, norms, self.fans, sizes)
        return replace(
            record, normalized=self.normalized.layers, gains=gains, inner=self.inner.layers,
            summed=self.inner.summed,
        )  # fmt: skip

    def check_uses(self, record: FlowRecord) -> list[Finding]:
        """Return what is out of scale where a matrix belongs to no plain layer, or to two."""
        if not len(record):
            return []
        several = check_several(
            record, least_gains(self.model, record, self.fans),
            lambda: multiplied(self.model, self.measure_loss(self.batches[0])),
        )  # fmt: skip
        return several or check_heads(record, shared_heads(self.model, record, self.fans))

    def check_states(self) -> list[Finding]:
        """Return what was wrong with the model's own state before the first step."""
        return [*check_identical(*self.identical), *check_statistics(*self.unused_statistics)]

    def profile_layers(self) -> list[dict]:
        """Return the profiles over time of the recurrent layers, as far as they can be taken."""
        if not recurrent_modules(self.model):
            return []
        with evaluating(self.model):
            found = profile_recurrent_layers(
                self.model, lambda: self.call(self.model, self.batches[0][0]), strict=False
            )
        return [found] if found else []
