"""The page of a fusion of experts.

facts.py     contents of the run directory
tables.py    rows of the tables; answers.py those about single items, domains and experts
words.py     numbers, names and the sentences of the header; notes.py what a reader should know
plots.py     figures; frontier.py that of cost and quality, labels.py puts names beside its points
templates/   the page, on the base that all pages share
"""

from collections.abc import Mapping
from typing import Any

import yaml

from jobs.report.pages import environment
from jobs.report.routing import answers, notes, plots, tables, words
from jobs.report.routing.facts import Facts

SECTIONS = (
    ("curve", "Cost and quality", "curve"),
    ("methods", "All methods", "methods"),
    ("rates", "What a rate buys", "rates"),
    ("rivals", "At equal price", "comparisons"),
    ("asked", "Who is asked", "asked"),
    ("decisions", "Some decisions", "decisions"),
    ("answers", "Answers", "confusion"),
    ("domains", "Domains", "domains"),
    ("unseen", "Unseen domains", "unseen"),
    ("published", "Beside published numbers", "published"),
    ("experts", "Experts", "experts"),
)
"""Anchor and title of each section, and the part of the page without which it is left out."""


def render(summary: Mapping[str, Any], report: Mapping[str, Any] | None, record: Mapping[str, Any]) -> str:
    """The page; parameters as of `jobs.report.render`."""
    config = record["config"]
    facts = Facts(summary, report or {}, config)
    parts = {
        "methods": tables.methods(facts),
        "rates": tables.rates(facts),
        "comparisons": tables.comparisons(facts),
        "asked": tables.asked(facts),
        "decisions": answers.decisions(facts),
        "confusion": answers.confusion(facts),
        "domains": answers.domains(facts),
        "unseen": tables.unseen(facts),
        "published": tables.published(facts),
        "experts": answers.experts(facts),
    }
    figures = plots.draw(facts)
    shown = {**parts, "curve": figures["curve"]}
    sections = [(anchor, title) for anchor, title, part in SECTIONS if shown[part]]
    anchors = {anchor for anchor, _ in sections}
    filters = {**words.FILTERS, "price": words.pricing(facts.unit)}
    return (
        environment(filters, "routing/templates")
        .get_template("page.html.j2")
        .render(
            summary=summary,
            config=config,
            record=record,
            facts=facts,
            plots=figures,
            sections=sections,
            outcome=words.outcome(facts),
            meaning=words.rate_in_words(facts),
            rates_for=tables.rates_for(facts),
            notes=[
                (text, anchor if anchor in anchors else "configuration")
                for text, anchor in notes.notes(facts)
            ],
            **parts,
            yaml=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100),
        )
    )
