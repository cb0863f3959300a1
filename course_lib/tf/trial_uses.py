"""How a Keras model uses the matrices that belong to no plain layer, or to two."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from course_lib.diagnosis.uses import shorter_axis
from course_lib.monitoring import FlowRecord
from course_lib.tf.layer_names import named_layers, named_variables

PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D",
            "Conv3D", "DepthwiseConv2dNative", "While", "StatelessWhile")  # fmt: skip
"""Operations that multiply; a loop over the steps as well, in which a table is hardly added."""
VIEWS = ("ReadVariableOp", "Identity", "Cast", "Transpose", "Reshape", "ExpandDims", "Squeeze",
         "StridedSlice", "Slice", "Split", "SplitV", "Unpack", "Pack")  # fmt: skip
"""Operations behind which a matrix is still itself, or a part of itself."""


def least_gains(
    model: keras.Model, record: FlowRecord, fans: Mapping[str, int]
) -> dict[str, float]:
    """Return lower bounds of the gains that matrices had at the first step, by name.

    Arguments:
        model: whose variables they are.
        record: of its trial.
        fans: the inputs that an output sums up, of those matrices for which that is known.
    """
    norms = dict(zip(record.parameters, record.weight_norms[0], strict=True))
    names, found = named_variables(model), {}
    for variable in model.trainable_variables:
        name, shape = names[id(variable)][0], tuple(variable.shape)
        if name not in fans and sum(n > 1 for n in shape) > 1 and name in norms:
            found[name] = float(norms[name] * np.sqrt(shorter_axis(shape) / np.prod(shape)))
    return found


def shared_heads(model: keras.Model, record: FlowRecord) -> dict[str, float]:
    """Return the gains of embeddings that are called a second time, from vectors to words."""
    norms = dict(zip(record.parameters, record.weight_norms[0], strict=True))
    names, found = named_variables(model), {}
    for name, layer in named_layers(model):
        table = getattr(layer, "_embeddings", None)
        if f"{name}#2" in record.layers and id(table) in names and hasattr(layer, "tie_weights"):
            norm = norms.get(names[id(table)][0], np.nan)
            found[f"{name}#2"] = float(norm / np.sqrt(table.shape[0]))
    return found


def multiplied(model: keras.Model, call: Callable[[], object]) -> set[str]:
    """Return the names of the variables that a model takes into a product as they are.

    Arguments:
        model: whose variables these are.
        call: () -> what the model gives; it is traced once, and not run.
    """
    graph = tf.function(call, autograph=False).get_concrete_function().graph
    names = named_variables(model)
    handles = {id(v._value.handle): names[id(v)][0] for v in model.trainable_variables}
    found = set()
    for outside, inside in graph.captures:
        climbing, seen = [inside], set()
        while id(outside) in handles and climbing:
            for op in climbing.pop().consumers():
                if op.type in PRODUCTS:
                    found.add(handles[id(outside)])
                elif op.type in VIEWS and op not in seen:
                    seen.add(op)
                    climbing += op.outputs
    return found
