"""How the samples of a round look to the models trained on them, per PLM.

Shares of easy, ambiguous and hard texts, accuracy of each PLM's model on each PLM's texts, how often the
other PLMs' models see the label that was asked for, diversity and length.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.steps.data import held_out, read_kept
from actors.steps.kinds import Labels, Scores, kind_of
from cluster.storage import Run, Step
from fusion.generation import cartography, diversity

TINY = 1e-12
"""Probability below which none is taken to be, so that one sure mistake does not decide alone."""


@dataclass(frozen=True)
class Scored:
    """The samples of a chain and what each PLM's model says of them."""

    table: pa.Table
    ids: list[str]
    labels: NDArray[np.int64]
    owners: NDArray[np.object_]
    kind: Labels
    targets: NDArray[np.int64]
    scores: dict[str, Scores]
    """By PLM."""

    def right(self) -> NDArray[np.float64]:
        """(K, n): the probabilities of what was asked for."""
        return np.stack([scores.asked for scores in self.scores.values()])


def read_scored(run: Run, params: dict[str, Any]) -> Scored:
    """Samples of `params["chain"]` with the scores of `params["models"]`."""
    kind, table = kind_of(params), read_kept(run, params["chain"])
    targets = kind.targets(table)
    return Scored(
        table=table,
        ids=table.column("id").to_pylist(),
        labels=table.column("label").to_numpy().astype(np.int64),
        owners=np.array(table.column("plm").to_pylist(), dtype=object),
        kind=kind,
        targets=targets,
        scores={plm: kind.read(run, key, targets) for plm, key in params["models"].items()},
    )


def diagnose(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts: shares, ambiguous_from, pair_matrix, label_agreement, diversity.

    `params`: chain, plms, models {plm: key}, labels, kind, held_out.
    """
    samples = read_scored(run, params)
    held = held_out(samples.ids, samples.owners.tolist(), params["held_out"])
    texts = np.array(samples.table.column("text").to_pylist(), dtype=object)
    mine = {plm: texts[samples.owners == plm] for plm in params["plms"]}
    return {
        "shares": _shares(samples, samples.kind.classes(params["labels"])),
        "ambiguous_from": cartography.AMBIGUOUS_FROM,
        "pair_matrix": _pairs(samples, held),
        "label_agreement": _agreement(samples),
        "diversity": {plm: diversity.describe(list(of)) for plm, of in mine.items() if len(of)},
    }


def held_out_losses(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts: losses, the mean -log p of what was asked for that each model gives to what was held out of the
    texts of all PLMs.

    `params`: chain, models {name: key}, labels, kind, held_out.
    """
    samples = read_scored(run, params)
    held = held_out(samples.ids, samples.owners.tolist(), params["held_out"])
    losses = -np.log(np.maximum(samples.right()[:, held], TINY)).mean(axis=1) if samples.scores else []
    return {
        "losses": {name: round(float(loss), 6) for name, loss in zip(samples.scores, losses, strict=True)}
    }


def judge_trial(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts: missed, the mean probability that a model does not give to what was asked for, on what was held
    out of the first round's texts (reverse cross-entropy, up to a factor); distinct_2 of all texts after it.

    `params`: chain, models {"union": key} or none, labels, kind, held_out.
    """
    samples = read_scored(run, params)
    first = samples.table.column("round").to_numpy() == 0
    held = first & held_out(samples.ids, samples.owners.tolist(), params["held_out"])
    texts = samples.table.filter(pa.array(~first)).column("text").to_pylist()
    missed = 1 - float(samples.right()[0, held].mean()) if samples.scores and held.any() else 1.0
    return {"missed": round(missed, 6), "distinct_2": round(diversity.distinct_n(texts, 2), 6)}


def _shares(samples: Scored, n_classes: int) -> dict[str, dict[str, float]]:
    if len(samples.scores) < 2:
        return {}
    right = samples.right()
    spread, confidence = cartography.variability(right), cartography.confidence(right)
    return {
        plm: asdict(cartography.shares(spread[mine], confidence[mine], n_classes))
        for plm in dict.fromkeys(samples.owners.tolist())
        for mine in [samples.owners == plm]
    }


def _pairs(samples: Scored, held: NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy of the row's model on the column's texts; its own only on what was held out."""
    owners, plms = samples.owners, list(samples.scores)
    rows = []
    for teacher in plms:
        right = samples.scores[teacher].right
        masks = [(owners == pupil) & (held if pupil == teacher else True) for pupil in plms]
        rows.append([round(float(right[mask].mean()), 4) if mask.any() else None for mask in masks])
    return {"plms": plms, "accuracy": rows}


def _agreement(samples: Scored) -> dict[str, float]:
    """Per PLM, how often the other PLMs' models together see the label that was asked for."""
    shares = {}
    for plm in samples.scores:
        others = [scores for name, scores in samples.scores.items() if name != plm]
        mine = samples.owners == plm
        if others and mine.any():
            right = samples.kind.together(others, samples.targets)[mine]
            shares[plm] = round(float(right.mean()), 4)
    return shares
