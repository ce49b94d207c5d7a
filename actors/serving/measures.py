"""What is counted, for Prometheus: names of experts, modes and outcomes only, never texts."""

from ray.serve.metrics import Counter, Histogram

from actors.serving.deciding import Decision

SECONDS = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]


class Measures:
    """The metrics of a router."""

    def __init__(self) -> None:
        self.requests = Counter(
            "amalgam_requests", description="Requests by mode and outcome.", tag_keys=("mode", "outcome")
        )
        self.latency = Histogram(
            "amalgam_latency_seconds",
            description="Time of a request by mode.",
            boundaries=SECONDS,
            tag_keys=("mode",),
        )
        self.calls = Counter(
            "amalgam_expert_calls", description="Calls by expert and outcome.", tag_keys=("expert", "outcome")
        )
        self.call_latency = Histogram(
            "amalgam_expert_latency_seconds",
            description="Time of a call by expert.",
            boundaries=SECONDS,
            tag_keys=("expert",),
        )
        self.experts = Histogram(
            "amalgam_experts_per_text",
            description="Experts asked about a text.",
            boundaries=[1, 2, 3, 4, 5, 6, 8, 10, 15, 20],
            tag_keys=("mode",),
        )
        self.cost = Counter("amalgam_cost", description="Prices of calls, in the artefact's unit.")
        self.stops = Counter("amalgam_stops", description="Why walks stop.", tag_keys=("reason",))
        self.novelty = Histogram(
            "amalgam_novelty",
            description="Distance to stored items as a share of what is usual (p95); grows as texts drift.",
            boundaries=[0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 5, 10],
        )
        self.unseen = Counter("amalgam_unseen", description="Texts unlike anything stored.")

    def ended(self, mode: str, outcome: str, seconds: float) -> None:
        """A request ended."""
        self.requests.inc(tags={"mode": mode, "outcome": outcome})
        self.latency.observe(seconds, tags={"mode": mode})

    def decided(self, mode: str, decision: Decision) -> None:
        """A text was decided about."""
        for call in decision.calls:
            self.calls.inc(tags={"expert": call.expert, "outcome": "error" if call.error else "ok"})
            self.call_latency.observe(call.latency_ms / 1e3, tags={"expert": call.expert})
        self.experts.observe(sum(not call.error for call in decision.calls), tags={"mode": mode})
        self.stops.inc(tags={"reason": decision.reason})
        if decision.cost > 0:
            self.cost.inc(decision.cost)
        if decision.usual:
            self.novelty.observe(decision.distance / decision.usual)
        if decision.unseen:
            self.unseen.inc()
