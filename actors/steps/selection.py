"""Which samples are fed back: variability -> candidates -> influence -> shots.

Writes `feedback.json` (shots per PLM and label), `candidates.parquet` (every candidate with its scores) and
`cartography.parquet` (variability and confidence of every sample, for the report).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.steps.data import held_out, read_kept, seed_of
from actors.steps.influences import Judge, scores_of
from actors.steps.kinds import Labels, kind_of
from actors.steps.training import load_model, read_checkpoints
from cluster.storage import Run, Step
from configs.schema.fusegen import Selection
from fusion.generation import cartography, feedback
from fusion.generation.schedule import validation_draw

EVERYONE = "all"
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Pool:
    """All samples of a round and what the models say about them."""

    ids: list[str]
    texts: list[str]
    labels: NDArray[np.int64]
    kind: Labels
    targets: NDArray[np.int64]
    """What a model learns of them, (n, ...)."""
    owners: NDArray[np.object_]
    held: NDArray[np.bool_]
    right: Floats
    """(K, n): probability that each PLM's model gives what was asked for."""
    plms: list[str]
    """PLMs whose models these are, by row of `right`."""


def select(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Choose the shots of the next round.

    `params`: chain, plms (all names), models {plm: key of its training step}, union (key), selection, labels,
    kind, seed, round.
    """
    rules = Selection.model_validate(params["selection"])
    pool = _pool(run, params, rules)
    variability = cartography.variability(pool.right) if len(pool.plms) > 1 else None
    chooser = _Chooser(run, params, rules, pool, variability)
    shots = chooser.choose()
    step.files.write_json("feedback.json", {"draw": chooser.draw, "shots": shots})
    step.files.write_table("candidates.parquet", chooser.report())
    step.files.write_table("cartography.parquet", _map(pool, variability))
    return {"shots": {plm: [[shot["id"] for shot in of] for of in labels] for plm, labels in shots.items()}}


def _pool(run: Run, params: dict[str, Any], rules: Selection) -> Pool:
    kind, table = kind_of(params), read_kept(run, params["chain"])
    targets = kind.targets(table)
    ids, owners = table.column("id").to_pylist(), table.column("plm").to_pylist()
    models = params["models"]
    right = [kind.read(run, key, targets).asked for key in models.values()]
    return Pool(
        ids=ids,
        texts=table.column("text").to_pylist(),
        labels=table.column("label").to_numpy().astype(np.int64),
        kind=kind,
        targets=targets,
        owners=np.array(owners, dtype=object),
        held=held_out(ids, owners, rules.held_out),
        right=np.stack(right),
        plms=list(models),
    )


def _map(pool: Pool, variability: Floats | None) -> pa.Table:
    return pa.table(
        {
            "id": pool.ids,
            "plm": pool.owners.tolist(),
            "label": pool.labels,
            "variability": variability if variability is not None else np.zeros(len(pool.ids)),
            "confidence": pool.right.mean(axis=0),
        }
    )


class _Chooser:
    """One selection: the rules applied to the pool, whoever the shots are for."""

    def __init__(
        self, run: Run, params: dict[str, Any], rules: Selection, pool: Pool, variability: Floats | None
    ) -> None:
        self.params, self.rules, self.pool, self.variability = params, rules, pool, variability
        self.run = run
        self.draw = rules.shots if rules.feedback == "progen" else None
        self.rows: list[dict[str, Any]] = []

    def choose(self) -> dict[str, list[list[dict[str, str]]]]:
        """Shots by PLM and label."""
        n_labels = len(self.params["labels"])
        everyone = np.flatnonzero(~self.pool.held)
        if self.rules.feedback == "cross":
            shots = [self._shots(self._pick(everyone, EVERYONE))] * n_labels
            return dict.fromkeys(self.params["plms"], shots)
        by_plm = {}
        for plm in self.params["plms"]:
            own = everyone[self.pool.owners[everyone] == plm]
            if self.rules.feedback == "progen":
                by_plm[plm] = self._progen(own, plm)
            elif self.rules.feedback == "personalised" and plm in self.pool.plms and len(self.pool.plms) > 1:
                by_plm[plm] = [self._shots(self._personalised(everyone, plm))] * n_labels
            else:
                by_plm[plm] = [self._shots(self._pick(own, plm))] * n_labels
        return by_plm

    def report(self) -> pa.Table:
        """Every candidate with its scores, and whether it became a shot."""
        return pa.Table.from_pylist(self.rows)

    def _seed(self, *what: object) -> int:
        return seed_of(self.params["seed"], "select", self.params["round"], *what)

    def _judge(self, owner: str) -> Judge:
        """The model whose loss is to fall: of all samples, or of the one PLM that gets the shots."""
        key = self.params["union"] if owner == EVERYONE else self.params["models"].get(owner)
        if key is None:
            key = self.params["union"]
        return Judge(load_model(self.run, key), read_checkpoints(self.run, key))

    def _validation(self, owner: str) -> Indices:
        """Held-out samples that the loss is taken on, equally many of each PLM that it concerns."""
        chosen: list[Indices] = []
        plms = self.params["plms"] if owner == EVERYONE else [owner]
        by_owner = [np.flatnonzero(self.pool.held & (self.pool.owners == plm)) for plm in plms]
        for plm, held in zip(plms, by_owner, strict=True):
            rng = np.random.default_rng(self._seed("validation", plm))
            chosen.append(np.sort(rng.permutation(held)[: validation_draw(len(by_owner), len(held))]))
        return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)

    def _candidates(self, among: Indices, owner: str) -> Indices:
        size = min(self.rules.candidates, len(among))
        if self.rules.pool == "random" or self.variability is None:
            return np.sort(np.random.default_rng(self._seed("pool", owner)).permutation(among)[:size])
        margin = self.rules.confidence_margin
        groups = self._groups()
        chosen = cartography.candidates(
            self.variability[among],
            size,
            self.rules.alpha,
            confidence=None if margin is None else self.pool.right.mean(axis=0)[among],
            n_classes=self.pool.kind.classes(self.params["labels"]),
            margin=margin or 0.0,
            groups=None if groups is None else groups[among],
        )
        return np.asarray(among[chosen])

    def _groups(self) -> Indices | None:
        """Which samples take turns with which others."""
        if self.rules.balance == "none":
            return None
        if self.rules.balance == "label":
            return self.pool.labels
        order = {plm: position for position, plm in enumerate(self.params["plms"])}
        owners = np.array([order[owner] for owner in self.pool.owners], dtype=np.int64)
        return self.pool.labels * len(order) + owners

    def _scores(self, candidates: Indices, owner: str) -> Floats | None:
        """Influence of the candidates; None where there is nothing to validate on."""
        validation = self._validation(owner)
        if not len(validation) or not len(candidates):
            return None
        return scores_of(self.rules.influence, self._judge(owner), self.pool, candidates, validation)

    def _pick(self, among: Indices, owner: str) -> Indices:
        candidates = self._candidates(among, owner)
        size = min(self.rules.shots, len(candidates))
        scores = self._scores(candidates, owner) if self.rules.pick == "influence" else None
        if scores is None:
            scores = np.full(len(candidates), np.nan)
            chosen = feedback.random_pick(len(candidates), size, rng_seed=self._seed("pick", owner))
        else:
            groups = self._groups()
            chosen = feedback.pick(
                scores,
                size,
                sign=self.rules.sign,
                groups=None if groups is None else groups[candidates],
                rng_seed=self._seed("pick", owner),
            )
        self._note(owner, candidates, scores, set(chosen.tolist()))
        return np.asarray(candidates[chosen])

    def _personalised(self, among: Indices, plm: str) -> Indices:
        """What the others' models know and the PLM's own does not (section 6.5.1)."""
        order = {name: position for position, name in enumerate(self.pool.plms)}
        scores = self._scores(among, EVERYONE) if self.rules.pick == "influence" else None
        chosen = feedback.personalised(
            self.pool.right[:, among],
            self.pool.labels[among],
            [order.get(owner, -1) for owner in self.pool.owners[among]],
            order[plm],
            self.rules.shots,
            n_classes=self.pool.kind.classes(self.params["labels"]),
            usefulness=None if scores is None else -scores,
            pool=self.rules.candidates,
            rng_seed=self._seed("pick", plm),
        )
        self._note(plm, among[chosen], np.full(len(chosen), np.nan), set(range(len(chosen))))
        return np.asarray(among[chosen])

    def _progen(self, own: Indices, plm: str) -> list[list[dict[str, str]]]:
        """Per label the most helpful of the PLM's own samples, from which blocks draw (section 4)."""
        labels = self.pool.labels[own]
        scores = self._scores(own, plm)
        if scores is None:
            scores = np.zeros(len(own))
        by_label = []
        for label in range(len(self.params["labels"])):
            seed = self._seed("progen", plm, label)
            best = feedback.progen_pick(scores, labels, label, size=feedback.PROGEN_POOL, rng_seed=seed)
            self._note(plm, own[best], scores[best], set(range(len(best))))
            by_label.append(self._shots(own[best]))
        return by_label

    def _shots(self, chosen: Indices) -> list[dict[str, str]]:
        return [{"id": self.pool.ids[i], "text": self.pool.texts[i]} for i in chosen]

    def _note(self, owner: str, candidates: Indices, scores: Floats, chosen: set[int]) -> None:
        for position, (i, score) in enumerate(zip(candidates, scores, strict=True)):
            self.rows.append(
                {
                    "for": owner,
                    "id": self.pool.ids[i],
                    "variability": float(self.variability[i]) if self.variability is not None else None,
                    "confidence": float(self.pool.right[:, i].mean()),
                    "influence": None if np.isnan(score) else float(score),
                    "shot": position in chosen,
                }
            )
