"""What every request passes: its key, its size; and paths that are answered at once.

    ASGI -> Guard (key, size) -> a quick path: JSON -> model -> endpoint -> model -> JSON
                              -> any other: FastAPI, which describes the quick ones too

FastAPI's routing, dependencies and response models would take a fifth of the time of our code in a request.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError

from actors.serving import access, api
from configs.schema.serve import Serving

OPEN = {"/", "/health", "/openapi.json", "/docs"}
"""Paths that need no key."""
JSON = "application/json"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Endpoint = Callable[[Any, Request], Awaitable[BaseModel | Response]]


class Guarded(Protocol):
    """What a router gives its guard."""

    serving: Serving
    keys: list[str]


@dataclass(frozen=True)
class Quick:
    """A path to which a body is posted."""

    body: type[BaseModel]
    endpoint: Endpoint

    async def answer(self, body: bytes, request: Request) -> Response:
        """Read, call and write; ApiError where the body is not what is described."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
            raise api.ApiError(422, "invalid_request", f"content-type: {kind or 'none'}; allowed: {JSON}")
        try:
            asked = self.body.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "body"
            raise api.ApiError(422, "invalid_request", f"{place}: {first['msg']}") from None
        found = await self.endpoint(asked, request)
        if isinstance(found, Response):
            return found
        return Response(found.model_dump_json(by_alias=True), media_type=JSON)


class Guard:
    """Before a request is read: its key and its size."""

    def __init__(self, app: Any, core: Guarded, quick: Mapping[str, Quick]) -> None:  # noqa: ANN401
        self.app, self.core, self.quick = app, core, quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or pass it on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))
        request = Request(scope)
        try:
            self._let_in(path, request)
            ending = await self._read(request, receive)
            quick = self.quick.get(path) if scope["method"] == "POST" else None
            if quick is None or ending["type"] != "http.request":
                await self.app(scope, _once(ending, receive), send)
            else:
                response = await quick.answer(ending["body"], request)
                await response(scope, receive, send)
        except api.ApiError as error:
            await JSONResponse(error.body, error.status, error.headers)(scope, receive, send)

    def _let_in(self, path: str, request: Request) -> None:
        """ApiError for who may not ask."""
        if not self.core.keys:
            # Replicas listen at all addresses, whatever the proxy before them does.
            if request.client and access.elsewhere(request.client.host):
                message = (
                    "without API keys only this machine is served; set access.keys_env or access.keys_file"
                )
                raise api.ApiError(403, "no_api_keys", message)
        elif path not in OPEN and not access.allowed(request.headers.get("authorization"), self.core.keys):
            message = "give an API key: Authorization: Bearer KEY"
            raise api.ApiError(401, "invalid_api_key", message, **{"WWW-Authenticate": "Bearer"})

    async def _read(self, request: Request, receive: Receive) -> MutableMapping[str, Any]:
        """The message with the whole body, unless that is too large; or that the client has gone."""
        most = self.core.serving.router.max_body_bytes
        length = request.headers.get("content-length", "0")
        parts: list[bytes] = []
        more, size = True, int(length) if length.isdecimal() else 0
        while more and size <= most:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            size = max(size, sum(map(len, parts)))
            more = message.get("more_body", False)
        if size > most:
            raise api.ApiError(413, "too_large", f"the body is larger than {most} bytes")
        return {"type": "http.request", "body": b"".join(parts), "more_body": False}


def _once(message: MutableMapping[str, Any], receive: Receive) -> Receive:
    """A message, and then what else comes."""
    waiting = [message]

    async def found() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return found
