"""The process of an expert: what it answers, and what happens when it dies, raises or hangs."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors.engines.base import EngineError
from actors.expert import Expert, answer_block, start_expert
from actors.experts.base import Answer
from actors.replicas import ready_ones
from configs.schema.expert import ExpertSpec
from tests.experts import LABELS, classifier


def spec(**fields) -> ExpertSpec:
    return ExpertSpec.model_validate({**classifier("a", "unused"), "num_cpus": 0.2, **fields})


def scripted(folder: Path) -> Callable:
    """A loader of a model that does what texts say; local, so that workers get it by value."""

    class Scripted:
        def answer(self, texts):
            for text in texts:
                with (folder / text).open("a") as log:
                    log.write("x")
                if text == "crash":
                    os.kill(os.getpid(), signal.SIGKILL)
                if text == "raise":
                    raise ValueError("no such thing\nsecond line")
                if text == "useless":
                    raise EngineError("m at http://x: the key is refused")
                if text == "hang":
                    time.sleep(600)
            return [Answer(np.array([len(text)], float)) for text in texts]

        def describe(self):
            return {"kind": "scripted"}

    return lambda spec, labels, seed: Scripted()


@pytest.mark.ray
def test_what_a_block_does_to_its_process(ray_session, tmp_path):
    async def run() -> None:
        handles, why = await ready_ones(start_expert(spec(), LABELS, 0, load=scripted(tmp_path)), 60)
        assert why == "" and len(handles) == 1

        async def ask(*texts, **fields):
            return await answer_block(handles[0], texts, spec(**fields))

        good = await ask("one", "three")
        assert [answer.vector.tolist() for answer in good.answers] == [[3], [5]] and not good.lost
        raised = await ask("raise", "two")
        assert [answer.error for answer in raised.answers] == ["ValueError: no such thing"] * 2
        assert not raised.lost and not raised.useless
        useless = await ask("useless", "two")
        assert [a.error for a in useless.answers] == ["m at http://x: the key is refused"] * 2
        assert useless.useless and not useless.lost
        block = await ask("crash", "two")
        assert block.lost and block.answers[1].error == "gave up: the process died 1 time on this block"
        alone = await ask("crash")
        assert alone.lost and alone.answers[0].error == "gave up: the process died 3 times on this block"
        assert (tmp_path / "crash").read_text() == "x" * 4
        hung = await ask("hang", answer_timeout_s=2)
        assert hung.lost and hung.answers[0].error.startswith("no answer within 2 s")
        assert not (await ask("four")).lost

    asyncio.run(run())


def test_a_model_that_does_not_load_says_so_in_every_method():
    def load(spec, labels, seed):
        raise EngineError("no weights")

    expert = Expert(spec(), LABELS, 0, "unused", load)
    for method in (expert.ready, lambda: expert.answer(["a"])):
        with pytest.raises(EngineError, match="no weights"):
            method()
