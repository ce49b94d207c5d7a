"""Sends the blocks of a request table to the PLM actors through Ray Data, and stores what they answer.

    block numbers -> map_batches(AskPlm) -> one Parquet file per block, published atomically -> block facts

How the bridge works is told in `actors.replicas`. A block whose file exists is done; blocks that were lost
are asked again with the same seeds. A block that ends its process is asked again in parts, down to the single
request that does so, which is stored with its reason. Blocks beyond the budget are not asked
(`actors.budget`).
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ray.actor import ActorHandle

from actors.budget import Budget, Gate, Spent, spent
from actors.engines.base import Completion, Request, failure
from actors.plm import Generated, failed, generate_block
from actors.replicas import Turns, parts, sharded
from actors.steps.requests import ANSWER, FILE, prompt_hash
from cluster.storage import Storage
from configs.schema.plm import PlmSpec, RecordedEngine

GIVE_UP_AFTER = 3
"""Blocks in a row that fail, or requests in a row that end their process, before a PLM is not asked on."""
ANSWERED = "blocks"
LOST = "lost"
"""Blocks of which every request failed: asked again when the step is done again before it is committed."""
NOTHING = {"asked": 0, "failed": 0, "error": "", "seconds": 0.0, "cost": 0.0} | {
    "prompt_tokens": 0,
    "completion_tokens": 0,
}
"""Facts of a block that was not asked."""

Replicas = Sequence[ActorHandle] | str
"""The actors of a PLM, or why there are none."""


class AskPlm:
    """Bridge between Ray Data and the PLM actors: batches of block numbers in, facts per block out."""

    def __init__(
        self, requests: str, answers: str, plms: Mapping[str, tuple[PlmSpec, Replicas]], budget: Budget
    ) -> None:
        self.table, self.files = Storage(requests), Storage(answers)
        self.plms = plms
        self.gate = Gate(budget, self._stored() if budget.limited else Spent())
        self.turns = {
            plm: Turns(having, spec.blocks)
            for plm, (spec, having) in plms.items()
            if not isinstance(having, str)
        }
        self.lost: Counter[str] = Counter()
        self.fatal: Counter[str] = Counter()

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

    def _stored(self) -> Spent:
        """What the blocks cost that are there already."""
        total, names = Spent(), ["plm", "prompt_tokens", "completion_tokens"]
        for file in self.files.names(ANSWERED):
            rows = self.files.read_table(f"{ANSWERED}/{file}", names).to_pydict()
            price = self.plms[rows["plm"][0]][0].price_per_million_tokens
            total += spent(price, sum(rows["prompt_tokens"]), sum(rows["completion_tokens"]))
        return total

    async def _block(self, block: dict[str, Any]) -> dict[str, Any]:
        requests = [_request(block, row) for row in block["requests"]]
        spec = self.plms[block["plm"]][0]
        most, cost = _most(spec, requests), Spent()
        if why := await self.gate.enter(most):
            return {**NOTHING, "plm": block["plm"], "over": why}
        try:
            facts, cost = await self._answered(block, requests)
        finally:
            await self.gate.leave(most, cost)
        return {**facts, "over": ""}

    async def _answered(self, block: dict[str, Any], requests: list[Request]) -> tuple[dict[str, Any], Spent]:
        """Facts of a block once it is stored, and what it has cost."""
        completions, seconds = await self._ask(block["plm"], requests)
        errors = sum(c.finish_reason == "error" for c in completions)
        folder = LOST if errors == len(requests) else ANSWERED
        spec = self.plms[block["plm"]][0]
        self.files.write_table(
            f"{folder}/{block['block']}.parquet", _table(block, completions, seconds, spec)
        )
        prompt, completion = (
            sum(getattr(c, name) for c in completions) for name in ("prompt_tokens", "completion_tokens")
        )
        cost = spent(spec.price_per_million_tokens, prompt, completion)
        facts = {
            "plm": block["plm"],
            "asked": len(requests),
            "failed": errors,
            "error": next((c.error for c in completions if c.error), "") or "",
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cost": cost.cost,
            "seconds": seconds,
        }
        return facts, cost

    async def _ask(self, plm: str, requests: list[Request]) -> tuple[list[Completion], float]:
        """Ask the least busy replica; a PLM that lost several blocks in a row is not asked again."""
        replicas = self.plms[plm][1]
        if isinstance(replicas, str):
            return [failure(replicas) for _ in requests], 0.0
        if self.lost[plm] >= GIVE_UP_AFTER:
            return [failure(f"not asked: {self.lost[plm]} blocks failed before") for _ in requests], 0.0
        answer = await self._settled(plm, requests)
        lost = all(c.finish_reason == "error" for c in answer.completions)
        self.lost[plm] = self.lost[plm] + 1 if lost else 0
        return answer.completions, answer.seconds

    async def _settled(self, plm: str, requests: Sequence[Request]) -> Generated:
        """Answers to requests, with errors for those that end their process alone too."""
        if self.fatal[plm] >= GIVE_UP_AFTER:
            return failed(requests, f"not asked: {GIVE_UP_AFTER} requests in a row ended their process")
        spec = self.plms[plm][0]
        answer = await self.turns[plm].take(lambda replica: generate_block(replica, requests, spec))
        if not answer.fatal or len(requests) == 1:
            self.fatal[plm] = self.fatal[plm] + 1 if answer.fatal else 0
            return answer
        settled = [await self._settled(plm, part) for part in parts(requests)]
        return Generated([c for part in settled for c in part.completions], sum(p.seconds for p in settled))


def ask_all(
    requests: str,
    answers: str,
    numbers: Sequence[int],
    plms: Mapping[str, tuple[PlmSpec, Replicas]],
    name: str,
    budget: Budget,
) -> Iterator[dict[str, Any]]:
    """Facts of each block (plm, asked, failed, error, tokens, cost, seconds) as it is stored; `over` says
    which limit of the budget kept one from being asked.

    `requests` and `answers` are the URIs of the step that holds the request table and of the one that takes
    the answers; `numbers` are the row groups of blocks without an answer.
    """
    bridge = {"requests": requests, "answers": answers, "plms": dict(plms), "budget": budget}
    yield from sharded(AskPlm, bridge, [{"number": number} for number in numbers], name)


def _most(spec: PlmSpec, requests: Sequence[Request]) -> Spent:
    """What requests cost at most: a token is a byte at least."""
    prompts = sum(len(text.encode()) for r in requests for text in (r.prompt, *r.counter_prompts))
    written = len(requests) * spec.sampling.max_new_tokens
    return spent(spec.price_per_million_tokens, prompts, written)


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
            "answer": row.get("answer"),
            "answer_start": row.get("answer_start"),
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
    spans = "answer" in block["requests"][0]
    return pa.Table.from_pylist(rows, pa.schema([*RECORD, *ANSWER]) if spans else RECORD)


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
