"""What steps do differently for tasks of different kinds: labels of texts, and spans that answer questions.

A kind knows what its samples carry, what a model learns from them, how predictions become numbers that mean
the same for all kinds (`Scores`), and how real answers are read and measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.sources import read_answered, read_labelled
from actors.steps.data import read_step
from actors.steps.measures import answer_measures, measures, paired, paired_means
from cluster.storage import Run
from configs.schema.task import Source
from fusion.generation import influence, spans
from fusion.generation.reweighting import judged

PROBABILITIES = "probabilities.parquet"

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """What a model says of n samples."""

    each: Floats
    """(n, C): the probabilities of all labels, or (n, 2) of the right first and last token."""
    asked: Floats
    """(n,): the probability of what was asked for."""
    error: Floats
    """(n,): how wrong that is, the exponent by which weights fall."""
    right: Bools
    """(n,): whether the prediction is what was asked for."""


class Labels:
    """A text has one of several labels."""

    carried: tuple[str, ...] = ()
    """Columns of a sample beside its id, plm, round, label and text."""
    measure = "accuracy"
    """Which of the measures counts."""

    def classes(self, labels: Sequence[str]) -> int:
        """As many as there are equally likely answers: who knows nothing gives what was asked for 1 / C."""
        return len(labels)

    def targets(self, samples: pa.Table) -> Indices:
        """What a model learns: class ids (n,)."""
        return np.asarray(samples.column("label").to_numpy().astype(np.int64))

    def lacking(self, targets: Indices) -> str | None:
        """Why no model can be trained on this, if so."""
        return "fewer than two labels among its samples" if len(np.unique(targets)) < 2 else None

    def scores(self, model: Any, encoded: Any, targets: Indices) -> Scores:  # noqa: ANN401
        """What a trained model says of samples."""
        return self._scores(np.asarray(model.predict_proba(encoded)), targets)

    def table(self, ids: pa.ChunkedArray, scores: Scores) -> pa.Table:
        """Scores as a file: columns id, p0, p1, …"""
        return pa.table({"id": ids, **{f"p{c}": column for c, column in enumerate(scores.each.T)}})

    def read(self, run: Run, key: str, targets: Indices) -> Scores:
        """The scores that a training step gave the samples of its chain."""
        table = read_step(run, key, PROBABILITIES)
        each = np.stack([table.column(f"p{c}").to_numpy() for c in range(table.num_columns - 1)], axis=1)
        return self._scores(each, targets)

    def together(self, scores: Sequence[Scores], targets: Indices) -> Bools:
        """Where several models together are right: by the sum of their probabilities (n,)."""
        return np.asarray(sum(s.each for s in scores).argmax(axis=1) == targets)

    def last_layer(
        self,
        method: str,
        model: Any,  # noqa: ANN401
        encoded: Any,  # noqa: ANN401
        targets: Indices,
        first: Indices,
        second: Indices,
    ) -> Floats:
        """Influence of the samples at `first` on the loss of those at `second`, by a closed form."""
        h, p = model.features(encoded), model.predict_proba(encoded)
        closed = influence.last_layer if method == "last_layer" else influence.last_layer_hessian
        return closed(h[first], p[first], targets[first], h[second], p[second], targets[second])

    def probed(self, model: Any, encoded: Any, targets: Indices) -> Indices:  # noqa: ANN401, ARG002
        """What the logits of `model.probe` are about."""
        return targets

    def evaluation(self, source: Source, labels: Sequence[str]) -> pa.Table:
        """Real samples: column text, and what answers are compared with."""
        return read_labelled(source, labels)

    def answers(self, model: Any, table: pa.Table) -> pa.Table:  # noqa: ANN401
        """What a model answers to real samples: label, predicted, confidence."""
        proba = model.predict_proba(model.encode(table.column("text").to_pylist()))
        columns = {"predicted": proba.argmax(axis=1), "confidence": proba.max(axis=1)}
        return pa.table({"label": table.column("label"), **columns})

    def measures(self, answers: pa.Table, n_labels: int, seed: int) -> dict[str, Any]:
        """How right answers are: accuracy, ci95, macro_f1, n."""
        labels, predicted = (answers.column(name).to_numpy() for name in ("label", "predicted"))
        return measures(labels, predicted, n_labels, seed)

    def against(self, result: pa.Table, other: pa.Table, seed: int) -> dict[str, Any]:
        """By how much one model's answers are better than another's: difference, ci95, p_value."""
        return paired(_right(result), _right(other), seed)

    def _scores(self, each: Floats, targets: Indices) -> Scores:
        asked = each[np.arange(len(targets)), targets]
        return Scores(each, asked, *judged(each, targets))


class Spans(Labels):
    """A phrase of a context answers a question; samples are stored as `context[SEP]question`."""

    carried = ("answer", "answer_start")
    measure = "f1"

    def classes(self, labels: Sequence[str]) -> int:  # noqa: ARG002
        """A model that gives each end of the answer half a chance seems to know it."""
        return 4

    def targets(self, samples: pa.Table) -> Indices:
        """The characters (n, 2) of the answers in their contexts."""
        start = samples.column("answer_start").to_numpy().astype(np.int64)
        length = [len(answer) for answer in samples.column("answer").to_pylist()]
        return np.stack([start, start + np.array(length, dtype=np.int64)], axis=1)

    def lacking(self, targets: Indices) -> str | None:
        """One sample is enough."""
        return None if len(targets) else "no samples"

    def scores(self, model: Any, encoded: Any, targets: Indices) -> Scores:  # noqa: ANN401
        """Probability p_start * p_end, error (1 - p_start) + (1 - p_end), and whether the answer matches."""
        predicted = model.predict(encoded)
        found = model.answers(encoded, predicted)
        right = [
            spans.exact_match(passage.context[slice(*mine)], [passage.context[slice(*asked)]])
            for passage, mine, asked in zip(encoded.passages, found, targets, strict=True)
        ]
        ends = zip(predicted, model.places(encoded, targets), strict=True)
        each = np.exp([[row[0, first], row[1, last]] for row, (first, last) in ends]).reshape(-1, 2)
        return self._of(each, np.array(right, dtype=bool))

    def table(self, ids: pa.ChunkedArray, scores: Scores) -> pa.Table:
        """Scores as a file: columns id, p_start, p_end, right."""
        start, end = scores.each.T
        return pa.table({"id": ids, "p_start": start, "p_end": end, "right": scores.right})

    def read(self, run: Run, key: str, targets: Indices) -> Scores:  # noqa: ARG002
        """The scores that a training step gave the samples of its chain."""
        table = read_step(run, key, PROBABILITIES)
        start, end, right = (table.column(name).to_numpy() for name in ("p_start", "p_end", "right"))
        return self._of(np.stack([start, end], axis=1), right.astype(bool))

    def together(self, scores: Sequence[Scores], targets: Indices) -> Bools:  # noqa: ARG002
        """Where at least half of several models are right (n,)."""
        return np.asarray(np.mean([s.right for s in scores], axis=0) >= 0.5)

    def last_layer(
        self,
        method: str,  # noqa: ARG002
        model: Any,  # noqa: ANN401
        encoded: Any,  # noqa: ANN401
        targets: Indices,
        first: Indices,
        second: Indices,
    ) -> Floats:
        """Influence on the sum of both cross-entropies."""
        gradients = model.gradients(encoded, targets)
        each = self.scores(model, encoded, targets).each
        return influence.last_layer_of_spans(gradients[first], gradients[second], each[second])

    def probed(self, model: Any, encoded: Any, targets: Indices) -> Indices:  # noqa: ANN401
        """First and last tokens (n, 2)."""
        places: Indices = model.places(encoded, targets)
        return places

    def evaluation(self, source: Source, labels: Sequence[str]) -> pa.Table:  # noqa: ARG002
        """Columns text, answers and found, whether one of them is in the context."""
        return read_answered(source)

    def answers(self, model: Any, table: pa.Table) -> pa.Table:  # noqa: ANN401
        """What a model answers to real questions: predicted, confidence, exact, f1, found."""
        texts, right = table.column("text").to_pylist(), table.column("answers").to_pylist()
        encoded = model.encode(texts)
        rows = model.predict(encoded)
        places = model.answers(encoded, rows)
        predicted = [text[slice(*place)] for text, place in zip(texts, places, strict=True)]
        tokens = zip(rows, model.places(encoded, places), strict=True)
        pairs = list(zip(predicted, right, strict=True))
        return pa.table(
            {
                "predicted": predicted,
                "confidence": [float(np.exp(row[0, first] + row[1, last])) for row, (first, last) in tokens],
                "exact": [spans.exact_match(mine, any_of) for mine, any_of in pairs],
                "f1": [spans.f1(mine, any_of) for mine, any_of in pairs],
                "found": table.column("found"),
            }
        )

    def measures(self, answers: pa.Table, n_labels: int, seed: int) -> dict[str, Any]:  # noqa: ARG002
        """How right answers are: f1, ci95, exact_match, n, and how many questions have no answer in sight."""
        exact, f1, found = (answers.column(name).to_numpy() for name in ("exact", "f1", "found"))
        return {**answer_measures(exact, f1, seed), "not_in_context": int((~found).sum())}

    def against(self, result: pa.Table, other: pa.Table, seed: int) -> dict[str, Any]:
        """By how much one model's F1 is higher than another's."""
        return paired_means(result.column("f1").to_numpy(), other.column("f1").to_numpy(), seed)

    def _of(self, each: Floats, right: Bools) -> Scores:
        return Scores(each, each.prod(axis=1), spans.error(*each.T), right)


KINDS: dict[str, Labels] = {"label": Labels(), "span": Spans()}


def kind_of(params: Mapping[str, Any]) -> Labels:
    """The kind of the task that the parameters of a step speak of."""
    return KINDS[params.get("kind", "label")]


def _right(answers: pa.Table) -> Bools:
    return np.asarray(answers.column("label").to_numpy() == answers.column("predicted").to_numpy())
