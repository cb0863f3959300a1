"""The Jacobian of any PyTorch model at one input: whole, or as products with vectors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from course_lib._together import mixing_weights, require_agreement
from course_lib.inspection import randomized_singular_values
from course_lib.pytorch.passages import Passage, float64, noting_watchers, watches_gradients
from course_lib.pytorch.randomness import generators_kept
from course_lib.pytorch.watched import first_tensor


def _one(model: nn.Module, h: torch.Tensor) -> torch.Tensor:
    with generators_kept(seed=0):
        return first_tensor(model(h.unsqueeze(0))).squeeze(0)


@dataclass
class Linearization:
    """A model's output at one input, with the graph in between.

    Fields:
        start: x, which no operation of the model overwrites.
        output: f(x).
        watched: whether somebody looks at the gradients that pass, who has to be shown them one
            by one: many at once cannot be told from one, nor kept.
    """

    start: torch.Tensor
    output: torch.Tensor
    watched: bool

    @cached_property
    def weights(self) -> torch.Tensor:
        """Return a vector at the output, in no special direction."""
        drawn = torch.from_numpy(mixing_weights(self.output.numel()))
        return drawn.to(self.output).reshape(self.output.shape)

    @cached_property
    def reached(self) -> torch.Tensor | None:
        """Return the gradient at x along `weights`, or None if nothing leads there."""
        if not self.output.requires_grad:
            return None
        return torch.autograd.grad(
            self.output, self.start, self.weights, retain_graph=True, allow_unused=True
        )[0]


@torch.enable_grad()
def linearize(model: nn.Module, x: torch.Tensor) -> Linearization:
    """Run a model on one input without batch axis; of integers there will be no gradient."""
    start = x.clone().requires_grad_(x.is_floating_point())
    with noting_watchers() as noted:
        # An in-place activation would overwrite the input of which we want the derivative.
        output = _one(model, start.clone())
    return Linearization(start, output, bool(noted) or watches_gradients(model))


def require_path(at: Linearization) -> None:
    """Raise ValueError if the output cannot be differentiated by the input."""
    try:
        reached = at.reached
    except RuntimeError as error:
        problem = f"({type(error).__name__}: {error})"
        raise ValueError(f"`model` must be differentiable at `x` {problem}.") from error
    if reached is None:
        raise ValueError("`model` must have a gradient path from `x` to its output; it is cut.")


def stage_jacobians(stages: Sequence[nn.Module], at: Linearization) -> list[np.ndarray]:
    """Return each stage's float64 Jacobian (m, n) where the input leads, one after the other.

    Arguments:
        stages: modules, each of which takes what the one before returned.
        at: the first of them, or the only one, at the input.
    """
    matrices = []
    for k, stage in enumerate(stages):
        at = at if k == 0 else linearize(stage, at.output.detach())
        matrices.append(_jacobian(stage, at))
    return matrices


def _jacobian(model: nn.Module, at: Linearization) -> np.ndarray:
    m, n = at.output.numel(), at.start.numel()
    if at.reached is None:
        return np.zeros((m, n))
    ways = () if at.watched else (_columns, _rows) if 2 * n <= m else (_rows,)
    for way in ways:
        try:
            return way(model, at)
        except Exception:  # whatever it was: one vector alone is the measure of all
            at = linearize(model, at.start.detach())  # what was left half way is not used again
    return Passage(at.output, at.start, together=False).matrix()


def _rows(model: nn.Module, at: Linearization) -> np.ndarray:
    """Return the Jacobian from one vector per output."""
    passage = Passage(at.output, at.start, together=True)
    matrix = passage.matrix()
    if passage.together:
        _require_reached(matrix, at)
    return matrix


def _columns(model: nn.Module, at: Linearization) -> np.ndarray:
    """Return the Jacobian from one vector per input; raise an error if they have to go alone."""
    passage = _forwards(_linearize_twice(model, at.start.detach()), together=True)
    if not passage.together:
        raise ArithmeticError("Somebody's own code is on the way, or too much.")
    matrix = passage.matrix().T
    _require_reached(matrix, at)
    return matrix


def _require_reached(matrix: np.ndarray, at: Linearization) -> None:
    weights, reached = float64(at.weights).ravel(), float64(at.reached).ravel()
    require_agreement(matrix, weights, reached, torch.finfo(at.start.dtype).eps)


def _linearize_twice(model: nn.Module, x: torch.Tensor) -> Linearization:
    """Run a model so that its gradient can be differentiated too."""
    # Fused attention can be derived neither twice nor forwards; the same written out can.
    with sdpa_kernel(SDPBackend.MATH):
        return linearize(model, x)


def _forwards(at: Linearization, *, together: bool) -> Passage:
    """Return the passage along v -> J v.

    J^T u is linear in u: its derivative by u, along v, is J v (the double-backward trick).
    """
    with torch.enable_grad():
        u = torch.zeros_like(at.output, requires_grad=True)
        (pulled,) = torch.autograd.grad(at.output, at.start, u, create_graph=True)
    return Passage(pulled, u, together=together)


def randomized_spectrum(
    model: nn.Module, x: torch.Tensor, *, rank: int, iterations: int, seed: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the largest singular values of the Jacobian at x, and its shape (m, n)."""
    options = {"rank": rank, "iterations": iterations, "seed": seed}
    at = _linearize_twice(model, x)
    if not at.watched:
        try:
            return _iterate(model, at, together=True, **options)
        except Exception:  # as for the whole matrix
            at = _linearize_twice(model, x)
    return _iterate(model, at, together=False, **options)


def _iterate(
    model: nn.Module, at: Linearization, *, together: bool, rank: int, iterations: int, seed: int
) -> tuple[np.ndarray, tuple[int, int]]:
    m, n = at.output.numel(), at.start.numel()
    back = Passage(at.output, at.start, together=together)
    forth = _forwards(at, together=together)

    def columns(passage: Passage, vectors: np.ndarray) -> np.ndarray:
        return passage.carry(torch.from_numpy(vectors.T).to(passage.source)).T

    def push(vectors: np.ndarray) -> np.ndarray:
        found = None
        try:
            found = columns(forth, vectors)
            if np.isfinite(found).all():
                return found
        except RuntimeError:
            pass
        # Some functions cannot be derived twice, as hardsigmoid, or not at u = 0, as logcumsumexp.
        try:
            with sdpa_kernel(SDPBackend.MATH):
                return _push_forward(model, at.start.detach(), vectors)
        except RuntimeError:
            if found is None:
                raise
            return found

    values = randomized_singular_values(
        push, lambda u: columns(back, u), size=n, rank=min(rank, m, n),
        iterations=iterations, seed=seed,
    )  # fmt: skip
    return values, (m, n)


def _push_forward(model: nn.Module, x: torch.Tensor, vectors: np.ndarray) -> np.ndarray:
    """Return J V by forward-mode differentiation, which fewer operations know."""
    found = []
    for vector in vectors.T:
        v = torch.as_tensor(vector, device=x.device).to(x.dtype).reshape(x.shape)
        with torch.enable_grad(), forward_ad.dual_level():
            output = _one(model, _make_dual(x.clone(), v))
            tangent = forward_ad.unpack_dual(output).tangent
        found.append(float64(torch.zeros_like(output) if tangent is None else tangent).ravel())
    return np.stack(found, axis=1)


def _make_dual(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return x with the tangent v."""
    with warnings.catch_warnings():
        # PyTorch loads its rules at the first call, and from 2.14 on warns of its own TorchScript.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
        return forward_ad.make_dual(x, v)
