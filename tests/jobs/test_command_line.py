"""The command line: exit statuses, messages, and a run directory that survives every refusal."""

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.session import Session
from configs import __version__
from jobs import __main__ as command_line
from jobs import fusegen, launch
from tests import corpus
from tests.jobs.conftest import results


@pytest.fixture
def refused(capsys, monkeypatch, tiny, tmp_path):
    """Runs a command that must be refused before anything starts; its one line of error."""

    def started(*arguments):
        raise AssertionError("nothing may start")

    def run(*arguments, code=2):
        monkeypatch.setattr(fusegen, "connect", started)
        monkeypatch.setattr(sys, "argv", ["jobs", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            command_line.main()
        out, err = capsys.readouterr()
        assert caught.value.code == code
        assert err.startswith("jobs: ")
        assert err.count("\n") == 1
        assert "Traceback" not in out + err
        return err

    return run


@pytest.fixture
def job(refused, tiny, tmp_path):
    """A refused FuseGen job with overrides; the run directory must not come into being."""

    def run(*overrides, config=tiny / "quick.yaml", code=2):
        sets = [part for override in overrides for part in ("--set", override)]
        message = refused("fusegen", config, "--run", tmp_path / "run", *sets, code=code)
        assert not (tmp_path / "run").exists()
        return message

    return run


def said(capsys, monkeypatch, *arguments):
    """What a command that succeeds prints."""
    monkeypatch.setattr(sys, "argv", ["jobs", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_job(capsys, monkeypatch):
    text = said(capsys, monkeypatch, "--help")
    for name in ("fusegen", "report", "evaluate", "pretrain"):
        assert name in text
    for option in ("--set", "--run", "--plan", "--fresh", "--address"):
        assert option in said(capsys, monkeypatch, "fusegen", "--help")


def test_the_version_is_that_of_the_package(capsys, monkeypatch):
    assert said(capsys, monkeypatch, "--version") == f"amalgam {__version__}\n"


def test_the_plan_starts_nothing_and_writes_nothing(capsys, monkeypatch, tiny, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = said(capsys, monkeypatch, "fusegen", tiny / "quick.yaml", "--plan", "--set", "samples.per_plm=50")
    assert "3 PLMs x 50 samples" in text
    assert list(tmp_path.iterdir()) == []


def test_the_plan_says_which_urls_are_asked(capsys, monkeypatch, tiny):
    monkeypatch.setenv("MY_KEY", "secret")
    engine = "plms.0.engine={kind: openai, url: 'http://127.0.0.1:8000/v1/', model: m, key_env: MY_KEY}"
    text = said(capsys, monkeypatch, "fusegen", tiny / "quick.yaml", "--plan", "--set", engine)
    assert "m at http://127.0.0.1:8000/v1, 16 requests at a time, key in MY_KEY\n" in text
    assert " openai " in text and "secret" not in text


def test_usage_errors_end_with_2(refused, tiny):
    assert "No such command" in refused("fuse")
    assert "No such option" in refused("fusegen", tiny / "quick.yaml", "--fast")
    assert "Missing parameter: config" in refused("fusegen")
    assert "no such file" in refused("fusegen", tiny / "none.yaml")


def test_an_unknown_task_a_wrong_key_a_wrong_type_and_a_wrong_value_end_with_2(job):
    assert "unknown name 'poetry'; allowed: agnews" in job("task=poetry")
    assert "samples.per_pml: unknown key; allowed: per_plm" in job("samples.per_pml=3")
    assert "samples.rounds: input should be a valid integer" in job("samples.rounds=many")
    assert "selection.alpha: input should be less than or equal to 1" in job("selection.alpha=2")


def test_a_label_without_a_prompt_ends_with_2(job):
    assert "feedback: missing" in job('task.labels=[{name: a, zero_shot: "a"}, {name: b, zero_shot: "b"}]')


def test_missing_files_end_with_2(job):
    assert "no such file" in job("generations.path=none.parquet")
    assert "no such file" in job("eval.path=none.jsonl")


def test_an_evaluation_file_with_other_labels_or_none_ends_with_2(job, tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text('{"text": "a", "label_name": "sports"}\n')
    assert "'sports' is no label of the task; allowed: positive, negative" in job(f"eval.path={path}")
    path.write_text("")
    assert "eval.jsonl" in job(f"eval.path={path}")
    path.write_text("{broken\n")
    assert "line 1: not readable as JSON" in job(f"eval.path={path}")


def test_empty_contexts_end_with_2(job, tmp_path):
    path = tmp_path / "contexts.jsonl"
    path.write_text('{"text": " "}\n')
    task = {
        "name": "pairs",
        "shot_prefix": "",
        "pair": True,
        "labels": [
            {"name": n, "zero_shot": f'"<C>" {n} "', "feedback": f'"<C>" {n} "'} for n in corpus.LABELS
        ],
        "contexts": {"path": str(path)},
    }
    assert "holds no text in column 'text'" in job(f"task={json.dumps(task)}")


def test_a_plm_folder_that_does_not_exist_ends_with_2(job):
    engine = "plms.0.engine={kind: transformers, model: ./none}"
    assert "plms.critic.engine.model: no such folder: ./none" in job(engine)


def test_a_run_directory_that_is_none_is_left_alone(refused, tiny, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    assert "not empty and not a run" in refused("fusegen", tiny / "quick.yaml", "--run", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_report_and_evaluate_refuse_what_is_no_run(refused, tiny, tmp_path):
    assert "not a run directory" in refused("report", tmp_path)
    assert "not a run directory" in refused("evaluate", tmp_path, "--data", tiny / "eval.jsonl")


slow = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def copy(quick, tmp_path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(quick, tmp_path / "copy"))


class TestFinishedRun:
    """What can be done with a run that has ended."""

    pytestmark = slow

    def test_another_configuration_is_refused_with_the_keys_that_differ(self, refused, copy, tiny):
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        sets = ["--set", "seed=6", "--set", "samples.rounds=0"]
        message = refused("fusegen", tiny / "quick.yaml", "--run", copy, *sets)
        assert "belongs to another configuration" in message
        assert "seed" in message
        assert "samples.rounds" in message
        assert "--fresh" in message
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before

    def test_another_content_of_an_input_file_is_refused(self, refused, copy, tiny, tmp_path):
        changed = tmp_path / "corpus"
        shutil.copytree(tiny, changed)
        record = json.loads((copy / "run.json").read_text())
        record["inputs"] = dict.fromkeys(record["inputs"], "0" * 64)
        (copy / "run.json").write_text(json.dumps(record))
        message = refused("fusegen", tiny / "quick.yaml", "--run", copy)
        assert "eval.jsonl (content)" in message

    def test_resources_may_change(self, copy, jobs, tiny, address):
        sets = ["--set", "plms.0.num_cpus=0.2", "--set", "plms.1.request_timeout_s=100"]
        before = results(copy)
        done = jobs("fusegen", tiny / "quick.yaml", "--run", copy, "--address", address, *sets)
        assert done.returncode == 0, done.stderr
        assert results(copy) == before

    def test_fresh_starts_over_under_a_new_name(self, monkeypatch, copy, tiny):
        opened = []

        def drive(uri, *rest):
            opened.append(uri)
            raise launch.JobError("far enough")

        monkeypatch.setattr(launch, "drive", drive)
        monkeypatch.setattr(fusegen, "connect", lambda address: Session(local=False, cpus=0, gpus=0))
        arguments = ["fusegen", str(tiny / "quick.yaml"), "--run", str(copy), "--fresh"]
        monkeypatch.setattr(sys, "argv", ["jobs", *arguments])
        with pytest.raises(SystemExit):
            command_line.main()
        assert opened == [f"{copy}-2"]
        assert (copy / "summary.json").exists()

    def test_the_report_is_written_again_from_the_run_alone(self, capsys, monkeypatch, copy):
        before = (copy / "report.html").read_bytes()
        (copy / "report.html").unlink()
        assert said(capsys, monkeypatch, "report", copy).strip() == f"{copy}/report.html"
        assert (copy / "report.html").read_bytes() == before

    def test_evaluate_agrees_with_the_summary(self, capsys, monkeypatch, copy, tiny):
        text = said(capsys, monkeypatch, "evaluate", copy, "--data", tiny / "eval.jsonl")
        final = json.loads((copy / "summary.json").read_text())["final"]
        assert f"accuracy {final['accuracy']:.4f}" in text
        assert f"{final['ci95'][0]:.4f} to {final['ci95'][1]:.4f}" in text
        assert "60 texts" in text

    def test_evaluate_refuses_other_labels(self, refused, copy, tmp_path):
        (tmp_path / "other.csv").write_text("text,label_name\nfine,good\n")
        message = refused("evaluate", copy, "--data", tmp_path / "other.csv")
        assert "'good' is no label of the task" in message

    def test_evaluate_maps_labels_and_joins_pairs(self, refused, capsys, monkeypatch, copy, tmp_path):
        file = tmp_path / "pairs.csv"
        file.write_text("a,b,y\nthe cast is a delight,it won me over,1\nthe plot is a bore,it lost me,0\n")
        options = ["--data", file, "--text", "a", "--text-b", "b", "--label", "y", "--map", "1=positive"]
        assert "'0' is no label of the task" in refused("evaluate", copy, *options)
        text = said(capsys, monkeypatch, "evaluate", copy, *options, "--map", "0=negative")
        assert "2 texts" in text
        assert "--map 0: needs VALUE=LABEL" in refused("evaluate", copy, *options, "--map", "0")

    def test_evaluate_of_a_damaged_model_is_one_line(self, refused, copy, tiny):
        (copy / "stm/model.safetensors").write_bytes(b"damaged")
        assert "stm" in refused("evaluate", copy, "--data", tiny / "eval.jsonl", code=1)


class TestFailingRun:
    """Errors that show only when the work has begun: exit status 1, one line, the directory intact."""

    pytestmark = slow

    @pytest.fixture
    def failed(self, here, tiny, tmp_path):
        def run(*overrides, folder=tmp_path / "run", command=here):
            sets = [part for override in overrides for part in ("--set", override)]
            done = command("fusegen", tiny / "quick.yaml", "--run", folder, *sets)
            assert done.returncode == 1, (done.stdout, done.stderr)
            assert done.stderr.count("\n") == 1, done.stderr
            assert "start the same command again" in done.stderr
            assert json.loads((folder / "run.json").read_text())
            assert not (folder / "lease.json").exists()
            return done.stderr

        return run

    def test_a_plm_that_the_file_does_not_know(self, failed, jobs, address):
        message = failed("plms.1.name=stranger", command=lambda *line: jobs(*line, "--address", address))
        assert "plm stranger" in message
        assert "allowed: critic, fan, grump" in message

    def test_generations_that_are_no_parquet(self, failed, tmp_path):
        path = tmp_path / "bad.parquet"
        path.write_bytes(b"not parquet")
        assert "bad.parquet: not readable" in failed(f"generations.path={path}")

    def test_an_empty_corpus(self, failed, tiny, tmp_path):
        path = tmp_path / "empty.parquet"
        pq.write_table(pq.read_table(tiny / "generations.parquet").slice(0, 0), path)
        assert "empty.parquet" in failed(f"generations.path={path}")

    def test_a_plm_folder_without_weights(self, failed, tmp_path):
        (tmp_path / "plm").mkdir()
        (tmp_path / "plm/config.json").write_text('{"model_type": "llama"}')
        message = failed(f"plms.0.engine={{kind: transformers, model: {tmp_path / 'plm'}}}")
        assert "plm critic" in message

    def test_a_corrupted_step_is_named_and_can_be_removed(self, failed, here, copy, tiny, quick):
        victim = next(copy.glob("steps/r1w0-filter-*/kept.parquet"))
        shutil.rmtree(next(copy.glob("steps/weigh-*")))
        victim.write_bytes(b"damaged")
        message = failed(folder=copy)
        assert victim.parent.name in message
        shutil.rmtree(victim.parent)
        done = here("fusegen", tiny / "quick.yaml", "--run", copy)
        assert done.returncode == 0, done.stderr
        assert results(copy) == results(quick)
