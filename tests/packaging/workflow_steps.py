"""Workflows as data: their jobs in order, their commands with every expression filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


@dataclass(frozen=True)
class Step:
    """One step of a job: a command with its environment, or an action that is used."""

    job: str
    run: str | None
    uses: str | None
    given: Mapping
    environment: Mapping[str, str]
    condition: str


def read_workflow(path: Path) -> dict:
    """Return a workflow; YAML reads its key `on` as True."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    workflow["on"] = workflow.pop(True, workflow.get("on"))
    return workflow


def fill_in(text: str, context: Mapping[str, str]) -> str:
    """Return the text with each expression's value. Raises KeyError for one that is not given."""
    return EXPRESSION.sub(lambda found: context[found[1]], str(text))


def jobs_in_order(workflow: dict) -> list[str]:
    """Return the jobs, each after those that it needs."""
    waiting, done = dict(workflow["jobs"]), []
    while waiting:
        for name, job in waiting.items():
            needs = job.get("needs", [])
            if set([needs] if isinstance(needs, str) else needs) <= set(done):
                done.append(name)
                del waiting[name]
                break
        else:
            raise ValueError(f"these jobs wait for one another: {sorted(waiting)}")
    return done


def steps(workflow: dict, context: Mapping[str, str] | None = None) -> Iterator[Step]:
    """Yield every step; with a context, expressions in environments are filled in."""
    for name in jobs_in_order(workflow):
        job = workflow["jobs"][name]
        for step in job["steps"]:
            environment = {**workflow.get("env", {}), **job.get("env", {}), **step.get("env", {})}
            if context is not None:
                environment = {k: fill_in(v, context) for k, v in environment.items()}
            conditions = [str(c) for c in (job.get("if"), step.get("if")) if c is not None]
            yield Step(name, step.get("run"), step.get("uses"), step.get("with", {}), environment,
                       " && ".join(conditions))  # fmt: skip
