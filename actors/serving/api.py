"""What clients send and get: the contract of the endpoint, and its errors in the form of OpenAI's."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from actors.serving.deciding import Decision, Mode

Text = Annotated[str, Field(max_length=100_000)]


class Limits(BaseModel):
    """What a request may ask of a decision."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    rate: NonNegativeFloat | None = Field(
        None, alias="lambda", description="The loss that one unit of price must save; the default otherwise."
    )
    max_cost: NonNegativeFloat | None = Field(None, description="What a text may cost at most.")
    max_experts: PositiveInt | None = Field(None, description="Experts that are asked at most.")
    min_experts: PositiveInt | None = Field(None, description="Experts that are asked at least.")
    first_stage: PositiveInt | None = Field(None, description="Experts that are asked side by side at first.")
    deadline_ms: PositiveFloat | None = Field(
        None, description="Time after which the answer is given with what is known."
    )
    allow: list[str] = Field(default_factory=list, description="Experts that may be asked; all when empty.")
    deny: list[str] = Field(default_factory=list, description="Experts that may not be asked.")
    mode: Mode = Field("frugal", description="Ask as few as pays; everyone at once; or the first one only.")


class ClassifyRequest(Limits):
    """Texts to give labels to."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": ["A clever, warm film."], "lambda": 0.01}]}
    )

    inputs: list[Text] = Field(min_length=1, description="The texts.")


class Part(BaseModel):
    """A part of a message; only text is read."""

    type: Literal["text"] = "text"
    text: Text


class Message(BaseModel):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or ())


class ChatRequest(Limits):
    """A chat, as OpenAI's clients send it; what is not described here is ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"model": "amalgam", "messages": [{"role": "user", "content": "A clever, warm film."}]}
            ]
        },
    )

    model: str = Field("amalgam", description="`amalgam`, or `amalgam-LAMBDA`.")
    messages: list[Message] = Field(min_length=1, description="The last one of the user is answered.")
    stream: bool = Field(False, description="Send the answer as server-sent events.")
    n: Literal[1] = Field(1, description="Answers; there is one.")


class RouteRequest(Limits):
    """A dry run: nobody is asked."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"max_cost": 2.5}]})


class Step(BaseModel):
    """A call of an expert."""

    expert: str
    latency_ms: float
    expected_loss: float | None = Field(description="Expected after its answer.")
    best_if_asked_further: float | None = Field(description="The lowest that asking further promised.")
    error: str | None = Field(None, description="Why it did not answer.")


class Trace(BaseModel):
    """Who was asked, in order, and why no further."""

    experts: list[str] = Field(description="Those that answered, in the order of their answers.")
    cost: float = Field(description="Price of all calls, also of those that failed.")
    unit: str
    stop_reason: str = Field(description="gain, budget, all, limit, unavailable, deadline.")
    steps: list[Step] = Field(description="All calls, also those that failed.")
    answered_by: str | None = Field(None, description="Whose response is given, where one is chosen.")
    distance: float = Field(description="Mean squared distance to the most similar stored items.")
    unseen: bool | None = Field(description="Whether the text is unlike what is stored; null: not known.")


class Labelled(Trace):
    """The answer about one text, and how it came about."""

    label: str | None = Field(description="The label; null where the router abstains.")
    scores: dict[str, float]


class Classified(BaseModel):
    """The answers, in the order of the texts."""

    object: Literal["list"] = "list"
    artefact: str
    results: list[Labelled]


class Said(BaseModel):
    """The answer of a chat."""

    role: Literal["assistant"] = "assistant"
    content: str | None


class Choice(BaseModel):
    """The one choice there is."""

    index: int = 0
    message: Said
    finish_reason: Literal["stop"] = "stop"


class Usage(BaseModel):
    """Tokens of all experts that were asked."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Chat(BaseModel):
    """The answer, as OpenAI's clients read it, with the trace."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    amalgam: Trace


class Expected(BaseModel):
    """What a rate buys, as rehearsed."""

    rate: float = Field(alias="lambda")
    accuracy: float
    cost: float
    experts: float


class Route(BaseModel):
    """Whom a request would ask first, and what is to be expected."""

    artefact: str
    first: list[str] = Field(description="Experts by preference for the first call.")
    unavailable: list[str] = Field(description="Experts that keep failing, and are left alone.")
    expected: Expected | None
    unit: str


class ExpertInfo(BaseModel):
    """An expert, its mean price and whether it may be asked."""

    name: str
    price: float
    available: bool


class ArtefactInfo(BaseModel):
    """The artefact that decides."""

    version: str
    name: str
    kind: str
    answer: str
    classes: list[str]
    unit: str
    stored: int
    rate: float = Field(alias="lambda", description="Where a request names none.")
    experts: list[ExpertInfo]
    calibration: list[Expected]


class Model(BaseModel):
    """A name that requests may give as their model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "amalgam"


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class ApiError(Exception):
    """An answer that is an error: status, code and one line."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers

    @property
    def body(self) -> dict[str, Any]:
        """The body, as OpenAI's clients read it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "code": self.code, "param": None}}


def usage(decision: Decision) -> Usage:
    """Tokens of a decision's calls."""
    read = sum(call.prompt_tokens for call in decision.calls)
    written = sum(call.completion_tokens for call in decision.calls)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def trace(decision: Decision, unit: str, answered_by: str | None = None) -> Trace:
    """How a decision came about."""
    return Trace(**_trace(decision, unit), answered_by=answered_by)


def labelled(decision: Decision, label: str | None, classes: list[str], unit: str) -> Labelled:
    """A decision as an answer."""
    scores = {name: round(float(s), 6) for name, s in zip(classes, decision.scores, strict=True)}
    return Labelled(label=label, scores=scores, **_trace(decision, unit))


def _trace(decision: Decision, unit: str) -> dict[str, Any]:
    return {
        "experts": [call.expert for call in decision.calls if call.error is None],
        "cost": round(decision.cost, 9),
        "unit": unit,
        "stop_reason": decision.reason,
        "steps": [
            Step(
                expert=call.expert,
                latency_ms=call.latency_ms,
                expected_loss=call.current,
                best_if_asked_further=call.best,
                error=call.error,
            )
            for call in decision.calls
        ],
        "distance": round(decision.distance, 9),
        "unseen": decision.unseen,
    }
