"""Inspect any PyTorch model once: its units, its Jacobian, its clipping, its recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

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
    read_gradients,
    require_finite_layer,
)
from course_lib.monitoring import ONE_SIDED
from course_lib.pytorch.batches import call_model
from course_lib.pytorch.compiled import as_written, unwrapped, written_name
from course_lib.pytorch.jacobian_products import (
    linearize,
    randomized_spectrum,
    require_path,
    stage_jacobians,
)
from course_lib.pytorch.model_profiles import profile_recurrent_layers, recurrent_modules
from course_lib.pytorch.probe import FlowProbe
from course_lib.pytorch.randomness import generators_kept
from course_lib.recurrent_results import BPTTProfile

OPTIONS = (bool, str, type(None))
"""What a model may be called with beside its data, and is no part of it."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put the model into evaluation mode, and give every module its own mode back on leaving.

    Inside, tensors can be differentiated, even if the caller is in PyTorch's inference mode, and
    nothing runs compiled. What is given is the model as it was before `torch.compile`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a torch.nn.Module.")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(False), as_written():
            yield unwrapped(model)
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
            beside offsets, sequences with time first) are run at once. A list of tensors is one of
            inputs, as detectors take it; True, False, None and words are handed on. Gates of
            recurrent layers are counted on the first sequences of each batch (`course_lib.gates`).
        batch_size: how many are run at a time.
        share: the share of the largest slope below which a value counts as saturated.

    Random numbers that the model draws in evaluation mode too are always the same ones.
    """
    batch_size = require_integer("batch_size", batch_size, minimum=1)
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    totals: dict[str, list] = {}
    # Functional activations leave a trace in a graph.
    with generators_kept(seed=0), evaluating(model) as model, torch.enable_grad():
        inputs = {k: _data_set(model, part) for k, part in _named(x).items()}
        sizes = [len(part) for part in inputs.values() if not isinstance(part, OPTIONS)]
        if not sizes:
            raise TypeError(f"`x` (a {type(x).__name__}) must be a tensor or an array.")
        count = sizes[0]
        if len(set(sizes)) > 1:
            batch_size = max(sizes)  # the first axis is not the data set's
        call = FirstCall("x", "`model` can be called on", call_model)
        for start in range(0, count, batch_size):
            rows = {k: part if isinstance(part, OPTIONS) else part[start : start + batch_size]
                    for k, part in inputs.items()}  # fmt: skip
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


def _data_set(model: nn.Module, x: object) -> object:
    if isinstance(x, OPTIONS):
        return x
    if isinstance(x, list) and x and all(isinstance(t, torch.Tensor) and t.ndim > 1 for t in x):
        return [_data_set(model, part) for part in x]
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
        method: "exact" (the whole matrix), "product" (an `nn.Sequential`: each stage's matrix,
            multiplied in float64), or "randomized" (the `rank` largest from products with vectors,
            for large models).
        rank, iterations, seed: of the randomized method.

    Many rows of a matrix are computed together, as by `torch.func.jacrev`, but with at most 128 MB
    of gradients on their way, and compared with a pass alone. Where that is no good (functions of
    your own without `generate_vmap_rule`, hooks on gradients, rules of PyTorch's that are wrong),
    it is one row after the other.

    A model that draws random numbers in evaluation mode too draws the same ones at every call, so
    that there is one function to differentiate. Raises ValueError if there is no gradient path from
    the input to the output, or one that PyTorch cannot follow.
    """
    method = require_choice("method", method, SPECTRUM_METHODS)
    with evaluating(model) as model:
        x = _like_model(model, x).detach()
        at = FirstCall("x", "`model` can be called on", linearize)(model, x)
        if not x.is_floating_point():
            raise ValueError(f"`x` ({x.dtype}) must hold real numbers: integers have no Jacobian.")
        if method == "product" and not isinstance(model, nn.Sequential):
            raise TypeError(f"`model` (a {type(model).__name__}) must be an nn.Sequential.")
        require_path(at)
        dtype = str(x.dtype).removeprefix("torch.")
        eps = torch.finfo(x.dtype).eps
        if method == "randomized":
            rank = require_integer("rank", rank, minimum=1)
            iterations = require_integer("iterations", iterations, minimum=1)
            values, shape = randomized_spectrum(
                model, x, rank=rank, iterations=iterations, seed=require_seed(seed)
            )
            factors = 1
        else:
            if method == "product" and len(model):
                matrices = stage_jacobians(list(model), linearize(model[0], x))
            else:
                matrices = stage_jacobians([model], at)
            matrix = matrices[0]
            for stage in matrices[1:]:
                matrix = stage @ matrix
            shape, factors = matrix.shape, len(matrices)
            if not np.all(np.isfinite(matrix)):
                raise ValueError("`model` must have a finite Jacobian at `x`.")
            values = np.linalg.svd(matrix, compute_uv=False)
    floor = noise_floor(values, shape, eps, factors=factors)
    return JacobianSpectrum("PyTorch", dtype, method, tuple(map(int, shape)), values, floor)


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
    named = [(written_name(name), p) for name, p in model.named_parameters()]
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
    with generators_kept(seed=0), evaluating(model) as model:
        if not recurrent_modules(model):
            raise ValueError("`model` must hold an nn.RNN, nn.LSTM or nn.GRU, or their cells.")
        inputs = {k: _like_model(model, part) for k, part in _named(x).items()}
        call = FirstCall("x", "`model` can be called on", call_model)
        given = inputs if isinstance(x, Mapping) else tuple(inputs.values())
        found = profile_recurrent_layers(model, lambda: call(model, given), strict=True)
    if not found:
        raise ValueError("`model` must call a recurrent layer, or a cell on its own state.")
    return found
