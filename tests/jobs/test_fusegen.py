"""The FuseGen job from its configuration to its results, on a small recorded corpus."""

import json
import os
import signal
from collections import Counter
from functools import partial

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from actors import writing
from actors.board import Board
from actors.engines.base import Completion, load_engine
from actors.plm import start_plm
from actors.steps import runner
from actors.steps.runner import StepError
from actors.steps.training import vector_cache
from actors.vectors import read_vectors
from cluster.storage import Run
from configs.schema.fusegen import VARIANTS
from configs.schema.stm import HeadStm
from tests import corpus
from tests.jobs.conftest import Conducted, ids_of_chains, results

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
SHORT = {"samples": {"per_plm": 20, "initial": 10, "rounds": 1}}


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


def test_the_same_job_elsewhere_gives_the_same_bytes(main, conduct):
    again = conduct(stm={"rounds": corpus.LINEAR})
    assert results(again.folder) == results(main.folder)
    assert main.run.names("steps") == again.run.names("steps")


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
    done = conduct(**SHORT, eval={"path": str(path)})
    assert late
    assert done.summary["final"]["n"] == 10
    knowing = {call.name for _, call in calls if str(path) in str(call.params)}
    assert knowing == {"predict"}
    assert all(exists for exists, call in calls if call.name == "predict")
    assert not any(
        exists for exists, call in calls if call.name in {"train", "weigh"} or "filter" in call.name
    )


def test_variants_share_what_they_have_in_common(main, conduct):
    done = conduct(variant=["fusegen", "no_swa", "zerogen"])
    mine, all_three = set(main.steps("-generate")), set(done.steps("-generate"))
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


def test_all_variants_run_on_the_same_generations(conduct):
    done = conduct(**SHORT, variant=list(VARIANTS), baselines={"plms": False, "union": False})
    assert set(done.summary["variants"]) == set(VARIANTS)
    assert {name: v["samples"]["kept"] for name, v in done.summary["variants"].items()} == dict.fromkeys(
        VARIANTS, 60
    )
    assert set(done.summary["baselines"]) == set(VARIANTS) - {"fusegen"}
    assert len(done.steps("r0w0-generate")) == 1


def test_one_plm_alone_runs(conduct):
    done = conduct(**SHORT, plms=[corpus.plm("critic")])
    assert done.summary["samples"]["plms"] == {"critic": 20}
    assert done.summary["rounds"][0]["selection"]
    assert done.summary["final"]["accuracy"] > 0.5


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


def test_rounds_and_result_may_use_different_models(conduct):
    done = conduct(**SHORT, stm={"rounds": {"kind": "head"}, "final": {"kind": "linear"}})
    assert done.summary["stm"] == {"rounds": "head", "final": "linear"}
    assert len(done.dataset()) == 60
    (key,) = done.steps("embed-eval")
    texts = done.run.read_table(f"steps/{key}/texts.parquet").column("text").to_pylist()
    found, places = read_vectors(texts, vector_cache(done.run), HeadStm())
    assert found is not None
    assert len(places) == len(texts) == done.summary["final"]["n"]


def test_a_run_in_a_bucket_ends_with_the_bytes_of_one_on_disk(
    jobs, tiny, address, finished, bucket, tmp_path
):
    uri = bucket.format("job")
    done = jobs("fusegen", tiny / "job.yaml", "--run", uri, "--address", address)
    assert done.returncode == 0, done.stderr
    assert Run(uri).below("stm").uri in done.stdout
    filesystem, place = pafs.FileSystem.from_uri(uri)
    pafs.copy_files(place, str(tmp_path), source_filesystem=filesystem)
    assert results(tmp_path) == results(finished)
    scored = jobs("evaluate", uri, "--data", tiny / "eval.jsonl")
    assert "accuracy" in scored.stdout, scored.stderr


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


def test_a_plm_that_always_fails_is_dropped_and_the_others_go_on(conduct, monkeypatch):
    def behaviour(name, request, answer):
        if name == "fan":
            raise RuntimeError("out of ideas\nsecond line")
        return answer

    scripted(monkeypatch, behaviour)
    done = conduct(**SHORT)
    assert done.summary["samples"]["plms"] == {"critic": 20, "fan": 0, "grump": 20}
    assert done.summary["samples"]["shortfall"] == {"fan": 20}
    for record in done.summary["rounds"]:
        assert set(record["dropped"]) == {"fan"}
        assert "out of ideas" in record["dropped"]["fan"] or "failed before" in record["dropped"]["fan"]
        assert "\n" not in record["dropped"]["fan"]
    assert set(done.summary["baselines"]) == {"critic", "grump", "union", "union_swa"}
    assert done.summary["final"]["accuracy"] > 0.5


def test_poisonous_and_failing_requests_end_as_error_rows_and_their_plms_go_on(conduct, monkeypatch):
    def behaviour(name, request, answer):
        if request.id == "fan-r0-l1-0000002":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "grump" and request.ordinal == 1:
            return Completion("", "error", error="too long for its context")
        return answer

    scripted(monkeypatch, behaviour)
    done = conduct(**SHORT)
    errors = [row for key in done.steps("-filter") for row in done.records(key) if row["status"] == "error"]
    killed = [row for row in errors if row["plm"] == "fan"]
    assert "fan-r0-l1-0000002" in {row["id"] for row in killed}
    assert len(killed) == 4  # its block
    assert all("died 3 times" in row["error"] for row in killed)
    failed = [row["error"] for row in errors if row["plm"] == "grump"]
    assert failed == ["too long for its context"] * 2  # once for each label
    assert done.summary["samples"]["rejected"]["error"] == 6
    assert done.summary["samples"]["plms"] == dict.fromkeys(corpus.PLMS, 20)
    assert all(record["dropped"] == {} for record in done.summary["rounds"])


def test_when_every_plm_fails_the_run_says_why(conduct, monkeypatch):
    def behaviour(name, request, answer):
        raise RuntimeError("out of ideas")

    scripted(monkeypatch, behaviour)
    with pytest.raises(StepError, match=r"round 0: no PLM wrote an acceptable text \(critic: .*out of ideas"):
        conduct(**SHORT)


RELEASED = ["gpt2-xl", "llama-2-7b-chat-hf", "vicuna-7b-1.5v", "opt-6.7b", "flan-t5-xl", "chatglm3-6b-base"]


@pytest.fixture
def released(shared, ray_session, tmp_path):
    """Writes the released rounds of seed 12345 through the whole path, with filters as given."""
    from actors.writing import Chain, RoundOfWriting, Tools, Writers
    from cluster.session import Session
    from configs.load import load
    from configs.schema.base import identity
    from configs.schema.fusegen import FusegenConfig
    from fusion.generation.schedule import sizes

    path = shared / "data/fusegen_imdb"
    (feedback,) = [
        row["prompt"]
        for row in map(json.loads, (path / "prompts.jsonl").read_text().splitlines())
        if (row["kind"], row["seed"], row["label"]) == ("feedback", 12345, 0)
    ]
    prefix = "The movie review is: "
    texts = [line.removeprefix(prefix) for line in feedback.split("\n") if line.startswith(prefix)]
    assert len(texts) == 8

    def write(**rules):
        overrides = [
            f"generations.path={path / 'generations.parquet'}",
            "generations.zero_shot_split=null",
            "preset=authors",
            "seed=12345",
            *(f"filter.{name}={value}" for name, value in rules.items()),
        ]
        config = load("configs/fusegen/imdb_recorded.yaml", FusegenConfig, overrides)
        run = Run.open(str(tmp_path / "run"), identity(config), {}, "0")
        select = run.step("select", "released shots")
        shots = [{"id": f"s{i}", "text": text} for i, text in enumerate(texts)]
        by_plm = {plm: [shots, shots] for plm in RELEASED}
        select.files.write_json("feedback.json", {"draw": None, "shots": by_plm})
        select.commit()
        chain, writers = Chain(2), Writers(config, Session(local=False, cpus=0, gpus=0))
        tools = Tools(runner.Steps(run, lambda: False), writers, Board(4))
        try:
            for number, target in enumerate(sizes(1000, 200, 4, exact_end=True)):
                shown = select.key if number else None
                RoundOfWriting(config, tools, chain, number=number, target=target, shots=shown).run()
        finally:
            writers.stop()
        return [
            row for key in chain.keys for row in run.read_table(f"steps/{key}/records.parquet").to_pylist()
        ]

    return write


def test_without_filters_the_released_data_sets_come_out_again(released, shared):
    records = released()
    table = pq.read_table(shared / "data/fusegen_imdb/generations.parquet").to_pylist()
    there = [row for row in table if (row["split"], row["seed"]) == ("fusegen", 12345)]
    kept = [row for row in records if row["status"] == "kept"]
    assert len(kept) == len(there) == 6000

    def rows(of):
        return Counter((row["plm"], row["round"], row["label"], row["text"]) for row in of)

    assert rows(kept) == rows(there)


def test_fact_18_the_filters_find_the_known_repetitions(released):
    statuses = Counter(row["status"] for row in released(duplicates="exact"))
    assert statuses == {"kept": 5718, "duplicate": 6000 - 5718}


def test_fact_18_the_filters_find_the_known_copies(released):
    records = released(copies="true", copy_overlap=1.0)
    copies = [row for row in records if row["status"] == "copy" and row["text"] == row["of"]]
    assert Counter(row["plm"] for row in copies)["llama-2-7b-chat-hf"] == 123
