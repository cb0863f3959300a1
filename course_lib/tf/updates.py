"""How far an optimizer's step moves each variable, told by the step itself where that is possible.

Most of Keras's rules end in one `optimizer.assign_sub(variable, update)`: the update is at hand
then, and nothing has to be kept from before. What a rule subtracts and how far the variable then
moves differ by rounding, at most half a unit in the last place: 6e-8 of a float32 variable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from course_lib.tf.patching import override, restore

RULES = tuple(
    getattr(keras.optimizers, name)
    for name in ("SGD", "Adam", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta", "Lion")
)
"""Keras's own rules that change a variable by `assign_sub` or `assign_add` only."""


def says_its_updates(optimizer: keras.Optimizer) -> bool:
    """Return whether the optimizer does nothing to a variable besides its rule."""
    return type(optimizer) in RULES and not (
        optimizer.use_ema or optimizer.weight_decay or optimizer.gradient_accumulation_steps
    )


class ToldUpdates:
    """The updates that an optimizer's step names, by variable."""

    def __init__(self) -> None:
        self._given: dict[int, list[tf.Tensor | None]] = {}

    @contextmanager
    def listen(self, optimizer: keras.Optimizer) -> Iterator[None]:
        """Hear what the optimizer does to variables within the context."""
        patched: list[tuple[object, str, object]] = []
        try:
            if says_its_updates(optimizer):
                for name in ("assign", "assign_add", "assign_sub"):
                    override(optimizer, name, self._heard(optimizer, name), patched)
            yield
        finally:
            restore(patched)

    def _heard(self, optimizer: keras.Optimizer, name: str) -> Callable:
        change = getattr(optimizer, name)

        def heard(variable: object, value: object) -> None:
            told = None
            if name != "assign" and not isinstance(value, tf.IndexedSlices):
                value = told = tf.convert_to_tensor(value)
            self._given.setdefault(_key(variable), []).append(told)
            change(variable, value)

        return heard

    def update(self, variable: keras.Variable) -> tf.Tensor | None:
        """Return what was added to or subtracted from a variable, None if that is not known."""
        given = self._given.get(_key(variable), [])
        exact = variable.dtype in ("float32", "float64") and variable.constraint is None
        if len(given) != 1 or given[0] is None or not exact:
            return None
        return given[0] if given[0].shape == variable.shape else None


def measure_around(trace: object, grads: list, moved: list[keras.Variable]) -> list[tuple]:
    """Measure gradients and weights for a rule that is called in a branch or a loop of the graph.

    What is in there cannot be brought out. So only gradients are measured that come from outside,
    and the weights are read around the whole of it: what is returned is, for each of them, its
    state, the variable, and its value before.
    """
    around = []
    with trace.place.as_default():
        for grad, variable in zip(grads, moved, strict=True):
            if id(variable) not in trace.names:
                continue
            state, old = trace.state(variable), tf.identity(variable.value)
            if getattr(grad, "graph", None) is trace.place:
                norm = functools.partial(trace.packer.norm, state, "grad_norm")
                trace.read((grad,), norm, gradient=True)
            trace.packer.norm(state, "norm", old)
            around.append((state, variable, old))
    return around


def _key(variable: object) -> int:
    return id(variable.value if isinstance(variable, keras.Variable) else variable)
