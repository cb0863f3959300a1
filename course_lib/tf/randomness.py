"""Random numbers of a Keras model that is looked at: the same ones in every pass.

TensorFlow's stateful operations cannot be rewound: each keeps a count of its own inside the
runtime. So while a pass is called or traced, stateless ones of TensorFlow's stand in for them, and
no generator of the reader's moves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.framework import random_seed
from tensorflow.python.ops import gen_random_ops

_SHARED = "global_seed_generator"
"""Where Keras keeps the generator that `keras.random` draws from where it is given none."""

STATELESS = {
    "random_standard_normal": lambda shape, dtype, *, seed: tf.random.stateless_normal(
        shape, seed, dtype=dtype
    ),
    "truncated_normal": lambda shape, dtype, *, seed: tf.random.stateless_truncated_normal(
        shape, seed, dtype=dtype
    ),
    "random_uniform": lambda shape, dtype, *, seed: tf.random.stateless_uniform(
        shape, seed, dtype=dtype
    ),
    "random_uniform_int": lambda shape, low, high, *, seed: tf.random.stateless_uniform(
        shape, seed, low, high, dtype=low.dtype
    ),
    "random_gamma": lambda shape, alpha, *, seed: tf.random.stateless_gamma(
        tf.concat([shape, tf.shape(alpha)], 0), seed, alpha, dtype=alpha.dtype
    ),
    "random_poisson_v2": lambda shape, rate, *, dtype, seed: tf.random.stateless_poisson(
        tf.concat([shape, tf.shape(rate)], 0), seed, rate, dtype
    ),
    "random_shuffle": lambda value, *, seed: tf.random.experimental.stateless_shuffle(value, seed),
    "multinomial": lambda logits, count, *, output_dtype, seed: tf.random.stateless_categorical(
        logits, count, seed, output_dtype
    ),
}
"""By the name of a stateful operation, what draws the same distribution from a seed alone."""


def _place() -> object:
    """Return the graph that is being traced, seen from inside its loops and branches, or None."""
    if tf.executing_eagerly():
        return None
    graph = tf.compat.v1.get_default_graph()
    while getattr(graph, "is_control_flow_graph", False):
        graph = graph.outer_graph
    return graph


class _Draws:
    """Counts the draws of one pass; each has its number for a seed.

    A `tf.function` of the reader's that is traced meanwhile is kept for later, and draws as ever.
    """

    def __init__(self) -> None:
        self.place, self.count = _place(), 0

    def stand_in(self, stateful: Callable, stateless: Callable) -> Callable:
        def draw(*args: object, **kwargs: object) -> object:
            if _place() is not self.place:
                return stateful(*args, **kwargs)
            for name in ("seed", "seed2", "name"):
                kwargs.pop(name, None)
            self.count += 1
            return stateless(*args, **kwargs, seed=[0, self.count])

        return draw

    def get_seed(self, stateful: Callable) -> Callable:
        """Return a function that leaves TensorFlow's own sequence of seeds where it is."""
        return lambda seed: stateful(seed) if _place() is not self.place else (0, 0)

    def key_and_counter(self, stateful: Callable) -> Callable:
        """Return what a `tf.random.Generator` asks for before it draws."""

        def prepare(generator: tf.random.Generator, shape: object) -> tuple:
            if _place() is not self.place:
                return stateful(generator, shape)
            self.count += 1
            return tf.constant([self.count], tf.uint64), tf.zeros([2], tf.uint64)

        return prepare


@contextmanager
def same_draws(model: keras.Model) -> Iterator[None]:
    """Let one pass of the model, called or traced inside, draw what every other pass draws."""
    seeds = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    shared = global_state.get_global_attribute(_SHARED)
    seeds += [] if shared is None else [shared.state]
    for k, variable in enumerate(seeds):
        variable.assign(np.array([0, k], variable.dtype))
    draws = _Draws()
    replaced = [(random_seed, "get_seed", draws.get_seed(random_seed.get_seed))]
    key = tf.random.Generator._prepare_key_counter
    replaced.append((tf.random.Generator, "_prepare_key_counter", draws.key_and_counter(key)))
    for name, stateless in STATELESS.items():
        stand_in = draws.stand_in(getattr(gen_random_ops, name), stateless)
        replaced.append((gen_random_ops, name, stand_in))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    try:
        for owner, name, function in replaced:
            setattr(owner, name, function)
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


@contextmanager
def shared_generators_kept() -> Iterator[None]:
    """Give Keras's own generator, and Python's, which seeds it when it is made, their states back.

    What a model draws from generators of its own is among its variables.
    """
    shared = global_state.get_global_attribute(_SHARED)
    state, python = None if shared is None else shared.state.numpy(), random.getstate()
    try:
        yield
    finally:
        random.setstate(python)
        if shared is not None:
            shared.state.assign(state)
        global_state.set_global_attribute(_SHARED, shared)
