"""The FuseGen job's configuration: what ships, presets and variants."""

from pathlib import Path

import pytest
import yaml

from configs.load import PACKAGE_ROOT, load
from configs.schema.base import identity
from configs.schema.fusegen import PRESETS, VARIANTS, FusegenConfig
from configs.schema.task import Task
from jobs.plan import describe
from tests import corpus

SHIPPED = sorted((PACKAGE_ROOT / "configs/fusegen").glob("*.yaml"))
TASKS = sorted((PACKAGE_ROOT / "configs/tasks").glob("*.yaml"))
PAPER = ["agnews", "imdb", "markednews", "mnli_matched", "mnli_mismatched", "qnli", "squad", "sst2", "yelp"]


def config(**changes) -> FusegenConfig:
    return FusegenConfig.model_validate({**corpus.config(Path("/data")), "task": task(), **changes})


def task():
    return yaml.safe_load((PACKAGE_ROOT / "configs/tasks/movies.yaml").read_text())


def test_a_budget_needs_prices_for_money_and_changes_no_result():
    with pytest.raises(ValueError, match="max_cost: no plm has price_per_million_tokens"):
        config(max_cost=1)
    priced = [{**plm, "price_per_million_tokens": {"prompt": 1, "completion": 2}} for plm in config_plms()]
    limited = config(plms=priced, max_cost=1, max_tokens=10)
    assert identity(limited) == identity(config())
    assert "budget: 1 of money, 10 tokens" in describe(limited)


def config_plms():
    return corpus.config(Path("/data"))["plms"]


def test_the_tasks_of_the_paper_ship():
    assert set(PAPER) <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_loads_and_plans(path):
    loaded = load(str(path), FusegenConfig)
    assert loaded.name == path.stem
    plan = describe(loaded)
    for plm in loaded.plms:
        assert plm.name in plan
    assert loaded.task.name in plan
    assert loaded.eval is not None


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_a_shipped_task_asks_for_each_label_in_its_own_words(path):
    loaded = Task.model_validate(yaml.safe_load(path.read_text()))
    assert loaded.name == path.stem
    for form in ("zero_shot", "feedback"):
        assert len({getattr(label, form) for label in loaded.labels}) == len(loaded.labels)


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_setting(name):
    loaded = load(f"configs/fusegen/{name}.yaml", FusegenConfig)
    samples, selection = loaded.samples, loaded.selection
    long = name in {"qnli", "squad", "mnli_matched", "mnli_mismatched"}
    assert (samples.per_plm, samples.initial, samples.rounds, len(loaded.plms)) == (1000, 200, 4, 6)
    assert (selection.candidates, selection.shots, selection.alpha) == (
        (20, 4, 0.5) if long else (40, 8, 0.5)
    )
    assert loaded.weights.iterations == 30
    assert loaded.stm.final.kind == ("span" if name == "squad" else "full")


def test_what_came_later_is_part_of_what_a_run_is_only_where_it_is_used():
    task = identity(config().task)
    assert "kind" not in task
    squad = identity(load("configs/fusegen/squad.yaml", FusegenConfig))
    assert squad["task"]["kind"] == "span"
    assert squad["eval"]["answer"] == "answers"
    assert "answer" not in squad["task"]["contexts"]


@pytest.mark.parametrize("name", ["imdb", "sst2"])
def test_sentiment_ids_follow_the_paper(name):
    loaded = load(f"configs/fusegen/{name}.yaml", FusegenConfig)
    assert loaded.task.label_names == ("positive", "negative")
    assert loaded.eval.label_names["0"] == "negative"


def test_outside_scripts_may_set_the_paths_seed_and_preset_of_the_recorded_job():
    overrides = ["generations.path=g.parquet", "eval.path=e.csv", "seed=42", "preset=authors"]
    loaded = load("configs/fusegen/imdb_recorded.yaml", FusegenConfig, overrides)
    assert {plm.engine.path for plm in loaded.plms} == {"g.parquet"}
    assert {plm.engine.seed for plm in loaded.plms} == {42}
    assert (loaded.eval.path, loaded.seed, loaded.preset) == ("e.csv", 42, "authors")
    assert loaded.selection.freeze_shots


def test_presets_differ_as_documented():
    fixed, paper, authors = (config(preset=name) for name in PRESETS)
    assert (fixed.filter.duplicates, paper.filter.duplicates, authors.filter.duplicates) == (
        "near",
        "off",
        "off",
    )
    assert [c.filter.word_count for c in (fixed, paper, authors)] == ["words", "fields", "fields"]
    assert [c.selection.sign for c in (fixed, paper, authors)] == ["helpful", "helpful", "harmful"]
    assert [c.selection.freeze_shots for c in (fixed, paper, authors)] == [False, False, True]
    assert [c.weights.beta for c in (fixed, paper, authors)] == ["paper", "paper", "authors"]
    assert [c.samples.exact_end for c in (fixed, paper, authors)] == [True, True, False]
    assert [c.samples.quota for c in (fixed, paper, authors)] == ["label", "plm", "plm"]


def test_what_the_file_says_goes_over_its_preset():
    mine = config(preset="authors", filter={"duplicates": "exact"})
    assert (mine.filter.duplicates, mine.filter.word_count) == ("exact", "fields")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_throws_its_switches_and_nothing_else(name):
    base = config(variant=[name])
    switched = base.as_variant(name)
    assert switched.variant == (name,)
    for section in FusegenConfig.model_fields:
        switches = VARIANTS[name].get(section, {})
        before, after = getattr(base, section), getattr(switched, section)
        if section not in VARIANTS[name]:
            assert before == after
        for key in type(before).model_fields if switches else ():
            assert getattr(after, key) == switches.get(key, getattr(before, key))
        if switches:
            assert type(after).model_validate(after.model_dump()) == after


def test_fourteen_variants_are_known():
    assert len(VARIANTS) == 14
    assert config(variant=list(VARIANTS)).variant == tuple(VARIANTS)


def test_one_variant_may_be_written_without_a_list():
    assert config(variant="zerogen").variant == ("zerogen",)


def test_a_plm_may_replay_another_file_or_mode_than_the_rest():
    plms = [
        corpus.plm("critic", engine={"kind": "recorded", "mode": "pool", "path": "b.parquet"}),
        corpus.plm("fan"),
    ]
    mine, usual = (plm.engine for plm in config(plms=plms).plms)
    assert (mine.path, mine.mode) == ("b.parquet", "pool")
    assert (usual.path, usual.mode, usual.seed) == ("/data/generations.parquet", "exact", corpus.SEED)


def test_in_pool_mode_all_seeds_are_drawn_from():
    pool = {"path": "a.parquet", "mode": "pool"}
    assert {plm.engine.seed for plm in config(generations=pool).plms} == {None}


def test_the_plan_counts_histories_not_variants():
    plan = describe(config(variant=["fusegen", "no_swa", "zerogen", "sungen"]))
    assert "2 different histories" in plan
    assert "different histories" not in describe(config(variant=["fusegen", "no_swa"]))


def test_the_plan_names_money_and_gpus():
    gpu = {
        "engine": {"kind": "transformers", "model": "a/b"},
        "num_gpus": 0.5,
        "accelerator_type": "A100",
        "price_per_million_tokens": {"prompt": 1.0, "completion": 2.0},
    }
    plan = describe(config(plms=[corpus.plm("critic", **gpu)]))
    assert "0.5 A100" in plan
    (line,) = [line for line in plan.splitlines() if line.startswith("critic")]
    assert float(line.split()[-1]) > 0


def test_task_models_have_gpus_where_the_plms_have_them():
    def kinds(*sets: str) -> list[tuple[str, float]]:
        stms = load("configs/fusegen/demo.yaml", FusegenConfig, list(sets)).stm
        return [(stm.kind, stm.num_gpus) for stm in (stms.rounds, stms.final)]

    gpu = "plms=[{name: a, num_gpus: 0.5, engine: {kind: transformers, model: gpt2}}]"
    assert kinds("stm={}") == [("linear", 0), ("full", 0)]
    assert kinds(gpu, "stm={}") == [("full", 1), ("full", 1)]
    assert kinds(gpu, "stm={rounds: {kind: linear}}") == [("linear", 0), ("full", 1)]
