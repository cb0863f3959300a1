"""What lies behind a fault is its consequence: the fault is named first, and as bad as that is."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis import Finding  # noqa: E402
from course_lib.diagnosis.depth import separate_networks  # noqa: E402
from course_lib.diagnosis.report import raise_causes, sort_findings  # noqa: E402
from course_lib.flow_recorder import FlowRecorder  # noqa: E402
from course_lib.monitoring import ParameterState, Sample, Site  # noqa: E402
from course_lib.pytorch import diagnose_model  # noqa: E402

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 4


def finding(code, where, severity="warning"):
    return Finding(code, severity, "", where, 1.0, 0.0, "", "")


def first_of(*findings):
    found = sort_findings(raise_causes(findings, ("a", "b", "b (tanh)", "c")))
    return found[0].code, found[0].severity


def test_a_cause_is_as_bad_as_what_lies_behind_it():
    flat = finding("saturation", "b (tanh)", "problem")
    assert first_of(flat, finding("large_inputs", "a")) == ("large_inputs", "problem")
    assert first_of(flat, finding("rescaled_layer", "b")) == ("rescaled_layer", "problem")
    assert first_of(flat, finding("rescaled_layer", "c")) == ("saturation", "problem")
    assert first_of(flat, finding("frozen_parameters", "a")) == ("saturation", "problem")
    milder = finding("saturation", "b (tanh)")
    assert first_of(milder, finding("rescaled_layer", "b")) == ("rescaled_layer", "warning")
    trend = finding("vanishing_gradient", "c to a", "problem")  # in no single place
    assert first_of(trend, finding("rescaled_layer", "b")) == ("vanishing_gradient", "problem")
    assert first_of(trend, finding("large_inputs", "a")) == ("large_inputs", "problem")


def deep(activation):
    torch.manual_seed(0)
    parts = [part for k in range(4) for part in (nn.Linear(16, 16), activation())]
    return nn.Sequential(*parts, nn.Linear(16, 4))


def test_in_a_trial():
    report = diagnose_model(deep(nn.Tanh), 1e4 * X, Y, loss=F.cross_entropy, steps=2)
    assert [f.code for f in report.problems[:2]] == ["large_inputs", "saturation"]
    model = deep(nn.Tanh)
    with torch.no_grad():
        model[4].weight *= 100
    report = diagnose_model(model, X, Y, loss=F.cross_entropy, steps=2)
    assert (report.findings[0].code, report.findings[0].where) == ("rescaled_layer", "4")
    assert report.codes[1] == "saturation"


def test_inputs_that_end_in_no_number_at_the_first_step_are_named_beside_it():
    class Exponential(nn.Module):
        def forward(self, x):
            return x.exp()

    model = nn.Sequential(nn.Linear(16, 8), Exponential(), nn.Linear(8, 4))
    report = diagnose_model(model, 1e4 * X, Y, loss=F.cross_entropy, steps=2)
    assert report.codes[:2] == ("non_finite", "large_inputs")


@pytest.mark.parametrize(("calls", "networks"), [(1, 1), (2, 2), (4, 2), (7, 1)])
def test_a_decoder_called_step_by_step_is_no_network_beside_its_encoder(calls, networks):
    """A discriminator is called once per loss; a decoder, in every step of time."""
    names = ["encoder.embed", "encoder.cell"]
    names += [f"decoder.{part}{f'#{k}' * (k > 1)}" for k in range(1, calls + 1)
              for part in ("cell", "out")]  # fmt: skip
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    owners = sorted({name.split("#")[0] for name in names})
    states = [ParameterState(f"{name}.weight", name, 2, True, 1.0, 1.0, 1e-3) for name in owners]
    sites = [Site(name, "Linear", None, 64, 1, 8.0, 1.0) for name in names]
    recorder.add(Sample(0, sites, states))
    assert len(separate_networks(recorder.record())) == networks
