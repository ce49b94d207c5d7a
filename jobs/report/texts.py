"""Texts that the page shows, with their provenance."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.report.facts import RECORD_ID, Facts
from jobs.report.words import reason


@dataclass(frozen=True)
class Sample:
    """One text as the page shows it."""

    text: str
    badge: str | None
    label: str
    plm: str
    round: int | None
    details: tuple[tuple[str, str], ...] = ()
    of: str | None = None
    """The text that it repeats."""


def shots(facts: Facts) -> list[dict[str, Any]]:
    """Per round the sets of shots: `round`, `sets` of `receivers` (empty: all PLMs), `samples` and `mix`."""
    everyone = set(facts.plms)
    rounds = []
    for entry in facts.report.get("shots") or []:
        sets = []
        for group in entry["sets"]:
            samples = [_shot(facts, shot) for shot in group["shots"]]
            receivers = [] if everyone <= set(group["for"]) else group["for"]
            sets.append({"receivers": receivers, "samples": samples, "mix": _mix(samples)})
        rounds.append({"round": entry["round"], "sets": sets})
    return rounds


def _mix(samples: list[Sample]) -> str:
    """How many of which label, and of which PLM."""
    parts = []
    for values in ([sample.label for sample in samples], [sample.plm for sample in samples]):
        counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
        parts.append(", ".join(f"{n} {value}" for value, n in counts))
    return "; ".join(parts)


def _shot(facts: Facts, shot: Mapping[str, str]) -> Sample:
    origin = RECORD_ID.fullmatch(shot["id"])
    if origin is None:
        return Sample(shot["text"], None, "unknown", "unknown", None, (("id", shot["id"]),))
    label = facts.label(int(origin["label"]))
    return Sample(shot["text"], None, label, origin["plm"], int(origin["round"]), (("id", shot["id"]),))


def examples(facts: Facts) -> list[dict[str, Any]]:
    """Groups of example texts: `title`, `note`, `samples`; those that the run does not have are left out."""
    rows = facts.report.get("examples") or {}
    titles = {
        "kept": ("Accepted", "Drawn at random, up to four of each PLM."),
        "rejected": ("Not accepted", "Drawn at random, up to four for each reason."),
        "heaviest": ("Highest weight", "Texts that count most in training; 1 is the mean weight."),
        "lightest": ("Lowest weight", "Texts that the weighting nearly switched off."),
    }
    return [
        {"kind": kind, "title": title, "note": note, "samples": [_example(facts, row) for row in rows[kind]]}
        for kind, (title, note) in titles.items()
        if rows.get(kind)
    ]


def _example(facts: Facts, row: Mapping[str, Any]) -> Sample:
    status = row.get("status") or "kept"
    badge = f"weight {row['weight']:.3g}" if "weight" in row else reason(status)
    named = (
        ("id", row.get("id")),
        ("seed", row.get("seed")),
        ("prompt", row.get("prompt_hash")),
        ("shots", _shot_note(facts, row)),
    )
    details = tuple((name, str(value)) for name, value in named if value not in (None, ""))
    text = row.get("text") or row.get("raw") or ""
    of = row.get("of") if row.get("of") != text else None
    label = row.get("answer") or facts.label(row["label"])
    return Sample(text, badge, label, row["plm"], row.get("round"), details, of)


def _shot_note(facts: Facts, row: Mapping[str, Any]) -> str | None:
    """The shots in the prompt: where they are shown, or their ids."""
    ids = row.get("shot_ids")
    if not ids:
        return None if ids is None else "none (zero-shot)"
    for entry in facts.report.get("shots") or []:
        for group in entry["sets"]:
            if [shot["id"] for shot in group["shots"]] == ids.split():
                return f"the {len(group['shots'])} chosen after round {entry['round']}"
    return str(ids)
