"""Sends the blocks of a request table to the PLM actors through Ray Data, and stores what they answer.

    block numbers -> map_batches(AskPlm) -> one Parquet file per block, published atomically -> block facts

How the bridge works is told in `actors.replicas`. A block whose file exists is done; blocks that were lost
are asked again with the same seeds.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ray.actor import ActorHandle

from actors.engines.base import Completion, Request, failure
from actors.plm import generate_block
from actors.replicas import Turns, sharded
from actors.steps.requests import FILE, prompt_hash
from cluster.storage import Storage
from configs.schema.plm import PlmSpec, RecordedEngine

GIVE_UP_AFTER = 3
ANSWERED = "blocks"
LOST = "lost"
"""Blocks of which every request failed: asked again when the step is done again before it is committed."""

Replicas = Sequence[ActorHandle] | str
"""The actors of a PLM, or why there are none."""


class AskPlm:
    """Bridge between Ray Data and the PLM actors: batches of block numbers in, facts per block out."""

    def __init__(self, requests: str, answers: str, plms: Mapping[str, tuple[PlmSpec, Replicas]]) -> None:
        self.table, self.files = Storage(requests), Storage(answers)
        self.plms = plms
        self.turns = {
            plm: Turns(having, spec.blocks)
            for plm, (spec, having) in plms.items()
            if not isinstance(having, str)
        }
        self.lost: Counter[str] = Counter()

    async def __call__(self, batch: dict[str, np.ndarray]) -> AsyncIterator[dict[str, np.ndarray]]:
        """Answer the blocks of a batch, one after the other."""
        for number in batch["number"]:
            facts = await self._block(self._read(int(number)))
            yield {name: np.array([value]) for name, value in facts.items()}

    @cached_property
    def _requests(self) -> pq.ParquetFile:
        """The request table, opened once: its footer grows with the number of blocks."""
        return pq.ParquetFile(self.table.fs.open_input_file(self.table.at(FILE)))

    def _read(self, number: int) -> dict[str, Any]:
        block: dict[str, Any] = self._requests.read_row_group(number).to_pylist()[0]
        return block

    async def _block(self, block: dict[str, Any]) -> dict[str, Any]:
        requests = [_request(block, row) for row in block["requests"]]
        completions, seconds = await self._ask(block["plm"], requests)
        failed = sum(c.finish_reason == "error" for c in completions)
        folder = LOST if failed == len(requests) else ANSWERED
        self.files.write_table(
            f"{folder}/{block['block']}.parquet",
            _table(block, completions, seconds, self.plms[block["plm"]][0]),
        )
        return {
            "plm": block["plm"],
            "asked": len(requests),
            "failed": failed,
            "error": next((c.error for c in completions if c.error), "") or "",
            "tokens": sum(c.completion_tokens for c in completions),
            "seconds": seconds,
        }

    async def _ask(self, plm: str, requests: list[Request]) -> tuple[list[Completion], float]:
        """Ask the least busy replica; a PLM that lost several blocks in a row is not asked again."""
        spec, replicas = self.plms[plm]
        if isinstance(replicas, str):
            return [failure(replicas) for _ in requests], 0.0
        if self.lost[plm] >= GIVE_UP_AFTER:
            return [failure(f"not asked: {self.lost[plm]} blocks failed before") for _ in requests], 0.0
        answer = await self.turns[plm].take(lambda replica: generate_block(replica, requests, spec))
        failed = all(c.finish_reason == "error" for c in answer.completions)
        self.lost[plm] = self.lost[plm] + 1 if failed else 0
        return answer.completions, answer.seconds


def ask_all(
    requests: str,
    answers: str,
    numbers: Sequence[int],
    plms: Mapping[str, tuple[PlmSpec, Replicas]],
    name: str,
) -> Iterator[dict[str, Any]]:
    """Facts of each block (plm, asked, failed, error, tokens, seconds) as it is stored.

    `requests` and `answers` are the URIs of the step that holds the request table and of the one that takes
    the answers; `numbers` are the row groups of blocks without an answer.
    """
    bridge = {"requests": requests, "answers": answers, "plms": dict(plms)}
    yield from sharded(AskPlm, bridge, [{"number": number} for number in numbers], name)


def _request(block: Mapping[str, Any], row: Mapping[str, Any]) -> Request:
    return Request(
        id=row["id"],
        prompt=row["prompt"],
        seed=row["seed"],
        label=block["label"],
        round=block["round"],
        index=row["index"],
        ordinal=row["ordinal"],
        zero_shot=block["zero_shot"],
        counter_prompts=tuple(row["counter_prompts"]),
    )


def model_of(spec: PlmSpec) -> str:
    """Which checkpoint, recording or URL answers for a PLM."""
    engine = spec.engine
    if isinstance(engine, RecordedEngine):
        return f"{engine.plm or spec.name} in {engine.path}"
    return engine.source


def _table(
    block: Mapping[str, Any], completions: Sequence[Completion], seconds: float, spec: PlmSpec
) -> pa.Table:
    share = seconds / len(completions)
    rows = [
        {
            "id": row["id"],
            "plm": block["plm"],
            "model": model_of(spec),
            "round": block["round"],
            "label": block["label"],
            "index": row["index"],
            "raw": completion.text,
            "cut": completion.cut,
            "finish_reason": completion.finish_reason,
            "error": completion.error,
            "context": row["context"],
            "prompt_hash": prompt_hash(row["prompt"]),
            "shot_ids": row["shot_ids"],
            "seed": row["seed"],
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "logprob": completion.logprob,
            "seconds": share,
        }
        for row, completion in zip(block["requests"], completions, strict=True)
    ]
    return pa.Table.from_pylist(rows, RECORD)


RECORD = pa.schema(
    [
        ("id", pa.string()),
        ("plm", pa.string()),
        ("model", pa.string()),
        ("round", pa.int32()),
        ("label", pa.int32()),
        ("index", pa.int32()),
        ("raw", pa.string()),
        ("cut", pa.bool_()),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("context", pa.string()),
        ("prompt_hash", pa.string()),
        ("shot_ids", pa.string()),
        ("seed", pa.int64()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("logprob", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
