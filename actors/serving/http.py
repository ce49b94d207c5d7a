"""The HTTP side of a router: paths, errors, logs."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from opentelemetry import trace
from starlette.exceptions import HTTPException

from actors.serving import api
from actors.serving.deciding import Decider, Decision, Knobs, Mode, NobodyError, RefusedError
from actors.serving.guard import Guard, Quick
from actors.serving.measures import Measures
from actors.serving.turns import BusyError, Turns
from configs import __version__
from configs.schema.serve import Serving

LOG = logging.getLogger("ray.serve")
TRACER = trace.get_tracer("amalgam")
MODEL = "amalgam"
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text}
    for status, text in {
        401: "No API key, or a wrong one.",
        403: "The router has no API keys, and the request comes from another machine.",
        408: "The request took too long.",
        413: "The request is too large.",
        422: "The request is not what is described here.",
        429: "Too many requests; come back after Retry-After seconds.",
        503: "No expert has answered; come back after Retry-After seconds.",
    }.items()
}


class Core(Protocol):
    """What a router gives its HTTP side."""

    serving: Serving
    decider: Decider
    measures: Measures
    turns: Turns
    keys: list[str]


def application(core: Core) -> FastAPI:
    """The web application of a router."""
    app = FastAPI(
        title="Amalgam",
        version=__version__,
        description="Several experts behind one endpoint: as few are asked as it pays to ask.",
        redoc_url=None,
        responses=ERRORS,
    )
    app.add_exception_handler(api.ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Guard, core=core, quick=_add_paths(app, core))
    if core.serving.access.origins:
        origins = list(core.serving.access.origins)
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return app


def _add_paths(app: FastAPI, core: Core) -> dict[str, Quick]:
    """Add the paths; those that are quick."""

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def playground() -> str:
        return files("actors.serving").joinpath("playground.html").read_text()

    @app.get("/health", summary="Whether the router decides")
    async def health() -> dict[str, str]:
        return {"status": "ok", "artefact": core.decider.artefact.manifest["version"]}

    @app.get("/v1/models", summary="Names that requests may give as their model")
    async def models() -> api.Models:
        return api.Models(data=[api.Model(id=MODEL)])

    @app.get("/v1/artefact", summary="The artefact that decides, and what its rates buy")
    async def artefact() -> api.ArtefactInfo:
        return _about(core.decider)

    @app.post("/v1/route", summary="Whom a request would ask first, and what to expect; nobody is asked")
    async def route(request: api.RouteRequest, http: Request) -> api.Route:  # noqa: ARG001
        decider = core.decider
        knobs = _knobs(core, decider, request)
        try:
            may = decider.begin(1, knobs).allowed[0]
        except RefusedError as error:
            raise _refused(decider, error) from None
        known = min(decider.artefact.policy.starts_, key=lambda rate: abs(rate - knobs.rate))
        names = decider.artefact.experts
        points = decider.artefact.manifest["calibration"]
        return api.Route(
            artefact=decider.artefact.manifest["version"],
            first=[names[e] for e in decider.artefact.policy.starts_[known] if may[e]],
            unavailable=[caller.name for caller in decider.callers if not caller.available],
            expected=api.Expected(**min(points, key=lambda point: abs(point["lambda"] - knobs.rate))),
            unit=decider.artefact.manifest["unit"],
        )

    @app.post("/v1/classify", summary="Labels of texts, and how they came about")
    async def classify(request: api.ClassifyRequest, http: Request) -> api.Classified:
        decider, most = core.decider, core.serving.router.max_texts
        if len(request.inputs) > most:
            raise api.ApiError(413, "too_many_inputs", f"inputs: {len(request.inputs)}; at most {most}")
        if decider.chooses:
            raise api.ApiError(404, "no_labels", "this artefact chooses responses; use /v1/chat/completions")
        found = await _answered(core, decider, http, request.inputs, _knobs(core, decider, request))
        about = decider.artefact.manifest
        results = [api.labelled(d, _said(decider, d), about["classes"], about["unit"]) for d in found]
        return api.Classified(artefact=about["version"], results=results)

    @app.post("/v1/chat/completions", summary="The same for OpenAI's clients", response_model=api.Chat)
    async def chat(request: api.ChatRequest, http: Request) -> Any:  # noqa: ANN401
        decider = core.decider
        if request.rate is None:
            request.rate = _rate_of(request.model)
        asked = [message.text for message in request.messages if message.role == "user"]
        if not asked:
            raise api.ApiError(422, "invalid_request", "messages: none of them is the user's")
        text = asked[-1]
        if len(request.messages) > 1 and decider.chooses:
            text = "\n".join(f"{message.role}: {message.text}" for message in request.messages)
        knobs = _knobs(core, decider, request)
        about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": request.model}
        if request.stream:
            # What is done about a text unlike anything stored is known only when all is decided.
            live = decider.chooses and core.serving.router.unseen == "continue"
            told = (_told if live else _told_at_once)(core, decider, http, text, knobs)
            events = _events(decider, told, about)
            opening = await anext(events)  # until then, errors have a status of their own
            return StreamingResponse(_chained(opening, events), media_type="text/event-stream")
        (decision,) = await _answered(core, decider, http, [text], knobs)
        return api.Chat(
            **about,
            choices=[api.Choice(message=api.Said(content=_said(decider, decision)))],
            usage=api.usage(decision),
            amalgam=api.trace(decision, decider.artefact.manifest["unit"], _answered_by(decider, decision)),
        )

    return {
        "/v1/route": Quick(api.RouteRequest, route),
        "/v1/classify": Quick(api.ClassifyRequest, classify),
        "/v1/chat/completions": Quick(api.ChatRequest, chat),
    }


def _rate_of(model: str) -> float | None:
    """The lambda that a model's name asks for."""
    name, dash, rate = model.partition("-")
    try:
        if name == MODEL and (not dash or float(rate) >= 0):
            return float(rate) if dash else None
    except ValueError:
        pass
    raise api.ApiError(404, "model_not_found", f"model: no {model!r}; allowed: {MODEL}, {MODEL}-LAMBDA")


async def _events(
    decider: Decider, told: AsyncIterator[str | Decision], about: dict[str, Any]
) -> AsyncIterator[str]:
    """What is told as OpenAI's clients read a stream: who speaks, what is said, the end. What goes wrong
    before anything is said is raised."""

    def event(delta: dict[str, Any], end: str | None = None, **more: Any) -> str:  # noqa: ANN401
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        chunk = {**about, "object": "chat.completion.chunk", "choices": [choice], **more}
        return f"data: {json.dumps(chunk)}\n\n"

    opened = False
    try:
        async for said in told:
            if not opened:
                opened = True
                yield event({"role": "assistant", "content": ""})
            if isinstance(said, str):
                yield event({"content": said})
            else:
                unit, by = decider.artefact.manifest["unit"], _answered_by(decider, said)
                ending = {"usage": api.usage(said), "amalgam": api.trace(said, unit, by)}
                yield event({}, "stop", **{key: value.model_dump() for key, value in ending.items()})
    except api.ApiError as error:
        if not opened:
            raise
        yield f"data: {json.dumps(error.body)}\n\n"
    yield "data: [DONE]\n\n"


async def _chained(opening: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    yield opening
    async for event in events:
        yield event


async def _told(
    core: Core, decider: Decider, http: Request, text: str, knobs: Knobs
) -> AsyncIterator[str | Decision]:
    """The chosen response as it is written, and the decision, counted and logged."""
    with _counted(core, http, knobs.mode, 1), _faults(decider):
        async with core.turns.turn(knobs.until):
            async for said in decider.tell(text, knobs):
                if isinstance(said, Decision):
                    _note(core, knobs.mode, said)
                yield said


async def _told_at_once(
    core: Core, decider: Decider, http: Request, text: str, knobs: Knobs
) -> AsyncIterator[str | Decision]:
    """What is answered, when all of it is there, and the decision."""
    (decision,) = await _answered(core, decider, http, [text], knobs)
    yield _said(decider, decision) or ""
    yield decision


async def _answered(
    core: Core, decider: Decider, http: Request, texts: list[str], knobs: Knobs
) -> list[Decision]:
    """Decisions about texts, counted and logged; by another way where a text is unlike anything stored."""
    with _counted(core, http, knobs.mode, len(texts)), _faults(decider):
        async with core.turns.turn(knobs.until):
            decisions = await decider.decide(texts, knobs)
            for decision in decisions:
                _note(core, knobs.mode, decision)
            strange = [place for place, decision in enumerate(decisions) if decision.unseen]
            if strange and core.serving.router.unseen == "default":
                only = replace(knobs, allow=[str(core.serving.router.default_expert)], deny=(), mode="single")
                others = await decider.decide([texts[place] for place in strange], only)
                for place, other in zip(strange, others, strict=True):
                    decisions[place] = _besides(decisions[place], other)
            elif strange and core.serving.router.unseen == "abstain":
                for place in strange:
                    decisions[place] = replace(decisions[place], answer=-1, response=None)
        return decisions


def _besides(before: Decision, other: Decision) -> Decision:
    """A second decision about a text, with what the first one cost and saw."""
    return replace(
        other,
        calls=before.calls + other.calls,
        cost=before.cost + other.cost,
        distance=before.distance,
        usual=before.usual,
    )


def _note(core: Core, mode: Mode, decision: Decision) -> None:
    """Count a decision, and say in the request's span how it came about."""
    _later(core.measures.decided, mode, decision)
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(
            "decision",
            {
                "experts": [call.expert for call in decision.calls],
                "latency_ms": [call.latency_ms for call in decision.calls],
                "stop_reason": decision.reason,
                "cost": decision.cost,
                "unseen": bool(decision.unseen),
            },
        )


@contextmanager
def _counted(core: Core, http: Request, mode: Mode, texts: int) -> Iterator[None]:
    """Count and log a request when it ends."""
    outcome, started = "error", time.perf_counter()
    try:
        with TRACER.start_as_current_span("amalgam.decide", attributes={"mode": mode, "texts": texts}):
            yield
        outcome = "ok"
    except api.ApiError as error:
        outcome = "refused" if error.status == 429 else outcome
        raise
    finally:
        seconds = time.perf_counter() - started
        _later(core.measures.ended, mode, outcome, seconds)
        _later(_log, http, outcome, texts, seconds)


def _later(task: Callable[..., None], *args: object) -> None:
    """Do what the answer need not wait for: it is sent before the event loop turns to anything else."""
    asyncio.get_running_loop().call_soon(task, *args)


def _said(decider: Decider, decision: Decision) -> str | None:
    """The label or the response that is given; None: none is."""
    if decider.chooses or decision.answer < 0:
        return decision.response
    label: str = decider.artefact.manifest["classes"][int(decider.artefact.policy.classes_[decision.answer])]
    return label


def _answered_by(decider: Decider, decision: Decision) -> str | None:
    return decider.artefact.experts[decision.answer] if decider.chooses and decision.answer >= 0 else None


def _knobs(core: Core, decider: Decider, request: api.Limits) -> Knobs:
    """What a request asks for, checked against the artefact."""
    names = decider.artefact.experts
    for key, given in (("allow", request.allow), ("deny", request.deny)):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise api.ApiError(
                422, "unknown_expert", f"{key}: no expert {unknown[0]!r}; allowed: {', '.join(names)}"
            )
    default = core.serving.router.rate
    rate = decider.artefact.manifest["rate"] if default is None else default
    return Knobs(
        rate=rate if request.rate is None else request.rate,
        max_cost=request.max_cost,
        max_experts=request.max_experts,
        min_experts=request.min_experts,
        first_stage=request.first_stage or core.serving.router.first_stage,
        until=time.monotonic() + (request.deadline_ms or core.serving.router.deadline_ms) / 1e3,
        allow=request.allow,
        deny=request.deny,
        mode=request.mode,
    )


def _refused(decider: Decider, error: RefusedError) -> api.ApiError:
    """The fault of the request, or of experts that keep failing."""
    closed = [caller.name for caller in decider.callers if not caller.available]
    if not closed:
        return api.ApiError(422, "no_expert", str(error))
    message = f"{error}; unavailable: {', '.join(closed)}"
    return api.ApiError(503, "no_expert", message, **{"Retry-After": "1"})


@contextmanager
def _faults(decider: Decider) -> Iterator[None]:
    """Say what goes wrong in the terms of HTTP."""
    try:
        yield
    except BusyError as error:
        headers = {"Retry-After": str(error.retry_after_s)}
        raise api.ApiError(429, "busy", f"too much to do: {error}", **headers) from None
    except RefusedError as error:
        raise _refused(decider, error) from None
    except NobodyError as error:
        message = f"no expert has answered: {error}"
        if error.late:
            raise api.ApiError(408, "deadline", f"{message}; deadline_ms was up") from None
        raise api.ApiError(503, "no_expert", message, **{"Retry-After": "1"}) from None


def _about(decider: Decider) -> api.ArtefactInfo:
    manifest = decider.artefact.manifest
    keys = ("version", "name", "kind", "answer", "classes", "unit", "stored")
    return api.ArtefactInfo(
        **{key: manifest[key] for key in keys},
        **{"lambda": manifest["rate"]},
        experts=[
            api.ExpertInfo(name=expert["name"], price=expert["price"], available=caller.available)
            for expert, caller in zip(manifest["experts"], decider.callers, strict=True)
        ],
        calibration=[api.Expected(**point) for point in manifest["calibration"]],
    )


async def _api_error(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, api.ApiError)  # noqa: S101 - what it was registered for
    return JSONResponse(error.body, error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    assert isinstance(error, HTTPException)  # noqa: S101 - what it was registered for
    found = api.ApiError(error.status_code, "http_error", str(error.detail))
    return JSONResponse(found.body, error.status_code, dict(error.headers or {}))


def _log(request: Request, outcome: str, texts: int, seconds: float) -> None:
    line = {
        "request_id": request.headers.get("x-request-id"),
        "path": request.url.path,
        "outcome": outcome,
        "texts": texts,
        "ms": round(1e3 * seconds, 2),
    }
    LOG.info(json.dumps(line))
