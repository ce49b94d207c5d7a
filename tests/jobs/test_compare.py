"""A comparison as a person starts it: its keys, table and page, what is killed, and what is served."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors import router
from actors.board import Board
from actors.comparing import serving
from actors.comparing.job import CompareJob
from actors.experts.loading import load_classifier
from actors.merging.errors import CheckpointError
from cluster.session import Session
from cluster.storage import Run
from configs.load import load
from configs.schema.base import identity
from configs.schema.compare import FUSIONS, CompareConfig
from configs.schema.serve import Serving
from jobs import compare, report
from jobs.api import Comparison
from tests import comparisons, corpus
from tests.actors.routing.conftest import InPlace
from tests.docs.blocks import undocumented
from tests.jobs.test_faults import Victims, committed, wait_until
from tests.pages import Outline, text_of

pytestmark = [pytest.mark.ray, pytest.mark.long]
TIMES = {"seconds", "train_seconds", "serve_cost", "latency_ms"}
RIVALS = {"simple", "fisher", "task_arithmetic", "ties", "dare"}
TEXTS = [row["text"] for row in corpus.evaluation(4)]


@pytest.fixture(scope="session")
def small(once) -> Path:
    """A folder of `comparisons.write`."""
    return once("comparison", comparisons.write)


@pytest.fixture(scope="session")
def compared(small, ray_session, once) -> Path:
    """The run of an undisturbed comparison, and what was said on the way."""

    def run(folder: Path) -> None:
        said = io.StringIO()
        options = {"plan": False, "start_over": False, "address": "auto"}
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
            patch.setattr(compare, "connect", lambda address: Session(local=False, cpus=0, gpus=0))
            compare.main(str(small / "compare.yaml"), [], str(folder), **options)
        (folder / "said.txt").write_text(said.getvalue())

    return once("compared", run)


@pytest.fixture
def again(small, compared, tmp_path):
    """Runs the comparison with changes, in this process; what was written is taken over."""

    def run(**changes: Any) -> tuple[dict[str, Any], Run]:
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(comparisons.config(small, **changes)))
        config = load(str(path), CompareConfig)
        compare.check_inputs(config, str(path))
        run = Run.open(str(tmp_path / "again"), identity(config), {}, "0")
        for part in ("texts", "steps"):
            run.adopt(Run(str(compared)), part)
        session = Session(local=False, cpus=0, gpus=0)
        return CompareJob(config, session, run, InPlace(run, lambda: False), Board()).run(), run

    return run


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def timeless(value: Any) -> Any:
    """A JSON value without what measures time."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def results(run: Path) -> dict[str, bytes]:
    """Everything that must be the same every time, by path."""
    kinds = ("stm/*", "artefact/*", "steps/*/model/*", "steps/*/*.safetensors", "steps/*/*.parquet")
    files = {str(path.relative_to(run)): path for kind in kinds for path in run.glob(kind)}
    timed = "records.parquet"  # with the seconds of each text
    found = {name: path.read_bytes() for name, path in files.items() if path.name != timed}
    return {**found, "summary": json.dumps(timeless(summary_of(run))).encode()}


def test_the_winner_is_asked_from_python(compared):
    found, summary = Comparison(compared), summary_of(compared)
    assert found.fusions.accuracy.is_monotonic_decreasing and set(found.fusions.index) == set(
        summary["fusions"]
    )
    assert set(found.winner.predict(TEXTS)) <= set(corpus.LABELS)
    assert summary["recommendation"] in str(found)


def test_every_fusion_is_judged_and_priced(compared):
    summary = summary_of(compared)
    fusions = summary["fusions"]
    assert set(fusions) == {*FUSIONS, *RIVALS} and summary["status"] == "done"
    assert undocumented("compare", summary) == set()
    for name, one in fusions.items():
        assert 0 <= one["ci95"][0] <= one["accuracy"] <= one["ci95"][1] <= 1 and one["n"] == 60
        assert one["train_seconds"] > 0 and one["serve_cost"] > 0 and one["latency_ms"] > 0
        assert set(one["elsewhere"]) == {"matinee"} and one["elsewhere"]["matinee"]["n"] == 30
        assert ("against_winner" in one) == (name != summary["winner"])
    winner = fusions[summary["winner"]]
    assert winner["accuracy"] == max(one["accuracy"] for one in fusions.values())
    assert {name: one["calls"] for name, one in fusions.items() if name in {"foe", "ensemble"}} == {
        "foe": 3,
        "ensemble": 3,
    }
    assert 1 <= fusions["frugal"]["calls"] <= 3
    assert all(fusions[n]["calls"] == 1 for n in (*RIVALS, "fusegen", "regmean", "pooled", "best_single"))
    assert fusions["foe"]["bytes"] == 3 * fusions["fusegen"]["bytes"]
    assert fusions["regmean"]["train_seconds"] > fusions["ensemble"]["train_seconds"]
    best = summary["stms"][summary["best_single"]]
    assert fusions["best_single"]["accuracy"] == best["accuracy"]
    assert fusions["best_single"]["elsewhere"] == best["elsewhere"]
    assert summary["texts"] == {
        "train": dict.fromkeys(corpus.PLMS, 14),
        "test": {"fusing": 18, "eval": 60, "matinee": 30},
    }
    assert summary["routing"]["learnt_from"] == "held-out samples"


def test_nothing_is_done_twice(compared):
    keys = [path.name.rpartition("-")[0] for path in (compared / "steps").iterdir()]
    # Rounds: three judges and one of all, twice; then one per PLM, FuseGen's and the pooled one.
    assert keys.count("train") == 2 * 4 + 3 + 2
    assert keys.count("answers") == 3 * 3 + 2 * (2 + 6)
    assert keys.count("collect-grams") == 3 and keys.count("pool") == keys.count("verdict") == 1


def test_what_is_said(compared):
    said, summary = (compared / "said.txt").read_text(), summary_of(compared)
    assert summary["recommendation"] in said and "python -m jobs serve" in said
    assert all(name in said for name in summary["fusions"])
    page = (compared / "report.html").read_text()
    outline = Outline(page)
    assert outline.open == [] and outline.fetched == [] and page.count("<svg") == 2
    assert {target for target in outline.targets if target.startswith("#")} <= {f"#{i}" for i in outline.ids}
    assert summary["recommendation"] in text_of(page)
    record = json.loads((compared / "run.json").read_text())
    found = json.loads((compared / "report.json").read_text())
    assert report.render(summary, found, record) == page


def test_whoever_is_killed_the_same_bytes_come_out(jobs, address, small, compared, tmp_path):
    run = tmp_path / "run"
    command = ["compare", small / "compare.yaml", "--run", run, "--address", address]
    job = Victims(jobs, command, run)
    for moment, what in ((22, "the_coordinator"), (34, "the_driver"), (60, "the_coordinator")):
        wait_until(lambda count=moment: committed(run) >= count, f"{moment} steps")
        job.kill(what)
    _, err = job.driver.communicate(timeout=240)
    assert job.driver.returncode == 0, err
    mine, theirs = results(run), results(compared)
    assert sorted(mine) == sorted(theirs)
    assert [name for name in mine if mine[name] != theirs[name]] == []


def test_labelled_texts_teach_fusers_and_prices_count(again, small, tmp_path):
    rows = [
        {"text": row["text"], "label_name": row["label_name"]}
        for row in corpus.rows()
        if row["split"] == "initial"
    ]
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:60]))
    summary, _ = again(
        routing={"items": {"path": str(tmp_path / "known.jsonl")}, "policy": {"fusers": ["logistic"]}},
        requests={"price_per_call": 0.5, "unit": "cents", "timed": 1},
        merging={"methods": ["regmean"]},
    )
    assert summary["texts"]["test"]["fusing"] == 60
    assert summary["texts"]["train"] == dict.fromkeys(corpus.PLMS, 20)
    assert summary["routing"]["learnt_from"].endswith("known.jsonl")
    assert set(summary["fusions"]) == set(FUSIONS)
    assert summary["fusions"]["regmean"]["serve_cost"] == 500
    assert summary["fusions"]["ensemble"]["serve_cost"] == 1500
    assert summary["timing"]["unit"] == "cents per 1,000 requests"


def test_checkpoints_that_are_there_are_fused(again, compared, small, tmp_path):
    given = shutil.copytree(small / "bert", tmp_path / "given")
    summary, run = again(experts={"fan": str(given)}, merging={"methods": ["regmean"]})
    assert list(summary["stms"]) == list(corpus.PLMS)
    before = summary_of(compared)["stms"]
    assert summary["stms"]["critic"] == before["critic"]
    new = set(run.names("steps")) - {path.name for path in (compared / "steps").iterdir()}
    kinds = {key.rpartition("-")[0] for key in new}
    assert {"answers", "collect-grams"} <= kinds and "train" not in kinds
    reordered = json.loads((given / "config.json").read_text())
    reordered["id2label"] = {"0": "negative", "1": "positive"}
    (given / "config.json").write_text(json.dumps(reordered))
    for key in run.names("steps"):
        Path(run.at(f"steps/{key}/manifest.json")).unlink() if key.startswith("answers-") else None
    with pytest.raises(
        CheckpointError, match="fan: its labels are negative, positive; the task has positive"
    ):
        again(experts={"fan": str(given)}, merging={"methods": ["regmean"]})


@pytest.mark.parametrize(
    ("winner", "kind", "experts"),
    [
        ("foe", {"knn", "logistic"}, list(corpus.PLMS)),
        ("frugal", {"knn", "logistic"}, list(corpus.PLMS)),
        ("ensemble", {"ensemble"}, list(corpus.PLMS)),
        ("regmean", {"single"}, ["stm"]),
        ("best_single", {"single"}, ["stm"]),
    ],
)
def test_any_winner_can_be_served(again, monkeypatch, winner, kind, experts):
    lay_down = serving.lay_down

    def instead(config, steps, routing, made, _, score):
        lay_down(config, steps, routing, made, winner, score)

    monkeypatch.setattr(serving, "lay_down", instead)
    summary, run = again()
    assert timeless(summary)["fusions"][winner]["calls"] == len(experts) or winner == "frugal"
    opened, manifest = router.opened(run.uri), router.about(run.uri)
    assert opened.manifest == manifest and manifest["kind"] in kind and opened.experts == experts
    assert manifest["classes"] == list(corpus.LABELS)
    if winner in {"foe", "frugal"}:
        assert opened.policy.min_experts == (3 if winner == "foe" else 1)
    for spec in router.specs_of(Serving(artefact=run.uri), manifest):
        for answer in load_classifier(spec.model, corpus.LABELS).answer(TEXTS):
            assert answer.vector.sum() == pytest.approx(1)
