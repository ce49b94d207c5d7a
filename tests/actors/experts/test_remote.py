"""Generators behind a URL as experts: a real server on this machine answers."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from actors.engines.base import DeviceLostError, EngineError
from actors.experts.base import RemoteAnswerer, load_expert
from actors.serving import experts
from actors.serving.batching import Batches
from actors.serving.experts import Expert
from configs.schema.expert import ExpertSpec
from configs.schema.serve import Service
from tests.endpoint import Endpoint, listening, refusal, text_of
from tests.experts import remote, texts

TEXTS = [text for text, _ in texts(9)]


@pytest.fixture
def load():
    """Starts a server that replies so, and an expert that asks it."""
    with ExitStack() as stack:

        def start(reply=None, seed=0, delay_s=0.0, **fields):
            server = stack.enter_context(listening(Endpoint(reply, delay_s)))
            spec = ExpertSpec.model_validate(remote("far", server.url, **fields))
            expert = load_expert(spec, (), seed)
            stack.callback(expert.close)
            return expert, server

        yield start


def test_answers_have_texts_and_counts_and_no_vectors(load):
    expert, server = load()
    answers = expert.answer(TEXTS)
    assert [answer.text for answer in answers] == [text_of(body) for body in server.bodies_by(TEXTS)]
    assert all(a.vector is None and a.error is None and a.completion_tokens == 8 for a in answers)
    assert {body["temperature"] for body in server.bodies} == {0}
    assert all("top_p" not in body and "stop" not in body for body in server.bodies)
    assert expert.describe()["kind"] == "generator" and expert.describe()["url"] == server.url


def test_an_answer_depends_on_its_text_alone(load):
    expert, _ = load(sampling={"top_k": 0, "stop": ["."]})
    together = expert.answer(TEXTS)
    assert [expert.answer([text])[0] for text in TEXTS[:3]] == together[:3]
    assert expert.answer(TEXTS[::-1])[::-1] == together
    assert not any("." in answer.text for answer in together)


def test_seeds_come_from_the_run_and_the_text(load):
    (one, here), (same, there), (_, other) = (load(seed=seed) for seed in (1, 1, 2))
    for expert in (one, same):
        expert.answer(TEXTS)
    seeds = [[body["seed"] for body in server.bodies_by(TEXTS)] for server in (here, there)]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 9
    assert all(0 <= seed < 2**31 for seed in seeds[0])
    del other


def test_one_failure_is_one_error_and_a_wrong_key_is_everybodys(load):
    expert, _ = load(lambda body, number: refusal(400, "no") if TEXTS[1] in str(body) else text_of(body))
    answers = expert.answer(TEXTS)
    assert [a.error for a in answers] == [None, "the server answered 400 Bad Request: no", *[None] * 7]
    expert, _ = load(lambda body, number: refusal(403, "no"))
    with pytest.raises(EngineError, match="access is refused"):
        expert.answer(TEXTS)


def test_served_requests_do_not_wait_for_each_other_and_can_be_given_up(load):
    async def reply(body, number):
        await asyncio.sleep(60 if TEXTS[0] in str(body) else 0)
        return "now"

    expert, server = load(reply)
    assert isinstance(expert, RemoteAnswerer)
    served = object.__new__(Expert.func_or_class)
    served.model = served.far = expert

    async def serve():
        late = asyncio.create_task(served.answer(TEXTS[:1]))
        while not server.now:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        assert [a.text for a in await served.answer(TEXTS[1:])] == ["now"] * 8
        assert time.monotonic() - started < 5
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        assert late.cancelled()
        await asyncio.to_thread(expert.close)

    asyncio.run(serve())
    assert Service().timeout_s < 60


def test_a_replica_whose_model_needs_a_new_process_ends(monkeypatch):
    class Lost:
        def answer(self, texts):
            raise DeviceLostError("gone")

    served, ended = object.__new__(Expert.func_or_class), []
    served.model, served.far, served.batches = Lost(), None, Batches(Lost().answer, 4)
    monkeypatch.setattr(experts.os, "_exit", ended.append)
    asyncio.run(served.answer(TEXTS[:2]))
    assert ended == [1]
