"""Hooks that measure what every layer of a model puts out, and the loss's gradient there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from course_lib.monitoring import ONE_SIDED, Site, flat_mask
from course_lib.pytorch import graph
from course_lib.pytorch.compiled import Uncompiled, unwrapped, written_name
from course_lib.pytorch.gates import measure_gates
from course_lib.pytorch.norms import norm64, norms64
from course_lib.pytorch.watched import Pass, Watched, count_units, first_tensor

HELD = 1 << 22
"""Bytes of outputs and gradients that a pass may hold until they are measured together."""

MET = 1 << 25
"""Bytes of outputs that a pass may hold to see which are never overwritten in place."""


class FlowProbe:
    """Forward hooks that measure every layer's output, and node hooks on those outputs.

    Arguments:
        model: the module whose layers are watched.
        share: the share of the largest slope below which a value counts as saturated.
        max_calls: how many calls of one module are recorded in a pass.
        on_gradient: called when a gradient comes through, from within the backward pass; says
            whether it is the first one there.
    """

    def __init__(
        self, model: nn.Module, *, share: float, max_calls: int,
        on_gradient: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.share, self.max_calls = model, share, max_calls
        self.on_gradient = on_gradient
        self.handles: list = []
        self.watched: dict[int, Watched] = {}
        for name, module in model.named_modules():
            if "parametrizations" in name.split("."):  # they make weights, and are no layers
                continue
            if unwrapped(module) is module:
                self.watched[id(module)] = Watched(written_name(name), module)
        self.watched[id(model)].plain = False  # where it ends the pass ends
        self.current, self.kept = Pass(), None
        self._signed: tuple | None = None
        self._carrier = torch.empty(0)  # hands a hook to a node, at a third of the usual cost
        self.steady: set[str] = set()  # sites whose output was still as it was after a pass
        self.starters: set[str] = set()  # sites with the first gradient of some backward pass

    def attach(self) -> None:
        """Put the hooks on; `detach` takes them off.

        Two hooks on all modules, which look up who is being called, are put on and taken off
        faster than two on each.
        """
        self.clear()
        self.handles = [
            Uncompiled(),
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
                run.close()
        self.current, self.kept = Pass(), None

    def best_pass(self) -> Pass:
        """Return the latest pass that was differentiated, or the latest."""
        run = self.current
        if not run.differentiated and self.kept is not None:
            run = self.kept
        self.settle(run)
        return run

    def settle(self, run: Pass | None = None) -> None:
        """Measure what was held, now that the backward pass is through."""
        run = run or self.current
        for site, watched, h, version in run.met:
            if h._version == version:
                self.steady.add(site.name)
                watched.steady = site.name == watched.name and not h._backward_hooks
                came = site.grad_norm is not None or site in run.gradients
                watched.follows = came and site.name not in self.starters
        self._measure_outputs(run)
        self._measure_gradients(run)
        if not run.inside:
            run.met.clear()

    def _measure_outputs(self, run: Pass) -> None:
        """Measure the outputs that are held."""
        if not run.outputs:
            return
        sites, tensors = [], []
        with torch.no_grad():
            for site, h, version, axis in run.outputs:
                if h._version == version:
                    sites.append(site)
                    tensors.append(h)
                    if site.activation is not None:
                        self._count(site, h, None, axis)
                    continue
                self.steady.discard(site.name)  # never so before: from now on measured at once
                for watched in self.watched.values():
                    watched.steady &= watched.name != site.name
        for site, norm in zip(sites, norms64(tensors), strict=True):
            site.norm = norm
        run.outputs, run.held = [], 0

    def _measure_gradients(self, run: Pass) -> None:
        """Measure the gradients that are held."""
        if run.differentiated:
            norms = norms64(list(run.gradients.values()))
            for site, norm in zip(run.gradients, norms, strict=True):
                site.grad_norm = norm
            run.gradients.clear()
            run.held = 0

    def catch_up(self) -> bool:
        """Measure gradients of which nothing was heard, and say whether there are such.

        A backward pass may begin where none began before: at a site whose hook only keeps the
        gradient. Then no hook of this model does so any more.
        """
        missed = bool(self.current.gradients)
        if missed:
            self.settle()
            for watched in self.watched.values():
                watched.plain = False
        return missed

    def _begin_pass(self) -> None:
        """Keep the pass so far if it was differentiated, and begin another."""
        if self.current.differentiated:
            self.settle()
            self.kept = self.current
        self.current.close()
        self.current = Pass()

    def _before(self, module: nn.Module, inputs: tuple) -> None:
        """See a pass begin, and a functional activation at an input: `self.linear2(F.relu(h))`."""
        if module is self.model and torch.is_grad_enabled():
            self._begin_pass()
        given = inputs[0] if inputs else None
        node = given.grad_fn if isinstance(given, torch.Tensor) else None
        if node is None or id(node) in self.current.nodes:
            return
        watched = self.watched.get(id(module))
        if watched is not None and torch.is_grad_enabled() and not graph.transformed():
            self._functional(f"{watched.name}.input", given)

    def _after(self, module: nn.Module, inputs: tuple, output: object) -> None:
        watched = self.watched.get(id(module))
        if watched is None or graph.transformed():
            return
        if watched.steady and watched.plain and self._again(watched, output):
            return
        blind = not torch.is_grad_enabled()
        if module is self.model and not blind:
            self.current.inside = False
            self._measure_outputs(self.current)  # before the backward pass needs memory
        if blind and not self.current.inside:  # an evaluation
            return
        h = output if isinstance(output, torch.Tensor) else first_tensor(output)
        if h is None or not h.is_floating_point() or h.numel() == 0:
            return
        if not watched.own:  # a container that ends in a functional activation
            self._functional(watched.name, h)
            return
        run, node, name = self.current, h.grad_fn, watched.name
        kind, z = (None, None) if watched.linear else self._activation(watched, inputs, h)
        if node is not None:
            # What happens inside, as in attention; a function without parameters is one activation.
            if kind is None and not (watched.linear or blind) and watched.parametric:
                self._functional(name, h)
            run.nodes[id(node)] = node
        axis = self._axis(watched, h)
        if watched.recurrent and not blind:
            measure_gates(module, inputs, share=self.share, new_site=self._new_site, name=name)
        site = self._new_site(name, watched.kind, kind)
        if site is None:
            return
        if blind:
            run.blind[site.name] = site
            self._measure(site, h, z, axis)
            return
        site.size = h.numel()
        if node is not None and z is None and site.name in self.steady:
            run.outputs.append((site, h, h._version, axis))
            self._hold(run, h)
        else:
            self._measure(site, h, z, axis)
            if node is not None and run.met_bytes < MET:
                run.met.append((site, watched, h, h._version))
                run.met_bytes += h.nbytes
        if node is not None:  # a hook on the node costs half of one on the tensor
            node.register_prehook(partial(self._node_gradient, run, site, h.output_nr))
        elif h.requires_grad:
            h.register_hook(partial(self._gradient, run, site))

    def _again(self, watched: Watched, h: object) -> bool:
        """Take the first call of a plain and steady module in few steps, or return False."""
        run, name = self.current, watched.name
        if type(h) is not torch.Tensor or name in run.calls or run.blind:
            return False
        node = h.grad_fn
        if node is None or h.output_nr or not torch.is_grad_enabled() or h.numel() == 0:
            return False
        run.calls[name] = 1
        run.nodes[id(node)] = node
        nbytes = h.nbytes
        site = Site(name, watched.kind, watched.activation, h.numel(), 1)
        run.sites.append(site)
        run.outputs.append((site, h, h._version, self._axis(watched, h)))
        run.held += nbytes
        run.expected += nbytes
        if run.held > HELD:
            self._measure_outputs(run)
        if run.expected < HELD and watched.follows:  # no function of Python's needs to run
            hooks = {0: partial(run.gradients.__setitem__, site)}
            run.hooks.append(hooks)
        else:
            hooks = {0: partial(self._gradient, run, site)}
        self._carrier._backward_hooks = hooks
        node._register_hook_dict(self._carrier)
        return True

    def _activation(
        self, watched: Watched, inputs: tuple, h: torch.Tensor
    ) -> tuple[str | None, torch.Tensor | None]:
        """Return which activation a module is, if any, and its input where that is needed."""
        kind = watched.activation
        if kind is not None:
            given = inputs[0] if inputs else None
            plain = isinstance(given, torch.Tensor) and given is not h
            return kind, given if plain and kind in graph.NEEDS_INPUT else None
        if h.grad_fn is None:
            return None, None
        kind = graph.activation_of(h.grad_fn)  # somebody's own class for a known function
        saved = graph.saved_values(h.grad_fn, kind) if kind in graph.NEEDS_INPUT else None
        return kind, saved[1] if saved else None

    # Functional activations ----------------------------------------------------------------

    @torch.no_grad()
    def _functional(self, name: str, h: torch.Tensor) -> None:
        """Measure the activations between the modules seen so far and h."""
        top = h.grad_fn
        if top is None or id(top) in self.current.nodes:
            return
        run, found = self.current, list(graph.walk(top, self.current.nodes))
        for node in reversed(found):  # the first to be computed first
            if node.name() in graph.ATTENTION:
                self._attention(name, node)
                continue
            kind = graph.activation_of(node)
            if kind is None:
                continue
            direct = node is top and kind not in graph.NEEDS_INPUT
            values = (h, None) if direct else graph.saved_values(node, kind)
            if values is None and node is top:
                values = (h, None)
            if values is None or values[0].numel() == 0:
                continue
            axis = self._axis(None, values[0])
            site = self._new_site(f"{name} ({kind})", kind, kind)
            if site is not None:
                self._measure(site, *values, axis)
                node.register_prehook(partial(self._node_gradient, run, site, 0))

    def _attention(self, name: str, node: object) -> None:
        weights = graph.attention_weights(node)
        if weights is None or weights.ndim < 3 or weights.numel() == 0:
            return
        flat = graph.flat_rows(weights, self.share)
        site = self._new_site(f"{name} (softmax)", "softmax", "softmax")
        if site is not None:
            site.size = flat.numel()
            axis = 1 if weights.ndim == 4 else 0  # the heads
            site.rows = flat.numel() // flat.shape[axis]
            site.flat = count_units(flat, axis)

    # Measuring -----------------------------------------------------------------------------

    def _axis(self, watched: Watched | None, h: torch.Tensor) -> int:
        """Return the axis of the units: 1 after convolutions, the last one otherwise."""
        axes, shape = self.current.axes, h.shape
        if watched is None or watched.axis is None:  # as in the layer before, of the same shape
            return axes.get(shape, 1 if len(shape) in (4, 5) else -1)
        axes[shape] = axis = watched.axis if len(shape) > 1 else -1
        return axis

    def _new_site(self, name: str, kind: str, activation: str | None) -> Site | None:
        """Return a site for one more call under this name, or None if there were enough."""
        run = self.current
        if name in run.blind and torch.is_grad_enabled():  # a checkpoint runs it again
            return run.blind.pop(name)
        if name in run.calls and graph.within_backward():  # a checkpoint again, seen before
            return None
        run.calls[name] = calls = run.calls.get(name, 0) + 1
        if calls > self.max_calls:
            return None
        site = Site(name if calls == 1 else f"{name}#{calls}", kind, activation, 1, 1)
        run.sites.append(site)
        return site

    @torch.no_grad()
    def _measure(self, site: Site, h: torch.Tensor, z: torch.Tensor | None, axis: int) -> None:
        site.norm = norm64(h)
        self._count(site, h, z, axis)

    def _count(self, site: Site, h: torch.Tensor, z: torch.Tensor | None, axis: int) -> None:
        kind, size = site.activation, h.numel()
        if kind is None or h.ndim == 0:
            return
        site.size, site.rows = size, size // h.shape[axis]
        if kind in ONE_SIDED:
            # A ReLU's sign is 0 or 1, and quicker than `> 0`; 16 bits cannot hold its sum.
            quick = kind in ("relu", "relu6") and h.dtype is torch.float32
            site.active = count_units(self._signs(h) if quick else h > 0, axis)
        if kind != "relu":  # a ReLU is flat exactly where it is not active
            flat = flat_mask(kind, h, z, self.share)
            site.flat = None if flat is None else count_units(flat, axis)

    def _signs(self, h: torch.Tensor) -> torch.Tensor:
        """Return the signs in a buffer that is used again: fresh memory costs more than signs."""
        key = (h.shape, h.stride(), h.device)
        if self._signed is None or self._signed[0] != key:
            with torch.inference_mode(False):  # an evaluation may come first, and training after
                self._signed = key, torch.empty_like(h)
        return torch.sign(h, out=self._signed[1])

    def _gradient(self, run: Pass, site: Site, grad: torch.Tensor) -> None:
        if not run.closed:
            run.gradients[site] = grad
            self._hold(run, grad)
        if self.on_gradient is not None and self.on_gradient():
            self.starters.add(site.name)

    def _hold(self, run: Pass, tensor: torch.Tensor) -> None:
        run.held += tensor.nbytes
        if run.held > HELD:
            self._measure_outputs(run)
            self._measure_gradients(run)

    def _node_gradient(self, run: Pass, site: Site, output: int, grads: tuple) -> None:
        if grads[output] is not None:
            self._gradient(run, site, grads[output])
