"""Whether the verdicts of the chapter "Choosing a cure" hold on other seeds, line by line.

    python benchmarks/verdicts.py [--groups 40] [--first 1000]

The chapter tries every cure on five seeds. This repeats each of its tables on many other groups of
five: conditions before training, verdicts on training, pairs of cures, depths, and learning rates.
The verdict of a line is what most groups say. Printed is each line on which they do not all agree,
with how often each answer came; then how many lines there are. Exit status 1 if some verdict on
training holds in less than nine groups of ten. A group takes about eight seconds on one core.
"""

import argparse
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

# Read once, when NumPy is loaded: these matrices are too small for more threads.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the course need not be installed

import numpy as np  # noqa: E402

from course_lib.cure_results import judge_pair  # noqa: E402
from course_lib.cures import (  # noqa: E402
    CURES,
    PATIENTS,
    apply_cures,
    compare_cures,
    measure_trials,
)
from course_lib.data import load_digits_split  # noqa: E402
from course_lib.recurrent_cures import RECURRENT_CURES, compare_recurrent_cures  # noqa: E402

STEP_CURES = ("clip to 1", "rate / 10", "Adam")
PAIRS = [("vanishing", "ReLU", "He / Xavier"), ("vanishing", "ReLU", "shortcuts"),
         ("exploding", "He / Xavier", "batch norm"), ("dead", "batch norm", "rate / 10"),
         ("saturated", "ReLU", "He / Xavier")]  # fmt: skip
PRESCRIBED = {"vanishing": "ReLU + shortcuts", "exploding": "clip to 1 + rate / 10",
              "dead": "leaky ReLU + rate / 10", "saturated": "ReLU"}  # fmt: skip
IN_TIME = [("vanishing", ("orthogonal", "LSTM", "LSTM, bias 1"), 30),
           ("exploding", ("orthogonal", "identity", "clip to 1"), 60)]  # fmt: skip
LEARNED = 0.5


def judge_depth(digits, seeds):
    """Yield (line, answer) of everything that the chapter says of feed-forward networks."""
    cures = [cure for cure in CURES if cure not in ("decay 1e-5", "Adam")]
    table = compare_cures(digits, cures=cures, seeds=seeds)
    yield from judge_table("layers", table, verdicts=True)
    recipes = {(patient, *both): apply_cures(PATIENTS[patient], both) for patient, *both in PAIRS}
    for (patient, *both), trial in measure_trials(recipes, digits, seeds=seeds).items():
        singles = [table.trial(patient, cure).accuracies for cure in both]
        line = f"{patient}, {' and '.join(both)}"
        yield ("pair", line), judge_pair(*singles, trial.accuracies)
    prescribed = {p: apply_cures(PATIENTS[p], cure.split(" + ")) for p, cure in PRESCRIBED.items()}
    pair = prescribed["vanishing"]
    recipes = {f"{p} as prescribed": recipe for p, recipe in prescribed.items()}
    recipes |= {
        f"ReLU + shortcuts, rate {r}": replace(pair, learning_rate=r) for r in (0.01, 0.005)
    }
    recipes["ReLU + shortcuts, layer norm"] = replace(pair, norm="layer")
    for line, trial in measure_trials(recipes, digits, seeds=seeds).items():
        yield ("learns", line), bool(np.median(trial.accuracies) > LEARNED)
    plain = apply_cures(PATIENTS["exploding"], ["He / Xavier"])
    for depth in (10, 20):
        deep = replace(plain, network=replace(plain.network, depth=depth))
        both = replace(deep, shortcut=True, norm="batch")
        recipes = {"plain": deep, "shortcuts": replace(deep, shortcut=True), "batch norm": both}
        for line, trial in measure_trials(recipes, digits, seeds=seeds, steps=100).items():
            middle = np.median(trial.accuracies)
            yield ("learns", f"{depth} layers, {line}"), (bool(middle > 0.35), bool(middle > 0.7))


def judge_time(seeds):
    """Yield (line, answer) of everything that the chapter says of recurrent networks."""
    cures = [cure for cure in RECURRENT_CURES if cure not in STEP_CURES]
    table = compare_recurrent_cures(cures=cures, seeds=seeds, steps=0, sequences=32)
    yield from judge_table("time", table, verdicts=False)
    for patient, cures, steps in IN_TIME:
        trained = compare_recurrent_cures(patients=[patient], cures=cures, seeds=seeds, steps=steps)
        for cure in cures:
            yield ("verdict, time", f"{patient}, {cure}"), trained.verdict(patient, cure)


def judge_table(where, table, *, verdicts):
    """Yield (line, answer) for each cell of a table: its condition, and its verdict if wanted."""
    for (patient, cure), condition in table.conditions().items():
        yield (f"condition, {where}", f"{patient}, {cure or 'untreated'}"), condition
        if cure and verdicts:
            yield (f"verdict, {where}", f"{patient}, {cure}"), table.verdict(patient, cure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--first", type=int, default=1000)
    given = parser.parse_args()
    digits = load_digits_split(seed=0)
    answers = {}
    for start in range(given.first, given.first + 5 * given.groups, 5):
        seeds = range(start, start + 5)
        for line, answer in (*judge_depth(digits, seeds), *judge_time(seeds)):
            answers.setdefault(line, Counter())[answer] += 1
        print(f"seeds {start} to {start + 4} done", file=sys.stderr, flush=True)
    failed = False
    for (kind, line), counts in answers.items():
        if len(counts) > 1:
            told = ", ".join(f"{answer}: {count}" for answer, count in counts.most_common())
            print(f"{kind:18}{line:36}{told}")
        share = counts.most_common(1)[0][1] / given.groups
        failed |= not kind.startswith("condition") and share < 0.9
    always = sum(len(counts) == 1 for counts in answers.values())
    print(f"{always} of {len(answers)} lines are the same in all {given.groups} groups")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
