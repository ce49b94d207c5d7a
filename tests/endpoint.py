"""A server that speaks OpenAI's API on a port of this machine, and does what a test wants."""

import asyncio
import inspect
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

WORDS = ["a", "the", "film", "plot", "cast", "was", "is", "good", "bad", "dull", "brave", "long"]
Reply = Callable[[dict[str, Any], int], Any]


def text_of(body: dict[str, Any]) -> str:
    """Words that depend on the whole body, and on nothing else."""
    digest = blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).digest()
    return " ".join(WORDS[byte % len(WORDS)] for byte in digest) + "."


def prompt_of(body: dict[str, Any]) -> str:
    """The prompt, or what the user says."""
    prompt: str = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return prompt


def reply_of(
    body: dict[str, Any], text: str | None, finish: str | None = "stop", **fields: Any
) -> dict[str, Any]:
    """The body of an answer, to a chat or a prompt; `fields` are further ones of the choice."""
    said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    choice = {"index": 0, "finish_reason": finish, **said, **fields}
    usage = {"prompt_tokens": len(prompt_of(body).split()), "completion_tokens": len((text or "").split())}
    return {"id": "1", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def refusal(status: int, message: str, **headers: str) -> Response:
    """An error as OpenAI's servers send it."""
    return JSONResponse({"error": {"message": message, "type": "x", "code": None}}, status, headers)


def event_of(chunk: dict[str, Any]) -> str:
    """An event of a stream."""
    return f"data: {json.dumps({'id': '1', 'created': 1, 'model': 'm', **chunk})}\n\n"


class Endpoint:
    """What was asked, when, over which connections, and how much of it at a time.

    `reply` gets a request's body and its number, and returns (or awaits) a response, a body or a text. Where
    there is a `key`, requests without it are refused.
    """

    def __init__(self, reply: Reply | None = None, delay_s: float = 0.0, key: str | None = None) -> None:
        self.reply: Reply = reply or (lambda body, number: text_of(body))
        self.delay_s, self.key = delay_s, key
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.connections: set[Any] = set()
        self.now = self.most = self.gone = 0
        self.go_on = threading.Event()
        self.app = FastAPI()
        self.app.post("/v1/{path:path}")(self.answer)

    def bodies_by(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The bodies of requests about texts, in the order of the texts."""
        asked = {prompt_of(body): body for body in self.bodies}
        return [next(body for prompt, body in asked.items() if text in prompt) for text in texts]

    async def answer(self, path: str, request: Request) -> Response:
        """Note a request and answer it."""
        self.times.append(time.monotonic())
        body = await request.json()
        self.bodies.append(body)
        self.paths.append(path)
        self.headers.append(dict(request.headers))
        self.connections.add(request.client)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.delay_s)
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                return refusal(401, "no")
            found = self.reply(body, len(self.bodies) - 1)
            found = await found if inspect.isawaitable(found) else found
        finally:
            self.now -= 1
        if isinstance(found, Response):
            return found
        if body.get("stream") and isinstance(found, str):
            return StreamingResponse(self.pieces(body, found), media_type="text/event-stream")
        return JSONResponse(reply_of(body, found) if isinstance(found, str) else found)

    async def pieces(self, body: dict[str, Any], text: str) -> AsyncIterator[str]:
        """A text word by word; it breaks off at the word BREAK, and waits at the word WAIT for `go_on`."""
        words = [word + " " for word in text.split()]
        for number, word in enumerate(words):
            if word == "BREAK ":
                raise ConnectionError
            while word == "WAIT " and not self.go_on.is_set():
                await asyncio.sleep(0.01)
            end = "stop" if number == len(words) - 1 else None
            said = {"delta": {"content": word}} if "messages" in body else {"text": word}
            yield event_of({"choices": [{"index": 0, "finish_reason": end, **said}]})
        yield event_of({"choices": [], "usage": reply_of(body, text)["usage"]})
        yield "data: [DONE]\n\n"


@contextmanager
def listening(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Have a server answer until the block ends, also what it was hanging on."""
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server = uvicorn.Server(uvicorn.Config(endpoint.app, log_level="critical", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield endpoint
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def free_url() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
