"""Runs of the FuseGen job in which texts, PLMs or rounds are missing."""

import os
import signal
from functools import partial

import pytest

from actors import writing
from actors.engines.base import Completion, load_engine
from actors.plm import start_plm
from actors.steps.runner import StepError
from tests import corpus

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_one_plm_alone_runs(conduct):
    done = conduct(**corpus.SHORT, plms=[corpus.plm("critic")])
    assert done.summary["samples"]["plms"] == {"critic": 20}
    assert done.summary["rounds"][0]["selection"]
    assert done.summary["final"]["accuracy"] > 0.5


def test_without_rounds_everything_is_written_at_once_and_a_shortfall_is_reported(conduct):
    done = conduct(samples={"per_plm": 200, "initial": 100, "rounds": 0}, eval=None)
    assert [r["round"] for r in done.summary["rounds"]] == [0]
    assert done.steps("select") == []
    samples = done.summary["samples"]
    assert set(samples["shortfall"]) == set(corpus.PLMS)
    for plm, kept in samples["plms"].items():
        assert kept + samples["shortfall"][plm] == 200
    texts = [row["text"] for row in done.dataset()]
    assert len(texts) == len(set(texts)) == samples["kept"]


def scripted(monkeypatch, behaviour):
    """Let every engine replay, unless `behaviour(spec, request)` raises or kills."""

    class Scripted:
        def __init__(self, spec, labels, seed):
            self.spec, self.engine = spec, load_engine(spec, labels, seed)

        def generate(self, requests, sampling):
            answers = self.engine.generate(requests, sampling)
            return [behaviour(self.spec.name, r, a) for r, a in zip(requests, answers, strict=True)]

        def available(self, *position):
            return self.engine.available(*position)

        def describe(self):
            return self.engine.describe()

    monkeypatch.setattr(writing, "start_plm", partial(start_plm, load=Scripted))


def test_a_plm_that_always_fails_is_dropped_and_those_with_poisonous_or_failing_requests_go_on(
    conduct, monkeypatch
):
    def behaviour(name, request, answer):
        if name == "fan":
            raise RuntimeError("out of ideas\nsecond line")
        if request.id == "grump-r0-l1-0000002":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "critic" and request.ordinal == 1:
            return Completion("", "error", error="too long for its context")
        return answer

    scripted(monkeypatch, behaviour)
    done = conduct(**corpus.SHORT)
    errors = [row for key in done.steps("-filter") for row in done.records(key) if row["status"] == "error"]
    killed = [row for row in errors if row["plm"] == "grump"]
    assert [row["id"] for row in killed] == ["grump-r0-l1-0000002"]  # the rest of its block goes on
    assert "died 3 times" in killed[0]["error"]
    failed = [row["error"] for row in errors if row["plm"] == "critic"]
    assert failed == ["too long for its context"] * 2  # once for each label
    assert done.summary["samples"]["plms"] == {"critic": 20, "fan": 0, "grump": 20}
    assert done.summary["samples"]["shortfall"] == {"fan": 20}
    for record in done.summary["rounds"]:
        assert set(record["dropped"]) == {"fan"}
        assert "out of ideas" in record["dropped"]["fan"] or "failed before" in record["dropped"]["fan"]
        assert "\n" not in record["dropped"]["fan"]
    assert set(done.summary["baselines"]) == {"critic", "grump", "union", "union_swa"}
    assert done.summary["final"]["accuracy"] > 0.5


def test_when_every_plm_fails_the_run_says_why(conduct, monkeypatch):
    def behaviour(name, request, answer):
        raise RuntimeError("out of ideas")

    scripted(monkeypatch, behaviour)
    with pytest.raises(StepError, match=r"round 0: no PLM wrote an acceptable text \(critic: .*out of ideas"):
        conduct(**corpus.SHORT)
