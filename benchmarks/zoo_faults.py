"""Faults put into public models, and what `diagnose_model` must then say: shared by both zoos.

A fault is expected to be named among what is worse than a note, by one of its codes, at its place:
a name that begins or ends as the broken layer's does, or that follows it without anything between.
"""

EXPECTED = {
    "healthy": (),
    "nan": ("non_finite",),
    "dead": ("dead_units",),
    "rate x1000": ("large_update", "non_finite", "unstable_training"),
    "frozen": ("frozen_parameters",),
    "cut": ("no_gradient",),
    "inputs x1000": ("large_inputs",),
    "zero": ("zero_gradient", "dead_units"),
    "attention x100": ("saturated_attention", "rescaled_layer"),
    "x10": ("rescaled_layer",),
    "head x100": ("rescaled_layer",),
    "zero weights": ("zero_weights", "dead_units"),
    "zero scale": ("zero_scale", "dead_units"),
    "x0.05": ("rescaled_layer", "large_update"),
    "branch x5": ("rescaled_layer",),
    "branch x0.2": ("rescaled_layer",),
    "no skips": ("exploding_gradient",),
    "softmax twice": ("activation_twice",),
    "inputs alike": ("constant_inputs",),
    "inputs x1e-6": ("small_inputs",),
    "channel x1e4": ("unequal_features",),
    "bfloat16": ("rounded_updates",),
    "sigmoid": ("vanishing_gradient", "shrinking_signal", "saturation"),
    "no norm": ("vanishing_gradient", "exploding_gradient", "growing_signal", "shrinking_signal",
                "non_finite", "dead_units", "saturation", "large_update"),
    "recurrent x3": ("large_recurrent_matrix", "exploding_over_time"),
    "gate +20": ("stuck_gate",),
    "gate -20": ("stuck_gate",),
    "weights x20": ("stuck_gate", "large_recurrent_matrix"),
    "std 1": ("large_weights", "rescaled_layer", "large_recurrent_matrix", "stuck_gate"),
    "alike": ("identical_units",),
    "norm x100": ("rescaled_layer",),
    "statistics": ("missing_statistics",),
}  # fmt: skip


class Tally:
    """Prints a line per trial and counts: right finding, right place, and what came first."""

    def __init__(self):
        self.trials = self.found = self.placed = self.first = 0
        self.alarms = self.healthy = self.crashed = 0

    def add(self, model, fault, report, places):
        """Judge one report; `places` are the layers that a finding may name, or None for any."""
        alarms = [f for f in report.findings if f.severity != "info"]
        said = "; ".join(f"{f.code} at {f.where}" for f in alarms[:2]) or "-"
        if fault == "healthy":
            self.healthy += 1
            self.alarms += bool(alarms)
            print(f"{model:<30}{fault:<16}{'ALARM' if alarms else 'quiet':<8}{said}", flush=True)
            return
        if fault == "no norm":  # harmless where branches are drawn small: shown, and not counted
            print(f"{model:<30}{fault:<16}{'':<8}{said}", flush=True)
            return
        right = [f for f in alarms if f.code in EXPECTED[fault]]
        here = [f for f in right if places is None or any(p in f.where for p in places)]
        self.trials += 1
        self.found += bool(right)
        self.placed += bool(here)
        self.first += bool(here) and alarms[0] in here
        verdict = "ok" if here and alarms[0] in here else "later" if here else (
            "PLACE" if right else "MISSED")  # fmt: skip
        print(f"{model:<30}{fault:<16}{verdict:<8}{said}", flush=True)

    def crash(self, model, fault, error):
        """Note a trial that raised."""
        self.crashed += 1
        print(f"{model:<30}{fault:<16}CRASHED {type(error).__name__}: {error}", flush=True)

    def describe(self):
        """Say the counts."""
        return (
            f"{self.trials} faults: {self.found} found, {self.placed} at the right place, "
            f"{self.first} of them first; {self.alarms} of {self.healthy} healthy models with an "
            f"alarm; {self.crashed} crashed"
        )
