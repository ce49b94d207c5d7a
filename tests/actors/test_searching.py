"""Which settings are tried, and which of them go on."""

from pathlib import Path

import pytest

from actors.searching import Trial, _better_half, numbers_of_rounds, rungs_of, trials_of
from configs.load import resolve
from configs.schema.base import ConfigError
from configs.schema.fusegen import FusegenConfig
from tests import corpus

GRID = {"candidates": [10, 40], "shots": [4, 8, 16], "alpha": [0.5]}


def configured(**search) -> FusegenConfig:
    """The small job with settings to search among."""
    changes = {"search": search, "selection.candidates": 40, "generations.mode": "pool"}
    return resolve(corpus.config(Path("tiny")), FusegenConfig, changes)


def settings(trial: Trial) -> tuple[int, int, float]:
    """R, S and alpha."""
    return trial.selection.candidates, trial.selection.shots, trial.selection.alpha


def test_the_given_settings_come_first_and_no_more_shots_than_candidates_are_tried():
    config = configured(**GRID, trials=10)
    tried = [settings(trial) for trial in trials_of(config)]
    given = config.selection
    assert tried[0] == (given.candidates, given.shots, given.alpha)
    assert len(set(tried)) == len(tried)
    assert set(tried[1:]) == {(10, 4, 0.5), (10, 8, 0.5), (40, 4, 0.5), (40, 8, 0.5), (40, 16, 0.5)} - {
        tried[0]
    }


def test_the_seed_draws_some_of_many():
    config = configured(trials=5)
    tried = [settings(trial) for trial in trials_of(config)]
    assert len(tried) == 5
    assert tried == [settings(trial) for trial in trials_of(config)]
    other = trials_of(config.model_copy(update={"seed": config.seed + 1}))
    assert tried != [settings(trial) for trial in other]


@pytest.mark.parametrize(
    ("trials", "rounds", "rungs"), [(8, 4, [8, 4, 2]), (8, 2, [8, 4]), (5, 9, [5, 3, 2])]
)
def test_settings_are_halved_round_by_round(trials, rounds, rungs):
    config = configured(trials=trials)
    samples = config.samples.model_copy(update={"rounds": rounds})
    assert rungs_of(config.model_copy(update={"samples": samples})) == rungs


def test_who_misses_least_goes_on_unless_its_texts_repeat_themselves():
    given = configured().selection
    trials = [
        Trial(given, 4, [400], [missed], [distinct])
        for missed, distinct in ((0.3, 0.9), (0.1, 0.5), (0.2, 0.8), (0.4, 0.9), (0.25, 0.85))
    ]
    assert [trial.missed for trial in _better_half(trials)] == [[0.2], [0.25], [0.3]]


def test_numbers_of_rounds_begin_with_the_given_and_leave_no_round_empty():
    config = configured(rounds=[8, 2, 3])
    samples = config.samples.model_copy(update={"rounds": 3, "initial": 10, "per_plm": 14})
    assert numbers_of_rounds(config.model_copy(update={"samples": samples})) == [3, 2]


def test_rounds_that_are_recorded_as_they_were_cannot_be_tried_in_other_numbers():
    with pytest.raises(
        ConfigError, match=r"search\.rounds: the rounds of .* are recorded as they were; give \[\]"
    ):
        resolve(corpus.config(Path("tiny")), FusegenConfig, {"search": {}, "generations.mode": "exact"})


def test_there_must_be_feedback_to_search():
    with pytest.raises(ConfigError, match="search: there is no feedback whose settings could be tried"):
        resolve(corpus.config(Path("tiny")), FusegenConfig, {"search": {}, "selection.feedback": "none"})
    with pytest.raises(ConfigError, match="there is no feedback"):
        resolve(corpus.config(Path("tiny")), FusegenConfig, {"search": {}, "variant": "zerogen"})
    with pytest.raises(ConfigError, match=r"search\.trials"):
        configured(trials=1)
