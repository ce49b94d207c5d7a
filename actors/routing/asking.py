"""Asks live experts about blocks of items through Ray Data, and stores what they answer.

    (expert, block) -> map_batches(AskExperts) -> one Parquet file per block and expert -> block facts

A block whose file exists is done. What fails as a block, because it raises, takes too long or kills its
expert, is asked again in parts, down to single texts; a text that still fails is stored with its reason, in
a folder of its own, and asked once more when the step is done again before it is committed. Blocks beyond the
budget are not asked (`actors.budget`).
"""

import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ray.actor import ActorHandle

from actors.budget import Budget, Gate, Spent, spent
from actors.expert import Answered, answer_block
from actors.experts.base import Answer
from actors.replicas import Turns, parts, sharded
from actors.routing.items import FILE
from cluster.storage import Storage
from configs.schema.expert import ExpertSpec

ATTEMPTS = 2
"""How often a single text is asked."""
BROKEN_AFTER = 3
"""Texts in a row that an expert fails on, with nothing answered in between, before it is not asked again."""
MAX_FAILED = 0.05
"""Share of the items that an expert may fail on."""
ANSWERED, FAILED = "answers", "failed"
NOT_ASKED = Answer(error="not asked")
TOKENS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Asked:
    """An expert, its actors, where its answers go, and how many items it is asked about."""

    spec: ExpertSpec
    replicas: Sequence[ActorHandle]
    uri: str
    items: int

    def cost(self, calls: int, prompt: int, completion: int) -> Spent:
        """What so many calls and tokens cost."""
        price, per_call = self.spec.price_per_million_tokens, self.spec.price_per_call or 0.0
        return Spent(calls * per_call, 0) + spent(price, prompt, completion)

    def most(self, texts: Sequence[str]) -> Spent:
        """What texts cost at most: a token is a byte at least."""
        model, prompts = self.spec.model, sum(len(text.encode()) for text in texts)
        if model.kind == "classifier":
            return self.cost(len(texts), prompts, 0)
        prompts += len(texts) * len(model.prompt.encode())
        if model.kind == "prompted":
            return self.cost(len(texts), prompts, 0)
        return self.cost(len(texts), prompts, len(texts) * model.sampling.max_new_tokens)


class AskExperts:
    """Bridge between Ray Data and the expert actors: rows of expert and block in, facts per block out."""

    def __init__(self, items: str, experts: Mapping[str, Asked], budget: Budget) -> None:
        self.items = Storage(items)
        stored = (stored_cost(asked) for asked in experts.values()) if budget.limited else ()
        gate = Gate(budget, sum(stored, Spent()))
        self.lines = {name: Line(asked, gate) for name, asked in experts.items()}

    async def __call__(self, batch: dict[str, np.ndarray]) -> AsyncIterator[dict[str, np.ndarray]]:
        """Answer the blocks of a batch, one after the other."""
        for name, number in zip(batch["expert"], batch["number"], strict=True):
            rows = self._table.read_row_group(int(number), ["item", "text"]).to_pydict()
            facts = await self.lines[str(name)].block(int(number), rows["item"], rows["text"])
            yield {key: np.array([value]) for key, value in facts.items()}

    @cached_property
    def _table(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.items.fs.open_input_file(self.items.at(FILE)))


class Line:
    """What is asked of one expert, and how well it goes."""

    def __init__(self, asked: Asked, gate: Gate) -> None:
        self.asked, self.gate = asked, gate
        self.spec, self.files = asked.spec, Storage(asked.uri)
        self.turns = Turns(asked.replicas, asked.spec.blocks)
        self.most_failed = math.floor(asked.items * MAX_FAILED)
        self.failed = self.lost_in_a_row = 0
        self.error = self.useless = ""

    async def block(self, number: int, items: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
        """Have a block answered and stored, and return its facts; one that is given up is not stored."""
        answers = self._known(number) or [NOT_ASKED] * len(items)
        missing = [place for place, answer in enumerate(answers) if answer.error]
        wanted = [texts[place] for place in missing]
        most, cost, failed, seconds = self.asked.most(wanted), Spent(), 0, 0.0
        prompt = completion = 0
        over = await self.gate.enter(most)
        try:
            got = None if over else await self._settled(wanted)
            heard = [answer for answer in got.answers if answer.error is None] if got else []
            prompt, completion = (sum(getattr(a, name) for a in heard) for name in TOKENS)
            cost = self.asked.cost(len(heard), prompt, completion)
        finally:
            if not over:
                await self.gate.leave(most, cost)
        if got is not None:
            for place, answer in zip(missing, got.answers, strict=True):
                answers[place] = answer
            seconds, failed = got.seconds, sum(answer.error is not None for answer in answers)
            path = f"{FAILED if failed else ANSWERED}/{file_name(number)}"
            self.files.write_table(path, _record(self.spec, items, answers, seconds))
        return {
            "expert": self.spec.name,
            "asked": len(items),
            "failed": failed,
            "seconds": seconds,
            "stored": got is not None,
            "given_up": self.given_up,
            "over": over,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cost": cost.cost,
        }

    @property
    def given_up(self) -> str:
        """Why there is no use in asking on; empty while there is."""
        if self.useless:
            return self.useless
        if self.lost_in_a_row >= BROKEN_AFTER:
            return f"{self.lost_in_a_row} texts in a row ended its process; first: {self.error}"
        if self.failed > self.most_failed:
            return f"more than {MAX_FAILED:.0%} of the items failed; first: {self.error}"
        return ""

    def _known(self, number: int) -> list[Answer]:
        """The answers of an earlier attempt on a block, some of which failed; none where there was none."""
        path = f"{FAILED}/{file_name(number)}"
        return answers_of(self.files.read_table(path)) if self.files.exists(path) else []

    async def _settled(self, texts: Sequence[str], attempt: int = 1) -> Answered | None:
        """Answers to texts, with errors for those that fail alone too; None when the expert is given up."""
        if self.given_up:
            return None
        got = await self.turns.take(lambda replica: answer_block(replica, texts, self.spec))
        if got.useless:
            self.useless = str(got.answers[0].error)
            return None
        answers, seconds = list(got.answers), got.seconds
        missing = [place for place, answer in enumerate(answers) if answer.error]
        if not got.lost:
            self.lost_in_a_row = 0
        if missing and len(texts) == 1 and attempt == ATTEMPTS:
            self.failed, self.lost_in_a_row = self.failed + 1, self.lost_in_a_row + got.lost
            self.error = self.error or str(answers[0].error)
            return got
        for part in parts(missing):
            more = await self._settled([texts[place] for place in part], attempt + (len(texts) == 1))
            if more is None:
                return None
            seconds += more.seconds
            for place, answer in zip(part, more.answers, strict=True):
                answers[place] = answer
        return Answered(answers, seconds)


def file_name(number: int) -> str:
    """File of a block's answers."""
    return f"{number:06d}.parquet"


def ask_all(
    items: str, experts: Mapping[str, Asked], missing: Sequence[tuple[str, int]], name: str, budget: Budget
) -> Iterator[dict[str, Any]]:
    """Facts of each block (expert, asked, failed, seconds, tokens, cost, stored, given_up) as it is done;
    `over` says which limit of the budget kept one from being asked.

    `items` is the URI of the step that holds the items, `missing` are the blocks without an answer.
    """
    rows = [{"expert": expert, "number": number} for expert, number in missing]
    bridge = {"items": items, "experts": dict(experts), "budget": budget}
    yield from sharded(AskExperts, bridge, rows, name)


def stored_cost(asked: Asked) -> Spent:
    """What the answers cost that are stored."""
    files, total = Storage(asked.uri), Spent()
    places = {file: folder for folder in (FAILED, ANSWERED) for file in files.names(folder)}
    for file, folder in places.items():
        rows = files.read_table(f"{folder}/{file}", ["error", *TOKENS])
        prompt, completion = (sum(rows[name].to_pylist()) for name in TOKENS)
        total += asked.cost(rows["error"].null_count, prompt, completion)
    return total


def _record(spec: ExpertSpec, items: Sequence[str], answers: Sequence[Answer], seconds: float) -> pa.Table:
    exact = pa.float64() if spec.gives_probabilities else pa.float32()
    schema = pa.schema(
        [
            ("item", pa.string()),
            ("vector", pa.list_(exact)),
            ("text", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("error", pa.string()),
            ("seconds", pa.float64()),
        ]
    )
    columns = {name: [getattr(answer, name) for answer in answers] for name in schema.names[1:6]}
    share = [seconds / len(items)] * len(items)
    return pa.table({"item": list(items), **columns, "seconds": share}, schema)


def answers_of(table: pa.Table) -> list[Answer]:
    """The answers in a stored block."""
    # Not by way of Python's numbers: a vector may have thousands.
    vectors = [vector.values.to_numpy() if vector.is_valid else None for vector in table["vector"]]
    names = ("text", "prompt_tokens", "completion_tokens", "error")
    rest = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [Answer(vector, *fields) for vector, fields in zip(vectors, rest, strict=True)]
