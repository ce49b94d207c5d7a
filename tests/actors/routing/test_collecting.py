"""Live experts to a pool: real models in real processes, killed, resumed and added to."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors import expert as process
from actors.board import Board
from actors.experts.base import load_expert
from actors.routing import collecting
from actors.routing.pool import Pool
from actors.steps.runner import StepError, Steps, StoppedError
from cluster.session import Session
from cluster.storage import Run
from configs.schema.foe import FoeConfig
from tests.endpoint import Endpoint, free_url, listening, refusal
from tests.experts import classifier, generator, remote, texts, write_items

HERE = Session(local=False, cpus=0, gpus=0)
ITEMS = 60


def config(small: Path, *pool: dict[str, Any], items: Path | None = None, **changes: Any) -> FoeConfig:
    """A job that asks in blocks of 16."""
    source = {"path": str(items or small / "items.jsonl"), **changes.pop("source", {})}
    live = {"kind": "live", "items": source, "pool": list(pool), "block": 16}
    data = {"job": "foe", "seed": 3, "experts": live, "features": {"prompt": False}}
    return FoeConfig.model_validate({**data, **changes})


class Place:
    """A run directory in which experts are asked."""

    def __init__(self, folder: Path) -> None:
        self.run, self.board = Run(str(folder)), Board()

    def collect(self, config: FoeConfig, stopped: Callable[[], bool] = lambda: False) -> Pool:
        """The pool; its step's key is kept."""
        steps = Steps(self.run, stopped)
        self.key = collecting.collect(config, HERE, self.run, steps, self.board)
        return Pool.read(self.run.below(f"steps/{self.key}"))

    @property
    def files(self) -> dict[str, bytes]:
        """What the pool consists of."""
        files = self.run.below(f"steps/{self.key}")
        return {name: files.read_bytes(name) for name in files.names() if name != "manifest.json"}


@pytest.fixture
def place(ray_session, tmp_path) -> Place:
    """An empty run directory."""
    return Place(tmp_path / "run")


@pytest.fixture
def watched(monkeypatch, tmp_path) -> Callable[..., Callable[[], Counter[tuple[str, str]]]]:
    """Has real experts note what they are asked, and die on texts: always (`poison`) or once (`once`).

    The function that it returns counts the (expert, text) pairs asked so far.
    """

    def watch(poison: str = "", once: str = "") -> Callable[[], Counter[tuple[str, str]]]:
        log, mark = tmp_path / "asked.txt", tmp_path / "died"

        class Watched:
            def __init__(self, spec, labels, seed) -> None:
                self.name, self.inner = spec.name, load_expert(spec, labels, seed)

            def answer(self, texts):
                if poison in texts or (once in texts and not mark.exists()):
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                with log.open("a") as stream:
                    stream.writelines(f"{self.name}\t{text}\n" for text in texts)
                return self.inner.answer(texts)

            def describe(self):
                return self.inner.describe()

        start = partial(process.start_expert, load=Watched)
        monkeypatch.setattr(collecting, "start_expert", start)
        return lambda: Counter(tuple(line.split("\t")) for line in log.read_text().splitlines())

    return watch


def linear(name: str, small: Path, **fields: Any) -> dict[str, Any]:
    """An expert that starts fast."""
    return {**classifier(name, small / "linear", **fields), "num_cpus": 0.2}


@pytest.fixture(scope="module")
def undisturbed(ray_session, small, tmp_path_factory) -> Place:
    """A run in which one expert answered without trouble."""
    done = Place(tmp_path_factory.mktemp("undisturbed") / "run")
    done.collect(config(small, linear("one", small)))
    return done


@pytest.mark.ray
def test_classifiers_become_a_pool(place, small):
    prices = {"price_per_call": 1, "price_per_million_tokens": {"prompt": 1e6, "completion": 0}}
    trained = {**classifier("ab", small / "ab"), "trained_on": {"path": str(small / "items.jsonl")}}
    experts = [trained, {**linear("linear", small), **prices}]
    pool = place.collect(config(small, *experts, prices={"ab": 2}, in_sample=True))
    assert pool.about.experts == ("ab", "linear") and pool.about.classes == ("negative", "positive")
    assert (pool.about.dropped, pool.about.unit) == (0, "$ per request")
    assert pool.about.warnings == ("expert ab was trained on 60 of 60 items, e.g. item 0",)
    truth = [("negative", "positive").index(label) for _, label in texts(ITEMS)]
    assert pool.labels.tolist() == pool.items["label"].to_pylist() == truth
    for k, block in enumerate(pool.blocks):
        np.testing.assert_allclose(block.sum(axis=1), 1)
        np.testing.assert_array_equal(pool.raw["labels"][:, k], block.argmax(axis=1))
        np.testing.assert_array_equal(pool.raw["confidence"][:, k], block.max(axis=1))
        np.testing.assert_array_equal(pool.quality[:, k], block.argmax(axis=1) == truth)
    assert pool.quality[:, 1].mean() > 0.8
    words = [len(text.split()) for text in pool.items["text"].to_pylist()]
    np.testing.assert_array_equal(pool.prices, [[2, 1 + count] for count in words])
    assert len(pool.rows("fit")) == len(pool.rows("test")) == ITEMS // 2
    for name, view in place.board.view(0)["experts"].items():
        assert name in pool.about.experts
        assert (view["asked"], view["answered"], view["failed"]) == (ITEMS, ITEMS, 0)


@pytest.mark.ray
def test_expert_that_fails_too_often_is_named_and_a_good_one_takes_its_place(place, small, tmp_path):
    items = write_items(tmp_path, 20, answer=lambda row: "film" if row % 2 else "the")
    changes = {"answer": "expert", "features": {"dimensions": 5, "prompt": False}}
    job = partial(config, small, linear("one", small), items=items, source={"reference": "answer"}, **changes)
    wordy = generator("critic", prompt="{text} " + "words " * 1500)
    with pytest.raises(
        StepError,
        match=r"^expert critic: given up: more than 5% of the items failed; first: prompt of \d+ tokens",
    ):
        place.collect(job(wordy))
    (kept,) = [key for key in place.run.names("steps") if key.startswith("answers-one")]
    manifest = place.run.read_bytes(f"steps/{kept}/manifest.json")
    pool = place.collect(job(linear("critic", small, temperature=2)))
    assert place.run.read_bytes(f"steps/{kept}/manifest.json") == manifest
    assert pool.about.experts == ("one", "critic") and pool.about.dropped == 0
    assert [block.shape for block in pool.blocks] == [(20, 3), (20, 3)]


@pytest.mark.faults
@pytest.mark.ray
def test_killed_expert_gives_the_same_bytes(place, small, watched, undisturbed, tmp_path):
    watched(once=texts(30)[29][0])
    place.collect(config(small, linear("one", small)))
    assert (tmp_path / "died").exists()
    assert place.files == undisturbed.files


@pytest.mark.long
@pytest.mark.faults
@pytest.mark.ray
def test_poisonous_item_is_left_out_and_the_others_are_answered(place, small, watched, undisturbed):
    asked = watched(poison=texts(30)[29][0])
    pool = place.collect(config(small, linear("one", small)))
    assert len(pool) == ITEMS - 1 and pool.about.dropped == 1
    assert pool.items["item"].to_pylist() == [str(row) for row in range(ITEMS) if row != 29]
    (warning,) = pool.about.warnings
    line = "expert one failed on 1 of 60 items, which are left out; first: gave up: the process died 3 times"
    assert warning.startswith(line)
    assert place.board.view(0)["experts"]["one"]["failed"] == 1
    assert len(asked()) == ITEMS - 1
    whole = Pool.read(undisturbed.run.below(f"steps/{undisturbed.key}"))
    np.testing.assert_array_equal(pool.blocks[0], np.delete(whole.blocks[0], 29, axis=0))


@pytest.mark.ray
def test_resume_and_another_expert_ask_only_what_is_missing(place, small, watched, undisturbed, tmp_path):
    asked = watched()
    one, two = linear("one", small), {**linear("two", small, temperature=2), "replicas": 2}
    begun = lambda: any(e["answered"] for e in place.board.view(0)["experts"].values())  # noqa: E731
    with pytest.raises(StoppedError):
        place.collect(config(small, one), stopped=begun)
    (key,) = [key for key in place.run.names("steps") if key.startswith("answers-one")]
    folder = place.run.below(f"steps/{key}/answers")
    stored = {name: folder.read_bytes(name) for name in folder.names()}
    before = asked()
    assert 0 < len(stored) < 5 and not place.run.exists(f"steps/{key}/manifest.json")
    place.collect(config(small, one))
    assert place.files == undisturbed.files
    assert stored == {name: folder.read_bytes(name) for name in stored}
    have = {text for name in stored for text in block(name)}
    assert not have & {text for _, text in asked() - before}
    counts = asked()
    pool = place.collect(config(small, one, two))
    assert {name for name, _ in asked() - counts} == {"two"}
    assert sum((asked() - counts).values()) == ITEMS and pool.about.experts == ("one", "two")
    counts = asked()
    place.collect(config(small, {**one, "price_per_call": 3}, {**two, "price_per_call": 1}))
    assert asked() == counts
    elsewhere = Place(tmp_path / "elsewhere")
    collecting.take_over(elsewhere.run, place.run)
    elsewhere.collect(config(small, one, two, linear("three", small, temperature=3)))
    assert {name for name, _ in asked() - counts} == {"three"}


def block(name: str) -> list[str]:
    """Texts of the items in a block's file."""
    number = int(name.removesuffix(".parquet"))
    return [text for text, _ in texts(ITEMS)][16 * number : 16 * number + 16]


@pytest.mark.ray
def test_budget_stops_asking_within_a_block_of_it_and_a_larger_one_goes_on(place, small, undisturbed):
    one = linear("one", small)
    with pytest.raises(StepError, match=r"^the budget is used up: max_cost is spent: (32|28) of 20"):
        place.collect(config(small, one, prices={"one": 1}, max_cost=20))
    (key,) = [key for key in place.run.names("steps") if key.startswith("answers-one")]
    assert len(place.run.names(f"steps/{key}/answers")) == 2
    with pytest.raises(StepError, match="max_tokens are spent"):
        place.collect(config(small, one, max_tokens=30))
    assert len(place.run.names(f"steps/{key}/answers")) == 2
    place.collect(config(small, one, max_tokens=10**6))
    assert place.files == undisturbed.files


@pytest.mark.ray
def test_expert_that_cannot_work_is_named(place, small):
    with pytest.raises(StepError, match=r"^expert none: /none: no such folder$"):
        place.collect(config(small, classifier("none", "/none")))


@pytest.mark.long
@pytest.mark.ray
def test_url_that_refuses_everything_is_given_up_at_once_and_asked_again_by_the_next_attempt(place, small):
    with listening(Endpoint(lambda body, number: "It is positive.")) as server:

        def job(url: str, **engine: Any) -> FoeConfig:
            return config(small, remote("far", url, {"retries": 0, **engine}, judge="label"))

        with pytest.raises(
            StepError, match=r"^expert far: given up: far at http\S+: the server cannot be reached"
        ):
            place.collect(job(free_url()))
        answer, server.reply = server.reply, lambda body, number: refusal(404, "no such model")
        with pytest.raises(StepError, match=r"^expert far: given up: far at http\S+: there is no such model"):
            place.collect(job(server.url, concurrency=3))
        assert len(server.bodies) < 16
        server.reply = answer
        pool = place.collect(job(server.url, key_env="ENDPOINT_KEY"))
    assert (pool.raw["labels"] == 1).all() and len(pool) == ITEMS
    assert {headers["authorization"] for headers in server.headers[-ITEMS:]} == {"Bearer sk-of-the-tests"}
