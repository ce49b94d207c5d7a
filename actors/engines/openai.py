"""Models behind a URL that speaks OpenAI's API.

    request -> body -> `posting` -> reply -> text as other engines give it

The requests of a block are independent of each other; a bounded number is in flight at a time. Callers with
an event loop ask on it, others on a loop in a thread of its own; each loop has connections of its own, which
outlive a block. What is wrong with one request is said in its completion; a wrong key, an unknown model and a
server that is not there are an `EngineError`. Keys are never repeated, even where a server does.
"""

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import ExitStack, aclosing, suppress
from http import HTTPStatus
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from actors.engines.base import Completion, EngineError, FinishReason, Hear, Request, failure
from actors.engines.posting import Poster, PostError, complaint, spoken
from configs.schema.plm import OpenaiEngine, Sampling

Found = TypeVar("Found")
PATHS = {"chat": "/chat/completions", "completions": "/completions"}
OPEN_QUOTE = '"'
SEEDS = 1 << 31
"""Seeds are sent modulo this: some servers take no more than 31 bits."""
LONGEST = 300
"""Characters of what a server complains of."""
FINISHED: dict[str | None, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    None: "stop",
    "length": "length",
    "max_tokens": "length",
}
USELESS = {
    401: "the key is refused",
    402: "the account has no money left",
    403: "access is refused",
    404: "there is no such model, or the URL is not that of an API",
}


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    finish_reason: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    ended_by: str | int | None = Field(
        default=None, validation_alias=AliasChoices("stop_reason", "matched_stop")
    )
    """The stop string, where the server (vLLM, SGLang) says so; anything else is the model's own end."""


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Reply(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class Openai:
    """One model behind a URL, and the connections to it."""

    def __init__(self, spec: OpenaiEngine) -> None:
        """Get ready to ask; `EngineError` in one line when the key is missing. Nothing is asked yet."""
        self._spec, self._key = spec, _key_of(spec)
        self._lines: _Lines = weakref.WeakKeyDictionary()
        thread = ExitStack()
        self.portal = thread.enter_context(start_blocking_portal(name=f"asking {spec.model}"))
        """Runs coroutines of this object for callers without an event loop."""
        self.close = weakref.finalize(self, _close, self.portal, self._lines, thread)

    @property
    def _line(self) -> "_Line":
        """The connections of this event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._lines:
            self._lines[loop] = _Line(self._spec, self._key)
        return self._lines[loop]

    async def run(self, task: Callable[..., Awaitable[Found]], *args: Any) -> Found:  # noqa: ANN401
        """Await what asks this engine; see `AsyncEngine.run`."""
        return await task(*args)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Have each request answered, `concurrency` at a time; see `Engine.generate`."""
        return self.portal.call(self.write, requests, sampling)

    async def write(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """As `generate`."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(request, sampling)) for request in requests]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def stream(self, request: Request, sampling: Sampling, hear: Hear) -> Completion:
        """As `write` for one request, and `hear` gets the text piece by piece."""
        body, opened = body_of(self._spec, request, sampling, streamed=True)
        if opened:  # what stands before the quote must be seen as a whole
            completion = await self._one(request, sampling)
            hear(completion.text)
            return completion
        line = self._line
        async with line.turns, aclosing(line.poster.stream(PATHS[self._spec.api], body)) as events:
            try:
                reply = await _assembled(events, hear)
            except PostError as error:
                return self._failed(error)
            except ValidationError as error:
                return failure(_misformed(error))
        return self._completed(reply, sampling, opened=False)

    async def _one(self, request: Request, sampling: Sampling) -> Completion:
        body, opened = body_of(self._spec, request, sampling)
        line = self._line
        async with line.turns:
            try:
                text = await line.poster.post(PATHS[self._spec.api], body)
            except PostError as error:
                return self._failed(error)
        try:
            reply = _Reply.model_validate_json(text)
        except ValidationError as error:
            return failure(_misformed(error))
        return self._completed(reply, sampling, opened=opened)

    def _failed(self, error: PostError) -> Completion:
        """Why there is no text; EngineError where there will never be one."""
        tries, why = f"asked {self._spec.retries + 1} times", self._one_line(str(error))
        if error.kind == "refused":
            return self._refused(error)
        if error.kind == "unreachable":
            raise EngineError(f"{self._spec.source}: the server cannot be reached, {tries}: {why}") from None
        if error.kind == "late":
            return failure(f"no answer within {self._spec.timeout_s:g} s, {tries}")
        if error.kind == "cut":
            return failure(f"the answer broke off: {why}")
        return failure(f"the connection broke, {tries}: {why}")

    def _refused(self, error: PostError) -> Completion:
        said = f"{error.status} {_phrase(error.status)}{self._complaint(complaint(error.body))}"
        if error.status in USELESS:
            reason = USELESS[error.status]
            if error.status == 401 and not self._key:
                reason = "a key is wanted, whose environment variable key_env must name"
            raise EngineError(f"{self._spec.source}: {reason} ({said})") from None
        wait = f", to be asked again after {self._one_line(error.after)}" if error.after else ""
        return failure(f"the server answered {said}{wait}")

    def _complaint(self, said: str) -> str:
        return f": {self._one_line(said)}" if said else ""

    def _one_line(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "(the key)")
        return " ".join(text.split())[:LONGEST]

    def _completed(self, reply: _Reply, sampling: Sampling, *, opened: bool) -> Completion:
        if not reply.choices:
            return failure(f"the server's answer is empty{self._complaint(spoken(reply.error))}")
        choice = reply.choices[0]
        written = choice.message.content if choice.message else choice.text
        finish = FINISHED.get(choice.finish_reason)
        if finish is None:
            return failure(f"the server ended the answer: {self._one_line(str(choice.finish_reason))}")
        if written is None:
            refusal = choice.message.refusal if choice.message else None
            return failure(f"the model refused: {self._one_line(refusal)}" if refusal else "there is no text")
        usage = reply.usage or _Usage()
        ended, finish = _ended(written, choice, finish, sampling.stop, opened=opened)
        return Completion(ended, finish, usage.prompt_tokens or 0, usage.completion_tokens or 0)

    def available(self, round: int, label: int, zero_shot: bool, ordinal: int, index: int = 0) -> None:
        """Return None: there is no limit."""

    def describe(self) -> dict[str, str]:
        """Return the model, the URL and the form in which it is asked; nothing more is known of it."""
        return {
            "engine": "openai",
            "model": self._spec.model,
            "url": self._spec.url,
            "api": self._spec.api,
        }


class _Line:
    """The connections of one event loop."""

    def __init__(self, spec: OpenaiEngine, key: str | None) -> None:
        self.poster = Poster(
            spec.url,
            key=key,
            timeout_s=spec.timeout_s,
            retries=spec.retries,
            connections=spec.concurrency,
        )
        self.turns = asyncio.Semaphore(spec.concurrency)


_Lines = MutableMapping[asyncio.AbstractEventLoop, _Line]


async def _assembled(events: AsyncIterator[bytes], hear: Hear) -> _Reply:
    """The whole of a reply that comes in pieces. ValidationError when they have not the form of the API."""
    whole, usage, said = _Choice(), None, False
    parts: list[str] = []
    async for event in events:
        reply = _Reply.model_validate_json(event)
        if reply.error:
            raise PostError("cut", spoken(reply.error))
        usage = reply.usage or usage
        for choice in reply.choices or ():
            said = True
            part = choice.delta.content if choice.delta else choice.text
            if part:
                parts.append(part)
                hear(part)
            if choice.finish_reason is not None:
                whole = choice
    whole = whole.model_copy(update={"message": None, "text": "".join(parts)})
    return _Reply(choices=[whole] if said else None, usage=usage)


def _misformed(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    what = " ".join([".".join(map(str, first["loc"])), first["msg"]]).strip()
    return f"the server's answer has not the form of the API: {what}"


def body_of(
    spec: OpenaiEngine, request: Request, sampling: Sampling, *, streamed: bool = False
) -> tuple[dict[str, Any], bool]:
    """The body of a request, and whether its reply is the inside of a quote that the prompt opens.

    A chat cannot begin a reply, so the open quote is left out of the message. A model may write that quote
    itself, and so it must not stop there: the text is cut when it has come.
    """
    stop = list(sampling.stop)
    body: dict[str, Any] = {"model": spec.model}
    prompt, opened = request.prompt, False
    if spec.api == "chat":
        opened = prompt.rstrip(" ").endswith(OPEN_QUOTE)
        if opened:
            prompt = prompt.rstrip(" ").removesuffix(OPEN_QUOTE).rstrip()
            stop = [string for string in stop if string != OPEN_QUOTE]
        system = [{"role": "system", "content": spec.system}] if spec.system else []
        body["messages"] = [*system, {"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    greedy = sampling.top_k == 1
    body |= {"max_tokens": sampling.max_new_tokens, "seed": request.seed % SEEDS, "stop": stop or None}
    body |= {"temperature": 0} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return {name: value for name, value in (body | spec.extra).items() if value is not None}, opened


def _ended(
    text: str, choice: _Choice, finish: FinishReason, stop: Sequence[str], *, opened: bool
) -> tuple[str, FinishReason]:
    """A text up to and including the stop string that ended it, which servers often cut; and how it ended."""
    if opened:
        text = text.lstrip().removeprefix(OPEN_QUOTE)
    ends = [text.index(string) + len(string) for string in stop if string in text]
    if ends:
        return text[: min(ends)], "stop"
    return (text + _cut(choice, stop, opened=opened) if finish == "stop" else text), finish


def _cut(choice: _Choice, stop: Sequence[str], *, opened: bool) -> str:
    """The stop string that a server has cut from a text that ended by itself.

    Where it does not say whether there was one, the first stands for all: a text that its model has ended is
    as complete as one in quotes. So does the end of a reply that was to be inside of a quote.
    """
    if isinstance(choice.ended_by, str) and choice.ended_by in stop:
        return choice.ended_by
    if opened and OPEN_QUOTE in stop:
        return OPEN_QUOTE
    return stop[0] if stop and "ended_by" not in choice.model_fields_set else ""


def _key_of(spec: OpenaiEngine) -> str | None:
    if spec.key_env is None:
        return None
    key = os.environ.get(spec.key_env, "").strip()
    if not key:
        raise EngineError(
            f"{spec.source}: the environment variable {spec.key_env} (key_env) is not set in this process"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EngineError(
            f"{spec.source}: what is in {spec.key_env} (key_env) has characters that no key has"
        )
    return key


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(unknown status)"


def _close(portal: BlockingPortal, lines: _Lines, thread: ExitStack) -> None:
    """End the connections, what the thread still asks, and the thread."""
    with suppress(RuntimeError):  # the loop has ended before
        portal.call(_hang_up, lines)
        portal.call(portal.stop, True)
    thread.close()


async def _hang_up(lines: _Lines) -> None:
    """End connections: those of other loops by those loops, where they still run."""
    for loop, line in list(lines.items()):
        if loop is asyncio.get_running_loop():
            await line.poster.close()
        elif loop.is_running():
            asyncio.run_coroutine_threadsafe(line.poster.close(), loop)
