"""Budgets: the gate that blocks pass, and a run that stops at its limit and goes on when that is raised."""

import asyncio
import random

import pytest

from actors.budget import Budget, Gate, Spent, advice, spent
from actors.steps.runner import StepError
from configs.schema.plm import Price
from tests import corpus
from tests.jobs.conftest import conduct, tiny  # noqa: F401 - fixtures

LIMIT = 10.0


def test_tokens_have_their_prices():
    assert spent(Price(prompt=1, completion=3), 2_000_000, 1_000_000) == Spent(5.0, 3_000_000)
    assert spent(None, 3, 4) == Spent(0.0, 7)


@pytest.mark.parametrize("seed", range(5))
def test_however_many_are_under_way_no_more_than_one_block_goes_beyond(seed):
    rng = random.Random(seed)
    blocks = [rng.uniform(0.1, 1.0) for _ in range(100)]

    async def run() -> tuple[Gate, list[str], int]:
        gate = Gate(Budget(max_cost=LIMIT, before=Spent(2.0)), Spent(1.0))
        under_way = most = 0

        async def ask(cost: float) -> str:
            nonlocal under_way, most
            bound = Spent(cost * rng.uniform(1, 4))
            if why := await gate.enter(bound):
                return why
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(rng.uniform(0, 0.002))
            under_way -= 1
            await gate.leave(bound, Spent(cost))
            return ""

        return gate, list(await asyncio.gather(*map(ask, blocks))), most

    gate, said, most = asyncio.run(run())
    assert LIMIT <= gate.total.cost < LIMIT + max(blocks)
    assert most > 1 and gate.under_way.cost == pytest.approx(0)
    refused = [why for why in said if why]
    assert len(refused) > 50 and all(why.startswith("max_cost is spent: ") for why in refused)


def test_what_fails_gives_back_what_it_held():
    async def run() -> str:
        gate = Gate(Budget(max_tokens=10), Spent())
        await gate.enter(Spent(0, 50))
        waiting = asyncio.create_task(gate.enter(Spent(0, 50)))
        await asyncio.sleep(0)
        assert not waiting.done()
        await gate.leave(Spent(0, 50), Spent())
        return await asyncio.wait_for(waiting, 1)

    assert asyncio.run(run()) == ""


def test_a_spent_budget_is_said_in_one_line():
    assert advice("max_cost is spent: 2 of 1") == (
        "the budget is used up: max_cost is spent: 2 of 1; raise it (--set max_cost=…)"
    )


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_run_stops_within_a_block_of_its_limit_and_ends_with_the_same_bytes_when_that_is_raised(conduct):  # noqa: F811
    price = {"prompt": 100, "completion": 1000}
    plms = [corpus.plm(name, price_per_million_tokens=price) for name in corpus.PLMS]
    options = {**corpus.SHORT, "plms": plms, "variant": "zerogen", "eval": None}
    options["baselines"] = {"plms": False, "union": False}
    whole = conduct("whole", **options)
    total = sum(of["cost"] for of in whole.summary["costs"].values())
    dearest = 4 * (100 * 0.2 + 1000 * 0.05) / 1e3  # four requests of at most 200 words read and 50 written
    for share in (0.3, 0.8):  # in the first round, and in the second
        with pytest.raises(StepError, match=r"^the budget is used up: max_cost is spent") as error:
            conduct("run", **options, max_cost=total * share)
        said = float(str(error.value).split("spent: ")[1].split()[0])
        assert total * share <= said <= total * share + dearest
    again = conduct("run", **options, max_cost=total * 1.01)
    for path in ("dataset/train.parquet", "stm/model.safetensors"):
        assert (again.folder / path).read_bytes() == (whole.folder / path).read_bytes()
