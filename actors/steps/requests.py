"""The request table of one wave of generation: who is asked for what, with which prompt and seed.

One row group per block; a block is a batch of requests to one PLM for one label, the unit of work, loss and
resume. What a request is depends only on (run seed, PLM, round, label, ordinal), so it depends neither on
how many workers there are nor on who died.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.sources import Contexts, read_texts
from actors.steps.data import seed_of
from cluster.storage import Run, Step
from configs.schema.task import Task
from fusion.generation import prompts

REQUEST = (
    ("id", pa.string()),
    ("prompt", pa.string()),
    ("counter_prompts", pa.list_(pa.string())),
    ("context", pa.string()),
    ("shot_ids", pa.string()),
    ("seed", pa.int64()),
    ("index", pa.int32()),
    ("ordinal", pa.int32()),
)
ANSWER = (("answer", pa.string()), ("answer_start", pa.int32()))
"""What requests of a span task have too: the phrase to ask for, and its first character in the context."""
BLOCK = (
    ("block", pa.string()),
    ("plm", pa.string()),
    ("round", pa.int32()),
    ("label", pa.int32()),
    ("zero_shot", pa.bool_()),
)
FILE = "requests.parquet"


def write_requests(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the request table; blocks of the PLMs alternate so that all have work from the start.

    `params`: seed, round, task, self_debias (names of PLMs that need the other labels' prompts),
    batch_sizes {plm: n}, counts/index/ordinal {plm: [per label]}, shots (key of a selection step, or None).
    """
    writer = _Writer(run, params)
    per_plm = [list(writer.blocks_of(plm)) for plm in params["counts"]]
    blocks = [
        block
        for position in range(max(map(len, per_plm), default=0))
        for mine in per_plm
        for block in mine[position : position + 1]
    ]
    request = pa.struct([*REQUEST, *(ANSWER if writer.spans else ())])
    schema = pa.schema([*BLOCK, ("requests", pa.list_(request))])
    with step.files.writing(FILE) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as parquet:
        for block in blocks:
            parquet.write_table(pa.Table.from_pylist([block], schema), row_group_size=1)
    return {"blocks": [[block["plm"], block["block"]] for block in blocks]}


def prompt_hash(prompt: str) -> str:
    """Short name of a prompt in the records."""
    return hashlib.blake2b(prompt.encode(), digest_size=6).hexdigest()


class _Writer:
    """Prompts and seeds of one wave."""

    def __init__(self, run: Run, params: dict[str, Any]) -> None:
        self.params = params
        self.task = Task.model_validate(params["task"])
        self.seed, self.round = params["seed"], params["round"]
        shots = params["shots"]
        self.feedback = run.read_json(f"steps/{shots}/feedback.json") if shots else None
        source = self.task.contexts
        self.spans = Contexts(source) if source and self.task.kind == "span" else None
        self.contexts = read_texts(source) if source and not self.spans else []

    def blocks_of(self, plm: str) -> Iterator[dict[str, Any]]:
        """Blocks of one PLM, labels alternating."""
        counts, size = self.params["counts"][plm], self.params["batch_sizes"][plm]
        for start in range(0, max(counts), size):
            for label, count in enumerate(counts):
                if start < count:
                    yield self._block(plm, label, range(start, min(start + size, count)))

    def _block(self, plm: str, label: int, offsets: range) -> dict[str, Any]:
        index, ordinal = self.params["index"][plm][label], self.params["ordinal"][plm][label]
        block = f"{plm}-r{self.round}-l{label}-{ordinal + offsets[0]:07d}"
        shots = self._shots(plm, label, block)
        requests = [self._request(plm, label, shots, index + offset, ordinal + offset) for offset in offsets]
        return {
            "block": block,
            "plm": plm,
            "round": self.round,
            "label": label,
            "zero_shot": not shots,
            "requests": requests,
        }

    def _request(
        self, plm: str, label: int, shots: Sequence[dict[str, str]], index: int, ordinal: int
    ) -> dict[str, Any]:
        context, answer, start = self._asked(plm, index)
        texts = [shot["text"] for shot in shots]
        counters = [other for other in range(len(self.task.labels)) if other != label]
        debias = plm in self.params["self_debias"]
        return {
            "id": f"{plm}-r{self.round}-l{label}-{ordinal:07d}",
            "prompt": self._prompt(label, texts, context, answer),
            "counter_prompts": [self._prompt(c, texts, context, answer) for c in counters] if debias else [],
            "context": context,
            "answer": answer,
            "answer_start": start,
            "shot_ids": " ".join(shot["id"] for shot in shots),
            "seed": seed_of(self.seed, plm, self.round, label, ordinal),
            "index": index,
            "ordinal": ordinal,
        }

    def _prompt(self, label: int, shots: Sequence[str], context: str | None, answer: str | None) -> str:
        chosen = self.task.labels[label]
        if not shots:
            return prompts.zero_shot(chosen.zero_shot, context, answer)
        return prompts.feedback(
            shots,
            self.task.shot_prefix,
            chosen.feedback,
            blank_lines=self.task.blank_lines,
            context=context,
            answer=answer,
        )

    def _asked(self, plm: str, index: int) -> tuple[str | None, str | None, int | None]:
        """The context, and of a span task the answer and its place; the same for every label, so that the
        labels of a pair task differ in what is written alone."""
        number = seed_of(self.seed, "context", plm, self.round, index)
        if self.spans:
            return self.spans.draw(number, seed_of(self.seed, "answer", plm, self.round, index))
        return self.contexts[number % len(self.contexts)] if self.contexts else None, None, None

    def _shots(self, plm: str, label: int, block: str) -> list[dict[str, str]]:
        if self.feedback is None:
            return []
        shots: list[dict[str, str]] = self.feedback["shots"][plm][label]
        size = self.feedback["draw"]
        if size is None:
            return shots
        # ProGen: every second block is zero-shot, the others draw from the most helpful of the label.
        rng = np.random.default_rng(seed_of(self.seed, "draw", block))
        if not shots or rng.random() < 0.5:
            return []
        return [shots[i] for i in rng.choice(len(shots), size=min(size, len(shots)), replace=False)]
