"""The page: what is claimed, what was measured, and the runs behind it."""

import json
import shlex
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from configs.schema.evidence import EvidenceConfig
from jobs.evidence.measuring import Found, Kind, shipped
from jobs.evidence.testing import FAILS, FEW, HOLDS, OPEN, UNTESTED, Verdict
from jobs.report import words

HEAD = """# {title}

What is claimed in papers, and what runs of this software say. `python -m jobs evidence` wrote this page from
run directories, and nobody edited it.

![Differences with their intervals, claim by claim]({figure})

A number is a mean over pairs of runs with the same seed. The difference goes in the direction of the claim,
with a 95 % interval and the p value of a paired t-test over these pairs; three at least are asked for, and
seeds of a configuration that give the same numbers count once.
A claim **holds** where the whole interval speaks for it, **does not hold** where the whole interval speaks
against it; else it *cannot be told* from so few runs.
"""
RUNS = """## Runs

Version {version}. Each differs from the file that ships only in what its command sets.
"""
TABLE = ("| claim | measured | against | difference | |", "|--|--:|--:|--:|--|")
MARKED = {HOLDS: "**holds**", FAILS: "**does not hold**", OPEN: "*cannot be told*", FEW: "too few runs"}


def render(
    config: EvidenceConfig,
    verdicts: Sequence[Sequence[Verdict]],
    runs: Sequence[Found],
    wanted: Sequence[Kind],
    figure: str,
) -> str:
    """The page in Markdown; `wanted` are the kinds of runs that the claims are about."""
    parts, number = [HEAD.format(title=config.title, figure=figure)], 0
    for section, found in zip(config.sections, verdicts, strict=True):
        lines = [f"## {section.title}", "", *TABLE]
        notes = []
        for verdict in found:
            number += 1
            lines.append(_row(number, verdict))
            if verdict.claim.remark:
                notes.append(f"{number}: {verdict.claim.remark.strip()}")
        parts.append("\n".join(lines) + "\n")
        parts += [f"{note}\n" for note in notes]
    made = [(kind, run.seed, run) for run in runs for kind in wanted if not run.strays(kind)]
    commands = dict.fromkeys(_command(run, kind) for kind, _, run in sorted(made, key=lambda one: one[:2]))
    versions = ", ".join(sorted({run.version for run in runs}))
    parts.append(RUNS.format(version=versions) + "\n```sh\n" + "\n".join(commands) + "\n```\n")
    return "\n".join(parts)


def _row(number: int, verdict: Verdict) -> str:
    claim, test = verdict.claim, verdict.test
    said = f"{number}. {claim.claim} *{claim.data}.*"
    if test is None or isnan(verdict.measured):
        return f"| {said} | | | | {UNTESTED} |"
    interval = f" ({words.signed_interval((test.low, test.high))}), p {words.p_value(test.p)}"
    counted = "1 pair" if verdict.pairs == 1 else f"{verdict.pairs} pairs"
    if len(claim.configs) > 1:
        counted += f" ({', '.join(Path(config).stem for config in verdict.configs)})"
    return (
        f"| {said} | {words.share(verdict.measured)} | {words.share(verdict.against)} "
        f"| {words.signed(test.difference)}{interval if verdict.tested else ''} "
        f"| {MARKED[verdict.word]}, {counted} |"
    )


def _command(run: Found, kind: Kind) -> str:
    """How a run is made."""
    content = shipped(kind.config)
    options = [f"{key}={value}" for key, value in json.loads(kind.where).items()]
    for section, value in run.config.items():
        if isinstance(value, dict) and value.get("path"):
            here = content.get(section)
            same = isinstance(here, dict) and here.get("path") == value["path"]
            options += [] if same else [f"{section}.path=FOLDER"]
    options.append(f"seed={run.seed}")
    settings = [word for option in options for word in ("--set", option)]
    return shlex.join(["python", "-m", "jobs", content["job"], kind.config, *settings])
