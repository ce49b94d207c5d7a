"""FuseGen from Python: the same run as by the command line, in the Ray session that is there."""

import shutil

import pytest
import ray
import yaml

from actors.merging.errors import CheckpointError
from configs.load import load
from configs.schema.fusegen import FusegenConfig
from jobs import api, fusegen, launch
from jobs.api import Classifier, ConfigError, FuseGen, JobError, Merge, ResumeError
from tests.jobs.conftest import results

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def copy(quick, tmp_path):
    """A copy of the finished quick run of the command line."""
    return shutil.copytree(quick, tmp_path / "run")


def test_a_run_is_that_of_the_command_line_in_the_session_that_is_there(
    ray_session, tiny, quick, tmp_path, capsys
):
    job = FuseGen(load(str(tiny / "quick.yaml"), FusegenConfig), run=tmp_path / "run")
    assert "3 PLMs x 20 samples" in job.plan() and not (tmp_path / "run").exists()
    result = job.run()
    assert ray.is_initialized()
    assert results(tmp_path / "run") == results(quick)
    assert "fusegen: round 1 of 1: writing" in capsys.readouterr().out
    assert (tmp_path / "run/report.html").read_text().startswith("<!")
    assert result.summary["status"] == "done" and "fusegen" in str(result)


def test_a_finished_run_is_read_and_nothing_is_started(copy, tiny, monkeypatch, capsys):
    monkeypatch.setattr(fusegen, "connect", lambda address: pytest.fail("nothing is to be started"))
    result = FuseGen(tiny / "quick.yaml", run=copy).run()
    assert result.report == f"{copy}/report.html" and result.path == str(copy)
    assert capsys.readouterr().out == ""
    assert result.dataset.num_rows == result.summary["samples"]["kept"] == 60
    assert set(result.dataset.to_pandas()["label_name"]) == {"positive", "negative"}
    rows = result.dataset.select(range(20))
    assert result.classifier.score(rows["text"], rows["label_name"]) > 0.8
    proba = result.classifier.predict_proba(rows["text"])
    assert proba.shape == (20, 2) and proba.sum(axis=1) == pytest.approx(1)
    assert (Classifier(copy).predict_proba(rows["text"]) == proba).all()


def test_values_are_replaced_by_keywords(tiny):
    text = (tiny / "quick.yaml").read_text()
    for source in (tiny / "quick.yaml", yaml.safe_load(text), FuseGen(tiny / "quick.yaml").config):
        changed = FuseGen(source, seed=3, samples__rounds=0, plms__0__name="first").config
        assert (changed.seed, changed.samples.rounds, changed.plms[0].name) == (3, 0, "first")
    alone = FuseGen(task="imdb", plms=FuseGen(tiny / "quick.yaml").config.plms, **{"samples.per_plm": 300})
    assert (alone.config.task.name, alone.config.samples.per_plm) == ("imdb", 300)
    assert yaml.safe_load(text) == yaml.safe_load((tiny / "quick.yaml").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampels": 1}, r"quick.yaml: sampels: unknown key; allowed: job, name"),
        ({"samples__rounds": "x"}, r"quick.yaml: samples.rounds: .*, got 'x'"),
        ({"seed__x": 1}, r"seed.x=1: seed.x does not lead to a key"),
        ({"task": "imbd"}, r"unknown name 'imbd'; allowed: agnews"),
        ({"generations__path": "/nowhere.parquet"}, r"no such file: /nowhere.parquet"),
    ],
)
def test_what_is_wrong_is_one_line(tiny, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        FuseGen(tiny / "quick.yaml", run=tmp_path / "run", **changes).run()
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_run_of_something_else_is_refused(copy, tiny):
    with pytest.raises(ResumeError, match="belongs to another configuration; it differs in seed"):
        FuseGen(tiny / "quick.yaml", run=copy, seed=6).run()
    with pytest.raises(ConfigError, match="is a run of jobs fusegen, one of jobs merge is needed"):
        api.Merged(copy)
    with pytest.raises(ConfigError, match="job: input should be 'merge'"):
        Merge(tiny / "quick.yaml")
    with pytest.raises(CheckpointError, match="nowhere/a: no such folder"):
        Merge(
            models=[{"name": n, "model": f"./nowhere/{n}"} for n in "ab"], methods=["simple"], result="simple"
        ).plan()
    (copy / "summary.json").write_text('{"status": "running"}')
    with pytest.raises(ConfigError, match="not finished"):
        api.Generated(copy)
    with pytest.raises(ConfigError, match="not a run directory"):
        api.Generated(copy / "stm")
    with pytest.raises(ConfigError, match="holds no finished classifier"):
        Classifier(copy / "dataset")
    with pytest.raises(AttributeError, match="no attribute 'FuseGem'"):
        api.FuseGem  # noqa: B018


def test_a_job_that_fails_raises(ray_session, tiny, tmp_path, monkeypatch):
    def drive(*_):
        raise JobError("step train: no")

    monkeypatch.setattr(launch, "drive", drive)
    with pytest.raises(JobError, match="step train: no"):
        FuseGen(tiny / "quick.yaml", run=tmp_path / "run").run(progress=False)
    assert ray.is_initialized()
