"""The router as an endpoint: which artefact decides, how its experts are served, and what clients may do."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.schema.base import Strict
from configs.schema.expert import ExpertSpec


class Service(Strict):
    """How an expert is served."""

    placement: Literal["own", "router"] = "own"
    """`own`: processes of its own; `router`: within each process that decides, which spares small
    classifiers the way there. Then CPUs, GPUs, replicas and batches are those of the router."""
    num_cpus: NonNegativeFloat = 1.0
    """CPUs that Ray reserves for a process."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for a process; fractions share one."""
    accelerator_type: str | None = None
    """GPU model that Ray must find, e.g. A100."""
    min_replicas: NonNegativeInt = 1
    """Processes at least; 0 lets an expert that nobody asks give its machine back."""
    max_replicas: PositiveInt = 1
    """Processes at most; more are started while each has over `target_requests` waiting."""
    target_requests: PositiveFloat = 8
    """Requests that a process should have at a time."""
    idle_s: PositiveFloat = 600
    """How long processes must have been more than are needed before some are ended."""
    batch_size: PositiveInt = 16
    """Texts that a process answers together at most: those that came while it was at work."""
    timeout_s: PositiveFloat = 30
    """Time in which a call must be answered; then the expert has failed."""
    retries: NonNegativeInt = 1
    """How often a call that failed is made again, while its request has time."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas: {self.min_replicas} is above max_replicas ({self.max_replicas})")
        return self


class Circuit(Strict):
    """When an expert that keeps failing is left alone for a while."""

    failures: PositiveInt = 5
    """Calls in a row that must fail."""
    cool_down_s: PositiveFloat = 30
    """How long it is not asked then; after that one call tries whether it is back."""


class Access(Strict):
    """Who may use the endpoint."""

    keys_env: str | None = None
    """Environment variable with API keys, or their `sha256:` digests, separated by commas or spaces."""
    keys_file: str | None = None
    """File with one of those per line."""
    origins: tuple[str, ...] = ()
    """Web origins whose pages may call the endpoint (CORS); none by default."""

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return self.keys_env is not None or self.keys_file is not None


class Router(Strict):
    """How requests are decided."""

    replicas: PositiveInt = 2
    """Processes that decide."""
    num_cpus: NonNegativeFloat = 0.5
    """CPUs that Ray reserves for each."""
    rate: NonNegativeFloat | None = None
    """Lambda where a request names none; the artefact's recommendation when empty."""
    first_stage: PositiveInt = 1
    """Experts that are asked side by side at first, where it does not say so itself: quicker than one after
    another, and dearer."""
    unseen: Literal["continue", "default", "abstain"] = "continue"
    """What is done about a request unlike anything stored: decide all the same, take the answer of
    `default_expert`, or give none."""
    default_expert: str | None = None
    """See `unseen`."""
    deadline_ms: PositiveFloat = 30_000
    """Time that a request may take where it does not say so itself."""
    max_texts: PositiveInt = 256
    """Texts of a request at most."""
    max_body_bytes: PositiveInt = 1 << 20
    """Size of a request at most."""
    max_ongoing: PositiveInt = 32
    """Requests that a process works on at a time."""
    max_queued: PositiveInt = 128
    """Requests that wait for that at most; others, and those that would be late, get status 429."""
    circuit: Circuit = Circuit()
    """When experts that fail are left alone."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.unseen == "default") != (self.default_expert is not None):
            raise ValueError("default_expert: belongs to `unseen: default`, which needs one")
        return self


class Serving(Strict):
    """One artefact and its experts behind one endpoint."""

    job: Literal["serve"] = "serve"
    """Which job this file is for."""
    artefact: str = Field(min_length=1)
    """A run of `jobs foe`, or the folder of an artefact."""
    experts: tuple[ExpertSpec, ...] = ()
    """How to start experts; those of the artefact's own run need not be named."""
    service: Service = Service()
    """How experts are served."""
    services: dict[str, Service] = Field(default_factory=dict)
    """The same by expert, where one differs."""
    router: Router = Router()
    """How requests are decided."""
    access: Access = Access()
    """Who may use the endpoint."""

    def service_of(self, expert: str) -> Service:
        """How an expert is served."""
        return self.services.get(expert, self.service)
