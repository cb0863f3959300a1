"""Which tensors of a graph TensorFlow's optimizer joins with their reader, and how to read them.

Before a graph is run, neighbouring operations are joined: sums with sums and products with products
(in another order, where shapes differ), and a matrix product or convolution with its bias and the
activation behind it (one kernel, with an approximation of its own of tanh, say). This is done to a
tensor with a single reader only. Who measures such a tensor is a second one: the operations stay
apart, and the last bit of the training changes. TensorFlow's source: `AddOpsRewriteStage` and
`MinimizeBroadcasts` in grappler/optimizers/arithmetic_optimizer.cc, and remapper.cc beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

SUMS = ("Add", "AddV2", "AddN", "Sub")
PRODUCTS = ("Mul", "RealDiv")
CHAINS = {**dict.fromkeys(SUMS, SUMS), **dict.fromkeys(PRODUCTS, PRODUCTS)}
"""Operations, and the readers that they are joined with."""

CONVOLUTIONS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative")
CONTRACTIONS = ("MatMul", "BatchMatMulV2", *CONVOLUTIONS)
BIASES = ("BiasAdd", "Add", "AddV2")
ROUNDED = {"Tanh": ("MatMul",), "Sigmoid": ("MatMul",),
           "Elu": CONTRACTIONS, "LeakyRelu": CONTRACTIONS}  # fmt: skip
"""Activations that round otherwise in one kernel with what they act on, and with what; no ReLU."""

RECTIFIERS = ("Relu", "Relu6", "Elu", "LeakyRelu", "Tanh")
"""Activations that a kernel takes in behind a residual sum."""

SAME = ("Identity", "IdentityN", "StopGradient")
"""Operations that the optimizer takes out first."""

LOOKERS = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
"""Operations that need no value, and do not hinder."""

MARK = {"_gradient_flow": tf.compat.v1.AttrValue(b=True)}
"""An attribute of operations that measure, that they are not merged with equal ones of the step."""


def measure_waiting(waiting: list[tuple], graph: tf.Graph, results: object) -> None:
    """Measure tensors of a graph that is complete but for that, so that the step stays as it is.

    What cannot be read so (see `Readers.readable`) is None to the function that measures it, which
    is not called if that is its first tensor. Nor is it for a gradient that the step has no use
    for, as in front of the first layer that is trained: if it were computed, what it is computed
    from would have one reader more.

    Arguments:
        waiting: (tensors, function of them, whether they are gradients), many times; emptied.
        graph: the graph.
        results: what it returns, in any structure.
    """
    readers = Readers(graph, tf.nest.flatten(results))
    # With names and numbers of their own, and a mark, they are not mixed up with the step's.
    with graph._attr_scope(MARK), tf.name_scope("gradient_flow"):
        found = [(measure, [readers.readable(t, gradient) for t in tensors])
                 for tensors, measure, gradient in waiting]  # fmt: skip
        waiting.clear()
        for measure, tensors in found:
            if tensors[0] is not None:
                measure(*tensors)


def source(tensor: tf.Tensor) -> tf.Tensor:
    """Return what a graph's tensor is, in front of the operations that are taken out."""
    while tensor.op.type in SAME:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def ends_a_chain(tensor: object) -> bool:
    """Return whether a tensor of a graph is one that may be joined with the sum or product next."""
    return tf.is_symbolic_tensor(tensor) and source(tensor).op.type in CHAINS


def before_update(variable: tf.Variable, gradient: object) -> tf.Tensor:
    """Return the value of a variable from before it is updated with a gradient.

    In a graph it is not read before the gradient is there: TensorFlow would count it as a second
    copy in memory, and where it expects more than it has (on a CPU 205 MB), it cuts other sums up.
    Where a gradient may be joined nothing can wait for the reading, and TensorFlow may put it after
    the update: there it is what the step itself has read.
    """
    if ends_a_chain(gradient):
        handle = gradient.graph.capture(variable.handle)
        for op in handle.consumers():
            if op.type == "ReadVariableOp" and op.outputs[0].dtype == variable.dtype:
                return op.outputs[0]
    with tf.control_dependencies([] if gradient is None else [gradient]):
        return tf.identity(variable)


def waited_for(gradient: object) -> object:
    """Return a gradient that waits for what controls it, unless it may be joined with others."""
    if gradient is None or tf.executing_eagerly() or ends_a_chain(gradient):
        return gradient
    return tf.identity(gradient)


class Readers:
    """Who reads the tensors of a graph that is complete but for its measurements.

    Arguments:
        graph: the graph.
        results: what it returns; who is neither returned nor needed for a side effect is no reader.
    """

    def __init__(self, graph: tf.Graph, results: Iterable[object] = ()) -> None:
        roots = [op for op in graph.get_operations() if op.op_def.is_stateful]
        self._returned = {id(source(t)) for t in results
                          if tf.is_symbolic_tensor(t) and t.graph is graph}  # fmt: skip
        roots += [t.op for t in results if tf.is_symbolic_tensor(t) and t.graph is graph]
        self._alive: set[tf.Operation] = set()
        while roots:
            op = roots.pop()
            if op not in self._alive:
                self._alive.add(op)
                roots += [*(t.op for t in op.inputs), *op.control_inputs]

    def readable(self, tensor: object, needed: bool) -> object | None:
        """Return what to measure in place of a tensor so that nothing else changes.

        That is the tensor itself, or a sum or product computed once more, or None: a matrix product
        or convolution would cost too much. None as well for what is only read if it is `needed`,
        and is not.
        """
        values = tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor
        if not tf.is_symbolic_tensor(values) or (needed and values.op not in self._alive):
            return None
        if values is not tensor:
            return tensor
        kept = source(tensor)
        reader = self._only(kept)
        if reader is None:
            return None if self._begins_a_gelu(kept) else tensor
        if _fused(kept, reader) or self._ends_a_branch(kept, reader):
            return None
        return self._copied(kept.op) if reader.type in CHAINS.get(kept.op.type, ()) else tensor

    def _ends_a_branch(self, tensor: tf.Tensor, reader: tf.Operation) -> bool:
        """Return whether a residual sum is in the middle of a kernel: a matrix product or
        convolution with its bias, what is added to it, and the activation behind.
        """
        if reader.type not in RECTIFIERS or tensor.op.type not in ("Add", "AddV2"):
            return False
        ends = [source(t) for t in tensor.op.inputs]
        return any(_biased(t.op) is not None and self._only(t) is tensor.op for t in ends)

    def _begins_a_gelu(self, tensor: tf.Tensor) -> bool:
        """Return whether a matrix product's kernel takes in the GELU behind it.

        It does where no backward pass reads the error function, as in a part that is frozen.
        """
        bare = _biased(tensor.op)
        if bare is None or bare.type != "MatMul":
            return False
        ahead = set(self._of(tensor))
        for _ in range(3):  # 0.5 z erfc(-z / sqrt(2)), or 0.5 z (1 + erf(z / sqrt(2))) in 2.18;
            # the approximation by tanh is left as it is
            bends = [op for op in ahead if op.type in ("Erf", "Erfc")]
            if bends:
                return all(len(self._of(op.outputs[0])) == 1 for op in bends)
            ahead = {reader for op in ahead if op.type in ("Neg", "Mul", "RealDiv")
                     for reader in self._of(op.outputs[0])}  # fmt: skip
        return False

    def _copied(self, op: tf.Operation) -> tf.Tensor:
        """Compute a sum or product once more, with all that is joined to it."""
        parts = [source(t) for t in op.inputs]
        for k, part in enumerate(parts):
            if op.type in CHAINS.get(part.op.type, ()) and self._only(part) is op:
                parts[k] = self._copied(part.op)
        if op.type == "AddN":
            return tf.raw_ops.AddN(inputs=parts)
        return getattr(tf.raw_ops, op.type)(x=parts[0], y=parts[1])

    def _only(self, tensor: tf.Tensor) -> tf.Operation | None:
        """Return the operation that alone reads a tensor, and reads it once, or None."""
        found = [] if id(tensor) in self._returned else self._of(tensor)
        return found[0] if len(found) == 1 else None

    def _of(self, tensor: tf.Tensor) -> list[tf.Operation]:
        """Return the operations that read a tensor's values, once for each time they do."""
        found = []
        for op in set(tensor.consumers()):
            if op not in self._alive or op.type in LOOKERS:
                continue
            places = [k for k, t in enumerate(op.inputs) if t is tensor]
            if op.type in SAME:
                found += [reader for k in places for reader in self._of(op.outputs[k])]
            else:
                found += [op] * len(places)
        return found


def _fused(tensor: tf.Tensor, reader: tf.Operation) -> bool:
    """Return whether a tensor is in the middle of a matrix product's or convolution's kernel."""
    op = tensor.op
    bare = op if op.type in CONTRACTIONS else _biased(op)
    if bare is None:
        return False
    if reader.type in BIASES:
        return bare is not op or _biased(reader) is not None
    return bare.type in ROUNDED.get(reader.type, ())


def _biased(op: tf.Operation) -> tf.Operation | None:
    """Return the matrix product or convolution to which an operation adds a bias, or None."""
    if op.type not in BIASES:
        return None
    for one, other in (op.inputs, reversed(op.inputs)):
        units = other.shape[-1] if other.shape.rank else None
        if source(one).op.type in CONTRACTIONS and units == other.shape.num_elements():
            return source(one).op
    return None
