"""What a comparison comes to: which fusion is worth its price, and the recommendation in words.

Everything here follows from accuracies, paired tests and calls per request, which are the same every time;
seconds are in the table, and decide nothing.
"""

from collections.abc import Mapping
from typing import Any

Fusions = Mapping[str, Mapping[str, Any]]
SIGNIFICANT = 0.05
NAMES = {
    "fusegen": "FuseGen's single model",
    "foe": "Fusion of Experts",
    "frugal": "the frugal router",
    "regmean": "RegMean's merged model",
    "simple": "the average of the weights",
    "fisher": "Fisher merging",
    "task_arithmetic": "task arithmetic",
    "ties": "TIES merging",
    "dare": "DARE merging",
    "slerp": "SLERP",
    "ensemble": "the ensemble",
    "best_single": "the best single model",
    "pooled": "one model trained on everything",
}


def frontier(fusions: Fusions) -> list[dict[str, Any]]:
    """The fusions that win at some price: no other that asks as little is right as often, cheapest first."""
    found: list[dict[str, Any]] = []
    for name in sorted(fusions, key=lambda n: (fusions[n]["calls"], -fusions[n]["accuracy"])):
        one = fusions[name]
        if not found or one["accuracy"] > found[-1]["accuracy"]:
            found.append({"fusion": name, "calls": one["calls"], "accuracy": one["accuracy"]})
    return found


def tied(fusions: Fusions, winner: str) -> list[str]:
    """The fusions that the paired test cannot tell from the winner, best first."""
    others = [n for n, one in fusions.items() if n != winner and _p(one) >= SIGNIFICANT]
    return sorted(others, key=lambda name: -fusions[name]["accuracy"])


def advised(fusions: Fusions, winner: str) -> str:
    """The cheapest of the winner and those that cannot be told from it; of equals the most accurate."""
    able = [winner, *tied(fusions, winner)]
    return min(able, key=lambda name: (fusions[name]["calls"], -fusions[name]["accuracy"]))


def recommendation(fusions: Fusions, winner: str, elsewhere: list[str]) -> str:
    """What to take, in words."""
    best, pick = fusions[winner], advised(fusions, winner)
    low, high = best["ci95"]
    parts = [
        f"{_start(NAMES[winner])} is right most often: on {_share(best['accuracy'])} of {best['n']:,} real "
        f"texts (95 % interval {_share(low)} to {_share(high)}), asking {_models(best)} per request."
    ]
    if pick != winner:
        parts.append(
            f"{_start(NAMES[pick])} asks {_models(fusions[pick])} per request and cannot be told from it on "
            f"these texts ({_gap(fusions[pick])}): take that."
        )
    else:
        parts.append("Take it.")
        parts += _cheaper(fusions, winner)
    others = [name for name in tied(fusions, winner) if name != pick]
    if others:
        also = "Nor can" if pick != winner else "On these texts it cannot be told from"
        parts.append(f"{also} {_listed(others)}{' be told from it' if pick != winner else ''}.")
    parts += [_leader(fusions, name) for name in elsewhere]
    return " ".join(parts)


def _cheaper(fusions: Fusions, winner: str) -> list[str]:
    """What to take where a request must cost less than the winner asks for."""
    less = [one for one in frontier(fusions) if one["calls"] < fusions[winner]["calls"]]
    return [
        f"Where a request may ask no more than {_models(fusions[one['fusion']])}, take "
        f"{NAMES[one['fusion']]}, {_share(one['accuracy'])} ({_gap(fusions[one['fusion']])})."
        for one in reversed(less)
    ]


def _leader(fusions: Fusions, name: str) -> str:
    best = max(fusions, key=lambda fusion: float(fusions[fusion]["elsewhere"][name]["accuracy"]))
    return f"On {name}, {NAMES[best]} leads ({_share(fusions[best]['elsewhere'][name]['accuracy'])})."


def _p(one: Mapping[str, Any]) -> float:
    return float(one["against_winner"]["p_value"])


def _gap(one: Mapping[str, Any]) -> str:
    against = one["against_winner"]
    p = "p < .001" if against["p_value"] < 0.001 else f"p = {_share(against['p_value'])}"
    return f"{_share(against['difference'])} behind, {p}"


def _models(one: Mapping[str, Any]) -> str:
    calls = float(one["calls"])
    return "one model" if calls == 1 else f"{calls:.3g} models"


def _share(value: float) -> str:
    """A share as papers print it: .815."""
    text = f"{value:.3f}"
    return text.removeprefix("0") if text.startswith("0.") else text


def _listed(names: list[str]) -> str:
    words = [NAMES[name] for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _start(text: str) -> str:
    return text[0].upper() + text[1:]
