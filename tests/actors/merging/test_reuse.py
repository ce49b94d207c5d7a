"""Models come and go: what was collected of those that stay is used again, and the bytes are the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.merging.checkpoints import Checkpoint
from actors.merging.collecting import take_over
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.merge import MergeConfig
from tests.actors.merging.conftest import merge
from tests.experts import LABELS, bert

NAMES = ("critic", "fan", "grump")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A checkpoint per voice."""
    folder = tmp_path_factory.mktemp("models")
    return [bert(folder / name, LABELS, seed=number) for number, name in enumerate(NAMES)]


def of(places, reviews):
    """A merge of some models."""
    job = {
        "job": "merge",
        "models": [{"name": place.name, "model": str(place), "domain": place.name} for place in places],
        "data": {"path": str(reviews), "train_limit": 40, "test_limit": 20},
        "methods": ["simple", "fisher", "regmean"],
        "statistics": {"sequences": 24, "max_length": 32, "fisher_samples": 4},
    }
    return MergeConfig.model_validate(job)


def again(job, other, folder):
    """A run that takes over what another has collected; the keys of what was there, and its weights."""
    run = Run.open(str(folder), identity(job), {}, "0")
    taken = take_over(run, Run(str(other)), [Checkpoint(Path(m.model), m.name) for m in job.models])
    merge(job, folder)
    return taken, run.read_bytes("model/model.safetensors")


def collected(folder):
    return sorted(path.name for path in (folder / "steps").glob("collect-*"))


def test_models_are_added_and_removed(places, reviews, tmp_path):
    merge(of(places[:2], reviews), tmp_path / "two")
    merge(of(places, reviews), tmp_path / "three")
    taken, weights = again(of(places, reviews), tmp_path / "two", tmp_path / "added")
    assert taken == collected(tmp_path / "two") and len(taken) == 4
    assert len(collected(tmp_path / "added")) == 6, "no more than the third model was collected"
    assert weights == (tmp_path / "three/model/model.safetensors").read_bytes()
    for key in taken:
        for file in (tmp_path / "two/steps" / key).iterdir():
            assert file.samefile(tmp_path / "added/steps" / key / file.name), "linked, not written again"
    taken, weights = again(of(places[:2], reviews), tmp_path / "three", tmp_path / "removed")
    assert taken == collected(tmp_path / "two")
    assert weights == (tmp_path / "two/model/model.safetensors").read_bytes()


def test_what_belongs_to_other_weights_is_not_taken_over(places, reviews, tmp_path):
    changed = bert(tmp_path / "critic", LABELS, seed=9)
    merge(of([changed, places[1]], reviews), tmp_path / "before")
    file = changed / "model.safetensors"
    tensors = load_file(file)
    save_file({n: t + 0.01 if t.dtype == torch.float32 else t for n, t in tensors.items()}, file)
    merge(of([changed, places[1]], reviews), tmp_path / "fresh")
    taken, weights = again(of([changed, places[1]], reviews), tmp_path / "before", tmp_path / "after")
    assert len(taken) == 2 and len(collected(tmp_path / "after")) == 4
    assert weights == (tmp_path / "fresh/model/model.safetensors").read_bytes()
