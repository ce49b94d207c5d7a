"""What the report shows of a finished data set, as one small JSON file, computed where the data is.

`digest.json`: confidence and variability of a sample of texts, weights by PLM, diversity and counts by round,
shots of every round, and example texts with their provenance. Diagnoses by round are in `diagnosis.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from actors.steps.data import read_step, seed_of
from actors.steps.diagnosis import Scored, read_scored
from actors.steps.kinds import kind_of
from cluster.storage import Run, Step
from fusion.generation import cartography, diversity

POINTS = 1500
EXAMPLES = 4
EXTREMES = 6
LEAST_WEIGHT = 1e-3
"""In units of the mean; the histogram counts smaller ones as this."""
EXAMPLE_COLUMNS = [
    "id",
    "plm",
    "round",
    "label",
    "text",
    "raw",
    "status",
    "of",
    "prompt_hash",
    "shot_ids",
    "seed",
]


def digest(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write `digest.json`.

    `params`: chain, plms, models {plm: key}, weights (key or None), selections (per round: key or None),
    labels, kind, seed.
    """
    samples = read_scored(run, params)
    weights = _weights(run, params["weights"], samples.table)
    value = {
        "labels": params["labels"],
        "points": _points(run, params, samples),
        "weights": _weight_stats(weights, samples.owners) if weights is not None else None,
        "diversity": _diversity(samples.table),
        "records": _records(run, params),
        "shots": _shots(run, params["selections"]),
        "examples": _examples(run, params, samples.table, weights),
    }
    step.files.write_json("digest.json", value)
    return {}


def _weights(run: Run, key: str | None, table: pa.Table) -> NDArray[np.float64] | None:
    if key is None:
        return None
    weights = read_step(run, key, "weights.parquet")
    positions = pc.index_in(table.column("id"), weights.column("id").combine_chunks()).to_numpy()
    return np.asarray(weights.column("weight").to_numpy()[positions])


def _rng(params: dict[str, Any], what: str) -> np.random.Generator:
    return np.random.default_rng(seed_of(params["seed"], "digest", what))


def _points(run: Run, params: dict[str, Any], samples: Scored) -> list[dict[str, Any]]:
    """Variability and confidence over the models, of a sample of the texts and of all shots."""
    if len(samples.scores) < 2:
        return []
    right = samples.right()
    spread, confidence = cartography.variability(right), cartography.confidence(right)
    drawn = _rng(params, "points").permutation(len(samples.ids))[:POINTS]
    shots = np.flatnonzero(np.isin(samples.ids, sorted(_shot_ids(run, params["selections"]))))
    return [
        {
            "id": samples.ids[i],
            "plm": samples.owners[i],
            "label": int(samples.labels[i]),
            "variability": round(float(spread[i]), 4),
            "confidence": round(float(confidence[i]), 4),
        }
        for i in np.union1d(drawn, shots)
    ]


def _weight_stats(weights: NDArray[np.float64], owners: NDArray[np.object_]) -> dict[str, Any]:
    """Distribution of the weights relative to their mean; survivors keep at least half of it."""
    relative = weights / weights.mean()
    shown = np.maximum(relative, LEAST_WEIGHT)
    edges = np.geomspace(LEAST_WEIGHT, max(2.0, float(relative.max())), 25)
    per_plm = {
        plm: {
            "survivors": round(float((relative[owners == plm] >= 0.5).mean()), 4),
            "mean": round(float(relative[owners == plm].mean()), 4),
        }
        for plm in dict.fromkeys(owners.tolist())
    }
    counts = {plm: np.histogram(shown[owners == plm], edges)[0].tolist() for plm in per_plm}
    return {"edges": [round(float(e), 6) for e in edges], "counts": counts, "plms": per_plm}


def _diversity(table: pa.Table) -> list[dict[str, Any]]:
    """Diversity of the texts that each round added."""
    texts = np.array(table.column("text").to_pylist(), dtype=object)
    rounds = table.column("round").to_numpy()
    return [diversity.describe(list(texts[rounds == number])) for number in sorted(set(rounds.tolist()))]


def _records(run: Run, params: dict[str, Any]) -> dict[str, Any]:
    """Counts per PLM and round of every status."""
    counts: dict[str, dict[str, int]] = {}
    by_round: dict[str, dict[str, int]] = {}
    for key in params["chain"]:
        table = read_step(run, key, "records.parquet", ["plm", "round", "status"])
        for row in table.group_by(["plm", "round", "status"]).aggregate([([], "count_all")]).to_pylist():
            for groups, name in ((counts, row["plm"]), (by_round, str(row["round"]))):
                mine = groups.setdefault(name, {})
                mine[row["status"]] = mine.get(row["status"], 0) + row["count_all"]
    ordered = {plm: dict(sorted(counts[plm].items())) for plm in params["plms"] if plm in counts}
    return {
        "plms": ordered,
        "rounds": {r: dict(sorted(by_round[r].items())) for r in sorted(by_round, key=int)},
    }


def _shots(run: Run, selections: Sequence[str | None]) -> list[dict[str, Any]]:
    """The shots chosen after each round; once where all PLMs and labels share them."""
    rounds = []
    for number, key in enumerate(selections):
        if key is None:
            continue
        by_plm = run.read_json(f"steps/{key}/feedback.json")["shots"]
        unique: dict[str, dict[str, Any]] = {}
        for plm, labels in by_plm.items():
            shots = list({shot["id"]: shot for of in labels for shot in of}.values())
            signature = " ".join(shot["id"] for shot in shots)
            unique.setdefault(signature, {"for": [], "shots": shots})["for"].append(plm)
        rounds.append({"round": number, "sets": list(unique.values())})
    return rounds


def _shot_ids(run: Run, selections: Sequence[str | None]) -> set[str]:
    return {shot["id"] for of in _shots(run, selections) for group in of["sets"] for shot in group["shots"]}


def _examples(
    run: Run, params: dict[str, Any], table: pa.Table, weights: NDArray[np.float64] | None
) -> dict[str, list[dict[str, Any]]]:
    """Texts with their provenance: accepted, rejected by each reason, of highest and of lowest weight."""
    rng, columns = _rng(params, "examples"), [*EXAMPLE_COLUMNS, *kind_of(params).carried]
    records = pa.concat_tables(
        [read_step(run, key, "records.parquet", columns) for key in params["chain"]],
        promote_options="default",
    )
    statuses = np.array(records.column("status").to_pylist(), dtype=object)
    owners = np.array(records.column("plm").to_pylist(), dtype=object)
    kept = [
        rng.permutation(np.flatnonzero((statuses == "kept") & (owners == p)))[:EXAMPLES]
        for p in params["plms"]
    ]
    reasons = [s for s in sorted(set(statuses.tolist())) if s not in {"kept", "surplus", "exhausted"}]
    rejected = [rng.permutation(np.flatnonzero(statuses == reason))[:EXAMPLES] for reason in reasons]
    examples = {
        "kept": records.take(np.concatenate(kept)).to_pylist() if kept else [],
        "rejected": records.take(np.concatenate(rejected)).to_pylist() if rejected else [],
    }
    if weights is not None:
        order = np.argsort(-weights, kind="stable")
        top = rng.permutation(np.flatnonzero(weights == weights.max()))[:EXTREMES]
        for name, rows in (("heaviest", np.sort(top)), ("lightest", order[::-1][:EXTREMES])):
            picked = table.take(rows).to_pylist()
            examples[name] = [
                {**row, "weight": float(f"{weights[i] / weights.mean():.4g}")}
                for row, i in zip(picked, rows, strict=True)
            ]
    return examples
