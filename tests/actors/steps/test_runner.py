"""Steps as Ray tasks: done once, side by side, and again when their process died."""

import time
from pathlib import Path

import pytest

from actors.steps.runner import Call, StepError, Steps, StoppedError, resources_of
from configs.schema.stm import FullStm, LinearStm

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
def steps(bench):
    return Steps(bench.run, lambda: False)


@pytest.fixture
def call(tmp_path):
    """A call of a function of `work`, with a log of its executions."""

    def build(function, value=1, **params):
        log = tmp_path / f"{function}{value}.log"
        log.touch()
        params = {"value": value, "log": str(log), **params}
        return Call(function, f"tests.actors.steps.work:{function}", params, {"num_cpus": 0.5})

    return build


def times(call):
    return len(Path(call.params["log"]).read_text())


def test_a_step_is_done_once_and_then_read(bench, steps, call):
    mine = call("note")
    first, second = steps.one(mine), steps.one(mine)
    assert times(mine) == 1
    assert (first.key, first.facts) == (second.key, second.facts)
    assert first.facts["double"] == 2
    assert first.facts["wall_seconds"] >= 0
    assert bench.run.read_json(f"steps/{first.key}/value.json") == 1


def test_results_come_in_the_order_of_the_calls(steps, call):
    calls = [call("note", value) for value in range(6)]
    assert [done.facts["double"] for done in steps.do(calls)] == [0, 2, 4, 6, 8, 10]


def test_a_committed_step_needs_no_task(bench, call):
    Steps(bench.run, lambda: False).one(call("note"))
    assert Steps(bench.run, lambda: True).one(call("note")).facts["double"] == 2


def test_a_failure_names_the_step_and_its_reason_in_one_line(steps, call):
    with pytest.raises(
        StepError, match=r"step fail-\w+: ValueError: no such thing and a second line"
    ) as caught:
        steps.one(call("fail"))
    assert "\n" not in str(caught.value)


def test_a_failed_step_is_done_again_the_next_time(steps, call):
    mine = call("fail")
    for _ in range(2):
        with pytest.raises(StepError):
            steps.one(mine)
    assert times(mine) == 2


def test_a_step_whose_process_dies_is_done_again_from_nothing(bench, steps, call):
    mine = call("die", times=2)
    done = steps.one(mine)
    assert times(mine) == 4  # two deaths, and the third call notes itself twice
    assert bench.run.read_json(f"steps/{done.key}/value.json") == 1


def test_a_step_that_always_kills_its_process_is_given_up(steps, call):
    mine = call("die", times=99)
    with pytest.raises(StepError, match=r"step die-\w+: its process died 4 times"):
        steps.one(mine)
    assert times(mine) == 4


def test_a_stopped_run_waits_for_nothing(bench, call):
    mine = call("wait")
    steps = Steps(bench.run, lambda: times(mine) > 0)
    started = time.monotonic()
    with pytest.raises(StoppedError):
        steps.one(mine)
    assert time.monotonic() - started < 300
    assert bench.run.step("wait", mine.params).manifest is None


def test_resources_are_those_of_the_model():
    assert resources_of(LinearStm(num_cpus=0.5)) == {"num_cpus": 0.5, "num_gpus": 0.0}
    gpu = FullStm(num_gpus=0.5, accelerator_type="A100")
    assert resources_of(gpu) == {"num_cpus": 1.0, "num_gpus": 0.5, "accelerator_type": "A100"}
