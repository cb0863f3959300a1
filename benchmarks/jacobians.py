"""What the Jacobian methods cost and how right they are, in both frameworks, in one run.

    python benchmarks/jacobians.py [--framework pytorch tf] [--repeats 5] [--widths 64 256]

A ten-layer tanh perceptron with orthogonal weights, as wide as it is long, in float32:

    exact       jacobian_spectrum(method="exact"): the whole matrix, many rows at a time
    product     method="product": each stage's matrix, multiplied in float64
    randomized  method="randomized", rank 4: products with vectors only
    rows        what is often written by hand: one backward pass per output
    others      what the frameworks offer: `torch.func.jacrev` and `torch.autograd.functional`'s
                `jacobian`; `GradientTape.jacobian`, with pfor as it is by default, and without

Printed are medians of interleaved runs in milliseconds, the ratio to `rows`, and the largest
relative error of the four largest singular values against the hand-written float64 reference.
Exit status 1 if an error is above 1e-3 (0.1 for the randomized method, whose values are lower
bounds), or if the exact method takes over twice as long as the quickest of the others.
The product costs a matrix per stage: it is for what underflows as a whole. The randomized method
pays where the matrix is large and a few values are wanted.
"""

import argparse
import functools
import os
import statistics
import sys
import time
from pathlib import Path

# Read once, when the frameworks are loaded: timings with more threads than free cores say nothing.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
             "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):  # fmt: skip
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the course need not be installed

import numpy as np  # noqa: E402

from course_lib import NetworkSpec, draw_weights, reference  # noqa: E402

DEPTH, RANK = 10, 4
METHODS = ("exact", "product", "randomized")
BARS = {"randomized": 0.1}
BAR = 1e-3


def singular_values(jacobian, spec):
    """Return the singular values of an array of n_out times n_in entries, in float64."""
    matrix = np.asarray(jacobian, np.float64).reshape(spec.n_out, spec.n_in)
    return np.linalg.svd(matrix, compute_uv=False)


def pytorch_ways(spec, weights, x):
    """Return `jacobian_spectrum`, model, input, and what others do, in PyTorch."""
    import torch

    from course_lib import pytorch

    torch.set_num_threads(1)
    model = pytorch.build_mlp(spec, weights)
    start = torch.tensor(x, dtype=torch.float32)

    def rows():
        given = start.clone().requires_grad_()
        out = model(given[None])[0]
        return torch.stack([torch.autograd.grad(o, given, retain_graph=True)[0] for o in out])

    def jacrev():
        return torch.func.jacrev(lambda h: model(h[None])[0])(start).detach()

    def functional():
        return torch.autograd.functional.jacobian(lambda h: model(h[None])[0], start)

    others = {"rows": rows, "func.jacrev": jacrev, "functional": functional}
    return pytorch.jacobian_spectrum, model, start, others


def tf_ways(spec, weights, x):
    """Return `jacobian_spectrum`, model, input, and what others do, in TensorFlow."""
    import tensorflow as tf

    from course_lib import tf as course_tf

    model = course_tf.build_mlp(spec, weights)
    start = tf.constant(x, tf.float32)

    def rows():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(start)
            out = model(start[None])[0]
            outs = [out[k] for k in range(spec.n_out)]
        return np.stack([tape.gradient(o, start).numpy() for o in outs])

    def tape_jacobian(**options):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(start)
            out = model(start[None])
        return tape.jacobian(out, start, **options).numpy()

    others = {"rows": rows, "tape.jacobian": tape_jacobian,
              "without pfor": lambda: tape_jacobian(experimental_use_pfor=False)}  # fmt: skip
    return course_tf.jacobian_spectrum, model, start, others


def measure(ways, spec, exact, repeats):
    """Return per method the median milliseconds and the largest relative error."""
    spectrum, model, start, others = ways

    def own(method):
        options = {"rank": RANK} if method == "randomized" else {}
        return spectrum(model, start, method=method, **options).singular_values

    calls = {method: functools.partial(own, method) for method in METHODS}
    calls |= {
        name: lambda other=other: singular_values(other(), spec) for name, other in others.items()
    }
    errors, times = {}, {name: [] for name in calls}
    for name, call in calls.items():  # once before the clock, for what is loaded on first use
        errors[name] = float(np.max(np.abs(call()[:RANK] / exact[:RANK] - 1)))
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - begin))
    return {name: statistics.median(spent) for name, spent in times.items()}, errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", nargs="+", default=["pytorch", "tf"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 256])
    given = parser.parse_args()
    failed = False
    print(f"{DEPTH} layers, tanh, one thread, medians of {given.repeats} interleaved runs")
    for width in given.widths:
        spec = NetworkSpec(width, width, DEPTH, n_out=width, activation="tanh", init="orthogonal")
        weights = draw_weights(spec, seed=0)
        x = np.random.default_rng(0).standard_normal(width)
        jacobians = reference.layer_jacobians(reference.build_mlp(spec, weights), x)
        exact = np.linalg.svd(product_of(jacobians), compute_uv=False)
        for framework in given.framework:
            ways = {"pytorch": pytorch_ways, "tf": tf_ways}[framework](spec, weights, x)
            times, errors = measure(ways, spec, exact, given.repeats)
            quickest = min(spent for name, spent in times.items() if name not in METHODS)
            for name, spent in times.items():
                wrong = errors[name] > BARS.get(name, BAR)
                slow = name == "exact" and spent > 2 * quickest
                failed |= wrong or slow
                note = ("  WRONG" if wrong else "") + ("  SLOWER THAN OTHERS" if slow else "")
                print(f"{framework:<8} width {width:<4} {name:<13} {spent:8.1f} ms  "
                      f"{times['rows'] / spent:5.1f} x  error {errors[name]:.0e}{note}",
                      flush=True)  # fmt: skip
    return int(failed)


def product_of(jacobians):
    """Return the Jacobian from input to output, from those of the layers."""
    product = jacobians.jacobians[0]
    for matrix in jacobians.jacobians[1:]:
        product = matrix @ product
    return product


if __name__ == "__main__":
    sys.exit(main())
