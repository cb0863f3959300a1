"""Inspect any Keras model once: its units, its Jacobian, its clipping, its recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from ml_dtypes import finfo

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
from course_lib.recurrent_results import BPTTProfile
from course_lib.tf.jacobian_products import (
    call_first,
    call_layer,
    randomized_spectrum,
    stage_jacobians,
)
from course_lib.tf.model_profiles import profile_recurrent_layers
from course_lib.tf.probes import Trace, instrumented
from course_lib.tf.randomness import same_draws
from course_lib.tf.undisturbed import undisturbed


def _require_model(model: object) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a keras.Model.")


def _like_model(model: keras.Model, x: object) -> tf.Tensor:
    """Return x in the model's precision, unless it holds integers."""
    try:
        tensor = tf.convert_to_tensor(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`x` (a {type(x).__name__}) must be a tensor or an array.") from error
    if tensor.dtype in (tf.string, tf.variant, tf.resource):
        raise TypeError(f"`x` (a {type(x).__name__}) must be a tensor or an array.")
    if tensor.dtype.is_complex:
        raise TypeError("`x` (complex numbers) must hold real numbers.")
    if not tensor.dtype.is_floating:
        return tensor
    if tf.reduce_any(tf.math.is_nan(tensor)):
        require_no_nan("x", tf.cast(tensor, tf.float64).numpy())
    return tf.cast(tensor, model.compute_dtype)


def dead_units(
    model: keras.Model, x: object, *, batch_size: int = 256, share: float = 0.1
) -> UnitReport:
    """Return how often every unit of every activation is on and flat, over all of x.

    Arguments:
        model: any Keras model; it is called with `training=False`.
        x: the inputs, first axis over the data set: an array or a tensor, or a dict or a tuple of
            them as the model takes it. Parts whose first axes differ (nodes beside edges) are run
            at once. Gates of recurrent layers are counted on the first sequences of each batch
            (`course_lib.gates`).
        batch_size: how many are run at a time.
        share: the share of the largest slope below which a value counts as saturated.

    Every batch of a stateful recurrent layer begins from states of zero. Random numbers that the
    model draws in evaluation mode too are always the same ones, except in a `tf.function` of its
    own.
    """
    _require_model(model)
    batch_size = require_integer("batch_size", batch_size, minimum=1)
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    x = _nested(model, x)
    parts = tf.nest.flatten(x)
    empty = next((p for p in parts if p.shape.rank == 0 or len(p) == 0), None)
    if empty is not None:
        raise ValueError(f"`x` (shape {tuple(empty.shape)}) must hold at least one input.")
    count, alike = len(parts[0]), len({len(part) for part in parts}) == 1
    if not alike:
        batch_size = max(map(len, parts))  # the first axis is not the data set's
    totals: dict[str, list] = {}
    with undisturbed(model):
        FirstCall("x", "`model` can be called on", same_draws(model)(call_layer))(
            model, tf.nest.map_structure(lambda part: part[:1], x) if alike else x
        )
        for start in range(0, count, batch_size):
            # Traced as a graph, in which an activation at the end of a custom layer can be seen.
            batch = tf.nest.map_structure(lambda part, a=start: part[a : a + batch_size], x)
            for name, activation, rows, active, flat in _count(model, batch, share):
                before = totals.setdefault(name, [activation, 0, 0.0, 0.0])
                before[1] += rows
                before[2] = None if active is None else before[2] + active
                before[3] = None if flat is None else before[3] + flat
    layers = [
        LayerUnits(
            name,
            activation,
            active / rows if activation in ONE_SIDED else None,
            None if flat is None else flat / rows,
        )
        for name, (activation, rows, active, flat) in totals.items()
    ]
    return UnitReport("TensorFlow", count, share, tuple(layers))


def _nested(model: keras.Model, x: object) -> object:
    """Return an input of one tensor, or a dict or tuple of them, as the model wants it."""
    if isinstance(x, (dict, tuple)) and x:
        return tf.nest.map_structure(lambda part: _like_model(model, part), x)
    return _like_model(model, x)


def _count(model: keras.Model, x: tf.Tensor, share: float) -> list[tuple]:
    traces = []

    @tf.autograph.experimental.do_not_convert
    def run(rows: tf.Tensor) -> tf.Tensor:
        trace = Trace(model, share=share, max_calls=64)
        with same_draws(model), instrumented(trace, []):
            call_layer(model, rows)
        traces.append(trace)
        return trace.pack()

    # Called once, a concrete function is never taken for one that is traced again and again.
    vector = tf.function(run).get_concrete_function(x)(x).numpy()
    sites = traces[-1].unpack(0, vector).sites
    sites = [site for site in sites if site.activation is not None]
    for site in sites:
        require_finite_layer(site.name, site.norm)
    return [(s.name, s.activation, s.rows, s.active, s.flat) for s in sites]


def saturation(
    model: keras.Model, x: object, *, batch_size: int = 256, share: float = 0.1
) -> dict[str, float]:
    r"""Return, by layer, the fraction of values at which $|f'(z)| < s \sup|f'|$, over all of x.

    The arguments are those of `dead_units`; layers whose activation has no flat part are left out.
    """
    report = dead_units(model, x, batch_size=batch_size, share=share)
    found = {layer.name: layer.saturated_fraction for layer in report.layers}
    return {name: value for name, value in found.items() if value == value}


def jacobian_spectrum(
    model: keras.Model,
    x: object,
    *,
    method: str = "exact",
    rank: int = 8,
    iterations: int = 8,
    seed: int = 0,
) -> JacobianSpectrum:
    r"""Return the singular values of $\partial f/\partial x$ at one input x (no batch axis).

    Arguments:
        model: any Keras model with a tensor in and a tensor out, called with `training=False`.
        x: one input, of any shape; both sides are flattened.
        method: "exact" (the whole matrix), "product" (a `keras.Sequential`: each layer's matrix,
            multiplied in float64), or "randomized" (the `rank` largest from products with
            vectors, for large models).
        rank, iterations, seed: of the randomized method.

    Many rows of a matrix are computed together, from copies of x in one batch that takes at most
    128 MB, and compared with a pass alone. A model that mixes the inputs of a batch, draws random
    numbers or calls a `tf.function` of its own is taken one row after the other.

    Stateful recurrent layers begin from states of zero. A model that draws random numbers in
    evaluation mode too draws the same ones at every call, so that there is one function to
    differentiate; what it draws in a `tf.function` of its own is left alone. Raises ValueError if
    there is no gradient path from x to the output.
    """
    _require_model(model)
    method = require_choice("method", method, SPECTRUM_METHODS)
    x = _like_model(model, x)[None]
    if not x.dtype.is_floating:
        raise ValueError(f"`x` ({x.dtype.name}) must hold real numbers: integers have no Jacobian.")
    with undisturbed(model):
        FirstCall("x", "`model` can be called on", same_draws(model)(call_first))(model, x)
        if method == "product" and not isinstance(model, keras.Sequential):
            raise TypeError(f"`model` (a {type(model).__name__}) must be a keras.Sequential.")
        if method == "randomized":
            rank = require_integer("rank", rank, minimum=1)
            iterations = require_integer("iterations", iterations, minimum=1)
            values, shape = randomized_spectrum(
                model, x, rank=rank, iterations=iterations, seed=require_seed(seed)
            )
            factors = 1
        else:
            stages = model.layers if method == "product" else [model]
            values, shape = _multiplied_spectrum(stage_jacobians(model, stages, x))
            factors = len(stages)
    eps = float(finfo(x.dtype.as_numpy_dtype).eps)
    floor = noise_floor(values, shape, eps, factors=factors)
    name = x.dtype.name
    return JacobianSpectrum("TensorFlow", name, method, tuple(map(int, shape)), values, floor)


def _multiplied_spectrum(matrices: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the singular values of a product, and its shape; the first factor acts first."""
    matrix = matrices[0]
    for stage in matrices[1:]:
        matrix = stage @ matrix
    if not np.all(np.isfinite(matrix)):
        raise ValueError("`model` must have a finite Jacobian at `x`.")
    return np.linalg.svd(matrix, compute_uv=False), matrix.shape


def clip_audit(
    model: keras.Model,
    gradients: Sequence[tf.Tensor | None],
    *,
    method: str = "global_norm",
    threshold: float,
) -> ClipAudit:
    """Return what clipping would do to a gradient.

    Arguments:
        model: any Keras model.
        gradients: what `tape.gradient` gave for `model.trainable_variables`, or arrays of their
            shapes; None entries are left out.
        method: "value" (Keras's `clipvalue`), "norm" (`clipnorm`, which is per tensor) or
            "global_norm" (`global_clipnorm`, `tf.clip_by_global_norm`).
        threshold: > 0.
    """
    _require_model(model)
    shapes = [(v.path, v.shape) for v in model.trainable_variables]
    names, held = read_gradients(gradients, shapes, convert=_dense_gradient)
    reported = float(tf.linalg.global_norm(held)) if held else 0.0
    return audit_clipping(
        names,
        [tf.cast(g, tf.float64).numpy() for g in held],
        method=method,
        threshold=threshold,
        # What is not finite comes out of clip_by_global_norm as NaN throughout.
        reported_norm=reported if np.isfinite(reported) else float("nan"),
        framework="TensorFlow",
    )


def _dense_gradient(gradient: object) -> tf.Tensor:
    """Return a gradient as a dense tensor; raise TypeError for what holds no real numbers."""
    if not tf.is_tensor(gradient) and not isinstance(gradient, (np.ndarray, tf.IndexedSlices)):
        raise TypeError("no tensor")
    gradient = tf.convert_to_tensor(gradient)
    if not gradient.dtype.is_floating:
        raise TypeError("no real numbers")
    return gradient


def bptt_gradient_profile(model: keras.Model, x: object) -> dict[str, BPTTProfile]:
    """Return the gradient's norm over time for every SimpleRNN, LSTM and GRU of a model, by name.

    What goes into each of them is caught, and `bptt_profile` gives the profile of a loss at its
    last step; a layer that runs backwards gets its input reversed. So it is with `layers.RNN`
    around one of their cells, with each cell of several on top of each other, and with a cell that
    a loop of the model's own calls step by step on the state that it returned.

    Arguments:
        model: any Keras model that holds one of them; called with `training=False`.
        x: a batch for it: an array or a tensor, or a dict or a tuple of them.

    Raises ValueError for a layer with activations other than Keras's standard ones, and for a model
    with none of these.
    """
    _require_model(model)
    x = _nested(model, x)
    call = FirstCall("x", "`model` can be called on", same_draws(model)(call_layer))
    with undisturbed(model):
        found = profile_recurrent_layers(model, lambda: call(model, x), strict=True)
    if not found:
        raise ValueError(
            "`model` must hold a SimpleRNN, LSTM or GRU layer, an RNN around their cells, or one of"
            " these cells, called step by step on the state that it returned."
        )
    return found
