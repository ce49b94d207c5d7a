"""What a run tells Prometheus and the logs: names of models, outcomes and phases only, never texts."""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from cluster.logs import logger

TAGS = ("job", "model")


class Observer:
    """The metrics and the log of one run."""

    def __init__(self, job: str, run: str) -> None:
        self.job, self.log, self.facts = job, logger("run"), {"job": job, "run": run}
        self.requests = Counter(
            "amalgam_job_requests",
            description="Requests to models by outcome.",
            tag_keys=(*TAGS, "outcome"),
        )
        self.tokens = Counter(
            "amalgam_job_tokens",
            description="Tokens that models read and wrote.",
            tag_keys=(*TAGS, "direction"),
        )
        self.cost = Counter("amalgam_job_cost", description="Prices of what models did.", tag_keys=TAGS)
        self.rejected = Counter(
            "amalgam_job_rejected", description="Texts rejected, by reason.", tag_keys=(*TAGS, "reason")
        )
        self.waiting = Gauge(
            "amalgam_job_waiting", description="Requests that are not answered yet.", tag_keys=TAGS
        )
        self.busy = Counter(
            "amalgam_job_busy_seconds",
            description="Time that models worked, over their processes.",
            tag_keys=TAGS,
        )
        self.processes = Gauge(
            "amalgam_job_processes", description="Processes that a run keeps for a model.", tag_keys=TAGS
        )
        self.gpus = Gauge("amalgam_job_gpus", description="GPUs that a run holds for a model.", tag_keys=TAGS)

    def event(self, event: str, **facts: Any) -> None:  # noqa: ANN401
        """Log what happens in a run."""
        self.log.info(event, extra={"facts": {**self.facts, **facts}})

    def answered(self, model: str, facts: Mapping[str, Any], waiting: int) -> None:
        """Count a block: asked, failed, prompt_tokens, completion_tokens, cost, seconds."""
        tags, asked, failed = self._tags(model), int(facts["asked"]), int(facts["failed"])
        for outcome, count in (("answered", asked - failed), ("failed", failed)):
            if count > 0:
                self.requests.inc(count, {**tags, "outcome": outcome})
        for direction in ("prompt", "completion"):
            if count := int(facts[f"{direction}_tokens"]):
                self.tokens.inc(count, {**tags, "direction": direction})
        if facts["cost"] > 0:
            self.cost.inc(float(facts["cost"]), tags)
        if facts["seconds"] > 0:
            self.busy.inc(float(facts["seconds"]), tags)
        self.waiting.set(max(waiting, 0), tags)

    def judged(self, model: str, rejected: Mapping[str, int]) -> None:
        """Count rejected texts by reason."""
        for reason, count in rejected.items():
            self.rejected.inc(count, {**self._tags(model), "reason": reason})

    def holds(self, model: str, processes: int, gpus: float) -> None:
        """Say how many processes of a model there are, and how many GPUs they have together."""
        self.processes.set(processes, self._tags(model))
        self.gpus.set(gpus, self._tags(model))

    def _tags(self, model: str) -> dict[str, str]:
        return {"job": self.job, "model": model}
