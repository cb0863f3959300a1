"""How much faster the closed recursion is than a hook per step, and whether it is right.

    python benchmarks/bptt_profile.py [--steps 1000] [--repeats 5] [--framework pytorch tf]
                                      [--cells tanh_rnn lstm gru]

Both ways are timed in turn in one run, on one thread, and the medians compared. Then the profile
is held against the float64 reference, whose logarithms cannot underflow: the largest error of the
exponent over all steps at which the reference is above 1e-80, and over all steps.

Exit status 1 if an exponent is not right to three digits, or if a ratio lies below 5 for a single
sequence. A hook costs the same however large the batch, the recursion's work grows with it: the
rows with a larger batch show by how much the ratio falls, and are not judged by it.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
from pathlib import Path

# Read once, when NumPy and the frameworks are loaded: timings with more threads than free cores
# say nothing.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
             "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):  # fmt: skip
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the course need not be installed

import numpy as np  # noqa: E402

from course_lib import RecurrentSpec, draw_recurrent_weights, reference  # noqa: E402

SIZES = ((1, 10), (1, 32), (8, 32))
CELLS = ("tanh_rnn", "lstm", "gru")
BAR = 5.0


def time_once(function, *args):
    """Return how long one call takes, in milliseconds, and what it returned."""
    start = time.perf_counter()
    result = function(*args)
    return 1e3 * (time.perf_counter() - start), result


def compare(module, cell, batch, hidden, *, steps, repeats):
    """Return the medians of both ways in milliseconds, and the largest errors in decades."""
    spec = RecurrentSpec(1, hidden, cell, defaults="pytorch")
    weights = draw_recurrent_weights(spec, seed=0)
    model = module.build_recurrent(spec, weights)
    x = np.random.default_rng(0).standard_normal((batch, steps, 1))
    module.bptt_profile(model, x[:, :50])  # load what is loaded on first use
    module.hook_profile(model, x[:, :50])
    times = {"recursion": [], "hooks": []}
    for _ in range(repeats):
        spent, profile = time_once(module.bptt_profile, model, x)
        times["recursion"].append(spent)
        times["hooks"].append(time_once(module.hook_profile, model, x)[0])
    exact = reference.bptt_profile(reference.build_recurrent(spec, weights), x).log10_norms
    errors = np.abs(profile.log10_norms - exact)
    deep = np.abs(exact) > 1  # three digits of an exponent of at least two
    relative = float(np.max(errors[deep] / np.abs(exact[deep]))) if deep.any() else 0.0
    medians = [statistics.median(times[way]) for way in ("recursion", "hooks")]
    return *medians, float(errors[exact > -80].max()), float(errors.max()), relative, exact[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--framework", nargs="+", default=["pytorch", "tf"])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    given = parser.parse_args()
    print(f"T = {given.steps}, float32 models, one thread, median of {given.repeats} in turn")
    print("framework  cell      batch  n   recursion     hooks   ratio  first norm  "
          "error to 1e-80   error overall")  # fmt: skip
    failed = False
    for framework in given.framework:
        module = importlib.import_module(f"course_lib.{framework}")
        for cell in given.cells:
            for batch, hidden in SIZES:
                fast, slow, error, overall, relative, first = compare(
                    module, cell, batch, hidden, steps=given.steps, repeats=given.repeats
                )
                good = relative < 5e-4 and (batch > 1 or slow / fast >= BAR)
                failed |= not good
                print(
                    f"{framework:<9}  {cell:<8}  {batch:>5}  {hidden:>2}  {fast:>6.1f} ms  "
                    f"{slow:>6.0f} ms  {slow / fast:>5.1f}x  1e{first:<+9.0f}  "
                    f"{error:>.1e} decades  {overall:>.1e} decades"
                    f"{'' if good else '  BELOW THE BAR'}",
                    flush=True,
                )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
