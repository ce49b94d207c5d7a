"""Outliving the deaths of the processes that are called."""

import asyncio
import os

import pytest
from ray.exceptions import ActorUnavailableError, PendingCallsLimitExceeded

from actors.failover import CrashJournal, ExpertError, call_with_failover


def test_calls_are_repeated_until_they_pass():
    failures = [ActorUnavailableError("restarting", None), PendingCallsLimitExceeded("full")]

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert asyncio.run(call_with_failover(call, deadline_s=10, first_delay_s=0.01)) == "done"
    assert not failures


def test_calls_that_never_pass_end_at_the_deadline():
    async def call() -> str:
        raise ActorUnavailableError("restarting", None)

    with pytest.raises(ExpertError, match=r"no answer within 0\.1 s: .* is unavailable: restarting"):
        asyncio.run(call_with_failover(call, deadline_s=0.1, first_delay_s=0.01))


def test_other_errors_are_not_swallowed():
    async def call() -> str:
        raise KeyError("a fault of ours")

    with pytest.raises(KeyError):
        asyncio.run(call_with_failover(call, deadline_s=1))


def die(journal: CrashJournal, work: str) -> None:
    """Begin work in a process that ends before the work does."""
    child = os.fork()
    if child == 0:
        with journal.working_on(work):
            os._exit(0)
    os.waitpid(child, 0)


def test_the_journal_counts_what_was_begun_and_never_ended(tmp_path):
    folder = tmp_path / "journal"
    for crash in range(3):
        assert CrashJournal(folder).crashes("block") == crash
        die(CrashJournal(folder), "block")
    assert CrashJournal(folder).crashes("other") == 0


def test_work_that_ends_clears_its_count_and_leaves_nothing(tmp_path):
    journal = CrashJournal(tmp_path / "journal")
    die(journal, "block")
    with journal.working_on("block"):
        assert journal.crashes("block") == 2
    with pytest.raises(ValueError, match="x"), journal.working_on("block"):
        raise ValueError("x")
    assert journal.crashes("block") == 0
    assert not (tmp_path / "journal").exists()
