"""The rounds that the authors of FuseGen released, through the whole path."""

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from actors.board import Board
from actors.steps import runner
from actors.writing import Chain, RoundOfWriting, Tools, Writers
from cluster.session import Session
from cluster.storage import Run
from configs.load import load
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig
from fusion.generation.schedule import sizes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

RELEASED = ["gpt2-xl", "llama-2-7b-chat-hf", "vicuna-7b-1.5v", "opt-6.7b", "flan-t5-xl", "chatglm3-6b-base"]


def configured(path, **rules) -> FusegenConfig:
    """The released run of seed 12345 with filters as given."""
    overrides = [
        f"generations.path={path / 'generations.parquet'}",
        "generations.zero_shot_split=null",
        "preset=authors",
        "seed=12345",
        *(f"filter.{name}={value}" for name, value in rules.items()),
    ]
    return load("configs/fusegen/imdb_recorded.yaml", FusegenConfig, overrides)


@pytest.fixture(scope="module")
def writers(shared, ray_session):
    """Actors that replay what was released."""
    started = Writers(configured(shared / "data/fusegen_imdb"), Session(local=False, cpus=0, gpus=0))
    yield started
    started.stop()


@pytest.fixture
def released(shared, writers, tmp_path):
    """Writes the released rounds of seed 12345 through the whole path, with filters as given."""
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
        config = configured(path, **rules)
        run = Run.open(str(tmp_path / "run"), identity(config), {}, "0")
        select = run.step("select", "released shots")
        shots = [{"id": f"s{i}", "text": text} for i, text in enumerate(texts)]
        by_plm = {plm: [shots, shots] for plm in RELEASED}
        select.files.write_json("feedback.json", {"draw": None, "shots": by_plm})
        select.commit()
        chain, tools = Chain(2), Tools(runner.Steps(run, lambda: False), writers, Board(4), {})
        for number, target in enumerate(sizes(1000, 200, 4, exact_end=True)):
            shown = select.key if number else None
            RoundOfWriting(config, tools, chain, number=number, target=target, shots=shown).run()
        return [
            row for key in chain.keys for row in run.read_table(f"steps/{key}/records.parquet").to_pylist()
        ]

    return write


@pytest.mark.long
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
