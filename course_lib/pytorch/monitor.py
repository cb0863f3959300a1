"""Watch the gradient flow of any PyTorch model while it trains, without changing a bit of it.

    with GradientFlowMonitor(model, every=10) as monitor:
        train(model)                       # your loop, as it is
    monitor.record.describe()

Hooks are on the model only during sampled steps; between them nothing but the optimizer's step is
counted. Norms are accumulated on the device in float64, and one transfer brings a sample over.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from course_lib._validation import require_integer
from course_lib.monitoring import (
    ONE_SIDED,
    FlowRecord,
    FlowRecorder,
    ParameterState,
    Sample,
    Site,
    flat_mask,
)

MODULE_ACTIVATIONS = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leaky_relu", nn.PReLU: "leaky_relu",
    nn.ELU: "elu", nn.GELU: "gelu", nn.SiLU: "silu", nn.Softplus: "softplus",
    nn.Sigmoid: "sigmoid", nn.Tanh: "tanh",
}  # fmt: skip
NODE_ACTIVATIONS = {
    "ReluBackward0": "relu", "LeakyReluBackward0": "leaky_relu", "EluBackward0": "elu",
    "GeluBackward0": "gelu", "SiluBackward0": "silu", "SoftplusBackward0": "softplus",
    "SigmoidBackward0": "sigmoid", "TanhBackward0": "tanh",
}  # fmt: skip
"""How autograd names what a functional call such as `F.relu` left behind."""

PASSING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
           nn.Dropout3d, nn.AlphaDropout)  # fmt: skip
"""Modules whose output says nothing that their input does not."""

CHANNEL_MODULES = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm,
                   nn.modules.instancenorm._InstanceNorm)  # fmt: skip


def norm64(tensor: torch.Tensor) -> torch.Tensor | float:
    """Return the Euclidean norm as if accumulated in float64: no square under- or overflows.

    On a GPU the result stays there. On the CPU, where reading a number costs nothing, a float32
    dot product is three times as fast, and is trusted where its square is far from both ends of
    float32's range. On Apple's GPUs, which have no float64, the entries are scaled by the largest.
    """
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    tensor = tensor.detach()
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        flat = tensor.reshape(-1)
        square = torch.dot(flat, flat).item()
        if 1e-25 < square < 1e30:
            return square**0.5
    if tensor.device.type != "mps":
        return torch.linalg.vector_norm(tensor, dtype=torch.float64)
    largest = tensor.float().abs().amax()
    safe = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return safe * torch.linalg.vector_norm(tensor.float() / safe)


def first_tensor(output: object) -> torch.Tensor | None:
    """Return the first floating-point tensor of a module's output, whatever holds it."""
    if isinstance(output, torch.Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, dict):
        output = output.values()
    if isinstance(output, Iterable) and not isinstance(output, str):
        for part in output:
            found = first_tensor(part)
            if found is not None:
                return found
    return None


def count_units(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the sum of a mask, or of zeros and ones, per unit; units lie along `axis`."""
    others = [d for d in range(values.ndim) if d != axis % values.ndim]
    return values.sum(dim=others) if others else values


class Pass:
    """The sites of one forward pass and what its backward pass brought."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self.calls: dict[str, int] = {}
        # Holding a node keeps its id its own. A node also holds, by its hooks, this pass: unless
        # they are let go of at the end, the whole graph waits for the garbage collector.
        self.nodes: dict[int, object] = {}
        self.axes: dict[tuple[int, ...], int] = {}
        self.differentiated = False


class FlowProbe:
    """Forward hooks that measure every layer's output, and tensor hooks on those outputs."""

    def __init__(self, model: nn.Module, *, share: float, max_calls: int) -> None:
        self.model, self.share, self.max_calls = model, share, max_calls
        self.handles: list[torch.utils.hooks.RemovableHandle] = []
        self.watched = {}
        for name, module in model.named_modules():
            leaf = not any(True for _ in module.children())
            own = leaf or any(True for _ in module.parameters(recurse=False))
            own = own and not isinstance(module, PASSING)
            self.watched[id(module)] = (name or type(module).__name__, own)
        self.current, self.kept = Pass(), None

    def attach(self) -> None:
        """Put the hooks on; `detach` takes them off.

        Two hooks on all modules, which look up who is being called, are put on and taken off
        faster than two on each.
        """
        self.clear()
        self.handles = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after),
        ]

    def detach(self) -> None:
        """Take every hook off."""
        while self.handles:
            self.handles.pop().remove()

    def clear(self) -> None:
        """Forget what was measured."""
        for run in (self.current, self.kept):
            if run is not None:
                run.nodes.clear()
        self.current, self.kept = Pass(), None

    def best_pass(self) -> Pass:
        """Return the latest pass that was differentiated, or the latest."""
        if self.current.differentiated or self.kept is None:
            return self.current
        return self.kept

    def _before(self, module: nn.Module, inputs: tuple) -> None:
        """See a pass begin, and a functional activation at an input: `self.linear2(F.relu(h))`."""
        if id(module) not in self.watched or not torch.is_grad_enabled():
            return
        if module is self.model:
            self.current.nodes.clear()
            self.kept = self.current if self.current.differentiated else self.kept
            self.current = Pass()
        if inputs and isinstance(inputs[0], torch.Tensor):
            self._functional(f"{self.watched[id(module)][0]}.input", inputs[0])

    def _functional(self, name: str, h: torch.Tensor) -> None:
        node = h.grad_fn
        kind = None if node is None else NODE_ACTIVATIONS.get(node.name())
        if kind is None or id(node) in self.current.nodes:
            return
        z = getattr(node, "_saved_self", None) if kind in ("gelu", "silu") else None
        self._record(f"{name} ({kind})", kind, kind, h, z, self._axis(None, h))

    def _after(self, module: nn.Module, inputs: tuple, output: object) -> None:
        if id(module) not in self.watched or not torch.is_grad_enabled():
            return
        name, own = self.watched[id(module)]
        h = first_tensor(output)
        if h is None or h.numel() == 0:
            return
        if not own:  # a container that ends in a functional activation
            self._functional(name, h)
            return
        kind = MODULE_ACTIVATIONS.get(type(module))
        given = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
        z = given if kind in ("gelu", "silu") and given is not h else None
        self._record(name, type(module).__name__, kind, h, z, self._axis(module, h))

    def _axis(self, module: nn.Module | None, h: torch.Tensor) -> int:
        """Return the axis of the units: 1 after convolutions, the last one otherwise."""
        if isinstance(module, CHANNEL_MODULES):
            self.current.axes[tuple(h.shape)] = axis = 1 if h.ndim > 1 else -1
            return axis
        if module is not None and type(module) not in MODULE_ACTIVATIONS:
            default = 1 if isinstance(module, nn.modules.pooling._MaxPoolNd) else -1
            self.current.axes[tuple(h.shape)] = default
            return default
        return self.current.axes.get(tuple(h.shape), 1 if h.ndim in (4, 5) else -1)

    def _record(
        self, name: str, kind: str, activation: str | None, h: torch.Tensor,
        z: torch.Tensor | None, axis: int,
    ) -> None:  # fmt: skip
        run = self.current
        run.calls[name] = calls = run.calls.get(name, 0) + 1
        if h.grad_fn is not None:
            run.nodes[id(h.grad_fn)] = h.grad_fn
        if calls > self.max_calls:
            return
        name = name if calls == 1 else f"{name}#{calls}"
        value = h.detach()
        site = Site(name, kind, activation, h.numel(), h.numel() // h.shape[axis] if h.ndim else 1)
        site.norm = norm64(value)
        if activation is not None and h.ndim > 0:
            if activation in ONE_SIDED:
                # A ReLU's sign is 0 or 1, and quicker than `> 0`; 16 bits cannot hold its sum.
                quick = activation in ("relu", "relu6") and value.dtype == torch.float32
                on = torch.sign(value) if quick else value > 0
                site.active = count_units(on, axis)
            if activation != "relu":  # a ReLU is flat exactly where it is not active
                flat = flat_mask(activation, value, None if z is None else z.detach(), self.share)
                site.flat = None if flat is None else count_units(flat, axis)
        run.sites.append(site)
        if h.requires_grad:
            h.register_hook(partial(self._gradient, run, site))

    def _gradient(self, run: Pass, site: Site, grad: torch.Tensor) -> None:
        site.grad_norm = norm64(grad)
        run.differentiated = True


def fetch_sample(sample: Sample) -> Sample:
    """Bring a sample's numbers from the device to the host in one transfer."""
    values = [getattr(owner, name) for owner, name in sample.slots()]
    there = [k for k, value in enumerate(values) if isinstance(value, torch.Tensor)]
    remote = next((values[k].device for k in there if not values[k].is_cpu), None)
    if remote is None:
        for k in there:
            values[k] = values[k].numpy()
    else:
        precise = torch.float32 if remote.type == "mps" else torch.float64
        sizes = [values[k].numel() for k in there]
        host = torch.cat([values[k].reshape(-1).to(remote, precise) for k in there]).cpu().numpy()
        for k, start, size in zip(there, np.cumsum([0, *sizes]), sizes, strict=False):
            values[k] = host[start : start + size]
    sample.fill(values)
    return sample


class GradientFlowMonitor:
    r"""Record gradients, activations and updates of any `nn.Module` at every `every`-th step.

    Use it as a context manager around a training loop; the loop stays as it is. A step ends when
    the optimizers that move the model have stepped. With loops that update by hand, pass
    `optimizer=False` and call `monitor.step()` after each update.

    Arguments:
        model: any module, not yet handed to `torch.compile` (compiled code runs no hooks).
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
    accumulated ones, before clipping. Raises TypeError or ValueError for what is not of these.
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
        if hasattr(model, "_orig_mod"):
            raise ValueError("`model` (a compiled module) must be the module before torch.compile.")
        self.model, self.scaler = model, scaler
        self.optimizers = _check_optimizers(optimizer)
        self._recorder = FlowRecorder(
            framework="PyTorch", every=every, max_records=max_records, share=share
        )
        max_calls = require_integer("max_calls", max_calls, minimum=1)
        self._probe = FlowProbe(model, share=self._recorder.share, max_calls=max_calls)
        self._handles: list = []
        self._sample_handles: list = []
        self._entered = self._sampling = False
        self._step, self._expected = 0, None
        self._done: list[int] = []

    # Context -------------------------------------------------------------------------------

    def __enter__(self) -> GradientFlowMonitor:
        if self._entered:
            raise RuntimeError("This monitor is already in use; make a second one.")
        self._entered = True
        self._named = [(n, p) for n, p in self.model.named_parameters()]
        self._ids = {id(p): n for n, p in self._named}
        if self.optimizers is None:
            self._handles = [
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ]
        else:
            for rule in self.optimizers or ():
                self._handles.append(rule.register_step_pre_hook(self._before_step))
                self._handles.append(rule.register_step_post_hook(self._after_step))
        self._buffers: dict[str, torch.Tensor] = {}
        self._begin_step()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._sampling and self._done and exception[0] is None:
            self._finish_sample()
        self._end_sampling()
        while self._handles:
            self._handles.pop().remove()
        self._entered, self._buffers = False, {}

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
            self._measure_updates(self._named)
        self._close_step()

    # Steps ---------------------------------------------------------------------------------

    def _begin_step(self) -> None:
        self._done = []
        if not self._recorder.wants(self._step):
            return
        self._sampling = True
        self._raw, self._before, self._updates, self._norms, self._scale = {}, {}, {}, {}, None
        self._probe.attach()
        for name, parameter in self._named:
            if parameter.requires_grad:
                hook = partial(self._keep_gradient, name)
                self._sample_handles.append(parameter.register_post_accumulate_grad_hook(hook))
        if self.optimizers == ():
            self._measure_weights(self._named)

    def _end_sampling(self) -> None:
        self._probe.detach()
        self._probe.clear()
        while self._sample_handles:
            self._sample_handles.pop().remove()
        self._sampling = False
        self._before = {}

    def _keep_gradient(self, name: str, parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            self._raw[name] = norm64(parameter.grad)

    def _owned(self, optimizer: torch.optim.Optimizer) -> list[tuple[str, torch.Tensor]]:
        """Return the model's parameters that the optimizer moves, by name."""
        ids = self._ids
        return [
            (ids[id(p)], p)
            for group in optimizer.param_groups for p in group["params"] if id(p) in ids
        ]  # fmt: skip

    @torch.no_grad()
    def _measure_weights(self, named: list[tuple[str, torch.Tensor]]) -> None:
        for name, parameter in named:
            self._norms[name] = norm64(parameter)
            if parameter.requires_grad:
                if name not in self._buffers:  # kept: fresh memory costs more than the copy
                    self._buffers[name] = torch.empty_like(parameter)
                self._before[name] = self._buffers[name].copy_(parameter)

    @torch.no_grad()
    def _measure_updates(self, named: list[tuple[str, torch.Tensor]]) -> None:
        for name, parameter in named:
            before = self._before.pop(name, None)
            if before is not None:
                self._updates[name] = norm64(before.sub_(parameter))

    def _before_step(self, optimizer: torch.optim.Optimizer, *unused: object) -> None:
        owned = self._owned(optimizer) if self._sampling or not self._done else None
        if owned == []:
            return
        if id(optimizer) in self._done:  # it steps again: the step before has ended
            self._expected = set(self._done)
            self._close_step()
        if self._sampling:
            if self.scaler is not None and self.scaler.is_enabled():
                device = next((p.device for _, p in self._named), torch.device("cpu"))
                self._scale = self.scaler.scale(torch.ones((), device=device)).double()
            self._measure_weights(self._owned(optimizer))

    def _after_step(self, optimizer: torch.optim.Optimizer, *unused: object) -> None:
        owned = self._owned(optimizer)
        if not owned:
            return
        if self._sampling:
            self._measure_updates(owned)
        self._done.append(id(optimizer))
        if self._expected is None:
            missing = set(self._ids) - {id(p) for _, p in owned}
            self._covered = getattr(self, "_covered", set()) | set(self._ids) - missing
            waiting = {
                id(p) for _, p in self._named if p.requires_grad and p.grad is not None
            } - self._covered
            ended = not waiting
        else:
            ended = self._expected <= set(self._done)
        if ended:
            self._close_step()

    def _close_step(self) -> None:
        if self._sampling:
            self._finish_sample()
        self._end_sampling()
        self._covered = set()
        self._step += 1
        self._begin_step()

    def _finish_sample(self) -> None:
        states = []
        for name, parameter in self._named:
            layer = name.rpartition(".")[0] or type(self.model).__name__
            norm = self._norms.get(name)
            states.append(
                ParameterState(
                    name, layer, parameter.ndim, parameter.requires_grad, self._raw.get(name),
                    norm64(parameter) if norm is None else norm, self._updates.get(name),
                )
            )  # fmt: skip
        sample = Sample(self._step, self._probe.best_pass().sites, states, self._scale)
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
