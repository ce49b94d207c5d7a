"""Who is answered what: decisions step by step, confusions, accuracy by domain."""

from collections.abc import Mapping
from typing import Any

from jobs.report import heat
from jobs.report.routing.facts import Facts

MOST_CLASSES = 20
"""Rows and columns of a table of confusions; with more, the worst are listed."""
MOST_LISTED = 15
NOTHING = 1e-6
Row = dict[str, Any]


def decisions(facts: Facts) -> list[Row]:
    """Requests step by step: `item`, `answer`, `right`, `worth`, `cost`, and `steps` with the expected loss
    `now`, the `best` one after asking further, what `follows`, and `why`."""
    found = []
    for trace in facts.report.get("trace") or []:
        steps = trace["steps"]
        rows = [_step(step, last=number == len(steps) - 1) for number, step in enumerate(steps)]
        found.append({**trace, "steps": rows})
    return found


def _step(step: Mapping[str, Any], *, last: bool) -> Row:
    now, best, why = step["current"], step["best"], ""
    if not last:
        gains = best is None or now is None or best < now + NOTHING
        follows = "asks on" if gains else "has to ask on"
    elif best is None:
        follows, why = "stops", "nobody is left to ask"
    elif now is None or best >= now - NOTHING:
        follows, why = "stops", "asking on does not pay"
    else:
        follows, why = "stops", "no more may be asked"
    return {"expert": step["expert"], "now": now, "best": best, "follows": follows, "why": why}


def confusion(facts: Facts) -> Row | None:
    """What was answered (`columns`) to items of each label or domain (`rows`): shares as cells of a heat map,
    or the most frequent ones as a list where there are too many."""
    found = facts.report.get("confusion") or {}
    names, columns, counts = found.get("rows") or [], found.get("columns") or [], found.get("counts") or []
    if not names or not columns:
        return None
    square = names == columns
    about = {"by": found["by"], "columns": columns, "square": square, "total": sum(map(sum, counts))}
    if max(len(names), len(columns)) > MOST_CLASSES:
        return {**about, "listed": _frequent(names, columns, counts, square=square), "rows": []}
    rows = [
        (name, [_share(n, sum(row)) for n in row], sum(row)) for name, row in zip(names, counts, strict=True)
    ]
    return {**about, "listed": [], "rows": rows}


def _share(n: int, total: int) -> dict[str, Any]:
    return heat.cell(n / total if total else None, 0.0, 1.0)


def _frequent(names: list[str], columns: list[str], counts: list[list[int]], *, square: bool) -> list[Row]:
    pairs = [
        {"row": name, "column": column, "count": n, "share": n / sum(row)}
        for name, row in zip(names, counts, strict=True)
        for column, n in zip(columns, row, strict=True)
        if n and not (square and name == column)
    ]
    return sorted(pairs, key=lambda pair: (-pair["count"], pair["row"], pair["column"]))[:MOST_LISTED]


def domains(facts: Facts) -> list[Mapping[str, Any]]:
    """Accuracy by domain, the largest gain over the best single expert first."""
    found = list(facts.report.get("domains") or [])
    return sorted(found, key=lambda row: (row["best_single"] - row["policy"], row["domain"]))


def experts(facts: Facts) -> list[Mapping[str, Any]]:
    """Experts, the most accurate first."""
    return sorted(facts.experts, key=lambda row: (-row["accuracy"], row["name"]))
