"""JSON posted to a server: when it is posted again, what a stream says, and which way it goes."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from actors.engines.posting import Poster, PostError, complaint
from tests.endpoint import Endpoint, listening, refusal

PATH = "/chat/completions"


def asked(server: Endpoint, *, retries: int = 2, streamed: bool = False) -> list[bytes]:
    """What a server replies, or says in a stream."""

    async def ask() -> list[bytes]:
        poster = Poster(server.url, key=None, timeout_s=10, retries=retries, connections=2)
        try:
            if not streamed:
                return [await poster.post(PATH, {"messages": []})]
            async with aclosing(poster.stream(PATH, {"messages": []})) as events:
                return [event async for event in events]
        finally:
            await poster.close()

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def direct(monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "status", "tries"),
    [
        ({}, 400, 1),
        ({"x-should-retry": "true"}, 400, 3),
        ({"x-should-retry": "false"}, 503, 1),
        ({"retry-after-ms": "10"}, 503, 3),
        ({"retry-after-ms": "121000"}, 503, 1),
        ({"retry-after": "soon"}, 503, 3),
    ],
)
def test_the_server_says_whether_it_is_to_be_asked_again(monkeypatch, headers, status, tries):
    monkeypatch.setattr("actors.engines.posting.FIRST_S", 0.01)
    with listening(Endpoint(lambda body, number: refusal(status, "no", **headers))) as server:
        with pytest.raises(PostError) as caught:
            asked(server)
        assert (caught.value.kind, caught.value.status) == ("refused", status)
        assert complaint(caught.value.body) == "no" and len(server.bodies) == tries


def test_pauses_grow_and_a_date_is_waited_for():
    error = PostError("late")
    for attempt, longest in ((1, 0.5), (2, 1), (3, 2), (5, 8), (2000, 8)):
        assert 0.75 * longest <= error.pause(attempt) <= longest
    for ahead, waits in ((60, True), (600, False)):
        later = formatdate(time.time() + ahead, usegmt=True)
        pause = PostError("refused", status=429, headers={"retry-after": later}).pause(1)
        assert (55 < pause <= 60) if waits else pause is None


def test_events_are_read_as_the_standard_says():
    def pieces() -> Iterator[bytes]:
        yield b": a comment\r\nevent: x\r\nda"
        yield b'ta: {"a":\r\ndata: 1}\r\n\r\n\r\ndata:{"b": "' + b"x" * 40_000 + b'"}\n\n'
        yield b'data: {"c": 3}'

    with listening(Endpoint(lambda body, number: StreamingResponse(pieces()))) as server:
        first, long, last = asked(server, streamed=True)
        assert first == b'{"a":\n1}' and len(long) == 40_009 and last == b'{"c": 3}'
    ends = "data: 1\n\ndata: [DONE]\n\ndata: 2\n\n"
    with listening(Endpoint(lambda body, number: Response(ends))) as server:
        assert asked(server, streamed=True) == [b"1"]


def test_a_proxy_of_the_environment_is_asked(monkeypatch):
    paths = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            paths.append(self.path)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        elsewhere = Endpoint()
        elsewhere.url = "http://models.example/v1"
        for scheme in ("http://", ""):
            monkeypatch.setenv("http_proxy", f"{scheme}127.0.0.1:{proxy.server_port}")
            assert asked(elsewhere) == [b"{}"]
        proxy.shutdown()
    assert paths == [f"http://models.example/v1{PATH}"] * 2
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(PostError) as caught:
        asked(elsewhere, retries=0)
    assert caught.value.kind == "unreachable"
    assert str(caught.value) == "its proxy is socks5; allowed: http, https"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no money"}}', "no money"),
        (b'{"detail": "too long"}', "too long"),
        (b'{"error": "plain"}', "plain"),
        (b"<html>oops</html>", ""),
        (b"just text", "just text"),
        (b"{}", ""),
    ],
)
def test_what_a_refusal_says_for_people(body, said):
    assert complaint(body) == said
