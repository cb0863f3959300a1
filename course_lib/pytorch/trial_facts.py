"""What a trial of a PyTorch model shows beside the monitor's record: inputs, outputs, rounding."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from course_lib.diagnosis import Finding
from course_lib.diagnosis.depth import check_inputs
from course_lib.diagnosis.direction import (
    check_direction,
    loss_sign,
    lowers_likelihood,
    uphill,
)
from course_lib.diagnosis.inputs import (
    check_alike,
    check_features,
    check_large,
    check_numbers,
    check_small,
    check_targets,
)
from course_lib.diagnosis.outputs import (
    check_first_loss,
    check_missing_activation,
    check_output,
)
from course_lib.diagnosis.peers import check_peers
from course_lib.diagnosis.rounding import RoundedWeight, check_rounded
from course_lib.diagnosis.states import check_single_values
from course_lib.diagnosis.targets import check_log_probabilities, check_pairing
from course_lib.diagnosis.trial import check_dropout, check_loss_value
from course_lib.monitoring import FlowRecord
from course_lib.pytorch import graph
from course_lib.pytorch.batches import Batch
from course_lib.pytorch.weight_watch import rank_of

DROPOUTS = nn.modules.dropout._DropoutNd

TARGETS = ("label", "labels", "target", "targets")
"""Under these names, a dict of inputs holds the targets besides."""


def list_tensors(data: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in a batch, a tuple or a dict, however nested."""
    if isinstance(data, torch.Tensor):
        yield data
    elif isinstance(data, (dict, tuple, list)):
        for part in data.values() if isinstance(data, dict) else data:
            yield from list_tensors(part)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's numbers on the host; what NumPy lacks (bfloat16) as float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).cpu().numpy()


def show_output(output: object) -> np.ndarray | None:
    """Return a model's output as an array, if it is a dense tensor."""
    dense = isinstance(output, torch.Tensor) and output.layout is torch.strided
    return as_array(output) if dense and not output.is_complex() else None


def split_tensors(batch: Batch) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return a batch's inputs and its targets as arrays, as far as they are dense tensors."""
    x, y = batch
    if isinstance(x, dict):
        y = next((x[name] for name in TARGETS if name in x), y)
        x = {name: part for name, part in x.items() if name not in TARGETS}
    dense = [t for t in list_tensors(x) if t.layout is torch.strided and not t.is_complex()]
    return [as_array(t) for t in dense], as_array(y) if isinstance(y, torch.Tensor) else None


class FirstPass:
    """What goes into the first layer with parameters, and comes out of the model, in one call.

    Use it as a context manager around the first pass.

    Fields:
        module, name: that layer, None until it is called.
        given: its input, None if there is no tensor among its arguments.
        fed: class and input of every layer with parameters that is given one of the model's own
            inputs, or a part of it, as it is, by name.
        output: what the model returned, if it is a dense tensor of real numbers.
        sigmoid: whether a sigmoid was the last thing done to it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.module, self.name = None, ""
        self.given: torch.Tensor | None = None
        self.fed: dict[str, tuple[str, np.ndarray]] = {}
        self.output: torch.Tensor | None = None
        self.sigmoid = False

    def __enter__(self) -> FirstPass:
        self._handles = [
            module.register_forward_pre_hook(
                lambda module, args, kwargs, name=name: self._enter(name, module, args, kwargs),
                with_kwargs=True,
            )
            for name, module in self.model.named_modules()
            if any(True for _ in module.parameters(recurse=False))
            and (isinstance(module, nn.MultiheadAttention) or not any(module.children()))
        ]
        self._handles.append(self.model.register_forward_hook(self._leave))
        self._handles.append(
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
        )
        self._storages: set[int] = set()
        return self

    def __exit__(self, *exception: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not graph.transformed():
            self._storages |= {
                t.untyped_storage().data_ptr() for t in list_tensors((*args, *kwargs.values()))
                if t.layout is torch.strided and t.is_floating_point()
            }  # fmt: skip

    def _enter(self, name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if graph.transformed():
            return
        given = next(iter(list_tensors((*args, *kwargs.values()))), None)
        if self.module is None:
            self.module, self.name = module, name
            self.given = None if given is None else given.detach().clone()
        if given is None or given.layout is not torch.strided or name in self.fed:
            return
        if given.untyped_storage().data_ptr() in self._storages:
            self.fed[name] = type(module).__name__, as_array(given).copy()

    def _leave(self, module: nn.Module, args: tuple, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            self.output = output.detach().clone()
            node = output.grad_fn
            self.sigmoid = node is not None and graph.activation_of(node) == "sigmoid"

    @property
    def axis(self) -> int:
        """The axis of the features of what the first layer gets."""
        return 1 if isinstance(self.module, nn.modules.conv._ConvNd) else -1


class RoundingWatch:
    """Compares the 16-bit matrices after a trial with what they were before it."""

    def __init__(self, model: nn.Module, rule: torch.optim.Optimizer) -> None:
        held = {id(p) for group in rule.param_groups for p in group["params"]}
        self.rule, self.rate = rule, 0.0
        self.before = {
            name: (p, p.detach().clone(), torch.zeros_like(p, dtype=torch.bool))
            for name, p in model.named_parameters()
            if p.dtype in (torch.float16, torch.bfloat16) and rank_of(p.shape) > 1 and id(p) in held
        }

    def after_step(self) -> None:
        """Note which entries had a gradient in this step."""
        self.rate = max(self.rate, *(float(group["lr"]) for group in self.rule.param_groups))
        for p, _, asked in self.before.values():
            if p.grad is not None:
                asked |= p.grad.to_dense() != 0

    def weights(self) -> list[RoundedWeight]:
        """Return what became of every matrix; none if every step had a rate of 0."""
        if not self.rate:
            return []
        return [
            RoundedWeight(
                name, str(p.dtype).removeprefix("torch."), int(asked.sum()),
                int((asked & (p.detach() == old)).sum()),
            )
            for name, (p, old, asked) in self.before.items()
        ]  # fmt: skip


@torch.no_grad()
def measure_direction(rule: torch.optim.Optimizer) -> float:
    """Return which way an optimizer goes: the cosine of the gradient with the difference between
    the steps that it takes for the gradient and for its negative, so that momentum and decay do not
    matter. NaN if it cannot be told. Parameters, gradients and states are put back.
    """
    moved = [p for group in rule.param_groups for p in group["params"]
             if p.grad is not None and p.grad.layout is torch.strided]  # fmt: skip
    if isinstance(rule, torch.optim.LBFGS):
        return float("nan")
    kept, state = [p.clone() for p in moved], copy.deepcopy(rule.state_dict())

    def put_back() -> None:
        rule.load_state_dict(state)
        for p, old in zip(moved, kept, strict=True):
            p.copy_(old)
            p.grad.neg_()

    try:
        rule.step()
        after = [p.clone() for p in moved]
        put_back()
        rule.step()
        return uphill(
            (as_array(one - p), -as_array(p.grad)) for p, one in zip(moved, after, strict=True)
        )
    except Exception:  # a reader's own optimizer may refuse to go back
        return float("nan")
    finally:
        put_back()


def check_trial(
    record: FlowRecord,
    model: nn.Module,
    batches: list[Batch],
    loss: Callable | None,
    first: FirstPass,
    rounding: RoundingWatch,
    losses: list[float],
    rule: torch.optim.Optimizer,
    turned: bool | None,
) -> list[Finding]:
    """Return what the trial shows beside the record.

    Arguments:
        rule: the optimizer, with the gradients of the last step.
        turned: whether the loss is that of the model's own output with a minus; None if that has
            no loss.
    """
    split = [split_tensors(batch) for batch in batches]
    ended = [] if np.isfinite(losses[-1]) and not record.nonfinite else split[: len(losses)]
    given = None if first.given is None else as_array(first.given)
    kind = type(first.module).__name__
    found = [
        *check_numbers([x for x, _ in ended], [y for _, y in ended]),
        *check_alike([x for x, _ in split], [y for _, y in split]),
        *check_targets([y for _, y in split]),
        *check_small(split[0][0], given, first.name),
        *(() if check_inputs(record) else check_fed(split[0][0], given, kind, first)),
        *check_features(given, first.axis, kind, first.name),
        *check_peers(record, {name: p.numel() for name, p in model.named_parameters()}),
        *check_loss_value(record, losses),
        *check_single_values(*find_single_values(model)),
    ]
    if not record.nonfinite:
        found += check_rounded(rounding.weights(), len(losses))
    found += check_dropout({
        name: m.p for name, m in model.named_modules() if isinstance(m, DROPOUTS) and m.training
    })  # fmt: skip
    sign = 0 if turned is None else -1 if turned else 1
    if loss is not None and first.output is not None:
        output, judge = as_array(first.output).astype(np.float64), LossOnTrial(
            loss, first.output, batches[0][1]
        )  # fmt: skip
        found += check_output(record, output, judge.gradient, sigmoid=first.sigmoid)
        for check in (check_missing_activation, check_first_loss):
            found += check(record, output, judge.gradient, judge.value)
        found += check_log_probabilities(record, output, judge.gradient, split[0][1])
        found += check_pairing(record, output, judge.value, split[0][1])
        sign = sign or loss_sign(judge.gradient, output.shape)
        sign = sign or -int(lowers_likelihood(output, judge.gradient))
    sound = np.isfinite(losses[-1]) and not record.nonfinite
    asked = any(group.get("maximize", False) for group in rule.param_groups)
    cosine = measure_direction(rule) if sound else float("nan")
    return found + check_direction(sign, cosine, asked=asked)


def find_single_values(model: nn.Module) -> tuple[list[str], int]:
    """Return the layer normalizations over one value, and how many there are."""
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)]
    return [name for name, m in found if math.prod(m.normalized_shape) == 1], len(found)


def check_fed(
    inputs: list[np.ndarray], given: np.ndarray | None, kind: str, first: FirstPass
) -> list[Finding]:
    """Return a finding if large inputs come as they are to a layer with parameters: the first, or
    one of the others that are given an input (an image beside a time, a sequence step by step).
    """
    layers = [(inputs, given, kind, first.name)]
    layers += [([part], part, kind, name) for name, (kind, part) in first.fed.items()]
    return next(filter(None, (check_large(*layer) for layer in layers)), [])


class LossOnTrial:
    """The loss as a function of made-up outputs like `output`, with the targets of one batch."""

    def __init__(self, loss: Callable, output: torch.Tensor, targets: object) -> None:
        self.loss, self.output, self.targets = loss, output, targets

    def gradient(self, values: np.ndarray) -> np.ndarray | None:
        """Return the loss's gradient there, or None where the loss refuses them."""
        found = self._measure(values)
        return None if found is None else found[1].double().cpu().numpy()

    def value(self, values: np.ndarray) -> float:
        """Return the loss there, or NaN."""
        found = self._measure(values)
        return float("nan") if found is None else found[0]

    def _measure(self, values: np.ndarray) -> tuple[float, torch.Tensor] | None:
        like = self.output
        made = torch.as_tensor(values, dtype=like.dtype, device=like.device).requires_grad_()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loss = self.loss(made) if self.targets is None else self.loss(made, self.targets)
            return loss.item(), torch.autograd.grad(loss, made)[0]
        except Exception:  # a reader's loss may refuse such outputs in any way
            return None
