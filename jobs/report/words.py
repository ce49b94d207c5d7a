"""Numbers, names and sentences of the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.report.facts import RECORD_ID, Facts

SIGNIFICANT = 0.05
NOTABLE = 0.01
"""A fall of the share judged right that a reader should hear of."""
METHODS = {
    "fusegen": "FuseGen",
    "zerogen": "ZeroGen",
    "sungen": "SunGen",
    "progen": "ProGen",
    "sdg_plus": "SDG+",
    "no_swa": "FuseGen without SWA",
    "no_cdg": "FuseGen without feedback",
    "no_influence": "FuseGen without influence",
    "no_variability": "FuseGen without variability",
    "random_shots": "FuseGen, random shots",
    "easy_only": "FuseGen, easy shots only",
    "ambiguous_only": "FuseGen, ambiguous shots only",
    "self_selected": "FuseGen, own shots only",
    "personalised": "FuseGen, personalised shots",
    "union": "all PLMs, equal weights",
    "union_swa": "all PLMs, SWA weights",
    "union_sungen": "all PLMs, SunGen weights",
}
REASONS = {
    "kept": "kept",
    "uncut": "no end found",
    "no_question": "no question",
    "answer_in_question": "gives the answer away",
    "missing_marker": "marker missing",
    "forbidden_marker": "forbidden marker",
    "short": "too short",
    "same_as_context": "repeats its context",
    "placeholder": "unfilled placeholder",
    "refusal": "refusal",
    "template": "echo of the prompt",
    "copy": "copy of a shot",
    "duplicate": "exact duplicate",
    "near_duplicate": "near-duplicate",
    "surplus": "not needed",
    "exhausted": "nothing left to replay",
    "error": "engine error",
}


def method(name: str) -> str:
    """What a model of the summary is called; PLMs keep their names."""
    return METHODS.get(name, name.removeprefix("zerogen/"))


def reason(status: str) -> str:
    """What a status of a record is called."""
    return REASONS.get(status, status.replace("_", " "))


def share(value: float | None, digits: int = 3) -> str:
    """A number in [-1, 1] without its leading zero, as papers print accuracies: .815."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    return ("−" if value < 0 and float(text) else "") + (text[1:] if text.startswith("0.") else text)


def signed(value: float) -> str:
    """A difference with its sign."""
    text = share(value)
    return text if text.startswith("−") or not float(text) else f"+{text}"


def percent(value: float | None) -> str:
    """A share in whole per cent, or with one digit where that says more."""
    if value is None:
        return "–"
    hundred = 100 * value
    return f"{hundred:.1f} %" if 0 < hundred < 1 or 99 < hundred < 100 else f"{hundred:.0f} %"


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return "–" if value is None else f"{value:,.0f}"


def interval(bounds: Any) -> str:  # noqa: ANN401
    """Lower and upper bound."""
    return f"{share(bounds[0])}–{share(bounds[1])}" if bounds else "–"


def signed_interval(bounds: Any) -> str:  # noqa: ANN401
    """Lower and upper bound of a difference."""
    return f"{signed(bounds[0])} to {signed(bounds[1])}" if bounds else "–"


def p_value(value: float | None) -> str:
    """A p-value to two digits, never a bare 0."""
    if value is None:
        return "–"
    if value < 0.001:
        return "< .001"
    return share(value, 3 if value < 0.1 else 2)


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def listed(names: list[str]) -> str:
    """Names as a sentence lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


FILTERS: Mapping[str, Callable[..., str]] = {
    "method": method,
    "reason": reason,
    "share": share,
    "signed": signed,
    "percent": percent,
    "count": count,
    "interval": interval,
    "signed_interval": signed_interval,
    "p_value": p_value,
    "seconds": seconds,
    "listed": listed,
}


def best_plm(facts: Facts) -> str | None:
    """The baseline of one PLM alone that is the best, zero-shot ones included."""
    scored = [name for name in facts.baselines if name.removeprefix("zerogen/") in facts.plms]
    return max(scored, key=lambda name: facts.baselines[name][facts.measure], default=None)


def _single(name: str) -> str:
    return f"{method(name)} (zero-shot only)" if name.startswith("zerogen/") else name


def outcome(facts: Facts) -> str:
    """The result in one sentence."""
    samples = facts.summary["samples"]
    written = f"{count(samples['kept'])} accepted texts of {_models(facts)}"
    if facts.summary.get("status") == "running":
        return f"Still running: {written} so far."
    if not facts.final:
        return f"{written}; no real texts were given, so nothing was measured."
    final = facts.final
    reached = f"{share(final[facts.measure])} ({interval(final['ci95'])}) on {count(final['n'])} real texts"
    if facts.spans:
        reached = f"an F1 of {reached.removesuffix('texts')}questions"
    parts = [f"{method(facts.summary['variant'])} reaches {reached}"]
    if (best := best_plm(facts)) is not None:
        parts.append(f"the best single PLM, {_single(best)}, {share(facts.baselines[best][facts.measure])}")
    if "union" in facts.baselines:
        parts.append(f"all texts with equal weights {share(facts.baselines['union'][facts.measure])}")
    return "; ".join(parts) + "."


def _models(facts: Facts) -> str:
    n = len(facts.plms)
    return "one language model" if n == 1 else f"{n} language models"


def notes(facts: Facts) -> list[tuple[str, str]]:
    """What a reader should know before trusting the numbers: (text, anchor of the section)."""
    return [*_comparisons(facts), *_losses(facts), *_feedback(facts), *_weighting(facts)]


def _comparisons(facts: Facts) -> list[tuple[str, str]]:
    found = []
    best = best_plm(facts)
    named = [(best, f"the best single PLM, {_single(best)}")] if best else []
    for name, called in [*named, ("union", "all texts with equal weights"), ("zerogen", "ZeroGen")]:
        against = facts.baselines.get(name, {}).get("against_result")
        if against:
            found.append((f"Against {called}: {_verdict(against)}.", "result"))
    return found


def _verdict(against: Mapping[str, Any]) -> str:
    difference = against["difference"]
    numbers = f"{signed(difference)}, 95 % interval {signed_interval(against['ci95'])}"
    if against["p_value"] >= SIGNIFICANT:
        return f"no difference that these texts can show ({numbers}; p = {p_value(against['p_value'])})"
    p = p_value(against["p_value"])
    word = "better" if difference > 0 else "worse"
    return f"{word} ({numbers}; p {p if p.startswith('<') else '= ' + p})"


def _losses(facts: Facts) -> list[tuple[str, str]]:
    found = []
    for number, plm, why in facts.dropped:
        found.append((f"{plm} was dropped in round {number}: {why}.", "samples"))
    shortfall = facts.summary["samples"].get("shortfall") or {}
    if shortfall and facts.summary.get("status") != "running":
        wanted = count(facts.config["samples"]["per_plm"])
        short = listed([f"{plm} by {count(n)}" for plm, n in shortfall.items()])
        found.append((f"Fewer than the {wanted} texts wanted per PLM: {short}.", "samples"))
    return found


def _feedback(facts: Facts) -> list[tuple[str, str]]:
    if facts.spans:
        return []
    one_sided = [
        entry["round"]
        for entry in facts.report.get("shots") or []
        if any(len(group["shots"]) > 1 and len(_labels(group["shots"])) == 1 for group in entry["sets"])
    ]
    if not one_sided:
        return []
    rounds = listed([str(number) for number in one_sided])
    when = f"round {rounds}" if len(one_sided) == 1 else f"rounds {rounds}"
    return [
        (f"After {when}, all shots of a prompt were texts asked for with one and the same label.", "shots")
    ]


def _labels(shots: Sequence[Mapping[str, str]]) -> set[str | None]:
    origins = [RECORD_ID.fullmatch(shot["id"]) for shot in shots]
    return {origin["label"] if origin else None for origin in origins}


def _weighting(facts: Facts) -> list[tuple[str, str]]:
    right = [entry["share_ok"] for entry in facts.report.get("weight_history") or [] if "share_ok" in entry]
    if len(right) < 2 or right[0] - right[-1] < NOTABLE:
        return []
    fall = f"from {percent(right[0])} to {percent(right[-1])}"
    return [(f"Under weighting, the share of texts that the model gets right fell {fall}.", "weights")]
