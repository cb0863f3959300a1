"""Which of several alike is the cause: a weight that was no number, what was dead at once, what
runs by itself."""

import numpy as np
import pytest

from course_lib.diagnosis import diagnose
from course_lib.flow_recorder import FlowRecorder
from course_lib.monitoring import ParameterState, Sample, Site


def record(sites, weights, *, steps=2):
    """A record of `sites(step)` and `weights(step)`, the same recorder's for all steps."""
    recorder = FlowRecorder(framework="TensorFlow", every=1, max_records=50, share=0.1)
    for step in range(steps):
        recorder.add(Sample(step, sites(step), weights(step)))
    return recorder.record()


def site(name, *, grad=1.0, kind="Dense", on=2.0):
    return Site(name, kind, "relu", 64, 4, 1.0, grad, np.full(16, on))


def weight(name, *, grad=1.0, norm=1.0):
    return ParameterState(f"{name}/kernel", name, 2, True, grad, norm, 1e-3)


NAN = float("nan")


@pytest.mark.parametrize("late", [False, True])
def test_a_weight_that_is_no_number_from_the_first_step_is_named(late):
    def sites(step):  # TensorFlow's ReLU gives 0 for a NaN: the gradient before it is the first
        return [site("a", grad=1.0 if late and not step else NAN), site("b"), site("c")]

    def weights(step):
        bad = NAN if step or not late else 1.0
        return [weight("a", grad=bad), weight("b", norm=bad), weight("c")]

    finding = diagnose(record(sites, weights)).findings[0]
    assert finding.code == "non_finite"
    assert finding.where == ("a, step 1" if late else "b/kernel, step 0")
    assert finding.what.startswith("the activation gradient" if late else "the weight is nan")


def test_where_its_own_layer_shows_it_the_layer_is_named():
    found = diagnose(record(lambda step: [site("a"), site("b", grad=NAN)],
                            lambda step: [weight("a"), weight("b", norm=NAN)]))  # fmt: skip
    assert found.findings[0].where == "b, step 0"


def test_what_was_dead_at_once_is_named_before_what_died_later():
    def sites(step):
        return [site("a", on=0.0 if step else 4.0), site("b", on=0.0), site("c", on=0.0)]

    found = diagnose(record(sites, lambda step: [weight(n) for n in "abc"], steps=8))
    finding = next(f for f in found.findings if f.code == "dead_units")
    assert finding.where == "b"
    assert "in 2 other layers: c, a" in finding.what


def some_dead(units, shares):
    """Layers of so many units, of which these shares are off on all of four inputs."""
    return [Site(f"l{k}", "ReLU", "relu", 4 * units, 4, 1.0, 1.0,
                 np.where(np.arange(units) < round(share * units), 0.0, 4.0))
            for k, share in enumerate(shares)]  # fmt: skip


@pytest.mark.parametrize(("units", "shares", "told"), [
    (8, [0.25] * 9, False),
    (8, [0.25] * 4 + [1.0] + [0.25] * 5, False),  # the bottleneck of one gate of ten
    (8, [0.0] * 20 + [0.25] * 7 + [1.0], False),  # beside layers that are not pooled
    (8, [0.25] * 4 + [1.0] * 2 + [0.25] * 5, True),
    (8, [0.0] * 4 + [1.0] + [0.0] * 5, True),  # the inputs are not alike
    (8, [0.25, 1.0, 0.25], True),
    (16, [0.25] * 4 + [1.0] + [0.25] * 5, True),
])  # fmt: skip
def test_a_small_layer_among_many_may_be_off_by_chance(units, shares, told):
    weights = [weight(f"l{k}") for k in range(len(shares))]
    codes = diagnose(record(lambda step: some_dead(units, shares), lambda step: weights)).codes
    assert ("dead_units" in codes) == told


def networks(calls, *, decades=(1.5, 1.5), prefix="/"):
    """Two networks of six layers, the second behind the first and called so many times."""
    norms = [10.0 ** -(decades[1] + decades[0] * (1 - k / 5)) for k in range(6)]
    later = [10.0 ** -(decades[1] * (1 - k / 5)) for k in range(6)]
    sites = [site(f"g{prefix}{k}", grad=g) for k, g in enumerate(norms)]
    for call in range(calls):
        again = f"#{call + 1}" if call else ""
        sites += [site(f"d{prefix}{k}{again}", grad=g) for k, g in enumerate(later)]
    weights = [weight(f"{n}{prefix}{k}") for n in "gd" for k in range(6)]
    return diagnose(record(lambda step: sites, lambda step: weights)).codes


def test_two_networks_that_are_not_called_alike_are_two_depths():
    assert networks(1) == ("vanishing_gradient",)  # an encoder and a decoder
    assert networks(2) == ()  # a generator and a discriminator
    assert networks(2, decades=(2.5, 0.5)) == ("vanishing_gradient",)
    assert networks(2, decades=(0.5, 2.5)) == ("vanishing_gradient",)
    assert networks(2, prefix="") == ("vanishing_gradient",)  # no networks: layers that are shared


@pytest.mark.parametrize("drawn", [False, True])
def test_a_signal_whose_growth_is_learned_is_none(drawn):
    def sites(step):
        grown = 10.0 ** np.arange(6) if step or drawn else np.ones(6)
        return [Site(f"l{k}", "Dense", "relu", 64, 4, 8 * grown[k], 1.0, np.full(16, 2.0))
                for k in range(6)]  # fmt: skip

    codes = diagnose(record(sites, lambda step: [weight(f"l{k}") for k in range(6)], steps=9)).codes
    assert ("growing_signal" in codes) == drawn
