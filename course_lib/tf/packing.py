"""The numbers of one TensorFlow step, packed into one vector: norms, counts, sizes.

A norm is taken in float32, in one pass over the tensor, and trusted where its square is far from
both ends of float32's range. Where it is not, the whole group is measured again in float64. The
choice is made on the device, for a group at a time, so that a graph stays small.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

HELD = 2**22
"""Entries of tensors that wait for one choice: they are held in memory until it is made."""

ROWS = ("active", "flat")
"""Fields that hold a number per unit."""

TRUSTED = (1e-25, 1e30)
"""Squares between these lost nothing to under- or overflow of their parts in float32."""


def norm64(tensor: tf.Tensor) -> tf.Tensor:
    """Return the Euclidean norm, accumulated in float64: no square under- or overflows."""
    return tf.sqrt(tf.reduce_sum(tf.square(tf.cast(tensor, tf.float64))))


def _dense(tensor: object) -> tf.Tensor:
    """Return the numbers of a tensor or of a sparse gradient, real and not below float32."""
    if isinstance(tensor, tf.IndexedSlices):
        tensor = tensor.values
    if tensor.dtype.is_complex:
        tensor = tf.abs(tensor)
    return tensor if tensor.dtype in (tf.float32, tf.float64) else tf.cast(tensor, tf.float32)


def measure_norms(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Return the norms of float32 tensors, as if accumulated in float64."""
    if tf.executing_eagerly() and "GPU" in tensors[0].device:
        return _exact(None, *tensors)  # the choice below would wait for the device
    squares = 2 * tf.stack([tf.nn.l2_loss(t) for t in tensors])
    low, high = TRUSTED
    trusted = tf.reduce_all((squares > low) & (squares < high))
    given = [squares, *tensors]
    if tf.executing_eagerly():
        return _quick(*given) if trusted else _exact(*given)
    # `tf.cond` would put a switch before every tensor, for the branch not taken as well.
    specs = [tf.TensorSpec(t.shape, t.dtype) for t in given]
    quick, exact = (
        tf.function(branch, autograph=False).get_concrete_function(*specs)
        for branch in (_quick, _exact)
    )
    return tf.raw_ops.StatelessIf(
        cond=trusted, input=given, Tout=[tf.float64], then_branch=quick, else_branch=exact,
        output_shapes=[squares.shape],
    )[0]  # fmt: skip


def _quick(squares: tf.Tensor, *unused: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.cast(squares, tf.float64))


def _exact(squares: tf.Tensor | None, *tensors: tf.Tensor) -> tf.Tensor:
    return tf.stack([norm64(t) for t in tensors])


class Packer:
    """Takes what was measured, each under an (owner, field), and packs it into one vector."""

    def __init__(self) -> None:
        self._waiting: list[tuple[tuple, tf.Tensor]] = []
        self._held = 0
        self._parts: dict[tf.DType, list[tf.Tensor]] = {tf.float64: [], tf.float32: []}
        self._keys: dict[tf.DType, list[tuple[tuple, int]]] = {tf.float64: [], tf.float32: []}

    def norm(self, owner: object, field: str, *tensors: object) -> None:
        """Take the norm of a tensor, or of the first less the second."""
        first, *rest = map(_dense, tensors)  # in float32 at least: 16 bits would lose most
        tensor = first - rest[0] if rest else first
        key = (owner, field)
        if tensor.dtype == tf.float64:
            self._add(key, tf.reshape(norm64(tensor), [1]), 1)
            return
        self._waiting.append((key, tensor))
        self._held += tensor.shape.num_elements() or HELD // 16
        if self._held >= HELD:
            self.flush()

    @property
    def empty(self) -> bool:
        """Whether no tensor waits."""
        return not self._waiting

    def scalar(self, owner: object, field: str, value: tf.Tensor) -> None:
        """Take a number as it is."""
        self._add((owner, field), tf.reshape(tf.cast(value, tf.float64), [1]), 1)

    def counts(self, owner: object, field: str, values: tf.Tensor) -> None:
        """Take a float32 vector of counts."""
        self._add((owner, field), values, int(values.shape[0]))

    def _add(self, key: tuple, part: tf.Tensor, size: int) -> None:
        self._parts[part.dtype].append(part)
        self._keys[part.dtype].append((key, size))

    def flush(self) -> list[tf.Tensor]:
        """Measure what waits; return something to wait for before its tensors are changed."""
        if self._waiting:
            self._parts[tf.float64].append(measure_norms([t for _, t in self._waiting]))
            self._keys[tf.float64] += [(key, 1) for key, _ in self._waiting]
            self._waiting, self._held = [], 0
        return self._parts[tf.float64][-1:]

    def pack(self) -> tf.Tensor:
        """Return everything as one float64 vector, and let go of the tensors."""
        self.flush()
        parts = list(self._parts[tf.float64])
        if self._parts[tf.float32]:
            parts.append(tf.cast(tf.concat(self._parts[tf.float32], 0), tf.float64))
        self._parts.clear()
        self._plan()
        return tf.concat(parts, 0) if parts else tf.zeros([0], tf.float64)

    def _plan(self) -> None:
        """Note where in the vector every owner's numbers and rows of numbers will lie."""
        self._single, self._rows, start = [], [], 0
        for (owner, field), size in [*self._keys[tf.float64], *self._keys[tf.float32]]:
            if field in ROWS:
                self._rows.append((owner, field, slice(start, start + size)))
            else:
                self._single.append((vars(owner), field, start))
            start += size
        self._keys.clear()

    def unpack(self, vector: np.ndarray) -> None:
        """Give every owner what a packed vector holds for it; where it took two, the last."""
        numbers = vector.tolist()
        for fields, field, place in self._single:
            fields[field] = numbers[place]
        for owner, field, places in self._rows:
            setattr(owner, field, vector[places])
