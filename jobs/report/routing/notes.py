"""What a reader should know before trusting the numbers of a fusion of experts."""

from collections.abc import Mapping
from typing import Any

from jobs.report.routing import tables
from jobs.report.routing.facts import Facts
from jobs.report.routing.words import DOLLARS, amount, hundredth, method, points, pricing, rate, spread
from jobs.report.words import count, listed, percent, share

BLIND = 0.6
"""An area under the ROC below this hardly tells unseen domains apart."""
ALONE = 1.05
"""So many experts per item are one, nearly always."""
RARE = 0.005
FEWEST, WORSE = 30, 0.05
"""Items of a domain, and how much the policy must lose there, for a word."""
Notes = list[tuple[str, str]]


def notes(facts: Facts) -> Notes:
    """Each with the anchor of the section that tells more."""
    return [
        *((f"{warning[:1].upper()}{warning[1:].rstrip('.')}.", "experts") for warning in _warnings(facts)),
        *_beaten(facts),
        *_everyone(facts),
        *_promise(facts),
        *_asked(facts),
        *_domains(facts),
        *_unseen(facts),
        *_left_out(facts),
    ]


def _warnings(facts: Facts) -> list[str]:
    return list(facts.summary.get("warnings") or [])


def _beaten(facts: Facts) -> Notes:
    """Rivals that are better than the policy at some price."""
    price, found = pricing(facts.unit), []
    for row in tables.comparisons(facts):
        if not row["worse"]:
            continue
        worst = min(row["points"], key=lambda point: point["difference"])
        where = listed([_span(low, high, facts) for low, high in row["worse"]])
        found.append(
            (
                f"{_capital(method(row['name']))} beats the policy {where}, by up to "
                f"{points(-worst['difference']).lstrip('+')} points (at {price(worst['cost'])}).",
                "rivals",
            )
        )
    return found


def _span(low: float, high: float, facts: Facts) -> str:
    price = pricing(facts.unit)
    if price(low) == price(high):
        return f"at {price(low)}"
    return f"from {price(low) if price(low).startswith(DOLLARS) else amount(low)} to {price(high)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _everyone(facts: Facts) -> Notes:
    """What asking everyone would bring."""
    if not facts.fusers or len(facts.names) == 1:
        return []
    best = max(facts.fusers, key=lambda name: facts.methods[name]["accuracy"])
    reached = facts.methods[best]
    gap = reached["accuracy"] - facts.result["accuracy"]
    part = facts.result["cost"] / reached["cost"] if reached["cost"] else 1.0
    compared = f"{points(gap)} points against" if abs(gap) >= 0.0005 else "the same as"
    return [
        (
            f"Asking everyone, the best fuser ({method(best)}) reaches {hundredth(reached['accuracy'])}: "
            f"{compared} the policy, which takes {percent(part)} of that price.",
            "methods",
        )
    ]


def _promise(facts: Facts) -> Notes:
    """Whether the rehearsal promised more, or less, than was seen."""
    expected = next((p for p in facts.expected if p["lambda"] == facts.rate), None)
    bounds = facts.result.get("ci95")
    if expected is None or not bounds or bounds[0] <= expected["accuracy"] <= bounds[1]:
        return []
    word = "more" if expected["accuracy"] > bounds[1] else "less"
    return [
        (
            f"The rehearsal promised {word} than was seen: {hundredth(expected['accuracy'])} against "
            f"{hundredth(facts.result['accuracy'])} ({spread(bounds)}) at λ = {rate(facts.rate)}; read "
            "expected values with that in mind.",
            "rates",
        )
    ]


def _asked(facts: Facts) -> Notes:
    places = tables.places(facts, facts.rate)
    if not places or len(facts.names) == 1:
        return []
    asked = {name: 1 - of[-1] for name, of in places.items()}
    if facts.result["experts"] < ALONE:
        most = max(asked, key=lambda name: asked[name])
        return [(f"At its rate the policy asks hardly more than one expert: {most} dominates.", "asked")]
    never = [name for name, part in asked.items() if part < RARE]
    if not never:
        return []
    few = listed(never) if len(never) <= 5 else f"{len(never)} of {len(asked)} experts"
    return [(f"Hardly ever asked at this rate: {few}.", "asked")]


def _domains(facts: Facts) -> Notes:
    lost = [
        row
        for row in facts.report.get("domains") or []
        if row["n"] >= FEWEST and row["policy"] <= row["best_single"] - WORSE
    ]
    if not lost:
        return []
    worst = min(lost, key=lambda row: row["policy"] - row["best_single"])
    gap = points(worst["policy"] - worst["best_single"])
    also = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return [
        (
            f"In domain {worst['domain']}{also}, the policy is worse than the best single expert ({gap} "
            f"points on {count(worst['n'])} items).",
            "domains",
        )
    ]


def _unseen(facts: Facts) -> Notes:
    found = tables.unseen(facts)
    if not found or found["last"]["auroc"] >= BLIND:
        return []
    return [
        (
            f"The distance to stored items does not tell an unseen {found['column']} apart here (AUROC "
            f"{share(found['last']['auroc'])}; .500 is chance): do not rely on it.",
            "unseen",
        )
    ]


def _left_out(facts: Facts) -> Notes:
    items: Mapping[str, Any] = facts.summary["items"]
    if not items.get("left_out"):
        return []
    return [(f"{count(items['left_out'])} items were left out for want of an answer.", "experts")]
