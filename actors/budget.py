"""What a run may spend, and the gate that holds it to that.

A block of requests is let through while what was spent, and what the blocks under way may cost at most, is
below the limits. So no more than one block goes beyond them, however many are asked at a time; near a limit
fewer are. What is stored counts as spent, whoever was killed in between.
"""

import asyncio
from dataclasses import dataclass, field

from configs.schema.plm import Price


@dataclass(frozen=True)
class Spent:
    """Money, in the currency of the prices, and tokens, read and written."""

    cost: float = 0.0
    tokens: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.cost + other.cost, self.tokens + other.tokens)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.cost - other.cost, self.tokens - other.tokens)


def spent(price: Price | None, prompt: int, completion: int) -> Spent:
    """What so many tokens are at a price."""
    cost = (prompt * price.prompt + completion * price.completion) / 1e6 if price else 0.0
    return Spent(cost, prompt + completion)


@dataclass(frozen=True)
class Budget:
    """The limits of a run, and what was spent before; None where there is no limit."""

    max_cost: float | None = None
    max_tokens: int | None = None
    before: Spent = field(default_factory=Spent)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.max_cost is not None or self.max_tokens is not None

    def over(self, total: Spent) -> str:
        """Which limit is reached; empty while none is."""
        if self.max_cost is not None and total.cost >= self.max_cost:
            return f"max_cost is spent: {total.cost:.6g} of {self.max_cost:g}"
        if self.max_tokens is not None and total.tokens >= self.max_tokens:
            return f"max_tokens are spent: {total.tokens:,} of {self.max_tokens:,}"
        return ""


class Gate:
    """Lets blocks through in one process, as long as a budget lasts."""

    def __init__(self, budget: Budget, stored: Spent) -> None:
        """`stored` is what the blocks cost that an earlier attempt at the same step has left."""
        self.budget, self.total = budget, budget.before + stored
        self.blocks, self.under_way = 0, Spent()
        self.changed = asyncio.Condition()

    async def enter(self, most: Spent) -> str:
        """Wait until a block that costs `most` at most may be asked, and return nothing; or which limit is
        reached."""
        async with self.changed:
            while not self.budget.over(self.total):
                if not self.blocks or not self.budget.over(self.total + self.under_way):
                    self.blocks, self.under_way = self.blocks + 1, self.under_way + most
                    return ""
                await self.changed.wait()
            return self.budget.over(self.total)

    async def leave(self, most: Spent, cost: Spent) -> None:
        """Note what a block has cost that was let through with `most`."""
        async with self.changed:
            self.blocks, self.under_way = self.blocks - 1, self.under_way - most
            self.total += cost
            self.changed.notify_all()


def advice(why: str) -> str:
    """The one line that a run ends with whose budget is spent."""
    limit = why.split(maxsplit=1)[0]
    return f"the budget is used up: {why}; raise it (--set {limit}=…)"
