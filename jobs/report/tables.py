"""Rows of the page's tables."""

from collections.abc import Callable, Mapping
from typing import Any

from jobs.report import heat
from jobs.report.facts import Facts
from jobs.report.words import count, method, percent, reason, share


def scores(facts: Facts) -> list[dict[str, Any]]:
    """Groups of compared models: `title`, `rows` of (name, label, score); the result is the first group."""
    if not facts.final:
        return []
    variants = list(facts.config.get("variant") or [])
    groups: dict[str, list[str]] = {
        "All PLMs together": [n for n in facts.baselines if n.startswith("union")],
        "Other methods, same PLMs": [n for n in facts.baselines if n in variants],
        "One PLM alone": [n for n in facts.baselines if n in facts.plms],
        "One PLM alone, zero-shot only": [n for n in facts.baselines if n.startswith("zerogen/")],
    }
    placed = {name for names in groups.values() for name in names}
    groups["Others"] = [name for name in facts.baselines if name not in placed]
    result = facts.summary["variant"]
    tables = [{"title": "Result", "rows": [(result, method(result), facts.final)]}]
    for title, names in groups.items():
        ordered = sorted(names, key=lambda name: -facts.baselines[name][facts.measure])
        rows = [(name, method(name), facts.baselines[name]) for name in ordered]
        tables += [{"title": title, "rows": rows}] if rows else []
    return tables


def rejections(facts: Facts) -> dict[str, Any]:
    """`reasons`, and `rows` per PLM: asked, kept, counts by reason, shortfall."""
    shortfall = facts.summary["samples"].get("shortfall") or {}
    rows = []
    for plm in facts.plms:
        counts = {"asked": 0, "kept": 0}
        by_reason: dict[str, int] = {}
        for record in facts.rounds:
            counts["asked"] += record["asked"].get(plm, 0)
            counts["kept"] += record["kept"].get(plm, 0)
            for name, n in record["rejected"].get(plm, {}).items():
                by_reason[name] = by_reason.get(name, 0) + n
        rows.append({"plm": plm, **counts, "reasons": by_reason, "shortfall": shortfall.get(plm, 0)})
    return {"reasons": [(name, reason(name)) for name in facts.reasons], "rows": rows}


def rounds(facts: Facts) -> list[dict[str, Any]]:
    """Per round: what was asked and kept, the texts so far, the score of the model trained on them."""
    total, rows = 0, []
    for record in facts.rounds:
        kept = sum(record["kept"].values())
        total += kept
        rows.append(
            {
                "round": record["round"],
                "asked": sum(record["asked"].values()),
                "kept": kept,
                "total": total,
                "score": record.get(facts.measure),
                "ci95": record.get("ci95"),
            }
        )
    return rows


def pairs(facts: Facts) -> dict[str, Any] | None:
    """The pair matrix: `plms`, `rows` of (plm, cells, mean of the others), `means` of the columns."""
    matrix = facts.report.get("pair_matrix") or {}
    plms, values = matrix.get("plms") or [], matrix.get("accuracy") or []
    if len(plms) < 2:
        return None
    known = [value for row in values for value in row if value is not None]
    low, high = min(known), max(known)
    rows = [
        (plm, [heat.cell(value, low, high) for value in row], _mean(row, i))
        for i, (plm, row) in enumerate(zip(plms, values, strict=True))
    ]
    columns = list(zip(*values, strict=True))
    means = [_mean(column, i) for i, column in enumerate(columns)]
    return {"plms": plms, "rows": rows, "means": means}


def _mean(values: Any, skip: int) -> float | None:  # noqa: ANN401
    others = [v for i, v in enumerate(values) if i != skip and v is not None]
    return sum(others) / len(others) if others else None


def stages(facts: Facts) -> list[dict[str, Any]]:
    """Rows of one PLM, two and so on: `models`, `added`, `loss`, scores `all` and `one`, `tokens`, `cost`."""
    return [
        {
            "models": number,
            "added": stage["added"],
            "loss": stage["held_out_loss"],
            "all": stage["all"] or {},
            "one": stage["one"] or {},
            "tokens": stage["tokens"],
            "cost": stage["cost"],
        }
        for number, stage in enumerate(facts.summary.get("scaling") or [], 1)
    ]


def habits(facts: Facts) -> dict[str, Any] | None:
    """How each PLM writes: `measures` (headings), `plms` and `rounds` with their cells as text."""
    found = facts.report.get("diversity") or {}
    by_plm, by_round = found.get("plms") or {}, found.get("rounds") or []
    if not by_plm:
        return None
    agreement = facts.report.get("label_agreement") or {}
    return {
        "measures": [heading for heading, _ in MEASURES],
        "plms": [(plm, _cells(by_plm[plm]), agreement.get(plm)) for plm in facts.plms if plm in by_plm],
        "rounds": [(number, _cells(row)) for number, row in enumerate(by_round)],
        "agreement": bool(agreement),
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [write(row) for _, write in MEASURES]


def _word_range(row: Mapping[str, Any]) -> str:
    words = row.get("words") or {}
    return f"{words['q05']:.0f}–{words['q95']:.0f}" if words else "–"


MEASURES: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("texts", lambda row: count(row.get("texts"))),
    ("distinct-1", lambda row: share(row.get("distinct_1"))),
    ("distinct-2", lambda row: share(row.get("distinct_2"))),
    ("overlap", lambda row: percent(row.get("self_overlap"))),
    ("repeats", lambda row: percent(row.get("duplicates"))),
    ("words, mean", lambda row: count((row.get("words") or {}).get("mean"))),
    ("words, 5–95 %", _word_range),
)


def weights(facts: Facts) -> list[tuple[str, Mapping[str, float]]]:
    """Per PLM its survivors and mean weight."""
    found = (facts.report.get("weights") or {}).get("plms") or {}
    return [(plm, found[plm]) for plm in facts.plms if plm in found]


def costs(facts: Facts) -> dict[str, Any] | None:
    """Per PLM requests, tokens, seconds and money, with their sum; whether any tokens and prices are
    known."""
    found = facts.summary.get("costs") or facts.report.get("plms") or {}
    rows = [{"plm": plm, **found[plm]} for plm in facts.plms if plm in found]
    if not rows:
        return None
    names = ("asked", "kept", "prompt_tokens", "completion_tokens", "seconds", "cost")
    total = {name: sum(row.get(name) or 0 for row in rows) for name in names}
    counted = total["prompt_tokens"] + total["completion_tokens"] > 0
    priced = any(row.get("cost") is not None for row in rows)
    return {"rows": rows, "total": total, "priced": priced, "counted": counted}
