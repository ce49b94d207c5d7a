"""Models behind a URL, against a real server on this machine: what is asked, what comes, what goes wrong."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from actors.engines.base import Completion, EngineError, Request, load_engine
from actors.engines.openai import Openai
from configs.schema.expert import Answering
from configs.schema.plm import OpenaiEngine, PlmSpec, Sampling
from fusion.generation.filtering import cut
from tests.endpoint import Endpoint, free_url, listening, refusal, reply_of, text_of

KEY = "sk-verysecret"
PROMPT = 'The film review is: "'
PLAIN = Sampling(stop=())


def ask(seed: int, prompt: str = "Tell me.") -> Request:
    return Request(f"r{seed}", prompt, seed, label=0, round=0, index=0, ordinal=0, zero_shot=True)


def many(count: int) -> list[Request]:
    return [ask(seed, f"Tell me {seed % 3}.") for seed in range(count)]


class Place:
    """A server, and engines that ask it."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def serve(self, reply: Any = None, **options: Any) -> Endpoint:
        self.server = self.stack.enter_context(listening(Endpoint(reply, **options)))
        return self.server

    def engine(self, **fields: Any) -> Openai:
        url = {"url": self.server.url} if "url" not in fields else {}
        spec = OpenaiEngine.model_validate({"model": "m", "timeout_s": 10, "retries": 2, **url, **fields})
        engine = Openai(spec)
        self.stack.callback(engine.close)
        return engine

    def one(self, request: Request | None = None, sampling: Sampling = PLAIN, **fields: Any) -> Completion:
        (completion,) = self.engine(**fields).generate([request or ask(1)], sampling)
        return completion


@pytest.fixture
def place(monkeypatch) -> Iterator[Place]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ExitStack() as stack:
        yield Place(stack)


def test_a_chat_is_asked_with_all_that_sampling_says(place):
    server = place.serve()
    sampling = Sampling(temperature=0.7, top_p=0.8, max_new_tokens=9, stop=("\n", "END"))
    done = place.one(ask(5 + 2**31, "Tell me."), sampling, system="Be brief.", extra={"top_k": 40})
    assert server.paths == ["chat/completions"]
    assert server.bodies == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Tell me."},
            ],
            "max_tokens": 9,
            "seed": 5,
            "stop": ["\n", "END"],
            "temperature": 0.7,
            "top_p": 0.8,
            "top_k": 40,
        }
    ]
    words = text_of(server.bodies[0])
    assert done == Completion(f"{words}\n", "stop", prompt_tokens=2, completion_tokens=8)


def test_a_prompt_is_continued_greedily_and_fields_can_be_left_out(place):
    server = place.serve()
    extra = {"seed": None, "max_tokens": None, "max_completion_tokens": 7}
    done = place.one(ask(1, PROMPT), Answering(), api="completions", extra=extra)
    assert server.paths == ["completions"]
    assert server.bodies == [{"model": "m", "prompt": PROMPT, "temperature": 0, "max_completion_tokens": 7}]
    assert done.text == text_of(server.bodies[0])


def test_the_key_of_its_variable_is_sent_and_no_other(place, monkeypatch):
    server = place.serve()
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "another")
    monkeypatch.setenv("MINE", f" {KEY}\n")
    place.one()
    place.one(key_env="MINE")
    without, with_key = server.headers
    assert "authorization" not in without and with_key["authorization"] == f"Bearer {KEY}"
    assert "another" not in str(server.headers)


@pytest.mark.parametrize(
    ("value", "said"), [(None, "is not set"), (" ", "is not set"), ("a\nb", "characters")]
)
def test_a_key_that_is_missing_or_broken_is_said_at_the_start(place, monkeypatch, value, said):
    monkeypatch.delenv("MINE", raising=False)
    if value is not None:
        monkeypatch.setenv("MINE", value)
    with pytest.raises(EngineError, match=rf"^m at http://x/v1: .*MINE.*{said}") as caught:
        place.engine(url="http://x/v1", key_env="MINE")
    assert "\n" not in str(caught.value)


def test_completions_do_not_depend_on_batches(place):
    place.serve(delay_s=0.01)
    engine, requests = place.engine(concurrency=4), many(12)
    together = engine.generate(requests, PLAIN)
    assert len({c.text for c in together}) == 12 and not any(c.error for c in together)
    assert [c for r in requests[:5] for c in engine.generate([r], PLAIN)] == together[:5]
    assert engine.generate(requests[::-1], PLAIN)[::-1] == together
    assert place.engine(concurrency=1).generate(requests[:5], PLAIN) == together[:5]
    assert engine.generate([], PLAIN) == []


def test_no_more_is_asked_at_a_time_than_allowed_and_connections_are_kept(place):
    server = place.serve(delay_s=0.05)
    engine = place.engine(concurrency=3)
    for _ in range(2):
        assert not any(c.error for c in engine.generate(many(10), PLAIN))
    assert (len(server.bodies), server.most, len(server.connections)) == (20, 3, 3)


def test_callers_may_be_threads_and_loops(place):
    server = place.serve(delay_s=0.3)
    engine = place.engine(concurrency=8)

    async def both() -> list[list[Completion]]:
        first = asyncio.to_thread(engine.generate, many(2), PLAIN)
        second = asyncio.to_thread(engine.generate, many(2), PLAIN)
        return [*await asyncio.gather(first, second), engine.generate(many(2), PLAIN)]

    first, second, third = asyncio.run(both())
    assert first == second == third and server.most == 4


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_passes_is_tried_again(place, status):
    server = place.serve(lambda body, number: refusal(status, "later") if number < 1 else text_of(body))
    assert place.one().error is None
    assert len(server.bodies) == 2 and server.bodies[0] == server.bodies[1]
    assert server.times[1] - server.times[0] >= 0.3


def test_the_server_says_when(place):
    def reply(body, number):
        return refusal(429, "slow down", **{"retry-after": "1"}) if number < 1 else text_of(body)

    server = place.serve(reply)
    assert place.one().error is None
    assert server.times[1] - server.times[0] >= 1


@pytest.mark.parametrize(
    ("reply", "tries", "said"),
    [
        (lambda body: refusal(400, "too\nlong"), 1, "the server answered 400 Bad Request: too long"),
        (lambda body: refusal(422, "no"), 1, "the server answered 422"),
        (lambda body: refusal(500, "oh"), 2, "the server answered 500 Internal Server Error: oh"),
        (
            lambda body: refusal(429, "no", **{"retry-after": "900"}),
            1,
            "the server answered 429 Too Many Requests: no, to be asked again after 900",
        ),
        (lambda body: Response("<html>oops</html>", 400), 1, "the server answered 400 Bad Request"),
        (lambda body: Response('{"choi', 200), 1, "has not the form of the API: Invalid JSON"),
        (lambda body: Response("<html>hi</html>", 200), 1, "has not the form of the API: Invalid JSON"),
        (lambda body: Response("[]", 200), 1, "the server's answer has not the form of the API"),
        (lambda body: {"choices": [{"message": "hi"}]}, 1, "choices.0.message"),
        (lambda body: {"choices": []}, 1, "the server's answer is empty"),
        (lambda body: {"error": {"message": "broken"}}, 1, "the server's answer is empty: broken"),
        (
            lambda body: reply_of(body, "x", "content_filter"),
            1,
            "the server ended the answer: content_filter",
        ),
        (lambda body: reply_of(body, None), 1, "there is no text"),
        (
            lambda body: reply_of(body, None, message={"content": None, "refusal": "I won't"}),
            1,
            "the model refused: I won't",
        ),
    ],
)
def test_what_is_wrong_with_one_request_is_in_its_completion(place, reply, tries, said):
    server = place.serve(lambda b, n: reply(b) if "bad" in str(b["messages"]) else text_of(b))
    good, bad = place.engine(retries=1, concurrency=1).generate([ask(1), ask(2, "bad")], PLAIN)
    assert good.error is None and good.text
    assert (bad.text, bad.finish_reason) == ("", "error")
    assert said in bad.error and "\n" not in bad.error
    assert len(server.bodies) == 1 + tries


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the key is refused (401 Unauthorized: no (the key) here)"),
        (402, "the account has no money left"),
        (403, "access is refused (403 Forbidden: no (the key) here)"),
        (404, "there is no such model, or the URL is not that of an API (404"),
    ],
)
def test_what_makes_the_engine_useless_is_one_line_without_the_key(place, monkeypatch, caplog, status, said):
    monkeypatch.setenv("MINE", KEY)
    server = place.serve(lambda body, number: refusal(status, f"no\n{KEY} here"))
    with caplog.at_level(logging.DEBUG), pytest.raises(EngineError) as caught:
        place.engine(key_env="MINE", concurrency=2).generate(many(9), PLAIN)
    message = str(caught.value)
    assert message.startswith(f"m at {server.url}: {said}") and "\n" not in message
    assert KEY not in message + caplog.text + repr(caught.value.__context__)
    assert len(server.bodies) <= 4


def test_a_key_that_is_wanted_is_asked_for(place):
    place.serve(lambda body, number: refusal(401, "who are you?"))
    with pytest.raises(EngineError, match="a key is wanted, whose environment variable key_env must name"):
        place.one()


def test_a_server_that_is_not_there_is_named(place):
    url = free_url()
    started = time.monotonic()
    with pytest.raises(EngineError) as caught:
        place.one(url=url, retries=1)
    assert str(caught.value).startswith(f"m at {url}: the server cannot be reached, asked 2 times: ")
    assert "\n" not in str(caught.value) and time.monotonic() - started > 0.3


@pytest.mark.parametrize("hang", ["silent", "dripping"])
def test_a_server_that_hangs_is_given_up_after_its_time(place, hang):
    async def drip():
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    async def reply(body, number):
        if "hang" not in str(body["messages"]):
            return text_of(body)
        if hang == "dripping":
            return StreamingResponse(drip(), media_type="application/json")
        return await asyncio.sleep(60)

    server = place.serve(reply)
    engine = place.engine(timeout_s=1, retries=1)
    started = time.monotonic()
    good, late = engine.generate([ask(1), ask(2, "hang")], PLAIN)
    assert good.error is None
    assert late.error == "no answer within 1 s, asked 2 times"
    assert len(server.bodies) == 3 and 2.1 < time.monotonic() - started < 20


def test_a_connection_that_breaks_is_made_again_or_reported(place):
    def reply(body, number):
        broken = Response(b"x")
        broken.headers["content-length"] = "50"  # which the server never sends, but closes
        return broken if number < 1 or "bad" in str(body["messages"]) else text_of(body)

    server = place.serve(reply)
    engine = place.engine(retries=1, concurrency=1)
    again, broken = engine.generate([ask(1), ask(2, "bad")], PLAIN)
    assert again.error is None and len(server.bodies) == 4
    assert broken.error.startswith("the connection broke, asked 2 times: ")


ENDED: list[tuple[dict[str, Any], str, dict[str, Any], Sampling, str, str]] = [
    ({}, "A film.", {}, Sampling(stop=()), "A film.", "stop"),
    ({}, "A film", {"finish": "length"}, Sampling(stop=("!",)), "A film", "length"),
    ({}, "A film", {"finish": None}, Sampling(stop=("!",)), "A film!", "stop"),
    ({}, "A ? or !", {}, Sampling(stop=("!", "?")), "A ?", "stop"),
    ({}, "A ? or !", {"finish": "length"}, Sampling(stop=("!", "?")), "A ?", "stop"),
    ({}, "A film", {"stop_reason": "?"}, Sampling(stop=("!", "?")), "A film?", "stop"),
    ({}, "A film", {"matched_stop": "?"}, Sampling(stop=("!", "?")), "A film?", "stop"),
    ({}, "A film", {"stop_reason": None}, Sampling(stop=("!",)), "A film", "stop"),
    ({}, "A film", {"matched_stop": 2}, Sampling(stop=("!",)), "A film", "stop"),
    ({"prompt": PROMPT}, "A film", {}, Sampling(), 'A film"', "stop"),
    ({"prompt": PROMPT}, 'A "film', {}, Sampling(), 'A "', "stop"),
    ({"prompt": PROMPT}, ' "A film" it is', {}, Sampling(), 'A film"', "stop"),
    ({"prompt": PROMPT + " "}, '"A film"', {"stop_reason": None}, Sampling(), 'A film"', "stop"),
    ({"prompt": PROMPT}, "A film", {"stop_reason": None}, Sampling(), 'A film"', "stop"),
    ({"prompt": PROMPT}, "A film", {"finish": "length"}, Sampling(), "A film", "length"),
    ({"prompt": PROMPT}, "A film", {"stop_reason": "\n"}, Sampling(stop=('"', "\n")), "A film\n", "stop"),
    ({"prompt": PROMPT}, '"A film."', {}, Sampling(stop=()), 'A film."', "stop"),
    ({"prompt": PROMPT, "api": "completions"}, "A film", {}, Sampling(), 'A film"', "stop"),
    ({"prompt": PROMPT, "api": "completions"}, '"', {}, Sampling(), '"', "stop"),
    ({"prompt": PROMPT, "api": "completions"}, "A", {"stop_reason": None}, Sampling(), "A", "stop"),
]


@pytest.mark.parametrize(("asked", "text", "choice", "sampling", "expected", "finish"), ENDED)
def test_texts_end_as_those_of_other_engines(place, asked, text, choice, sampling, expected, finish):
    server = place.serve(lambda body, number: reply_of(body, text, **choice))
    request = ask(1, asked.get("prompt", "Tell me."))
    done = place.one(request, sampling, api=asked.get("api", "chat"))
    assert (done.text, done.finish_reason, done.error) == (expected, finish, None)
    body = server.bodies[0]
    if request.prompt != "Tell me." and "messages" in body:
        assert body["messages"][-1]["content"] == "The film review is:"
        assert '"' not in body.get("stop", [])
    else:
        assert tuple(body.get("stop", ())) == sampling.stop


def test_samples_of_several_lines_are_whole(place):
    place.serve(lambda body, number: "A film.\nAnd a good one")
    assert cut(place.one(ask(1, PROMPT), Sampling()).text, "quote") == "A film.\nAnd a good one"
    assert (
        cut(place.one(ask(1, "Ask:"), Sampling(stop=("?",))).text, "question") == "A film.\nAnd a good one?"
    )


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {"prompt_tokens": None}}])
def test_tokens_that_a_server_does_not_count_are_none(place, usage):
    place.serve(lambda body, number: {"choices": reply_of(body, "hi")["choices"], **usage})
    assert place.one() == Completion("hi", "stop", 0, 0)


def test_requests_in_flight_end_with_the_engine(place):
    async def reply(body, number):
        await asyncio.sleep(60)

    server = place.serve(reply)
    engine = place.engine(timeout_s=60)
    future = engine.portal.start_task_soon(engine.write, many(3), PLAIN)
    while server.now < 3:
        time.sleep(0.01)
    started = time.monotonic()
    engine.close()
    assert future.done() and time.monotonic() - started < 10
    with pytest.raises(RuntimeError):
        engine.generate(many(1), PLAIN)


def test_what_is_given_up_is_no_longer_asked(place):
    async def reply(body, number):
        if number < 2:
            await asyncio.sleep(60)
        return "now"

    server = place.serve(reply)
    engine = place.engine(concurrency=2)
    future = engine.portal.start_task_soon(engine.write, many(5), PLAIN)
    while server.now < 2:
        time.sleep(0.01)
    assert future.cancel()
    assert engine.generate([ask(9)], PLAIN)[0].text == "now"
    assert len(server.bodies) == 3


def test_it_is_an_engine_like_others(place):
    server = place.serve()
    spec = PlmSpec.model_validate(
        {"name": "a", "engine": {"kind": "openai", "url": server.url, "model": "m"}}
    )
    load: Callable[..., Any] = load_engine
    engine = load(spec, ("x", "y"), 0)
    place.stack.callback(engine.close)
    assert engine.describe() == {"engine": "openai", "model": "m", "url": server.url, "api": "chat"}
    assert engine.available(0, 0, True, 0) is None
    assert engine.generate([ask(1, PROMPT)], spec.sampling)[0].text.endswith('"')


def heard(place: Place, sampling: Sampling = PLAIN, **fields: Any) -> tuple[list[str], Completion]:
    """What is heard of an answer, and what it is in the end."""
    pieces: list[str] = []
    engine = place.engine(**fields)
    completion = engine.portal.call(engine.stream, ask(1), sampling, pieces.append)
    return pieces, completion


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_stream_comes_in_pieces_and_ends_as_the_whole(place, api):
    server = place.serve()
    pieces, streamed = heard(place, api=api)
    whole = place.one(api=api)
    assert len(pieces) == 8 and "".join(pieces) == streamed.text
    assert streamed.finish_reason == whole.finish_reason == "stop"
    assert streamed.completion_tokens == len(streamed.text.split()) and streamed.prompt_tokens == 2
    asked = server.bodies[0]
    assert asked.pop("stream") is True and asked.pop("stream_options") == {"include_usage": True}
    assert asked == server.bodies[1]


def test_a_stream_that_breaks_off_is_a_failure(place):
    place.serve(lambda body, number: "one two BREAK three")
    pieces, streamed = heard(place)
    assert pieces == ["one ", "two "]
    assert streamed.finish_reason == "error" and streamed.error.startswith("the answer broke off: ")
    place.serve(lambda body, number: refusal(503, "busy"))
    assert heard(place, retries=0)[1].error == "the server answered 503 Service Unavailable: busy"
    place.serve(lambda body, number: StreamingResponse(iter(['data: {"choices": 7}\n\n'])))
    assert "has not the form of the API: choices" in heard(place)[1].error
    place.serve(lambda body, number: StreamingResponse(iter(["data: [DONE]\n\n"])))
    assert "answer is empty" in heard(place)[1].error
