"""What a run shows while it works: counts per PLM or expert, the phase, and a log of events."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.observing import Observer
from actors.replicas import Sized


@dataclass
class PlmBoard:
    """Progress of one PLM in the current round."""

    wanted: int = 0
    asked: int = 0
    answered: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    dropped: str = ""

    def view(self) -> dict[str, Any]:
        """Numbers for a table: with tokens per second, and seconds to the end when they can be told."""
        busy = max(self.last - self.started, 1e-6)
        rate = self.answered / busy
        eta = (self.asked - self.answered) / rate if self.answered else None
        return {
            "wanted": self.wanted,
            "asked": self.asked,
            "answered": self.answered,
            "kept": self.kept,
            "rejected": dict(self.rejected),
            "tokens_per_second": self.tokens / busy if self.tokens else 0.0,
            "eta": eta,
            "dropped": self.dropped,
        }


@dataclass
class ExpertBoard:
    """Progress of one live expert."""

    wanted: int = 0
    """Items that it is to be asked about."""
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Time its model took, summed over replicas."""

    def view(self) -> dict[str, Any]:
        """Numbers for a table."""
        return {
            "asked": self.wanted,
            "answered": self.answered,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
        }


class Board:
    """Progress of a run, written by the coordinator and read by drivers."""

    def __init__(self, rounds: int = 0, observer: Observer | None = None) -> None:
        self.lock, self.observer = threading.Lock(), observer
        self.rounds, self.round, self.phase = rounds, 0, "starting"
        self.plms: dict[str, PlmBoard] = {}
        self.experts: dict[str, ExpertBoard] = {}
        self.events: list[str] = []

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        with self.lock:
            self.phase = phase
            self._add(phase)

    def note(self, event: str) -> None:
        """Add a line to the log."""
        with self.lock:
            self._add(event)

    def _add(self, event: str) -> None:
        self.events.append(event)
        if self.observer:
            self.observer.event(event, phase=self.phase)

    def start_round(self, number: int, wanted: dict[str, int]) -> None:
        """Begin a round of generation; `wanted` is what each PLM should add."""
        with self.lock:
            self.round = number
            self.plms = {plm: PlmBoard(wanted=count) for plm, count in wanted.items()}

    def answered(self, facts: dict[str, Any]) -> None:
        """Count an answered block."""
        with self.lock:
            plm = self.plms[facts["plm"]]
            plm.answered += int(facts["asked"])
            plm.tokens += int(facts["completion_tokens"])
            plm.last = time.monotonic()
            if self.observer:
                self.observer.answered(facts["plm"], facts, plm.asked - plm.answered)

    def asked(self, counts: dict[str, list[int]]) -> None:
        """Count requests about to be sent, by PLM and label."""
        with self.lock:
            for plm, per_label in counts.items():
                self.plms[plm].asked += sum(per_label)

    def judged(self, plms: dict[str, dict[str, Any]]) -> None:
        """Count what the filter said."""
        with self.lock:
            for name, facts in plms.items():
                plm = self.plms[name]
                plm.kept += sum(facts["kept"])
                plm.rejected.update(facts["rejected"])
                if self.observer:
                    self.observer.judged(name, facts["rejected"])

    def start_experts(self, wanted: dict[str, int]) -> None:
        """Begin to ask experts; `wanted` is about how many items each is asked."""
        with self.lock:
            self.experts = {name: ExpertBoard(wanted=count) for name, count in wanted.items()}

    def known_of(self, expert: str, *, asked: int, failed: int = 0) -> None:
        """Count items that an expert was asked about before, and on how many of them it failed."""
        with self.lock:
            board = self.experts[expert]
            board.answered += asked - failed
            board.failed += failed

    def answered_by(self, facts: dict[str, Any]) -> None:
        """Count a block of items that an expert was asked about."""
        with self.lock:
            board = self.experts[facts["expert"]]
            board.answered += facts["asked"] - facts["failed"]
            board.failed += facts["failed"]
            board.seconds += facts["seconds"]
            if self.observer:
                waiting = board.wanted - board.answered - board.failed
                self.observer.answered(facts["expert"], facts, waiting)

    def holds(self, models: Mapping[str, tuple[Sized, int]]) -> None:
        """Say how many processes there are of each model."""
        for name, (spec, processes) in models.items():
            if self.observer:
                self.observer.holds(name, processes, processes * spec.num_gpus)

    def view(self, since: int) -> dict[str, Any]:
        """Everything a driver shows; events from number `since` on."""
        with self.lock:
            return {
                "phase": self.phase,
                "round": self.round,
                "rounds": self.rounds,
                "plms": {name: plm.view() for name, plm in self.plms.items()},
                "experts": {name: expert.view() for name, expert in self.experts.items()},
                "events": self.events[since:],
            }
