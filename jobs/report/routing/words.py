"""Numbers, names and sentences of the page of a fusion of experts."""

from collections.abc import Callable, Mapping
from typing import Any

from jobs.report import words
from jobs.report.routing.facts import SINGLE, Facts

DOLLARS = "$"
CHEAPER = 0.97
"""A price below this share of another is worth a word."""
METHODS = {
    "foe_knn": "kNN",
    "foe_logistic": "logistic regression",
    "foe_mlp": "MLP",
    "foe_trees": "boosted trees",
    "frugal_knn": "FrugalFoE, kNN",
    "frugal_logistic": "FrugalFoE, logistic regression",
    "frugal_mlp": "FrugalFoE, MLP",
    "frugal_trees": "FrugalFoE, boosted trees",
    "any_correct": "any right answer",
    "best_single": "best single expert",
    "mean_single": "mean of the experts",
    "ensemble": "mean of the probabilities",
    "majority": "majority vote",
    "max_softmax": "most confident expert",
    "weighted_vote": "vote by confidence",
    "static_order": "static order",
    "random_order": "random order",
    "frugalml": "FrugalML",
    "cascade": "cascade",
    "input_gate": "input router, logistic",
    "input_knn": "input router, kNN",
}


def method(name: str) -> str:
    """What a method of the summary is called; experts keep their names."""
    return METHODS.get(name, name.removeprefix(SINGLE))


def hundredth(value: float | None) -> str:
    """A share in per cent with one digit: 79.6 %."""
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def spread(bounds: Any) -> str:  # noqa: ANN401
    """Lower and upper bound in per cent."""
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}" if bounds else "–"


def points(value: float | None) -> str:
    """A difference in percentage points with its sign."""
    if value is None:
        return "–"
    text = f"{abs(100 * value):.1f}"
    return text if not float(text) else ("−" if value < 0 else "+") + text


def points_spread(bounds: Any) -> str:  # noqa: ANN401
    """Lower and upper bound of a difference in percentage points."""
    return f"{points(bounds[0])} to {points(bounds[1])}" if bounds else "–"


def amount(value: float | None) -> str:
    """A number to three digits, never with an exponent."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if value and abs(value) < 1e-4:
        return _plain(value, 8)
    return f"{value:.3g}"


def rate(value: float) -> str:
    """A value of lambda as one would type it."""
    return _plain(value, 10)


def _plain(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return text if float(text) or not value else f"{value:.2g}"


def pricing(unit: str) -> Callable[[float | None], str]:
    """How prices in a unit are written in running text: $19.6, 2.7 calls."""

    def price(value: float | None) -> str:
        if value is None:
            return "–"
        text = amount(value)
        if unit.startswith(DOLLARS):
            return DOLLARS + text
        return f"{text} {unit[:-1] if text == '1' and unit.endswith('s') else unit}"

    return price


FILTERS: Mapping[str, Callable[..., str]] = {
    **words.FILTERS,
    "method": method,
    "hundredth": hundredth,
    "spread": spread,
    "points": points,
    "points_spread": points_spread,
    "amount": amount,
    "rate": rate,
}


def asking(facts: Facts, experts: float) -> str:
    """How many experts are asked, as a sentence begins with it."""
    if len(facts.names) == 1:
        return "Asking its only expert"
    return f"Asking {experts:.1f} of {len(facts.names)} experts per item"


def single_called(facts: Facts) -> str:
    """The best single expert, with its name where it is known."""
    name = facts.single_name
    return f"the best single expert, {name}," if name else "the best single expert"


def outcome(facts: Facts) -> str:
    """The result in plain sentences that hold for its numbers."""
    result, single, price = facts.result, facts.single, pricing(facts.unit)
    verb = "is right on" if facts.labels else "reaches a mean quality of"
    per = facts.unit.removeprefix(DOLLARS) if facts.unit.startswith(DOLLARS) else ""
    interval = f" ({spread(result['ci95'])})" if result.get("ci95") else ""
    found = (
        f"{asking(facts, result['experts'])}, the policy {verb} {hundredth(result['accuracy'])}{interval} "
    )
    found += f"at {price(result['cost'])}{per}"
    if single is None or len(facts.names) == 1:
        return f"{found}."
    on = "on " if facts.labels else ""
    found += f"; {single_called(facts)} {on}{hundredth(single['accuracy'])} at {price(single['cost'])}."
    return f"{found} {verdict(facts)}".rstrip()


def verdict(facts: Facts) -> str:
    """Whether routing pays, from the paired difference to the best single expert."""
    result, single = facts.result, facts.single
    against = result.get("against_best_single") or {}
    bounds = against.get("ci95")
    if single is None or not bounds:
        return ""
    numbers = f"{points(against['difference'])} points, 95 % interval {points_spread(bounds)}"
    saves = result["cost"] < CHEAPER * single["cost"]
    price = _times(result["cost"], single["cost"])
    if bounds[0] > 0:
        return f"Routing pays: {numbers}{f', at {price}' if price else ''}.{_same_price(facts)}"
    if bounds[1] < 0:
        return (
            f"Routing costs accuracy here ({numbers}), at {price}."
            if saves
            else _lost(numbers, "it is worse")
        )
    if saves:
        return f"These items show no difference between them ({numbers}); the policy takes {price}."
    return _lost(numbers, "these items show no difference")


def _times(cost: float, other: float) -> str:
    """One price in terms of another."""
    if not other:
        return ""
    part = cost / other
    return f"{words.percent(part)} of its price" if part < 1.2 else f"{part:.1f} times its price"


def _lost(numbers: str, why: str) -> str:
    return f"Routing does not pay here: {why} ({numbers}), and it costs no less."


def _same_price(facts: Facts) -> str:
    """What the policy reaches for the price of the best single expert, where it costs more at its rate."""
    single, price = facts.single, pricing(facts.unit)
    assert single is not None  # noqa: S101 - the caller has looked
    if facts.result["cost"] <= single["cost"]:
        return ""
    within = [point for point in facts.expected if point["cost"] <= single["cost"]]
    best = max(within, key=lambda point: (point["accuracy"], -point["cost"]), default=None)
    seen = facts.seen_at(best["lambda"]) if best else None
    if seen is None or seen["accuracy"] <= single["accuracy"] or seen["cost"] > single["cost"]:
        return ""
    return (
        f" For no more than the price of the best single expert it already reaches "
        f"{hundredth(seen['accuracy'])} ({spread(seen.get('ci95'))}), at {price(seen['cost'])}."
    )


def rate_in_words(facts: Facts) -> str:
    """What lambda means, in one sentence, with the run's own numbers."""
    meaning = (
        "λ is the exchange rate between loss and price: one more expert is asked only if that is expected to "
        "lower the loss by more than λ times its price"
    )
    prices = sorted({expert["price"] for expert in facts.experts if expert["price"] > 0})
    if not prices or not facts.rate:
        return f"{meaning}; at λ = 0, any gain is worth any price."
    least = facts.rate * prices[-1]
    dearest = pricing(facts.unit)(prices[-1])
    return f"{meaning}; at λ = {rate(facts.rate)}, an expert of {dearest} must save {100 * least:.2g} points."
