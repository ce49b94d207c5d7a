"""The configuration of a merge: what is refused, in one line."""

import pytest
import yaml

from configs.load import PACKAGE_ROOT, load
from configs.schema.base import ConfigError
from configs.schema.merge import MergeConfig

CHECKPOINTS = [{"name": "a", "model": "x", "grams": "g"}, {"name": "b", "model": "y", "grams": "h"}]
THIRD = {**CHECKPOINTS[0], "name": "c"}
DATA = {"path": "texts.jsonl"}


@pytest.mark.parametrize(
    "path", sorted((PACKAGE_ROOT / "configs/merge").glob("*.yaml")), ids=lambda p: p.name
)
def test_files_that_ship_load(path):
    if "job: merge" in path.read_text():
        assert load(str(path), MergeConfig).result in load(str(path), MergeConfig).methods


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": []}, "give either models, or fine_tuning"),
        ({"fine_tuning": {}, "data": DATA}, "not both"),
        ({"models": CHECKPOINTS[:1]}, "one alone is not merged; to collect its Gram files"),
        ({"models": CHECKPOINTS[:1], "methods": ["regmean"]}, "one alone is not merged"),
        ({"models": CHECKPOINTS[:1] * 2}, "different names are needed"),
        ({"models": [CHECKPOINTS[0]] * 2}, "different names"),
        ({"models": [CHECKPOINTS[0], {**THIRD, "name": "ensemble"}]}, "ensemble is the name of a method or"),
        ({"models": [{**THIRD, "name": "simple"}, THIRD]}, "simple is the name of a method"),
        ({"models": [], "fine_tuning": {}}, "needs data"),
        ({"result": "ties"}, "is not among methods"),
        ({"methods": ["regmean", "ties"]}, "needs the model that all descend from"),
        (
            {"methods": ["regmean", "slerp"], "models": [*CHECKPOINTS, {**CHECKPOINTS[0], "name": "c"}]},
            "two models",
        ),
        ({"methods": ["regmean", "fisher"]}, "fisher needs a domain"),
        (
            {"models": [CHECKPOINTS[0], {"name": "b", "model": "y"}]},
            "regmean needs a domain of data, or Gram files",
        ),
        ({"alpha": 1.5}, "alpha"),
        ({"overrides": {"layer": -1}}, "overrides"),
        ({"alphas": [2]}, "alphas"),
    ],
)
def test_what_cannot_be_merged_is_refused(tmp_path, changes, words):
    path = tmp_path / "merge.yaml"
    path.write_text(yaml.safe_dump({"job": "merge", "models": CHECKPOINTS, **changes}))
    with pytest.raises(ConfigError, match=words) as error:
        load(str(path), MergeConfig)
    assert "\n" not in str(error.value)
