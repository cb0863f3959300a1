"""Inspect any PyTorch model once: its units, its Jacobian, its clipping, its recurrent layers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from course_lib._validation import (
    require_choice,
    require_integer,
    require_no_nan,
    require_real,
    require_seed,
)
from course_lib.diagnosis.trial import FirstCall
from course_lib.inspection import (
    SPECTRUM_METHODS,
    ClipAudit,
    JacobianSpectrum,
    LayerUnits,
    UnitReport,
    audit_clipping,
    noise_floor,
    randomized_singular_values,
    read_gradients,
    require_finite_layer,
)
from course_lib.monitoring import ONE_SIDED
from course_lib.pytorch.batches import call_model
from course_lib.pytorch.model_profiles import profile_recurrent_layers, recurrent_modules
from course_lib.pytorch.probe import FlowProbe
from course_lib.pytorch.randomness import generators_kept
from course_lib.pytorch.watched import first_tensor
from course_lib.recurrent_results import BPTTProfile


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and give every module its own mode back on leaving.

    Inside, tensors can be differentiated, even if the caller is in PyTorch's inference mode.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a torch.nn.Module.")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(False):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _like_model(model: nn.Module, x: object) -> torch.Tensor:
    """Return x on the model's device, in its precision unless x holds integers."""
    # Else an array would first go to the default device, wherever the model is.
    try:
        x = x if isinstance(x, torch.Tensor) else torch.as_tensor(x, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`x` (a {type(x).__name__}) must be a tensor or an array.") from error
    if x.is_complex():
        raise TypeError("`x` (complex numbers) must hold real numbers.")
    if x.is_floating_point() and x.isnan().any():
        require_no_nan("x", x.detach().double().cpu().numpy())
    x = x.clone() if x.is_inference() else x  # such a tensor takes no part in a graph
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is None:
        return x
    return x.to(first.device, first.dtype) if x.is_floating_point() else x.to(first.device)


def dead_units(
    model: nn.Module, x: object, *, batch_size: int = 256, share: float = 0.1
) -> UnitReport:
    """Return how often every unit of every activation is on and flat, over all of x.

    Arguments:
        model: any module; modules and functional activations are found alike. It is run in
            evaluation mode, and left in the mode in which it was.
        x: the inputs, first axis over the data set: an array or a tensor for `model(x)`, a dict of
            them for `model(**x)`, a tuple for `model(*x)`. Parts whose first axes differ (words
            beside offsets, sequences with time first) are run at once. Gates of recurrent layers
            are counted on the first sequences of each batch (`course_lib.gates`).
        batch_size: how many are run at a time.
        share: the share of the largest slope below which a value counts as saturated.

    Random numbers that the model draws in evaluation mode too are always the same ones.
    """
    batch_size = require_integer("batch_size", batch_size, minimum=1)
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    totals: dict[str, list] = {}
    # Functional activations leave a trace in a graph.
    with generators_kept(seed=0), evaluating(model), torch.enable_grad():
        inputs = {k: _data_set(model, part) for k, part in _named(x).items()}
        count = len(next(iter(inputs.values())))
        if any(len(part) != count for part in inputs.values()):
            batch_size = max(map(len, inputs.values()))  # the first axis is not the data set's
        call = FirstCall("x", "`model` can be called on", call_model)
        for start in range(0, count, batch_size):
            rows = {k: part[start : start + batch_size] for k, part in inputs.items()}
            probe = FlowProbe(model, share=share, max_calls=64)
            probe.attach()
            try:
                call(model, rows if isinstance(x, Mapping) else tuple(rows.values()))
                sites = probe.current.sites
            finally:
                probe.detach()
                probe.clear()
            for site in sites:
                if site.activation is not None:
                    require_finite_layer(site.name, site.norm)
                    _add_counts(totals, site)
    layers = [
        LayerUnits(
            name,
            activation,
            active / rows if activation in ONE_SIDED else None,
            None if flat is None else flat / rows,
        )
        for name, (activation, rows, active, flat) in totals.items()
    ]
    return UnitReport("PyTorch", count, share, tuple(layers))


def _named(x: object) -> dict:
    """Return the parts of a model's input, by name or by place."""
    if isinstance(x, Mapping) and x:
        return dict(x)
    return dict(enumerate(x)) if isinstance(x, tuple) and x else {0: x}


def _data_set(model: nn.Module, x: object) -> torch.Tensor:
    x = _like_model(model, x)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"`x` (shape {tuple(x.shape)}) must hold at least one input.")
    return x.detach().requires_grad_() if x.is_floating_point() else x


def _add_counts(totals: dict, site: object) -> None:
    active, flat = (
        None if v is None else v.cpu().double().numpy() for v in (site.active, site.flat)
    )
    before = totals.get(site.name)
    if before is None:
        totals[site.name] = [site.activation, site.rows, active, flat]
        return
    before[1] += site.rows
    before[2] = None if active is None else before[2] + active
    before[3] = None if flat is None else before[3] + flat


def saturation(
    model: nn.Module, x: object, *, batch_size: int = 256, share: float = 0.1
) -> dict[str, float]:
    r"""Return, by layer, the fraction of values at which $|f'(z)| < s \sup|f'|$, over all of x.

    The arguments are those of `dead_units`; layers whose activation has no flat part are left out.
    """
    report = dead_units(model, x, batch_size=batch_size, share=share)
    found = {layer.name: layer.saturated_fraction for layer in report.layers}
    return {name: value for name, value in found.items() if value == value}


def jacobian_spectrum(
    model: nn.Module,
    x: object,
    *,
    method: str = "exact",
    rank: int = 8,
    iterations: int = 8,
    seed: int = 0,
) -> JacobianSpectrum:
    r"""Return the singular values of $\partial f/\partial x$ at one input x (no batch axis).

    Arguments:
        model: any module with a tensor in and a tensor out (or an output that holds one: the first
            counts); run in evaluation mode.
        x: one input, of any shape; both sides are flattened.
        method: "exact" (the whole matrix, n or m passes), "product" (an `nn.Sequential`: each
            stage's matrix, multiplied in float64), or "randomized" (the `rank` largest from
            products with vectors, for large models).
        rank, iterations, seed: of the randomized method.

    A model that draws random numbers in evaluation mode too draws the same ones at every call, so
    that there is one function to differentiate. Raises ValueError if there is no gradient path from
    the input to the output, or one that PyTorch cannot follow.
    """
    method = require_choice("method", method, SPECTRUM_METHODS)
    with evaluating(model):
        x = _like_model(model, x).detach()
        FirstCall("x", "`model` can be called on", _one)(model, x.clone())
        if not x.is_floating_point():
            raise ValueError(f"`x` ({x.dtype}) must hold real numbers: integers have no Jacobian.")
        if method == "product" and not isinstance(model, nn.Sequential):
            raise TypeError(f"`model` (a {type(model).__name__}) must be an nn.Sequential.")
        _require_path(model, x)
        dtype = str(x.dtype).removeprefix("torch.")
        eps = torch.finfo(x.dtype).eps
        if method == "randomized":
            rank = require_integer("rank", rank, minimum=1)
            iterations = require_integer("iterations", iterations, minimum=1)
            values, shape = _randomized(
                model, x, rank=rank, iterations=iterations, seed=require_seed(seed)
            )
            factors = 1
        else:
            stages = list(model) if method == "product" else [model]
            matrices = _stage_jacobians(stages, x)
            matrix = matrices[0]
            for stage in matrices[1:]:
                matrix = stage @ matrix
            shape, factors = matrix.shape, len(matrices)
            if not np.all(np.isfinite(matrix)):
                raise ValueError("`model` must have a finite Jacobian at `x`.")
            values = np.linalg.svd(matrix, compute_uv=False)
    floor = noise_floor(values, shape, eps, factors=factors)
    return JacobianSpectrum("PyTorch", dtype, method, tuple(map(int, shape)), values, floor)


def _one(model: nn.Module, h: torch.Tensor) -> torch.Tensor:
    with generators_kept(seed=0):
        return first_tensor(model(h.unsqueeze(0))).squeeze(0)


@torch.enable_grad()
def _require_path(model: nn.Module, x: torch.Tensor) -> None:
    """Raise ValueError if the output at x cannot be differentiated by x."""
    start = x.clone().requires_grad_()
    output = _one(model, start.clone())
    reached = None
    if output.requires_grad:
        try:
            (reached,) = torch.autograd.grad(output.sum(), start, allow_unused=True)
        except RuntimeError as error:
            problem = f"({type(error).__name__}: {error})"
            raise ValueError(f"`model` must be differentiable at `x` {problem}.") from error
    if reached is None:
        raise ValueError("`model` must have a gradient path from `x` to its output; it is cut.")


def _stage_jacobians(stages: Sequence[nn.Module], x: torch.Tensor) -> list[np.ndarray]:
    matrices = []
    for stage in stages:
        # An in-place activation would overwrite the input of which we want the derivative.
        jacobian = torch.autograd.functional.jacobian(lambda h, f=stage: _one(f, h.clone()), x)
        matrices.append(jacobian.reshape(-1, x.numel()).double().cpu().numpy())
        with torch.no_grad():
            x = _one(stage, x.clone())
    return matrices


def _randomized(
    model: nn.Module, x: torch.Tensor, *, rank: int, iterations: int, seed: int
) -> tuple[np.ndarray, tuple[int, int]]:
    # Fused attention can be derived neither twice nor forwards; the same written out can.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        start = x.clone().requires_grad_()
        output = _one(model, start.clone())
        m, n = output.numel(), x.numel()
        probe = torch.zeros_like(output, requires_grad=True)
        # J^T u is linear in u: its derivative by u, along v, is J v (the double-backward trick).
        (pulled,) = torch.autograd.grad(output, start, probe, create_graph=True)

        def columns(source: torch.Tensor, wrt: torch.Tensor, vectors: np.ndarray) -> np.ndarray:
            found = []
            for vector in vectors.T:
                v = torch.as_tensor(vector, device=x.device).to(x.dtype).reshape(source.shape)
                grad = torch.autograd.grad(source, wrt, v, retain_graph=True)[0]
                found.append(grad.reshape(-1).double().cpu().numpy())
            return np.stack(found, axis=1)

        def push(vectors: np.ndarray) -> np.ndarray:
            try:
                return columns(pulled, probe, vectors)
            except RuntimeError:  # some functions, as hardsigmoid, cannot be derived twice
                return _push_forward(model, x, vectors)

        values = randomized_singular_values(
            push, lambda u: columns(output, start, u), size=n, rank=min(rank, m, n),
            iterations=iterations, seed=seed,
        )  # fmt: skip
    return values, (m, n)


def _push_forward(model: nn.Module, x: torch.Tensor, vectors: np.ndarray) -> np.ndarray:
    """Return J V by forward-mode differentiation, which fewer operations know."""
    found = []
    for vector in vectors.T:
        v = torch.as_tensor(vector, device=x.device).to(x.dtype).reshape(x.shape)
        with forward_ad.dual_level():
            output = _one(model, _make_dual(x.clone(), v))
            tangent = forward_ad.unpack_dual(output).tangent
        found.append((output if tangent is None else tangent).detach().reshape(-1).double().cpu())
        if tangent is None:
            found[-1].zero_()
    return torch.stack(found, dim=1).numpy()


def _make_dual(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return x with the tangent v."""
    with warnings.catch_warnings():
        # PyTorch loads its rules at the first call, and from 2.14 on warns of its own TorchScript.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        return forward_ad.make_dual(x, v)


def clip_audit(
    model: nn.Module,
    gradients: Sequence[torch.Tensor | None] | None = None,
    *,
    method: str = "global_norm",
    threshold: float,
) -> ClipAudit:
    """Return what clipping would do to the gradients that the model's parameters hold.

    Arguments:
        model: any module after `backward()` (and `scaler.unscale_`); nothing is changed.
        gradients: one per parameter and of its shape, as a tensor or an array; None entries are
            left out. The parameters' `.grad` if None.
        method: "value" (`clip_grad_value_`), "norm" (`clip_grad_norm_` on each tensor by itself)
            or "global_norm" (`clip_grad_norm_` on all).
        threshold: > 0.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a torch.nn.Module.")
    named = list(model.named_parameters())
    if gradients is None:
        gradients = [p.grad for _, p in named]
    shapes = [(name, parameter.shape) for name, parameter in named]
    names, held = read_gradients(gradients, shapes, convert=_dense_gradient)
    reported = torch.nn.utils.get_total_norm(held).item() if held else 0.0
    return audit_clipping(
        names,
        [g.double().cpu().numpy() for g in held],
        method=method,
        threshold=threshold,
        reported_norm=reported,
        framework="PyTorch",
        slack=1e-6,
    )


def _dense_gradient(gradient: object) -> torch.Tensor:
    """Return a gradient as a dense tensor; raise TypeError for what holds no real numbers."""
    if isinstance(gradient, np.ndarray):
        gradient = torch.tensor(gradient.copy(), device="cpu")
    if not isinstance(gradient, torch.Tensor) or not gradient.is_floating_point():
        raise TypeError("no tensor of real numbers")
    gradient = gradient.detach()
    return gradient.to_dense() if gradient.is_sparse else gradient


def bptt_gradient_profile(model: nn.Module, x: object) -> dict[str, BPTTProfile]:
    """Return the gradient's norm over time for every recurrent layer of a model, by name.

    Fused `nn.RNN`, `nn.LSTM` and `nn.GRU` do not show their steps to hooks. What goes into each
    of them is caught, every layer and direction is taken by itself, and `bptt_profile` gives the
    profile of a loss at its last step. Names are those of the modules, with the parameters'
    suffix (`_l1`, `_l0_reverse`) where a module has several layers or directions. Of packed
    sequences the longest count. A cell that is called step by step is a layer too, unless its
    state is changed between two steps, as by dropout.

    Arguments:
        model: any module that holds one of them; run in evaluation mode.
        x: a batch for it: an array or a tensor for `model(x)`, a dict of them for `model(**x)`, a
            tuple for `model(*x)`.

    Raises ValueError for projections, which have no closed recursion, and if no layer is left.
    """
    with generators_kept(seed=0), evaluating(model):
        if not recurrent_modules(model):
            raise ValueError("`model` must hold an nn.RNN, nn.LSTM or nn.GRU, or their cells.")
        inputs = {k: _like_model(model, part) for k, part in _named(x).items()}
        call = FirstCall("x", "`model` can be called on", call_model)
        given = inputs if isinstance(x, Mapping) else tuple(inputs.values())
        found = profile_recurrent_layers(model, lambda: call(model, given), strict=True)
    if not found:
        raise ValueError("`model` must call a recurrent layer, or a cell on its own state.")
    return found
