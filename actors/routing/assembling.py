"""From stored answers of live experts to a pool: what each answer is worth, what it cost, and its vector.

Where responses are chosen, a block begins with a code of the answer (equal answers to an item have equal
codes, -1 is none).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import TypeAdapter

from actors.experts.base import Answer
from actors.routing.asking import MAX_FAILED, answers_of
from actors.routing.items import FILE
from actors.routing.pool import INPUTS, About, Pool
from actors.steps.runner import StepError
from actors.steps.training import vector_cache
from actors.vectors import embed_once, read_vectors
from cluster.storage import Run, Step
from configs.schema.expert import ExpertSpec
from configs.schema.foe import Features
from fusion.routing.answers import JUDGES, codes, gist, named
from fusion.routing.projection import Projection

EMBEDS = {"num_cpus": 0.1}
TEXTS = "texts.parquet"
Floats = NDArray[np.float64]


def embed(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Have texts embedded that need a vector: the items' own, and prompts with answers of generators whose
    models give none. `params`: those of `pool`."""
    gathered = Gathered(run, params)
    texts = gathered.items["text"].to_pylist() if gathered.features.prompt else []
    for expert in gathered.experts:
        if gathered.features.responses and expert.lacks_vectors:
            texts += expert.texts(gathered.items["text"].to_pylist())
    if not texts:
        return {"embedded": 0}
    step.files.write_table(TEXTS, pa.table({"text": pa.array(list(dict.fromkeys(texts)), pa.string())}))
    return {"embedded": embed_once(step.files.below(TEXTS).uri, vector_cache(run), gathered.features.encoder)}


def pool(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the pool. `params`: items (step), classes, warnings, experts (each its configuration and its step
    `answers`), answer, features, unit, prices, and the step `vectors` where there is one."""
    gathered = Gathered(run, params)
    kept = gathered.answered
    items = gathered.items.filter(pa.array(kept))
    for part in ("fit", "test"):
        if part not in items["part"].to_pylist():
            raise StepError(f"no item of the part {part!r} was answered by all experts")
    worth = np.stack([expert.quality(gathered) for expert in gathered.experts], axis=1)
    projections: dict[str, Projection] = {}
    blocks, inputs = gathered.blocks(projections)
    about = gathered.about
    raw: dict[str, NDArray[Any]] = {}
    values = quality = worth[kept]
    if about.answer == "label":
        values = np.eye(len(about.classes))[items["label"].to_numpy()]
        raw = {
            "labels": np.stack([block.argmax(axis=1) for block in blocks], axis=1).astype(np.int64),
            "confidence": np.stack([block.max(axis=1) for block in blocks], axis=1),
        }
    columns = [name for name in items.column_names if name != "reference"]
    prices = gathered.prices[kept]
    found = Pool(about, items.select(columns), blocks, values, quality, prices, raw, inputs, projections)
    found.write(step.files)
    return {
        "items": len(found),
        "experts": list(about.experts),
        "dropped": about.dropped,
        "warnings": list(about.warnings),
        "vectors": {expert.spec.name: expert.kind_of_vector for expert in gathered.experts},
    }


def price_of(spec: ExpertSpec, answer: Answer) -> float:
    """What a call costs that gave an answer, by what the expert's configuration says."""
    price, tokens = spec.price_per_call or 0.0, spec.price_per_million_tokens
    if tokens is not None:
        price += (answer.prompt_tokens * tokens.prompt + answer.completion_tokens * tokens.completion) / 1e6
    return price


def both(spec: ExpertSpec, text: str, answer: Answer) -> str:
    """A generator's prompt for a text, with its answer: what is embedded where it gives no states."""
    assert spec.model.kind == "generator"  # noqa: S101 - classifiers always have vectors
    return f"{spec.model.prompt.replace('{text}', text)} {answer.text or ''}"


def gists(spec: ExpertSpec, answers: Sequence[Answer], classes: Sequence[str]) -> list[str]:
    """What answers say, in short: a label, a number or a few words; empty where there is none of these."""
    if not spec.judges_labels:
        return [gist(answer.text or "") for answer in answers]
    rows = label_rows(spec, answers, classes)
    return [classes[row.argmax()] if row.max() > row.min() else "" for row in rows]


def label_rows(spec: ExpertSpec, answers: Sequence[Answer], classes: Sequence[str]) -> Floats:
    """Probabilities (n, C) of labels; equal ones where an answer names no label, 0 where there is none."""
    if spec.gives_probabilities:
        rows = [np.zeros(len(classes)) if a.vector is None else a.vector for a in answers]
        return np.stack(rows).astype(float)
    none = np.full(len(classes), 1 / len(classes))
    says = [named(answer.text or "", classes) for answer in answers]
    return np.stack([none if label is None else np.eye(len(classes))[label] for label in says])


class Given:
    """The answers of one expert to all items."""

    def __init__(self, run: Run, params: dict[str, Any]) -> None:
        self.spec = ExpertSpec.model_validate({k: v for k, v in params.items() if k != "answers"})
        files = run.below(f"steps/{params['answers']}")
        manifest = files.read_json("manifest.json")
        self.failed, self.reason = int(manifest["failed"]), str(manifest["reason"])
        self.answers: list[Answer] = [a for f in manifest["files"] for a in answers_of(files.read_table(f))]

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which items (n,) it has answered."""
        return np.array([answer.error is None for answer in self.answers])

    @property
    def lacks_vectors(self) -> bool:
        """Whether its answers have no vectors."""
        return all(answer.vector is None for answer in self.answers)

    @property
    def kind_of_vector(self) -> str:
        """How its answers became vectors: `labels`, the pooling of its states, or `encoder`."""
        model = self.spec.model
        if model.kind != "generator":
            return "labels"
        return "encoder" if self.lacks_vectors else model.pooling

    def texts(self, items: Sequence[str]) -> list[str]:
        """What stands for a prompt with its answer where the model gives no states."""
        return [both(self.spec, text, answer) for text, answer in zip(items, self.answers, strict=True)]

    def labels(self, classes: Sequence[str]) -> Floats:
        """Probabilities (n, C) of labels."""
        return label_rows(self.spec, self.answers, classes)

    def gists(self, classes: Sequence[str]) -> list[str]:
        """What it answers, in short: a label, a number or a few words; empty where there is none of these."""
        return gists(self.spec, self.answers, classes)

    def quality(self, gathered: "Gathered") -> Floats:
        """What its answers (n,) are worth, from 0 to 1."""
        model = self.spec.model
        if model.kind == "generator" and model.judge != "label":
            references = gathered.items["reference"].to_pylist()
            pairs = zip(self.answers, references, strict=True)
            return np.array([JUDGES[model.judge](a.text or "", r or "") for a, r in pairs])
        labels = self.labels(gathered.about.classes)
        truth = gathered.items["label"].to_numpy()
        right = labels.argmax(axis=1) == truth
        return (right & (labels.max(axis=1) > labels.min(axis=1))).astype(float)

    def prices(self, known: dict[str, float]) -> Floats:
        """What the calls (n,) cost."""
        if self.spec.name in known or not self.spec.priced:
            return np.full(len(self.answers), known.get(self.spec.name, 1.0))
        return np.array([price_of(self.spec, answer) for answer in self.answers])


class Gathered:
    """The items, and what all experts answered."""

    def __init__(self, run: Run, params: dict[str, Any]) -> None:
        self.run, self.params = run, params
        self.items = run.read_table(f"steps/{params['items']}/{FILE}").combine_chunks()
        self.features = TypeAdapter(Features).validate_python(params["features"])
        self.experts = [Given(run, expert) for expert in params["experts"]]
        self.answered = np.all([expert.good for expert in self.experts], axis=0)
        left_out = int((~self.answered).sum())
        if left_out > MAX_FAILED * len(self.items):
            raise StepError(
                f"{left_out} of {len(self.items)} items lack an answer of some expert, at most "
                f"{MAX_FAILED:.0%} may: {'; '.join(self._failures())}"
            )

    @property
    def about(self) -> About:
        """What the pool says of itself."""
        params = self.params
        priced = params["prices"] or any(expert.spec.priced for expert in self.experts)
        return About(
            tuple(expert.spec.name for expert in self.experts),
            params["answer"],
            tuple(params["classes"]),
            params["unit"] or ("$ per request" if priced else "calls"),
            dropped=int((~self.answered).sum()),
            warnings=(*params["warnings"], *self._failures()),
        )

    def _failures(self) -> list[str]:
        return [
            f"expert {e.spec.name} failed on {e.failed} of {len(self.items)} items, which are left out; "
            f"first: {e.reason}"
            for e in self.experts
            if e.failed
        ]

    @property
    def prices(self) -> Floats:
        """What calls (n, K) cost."""
        return np.stack([expert.prices(self.params["prices"]) for expert in self.experts], axis=1)

    def blocks(self, made: dict[str, Projection]) -> tuple[tuple[Floats, ...], Floats | None]:
        """Blocks of the experts and vectors of the items, for the items answered; what made them of raw
        vectors is put into `made`."""
        blocks = tuple(self._block(expert, made) for expert in self.experts)
        if self.params["answer"] == "expert":
            blocks = tuple(map(np.hstack, zip(self._codes(), blocks, strict=True)))
        texts = self.items["text"].to_pylist()
        inputs = self._projected(INPUTS, self._embedded(texts), made) if self.features.prompt else None
        return blocks, inputs

    def _codes(self) -> list[Floats]:
        """A column (n, 1) per expert that says which others answer the same."""
        kept = np.flatnonzero(self.answered)
        given = [expert.gists(self.params["classes"]) for expert in self.experts]
        found = codes([[gists[row] for row in kept] for gists in given])
        return np.split(found if self.features.responses else np.full_like(found, -1), found.shape[1], axis=1)

    def _block(self, expert: Given, made: dict[str, Projection]) -> Floats:
        if self.params["answer"] == "label" or expert.spec.gives_probabilities:
            return expert.labels(self.params["classes"])[self.answered]
        if not self.features.responses:
            return np.empty((int(self.answered.sum()), 0))
        if expert.lacks_vectors:
            vectors = self._embedded(expert.texts(self.items["text"].to_pylist()))
        else:
            pairs = zip(expert.answers, self.answered, strict=True)
            vectors = np.stack([a.vector for a, good in pairs if good and a.vector is not None])
        return self._projected(expert.spec.name, vectors, made)

    def _embedded(self, texts: Sequence[str]) -> Floats:
        """Vectors of texts by the encoder, of the items answered."""
        wanted = [text for text, good in zip(texts, self.answered, strict=True) if good]
        found, places = read_vectors(wanted, vector_cache(self.run), self.features.encoder)
        assert found is not None and len(places) == len(wanted)  # noqa: S101 - a step embedded them
        return np.asarray(found[np.argsort(places)], float)

    def _projected(self, name: str, vectors: Floats, made: dict[str, Projection]) -> Floats:
        """Vectors (n, d) as a block (n, dimensions), by what the items that are learnt from look like."""
        fit = pc.equal(self.items["part"], "fit").to_numpy()[self.answered]
        made[name] = Projection(self.features.dimensions).fit(vectors[fit])
        return made[name].transform(vectors)
