"""The report of a run: one HTML page, made from the run directory alone.

    routing/    the page of a fusion of experts
    comparing/  the page of a comparison
    merging/    the page of a merge; what follows is that of FuseGen, and what all share
    facts.py    contents of the run directory
    texts.py    texts with their provenance: shots and examples
    tables.py   rows of the tables; heat.py colours the cells of heat maps
    words.py    numbers, names and sentences
    plots.py    figures, drawn by matplotlib; drawing.py makes them part of the page
    pages.py    how templates become pages
    templates/  the page: no script, no font, no picture from elsewhere

The page is the same, byte for byte, for the same files. What a run does not have (evaluation data, weights,
a second PLM, an end) leaves out its section.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from cluster.storage import Run, Storage
from configs.schema.base import ConfigError
from jobs.report import comparing, merging, plots, routing, tables, texts, words
from jobs.report.facts import Facts
from jobs.report.pages import environment

PAGE = "report.html"
SECTIONS = (
    ("result", "Result", "scores"),
    ("search", "Settings that were tried", "trials"),
    ("rounds", "Rounds", "rounds"),
    ("samples", "Samples", "rejections"),
    ("map", "Map of the texts", "map"),
    ("pairs", "Who learns from whom", "pairs"),
    ("scaling", "How many models are enough", "stages"),
    ("habits", "Diversity", "habits"),
    ("weights", "Weights", "weights"),
    ("shots", "Shots", "shots"),
    ("examples", "Example texts", "examples"),
    ("cost", "Cost and time", "costs"),
)
"""Anchor and title of each section, and the part of the page without which it is left out."""


def write(run_uri: str, output: str | None) -> str:
    """Write the page of a run to `output`, or into the run directory; returns its path.

    ConfigError when the directory is no run or holds no results yet.
    """
    run = Run(run_uri)
    if not run.exists("run.json"):
        raise ConfigError(f"{run_uri}: not a run directory (it has no run.json)")
    if not run.exists("summary.json"):
        raise ConfigError(f"{run_uri}: holds no results yet; start the job, or wait for its first round")
    summary, record = run.read_json("summary.json"), run.read_json("run.json")
    if record["config"]["job"] in {"foe", "merge", "compare"} and not {"methods", "fusions"} & set(summary):
        raise ConfigError(f"{run_uri}: {summary['status']} while {summary['stage']}; nothing is judged yet")
    report = run.read_json("report.json") if run.exists("report.json") else None
    page = render(summary, report, record).encode()
    if output is None:
        run.write_bytes(PAGE, page)
        return run.below(PAGE).uri
    folder, _, name = output.rpartition("/")
    Storage(folder or ".").write_bytes(name, page)
    return output


def render(summary: Mapping[str, Any], report: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    """The page.

    `summary` and `report` are the values of `summary.json` and `report.json` (None while the run is not
    done); `record` is that of `run.json`, with `config`, `version` and `inputs`.
    """
    config = record["config"]
    if config["job"] == "foe":
        return routing.render(summary, report, record)
    if config["job"] == "merge":
        return merging.render(summary, report, record)
    if config["job"] == "compare":
        return comparing.render(summary, report, record)
    facts = Facts(summary, report or {}, config)
    parts = {
        "scores": tables.scores(facts),
        "trials": facts.summary.get("search"),
        "rounds": tables.rounds(facts),
        "rejections": tables.rejections(facts),
        "pairs": tables.pairs(facts),
        "stages": tables.stages(facts),
        "habits": tables.habits(facts),
        "weights": tables.weights(facts),
        "shots": texts.shots(facts),
        "examples": texts.examples(facts),
        "costs": tables.costs(facts),
    }
    figures = plots.draw(facts)
    return (
        environment(words.FILTERS)
        .get_template("page.html.j2")
        .render(
            summary=summary,
            config=config,
            record=record,
            facts=facts,
            plots=figures,
            sections=[(anchor, title) for anchor, title, part in SECTIONS if (figures | parts)[part]],
            outcome=words.outcome(facts),
            notes=words.notes(facts),
            **parts,
            yaml=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100),
        )
    )
