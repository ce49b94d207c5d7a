"""The FuseGen job from its configuration to its results, on a small recorded corpus."""

import json
from collections import Counter

import pyarrow.fs as pafs
import pytest

from actors.board import Board
from actors.steps import runner
from actors.steps.training import vector_cache
from actors.vectors import read_vectors
from cluster.storage import Run
from configs.schema.fusegen import VARIANTS
from configs.schema.stm import HeadStm
from jobs import report
from tests import corpus
from tests.docs.blocks import undocumented
from tests.jobs.conftest import Conducted, ids_of_chains, results

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def main(finished) -> Conducted:
    """The undisturbed run of the command line."""
    return Conducted(finished, json.loads((finished / "summary.json").read_text()))


def test_the_summary_has_the_keys_that_scripts_rely_on(main):
    summary = main.summary
    assert (summary["job"], summary["task"], summary["seed"], summary["status"]) == (
        "fusegen",
        "movies",
        5,
        "done",
    )
    assert summary["seconds"] > 0
    assert summary["final"]["n"] == 60
    low, high = summary["final"]["ci95"]
    assert 0.5 < low <= summary["final"]["accuracy"] <= high <= 1
    assert set(summary["baselines"]) == {*corpus.PLMS, "union", "union_swa"}
    for score in summary["baselines"].values():
        assert 0 <= score["accuracy"] <= 1
        assert 0 <= score["against_result"]["p_value"] <= 1
    assert summary["samples"]["kept"] == 90
    assert summary["samples"]["rejected"] == {"placeholder": 1, "short": 1, "surplus": 2}
    assert [r["round"] for r in summary["rounds"]] == [0, 1, 2]
    assert all(0 <= r["accuracy"] <= 1 for r in summary["rounds"])
    assert summary["samples"]["shortfall"] == {}
    assert undocumented("fusegen", summary) == set()


def test_every_plm_writes_its_samples_balanced_and_none_twice(main):
    rows = main.dataset()
    assert Counter((r["plm"], r["label_name"]) for r in rows) == {
        (p, n): 15 for p in corpus.PLMS for n in corpus.LABELS
    }
    assert len({r["id"] for r in rows}) == len({r["text"] for r in rows}) == 90
    assert Counter(r["round"] for r in rows) == {0: 30, 1: 30, 2: 30}
    every = [i for ids in ids_of_chains(main.folder) for i in ids]
    assert len(every) == len(set(every)) == main.summary["samples"]["asked"] == 94


def test_texts_carry_the_label_that_was_asked_for(main):
    recorded = {row["text"]: (row["plm"], row["label_name"]) for row in corpus.rows()}
    for row in main.dataset():
        assert recorded[row["text"]] == (row["plm"], row["label_name"])


def test_a_rejected_text_leads_to_more_requests_at_the_yield_seen(main):
    assert len(main.steps("r0w1-generate")) == 1
    (key,) = main.steps("r0w1-filter")
    assert [(r["plm"], r["status"]) for r in main.records(key)] == [("critic", "kept"), ("critic", "surplus")]


def test_weights_have_mean_one_and_tell_samples_apart(main):
    weights = [row["weight"] for row in main.dataset()]
    assert sum(weights) == pytest.approx(90)
    assert max(weights) > min(weights) >= 0


def test_fact_17_shots_are_shared_by_all_and_differ_from_round_to_round(main):
    selections = [r["selection"] for r in main.summary["rounds"]]
    assert selections[2] is None
    first, second = (main.shots(key) for key in selections[:2])
    for shots in (first, second):
        assert len({tuple(of) for labels in shots.values() for of in labels}) == 1
    assert first != second
    hashes = {
        number: {r["prompt_hash"] for key in main.steps(f"r{number}w0-filter") for r in main.records(key)}
        for number in range(3)
    }
    assert [len(h) for h in hashes.values()] == [2, 2, 2]
    assert not hashes[1] & hashes[2]


@pytest.mark.long
@pytest.mark.parametrize("rounds", [corpus.LINEAR, {"kind": "head"}], ids=["linear", "head"])
def test_settings_are_searched_and_what_the_best_has_written_is_used(conduct, tiny, rounds):
    stm = {"rounds": rounds, "final": corpus.LINEAR}
    search = {"candidates": [8, 20], "shots": [2, 4], "alpha": [0.5], "trials": 4, "rounds": [1, 4]}
    samples = {"per_plm": 30, "initial": 10, "rounds": 2}
    given = {"stm": stm, "generations": {**corpus.config(tiny)["generations"], "mode": "pool"}}
    done = conduct(samples=samples, selection={"candidates": 20, "shots": 4}, search=search, **given)
    best, *_ = trials = done.summary["search"]
    assert undocumented("fusegen", done.summary) == set()
    assert sorted(tuple(trial["written"]) for trial in trials) == [
        (20,),
        (20,),
        (20, 30),
        (20, 30),
        (30,),
        (30,),
    ]
    judged = [trial for trial in trials if trial["written"][-1] == 30]
    assert sorted(trial["rounds"] for trial in judged) == [1, 2, 2, 4]
    alike = [t for t in judged if (t["candidates"], t["shots"]) == (best["candidates"], best["shots"])]
    assert best["missed"][-1] == min(trial["missed"][-1] for trial in alike)
    assert all(0 <= missed <= 1 for trial in trials for missed in trial["missed"])
    run = Run(str(done.folder))
    chosen = [run.read_json(f"steps/{key}/manifest.json") for key in done.steps("trial")]
    assert len(chosen) == 8  # four settings write a round, two another, the best all in two more ways
    page = report.render(done.summary, run.read_json("report.json"), run.read_json("run.json"))
    assert "Settings that were tried" in page
    fixed = conduct(
        "fixed",
        samples=samples | {"rounds": best["rounds"]},
        selection={"alpha": 0.5, **{name: best[name] for name in ("candidates", "shots")}},
        **given,
    )
    assert fixed.dataset() == done.dataset()


def test_models_join_in_the_order_in_which_they_help(conduct):
    done = conduct(**corpus.SHORT, baselines={"scaling": True})
    stages = done.summary["scaling"]
    assert undocumented("fusegen", done.summary) == set()
    assert [len(stage["plms"]) for stage in stages] == list(range(1, 1 + len(corpus.PLMS)))
    assert {stage["added"] for stage in stages} == set(corpus.PLMS)
    assert not any(name.startswith("scaling") for name in done.summary["baselines"])
    run = Run(str(done.folder))
    losses = [run.read_json(f"steps/{key}/manifest.json")["losses"] for key in done.steps("held-out")]
    for stage in stages:
        (tried,) = (one for one in losses if len(one) == len(corpus.PLMS) + 1 - len(stage["plms"]))
        assert tried[stage["added"]] == stage["held_out_loss"] == min(tried.values())
    assert stages[0]["one"] == stages[0]["all"]
    assert stages[-1]["all"]["accuracy"] == done.summary["baselines"]["union"]["accuracy"]
    assert stages[-1]["one"] != stages[-1]["all"]
    page = report.render(done.summary, run.read_json("report.json"), run.read_json("run.json"))
    assert "How many models are enough" in page and stages[0]["added"] in page


def test_real_labels_appear_only_after_the_last_round(conduct, tmp_path, monkeypatch):
    path, late = tmp_path / "late.jsonl", []
    calls: list[tuple[bool, runner.Call]] = []
    enter, do = Board.enter, runner.Steps.do

    def write_at_last(board, phase):
        if phase.startswith("evaluating"):
            path.write_text("".join(json.dumps(row) + "\n" for row in corpus.evaluation(10)))
            late.append(phase)
        enter(board, phase)

    def noted(steps, batch):
        calls.extend((path.exists(), call) for call in batch)
        return do(steps, batch)

    monkeypatch.setattr(Board, "enter", write_at_last)
    monkeypatch.setattr(runner.Steps, "do", noted)
    done = conduct(**corpus.SHORT, eval={"path": str(path)})
    assert late
    assert done.summary["final"]["n"] == 10
    knowing = {call.name for _, call in calls if str(path) in str(call.params)}
    assert knowing == {"predict"}
    assert all(exists for exists, call in calls if call.name == "predict")
    assert not any(
        exists for exists, call in calls if call.name in {"train", "weigh"} or "filter" in call.name
    )


def test_variants_share_what_they_have_in_common(quick, conduct):
    done = conduct(**corpus.SHORT, variant=["fusegen", "no_swa", "zerogen"])
    mine, all_three = set(Conducted(quick, {}).steps("-generate")), set(done.steps("-generate"))
    assert mine <= all_three
    assert [key for key in all_three - mine if key.startswith("r0")] == []
    for key in all_three - mine:  # all of ZeroGen, none of the variant without weights
        step = done.run.read_json(f"steps/{key}/manifest.json")
        for file in step["files"]:
            rows = done.run.read_table(f"steps/{key}/{file}").to_pylist()
            assert all(row["shot_ids"] == "" for row in rows)
    assert set(done.summary["baselines"]) >= {"no_swa", "zerogen", *(f"zerogen/{plm}" for plm in corpus.PLMS)}
    assert done.summary["variants"]["no_swa"] == done.summary["variants"]["fusegen"]
    assert len(done.steps("weigh")) == 1


@pytest.mark.long
def test_all_variants_run_on_the_same_generations(conduct):
    done = conduct(**corpus.SHORT, variant=list(VARIANTS), baselines={"plms": False, "union": False})
    assert set(done.summary["variants"]) == set(VARIANTS)
    assert {name: v["samples"]["kept"] for name, v in done.summary["variants"].items()} == dict.fromkeys(
        VARIANTS, 60
    )
    assert set(done.summary["baselines"]) == set(VARIANTS) - {"fusegen"}
    assert len(done.steps("r0w0-generate")) == 1


def test_the_authors_show_the_first_shots_for_ever(conduct):
    done = conduct(preset="authors", baselines={"plms": False, "union": False}, eval=None)
    first, second, last = (r["selection"] for r in done.summary["rounds"])
    assert first == second
    assert last is None
    assert len(done.steps("select")) == 1
    hashes = [
        {r["prompt_hash"] for key in done.steps(f"r{number}w0-filter") for r in done.records(key)}
        for number in (1, 2)
    ]
    assert hashes[0] == hashes[1]
    assert (done.summary["final"], done.summary["baselines"]) == ({}, {})  # no evaluation data
    assert done.steps("predict") == done.steps("compare") == []
    assert len(done.dataset()) == 90


@pytest.mark.long
def test_rounds_and_result_may_use_different_models(conduct):
    done = conduct(
        plms=[corpus.plm(name) for name in corpus.PLMS[:2]],
        samples={"per_plm": 20, "initial": 20, "rounds": 0},
        stm={"rounds": {"kind": "linear"}, "final": {"kind": "head"}},
        baselines={"plms": False, "union": False},
    )
    assert done.summary["stm"] == {"rounds": "linear", "final": "head"}
    assert len(done.dataset()) == 40
    (key,) = done.steps("embed-eval")
    texts = done.run.read_table(f"steps/{key}/texts.parquet").column("text").to_pylist()
    found, places = read_vectors(texts, vector_cache(done.run), HeadStm())
    assert found is not None
    assert len(places) == len(texts) == done.summary["final"]["n"]


@pytest.mark.long
def test_the_same_job_in_a_bucket_ends_with_the_bytes_of_one_on_disk(here, tiny, quick, bucket, tmp_path):
    uri = bucket.format("job")
    done = here("fusegen", tiny / "quick.yaml", "--run", uri)
    assert done.returncode == 0, done.stderr
    assert Run(uri).below("stm").uri in done.stdout
    assert Run(uri).names("steps") == Run(str(quick)).names("steps")
    filesystem, place = pafs.FileSystem.from_uri(uri)
    pafs.copy_files(place, str(tmp_path), source_filesystem=filesystem)
    assert results(tmp_path) == results(quick)
    scored = here("evaluate", uri, "--data", tiny / "eval.jsonl")
    assert "accuracy" in scored.stdout, scored.stderr
