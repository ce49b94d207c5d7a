"""The request table: prompts, seeds and blocks."""

import json

import pyarrow.parquet as pq
import pytest

from configs.schema.base import identity
from configs.schema.task import Task
from tests import corpus, questions


@pytest.fixture
def wave(movies):
    """Parameters of a wave of five requests per label to each PLM."""

    def build(**changes):
        params = {
            "seed": 1,
            "round": 0,
            "task": movies,
            "counts": {plm: [5, 5] for plm in corpus.PLMS},
            "index": {plm: [0, 0] for plm in corpus.PLMS},
            "ordinal": {plm: [0, 0] for plm in corpus.PLMS},
            "shots": None,
            "batch_sizes": dict.fromkeys(corpus.PLMS, 4),
            "self_debias": [],
        }
        return params | changes

    return build


def blocks_of(bench, params):
    step, facts = bench.do("requests:write_requests", params)
    with step.files.fs.open_input_file(step.files.at("requests.parquet")) as stream:
        table = pq.ParquetFile(stream)
        groups = [table.read_row_group(i).to_pylist() for i in range(table.num_row_groups)]
    assert all(len(group) == 1 for group in groups)
    blocks = [group[0] for group in groups]
    assert facts["blocks"] == [[block["plm"], block["block"]] for block in blocks]
    return blocks


def requests_of(blocks):
    return [
        {**row, "plm": block["plm"], "label": block["label"], "zero_shot": block["zero_shot"]}
        for block in blocks
        for row in block["requests"]
    ]


def select(bench, shots, draw=None):
    """A committed selection with these shots by PLM and label."""
    step = bench.run.step("select", [shots, draw])
    step.files.write_bytes("feedback.json", json.dumps({"draw": draw, "shots": shots}).encode())
    step.commit()
    return step.key


def same_for_all(texts):
    shots = [{"id": f"s{i}", "text": text} for i, text in enumerate(texts)]
    return {plm: [shots, shots] for plm in corpus.PLMS}


def test_every_request_has_its_own_id_and_seed(bench, wave):
    rows = requests_of(blocks_of(bench, wave()))
    assert len(rows) == 30
    assert len({row["id"] for row in rows}) == len({row["seed"] for row in rows}) == 30


def test_blocks_hold_one_plm_and_label_and_at_most_a_batch(bench, wave):
    blocks = blocks_of(bench, wave())
    assert [len(block["requests"]) for block in blocks[:3]] == [4, 4, 4]
    assert sorted(len(block["requests"]) for block in blocks) == [1] * 6 + [4] * 6
    assert len({block["block"] for block in blocks}) == 12


def test_all_plms_have_work_from_the_start(bench, wave):
    counts = {"critic": [40, 40], "fan": [4, 4], "grump": [4, 0]}
    blocks = blocks_of(bench, wave(counts=counts))
    assert [block["plm"] for block in blocks[:3]] == list(corpus.PLMS)
    assert [(b["plm"], b["label"]) for b in blocks].count(("grump", 1)) == 0


def test_a_request_is_the_same_whatever_wave_and_batch_it_is_in(bench, wave):
    at_once = {row["id"]: row for row in requests_of(blocks_of(bench, wave()))}
    later = wave(
        counts={"critic": [2, 0]},
        index={"critic": [3, 0]},
        ordinal={"critic": [3, 0]},
        batch_sizes={"critic": 1},
    )
    for row in requests_of(blocks_of(bench, later)):
        assert row == at_once[row["id"]]


def test_another_run_seed_gives_other_seeds(bench, wave):
    mine = {row["seed"] for row in requests_of(blocks_of(bench, wave()))}
    other = {row["seed"] for row in requests_of(blocks_of(bench, wave(seed=2)))}
    assert not mine & other


def test_without_shots_the_prompt_is_the_zero_shot_one(bench, wave, movies):
    rows = requests_of(blocks_of(bench, wave()))
    assert all(row["zero_shot"] and row["shot_ids"] == "" for row in rows)
    assert {(row["label"], row["prompt"]) for row in rows} == {
        (i, movies["labels"][i]["zero_shot"]) for i in range(2)
    }


def test_fact_17_one_feedback_prompt_for_all_plms(bench, wave, movies):
    texts = ["First text with {braces} and <C>.", "Second text.", "Third text."]
    rows = requests_of(blocks_of(bench, wave(round=1, shots=select(bench, same_for_all(texts)))))
    for label in range(2):
        (prompt,) = {row["prompt"] for row in rows if row["label"] == label}
        shots, blank, instruction = prompt.rpartition("\n\n")
        assert shots.split("\n") == [f"The movie review is: {text}" for text in texts]
        assert blank
        assert instruction == movies["labels"][label]["feedback"]
        assert instruction.endswith('"')
        assert not any(name in shots for name in corpus.LABELS)
    assert {row["shot_ids"] for row in rows} == {"s0 s1 s2"}
    assert not any(row["zero_shot"] for row in rows)


def test_another_selection_gives_another_prompt(bench, wave):
    prompts = []
    for number in (1, 2):
        key = select(bench, same_for_all([f"Shot of round {number}."]))
        prompts.append(
            {row["prompt"] for row in requests_of(blocks_of(bench, wave(round=number, shots=key)))}
        )
    assert not prompts[0] & prompts[1]


def test_self_debiasing_needs_the_prompts_of_the_other_labels(bench, wave, movies):
    rows = requests_of(blocks_of(bench, wave(self_debias=["fan"])))
    for row in rows:
        other = [movies["labels"][1 - row["label"]]["zero_shot"]]
        assert row["counter_prompts"] == (other if row["plm"] == "fan" else [])


def test_progen_leaves_every_second_block_without_shots(bench, wave):
    texts = [[{"id": f"{la}-{i}", "text": f"t{i}"} for i in range(9)] for la in range(2)]
    shots = dict.fromkeys(corpus.PLMS, texts)
    counts = {plm: [200, 200] for plm in corpus.PLMS}
    blocks = blocks_of(bench, wave(counts=counts, round=1, shots=select(bench, shots, draw=3)))
    bare = sum(block["zero_shot"] for block in blocks)
    assert 0.4 < bare / len(blocks) < 0.6
    drawn = set()
    for block in blocks:
        (ids,) = {row["shot_ids"] for row in block["requests"]}
        assert block["zero_shot"] == (not ids)
        if ids:
            assert len(set(ids.split())) == 3
            assert all(shot.startswith(f"{block['label']}-") for shot in ids.split())
            drawn.add(ids)
    assert len(drawn) > 10


@pytest.fixture
def pairs(tmp_path):
    """A task of pairs, with twenty first sentences."""

    def label(name):
        return {"name": name, "zero_shot": f'"<C>"\n{name}, "', "feedback": f'New: "<C>"\n{name}, "'}

    (tmp_path / "contexts.jsonl").write_text("".join(f'{{"text": "Sentence {i}."}}\n' for i in range(20)))
    return {
        "name": "pairs",
        "labels": [label("so"), label("but")],
        "shot_prefix": "Pair: ",
        "blank_lines": 2,
        "pair": True,
        "contexts": {"path": str(tmp_path / "contexts.jsonl")},
    }


def test_labels_of_a_pair_task_share_their_first_sentences(bench, wave, pairs):
    rows = requests_of(blocks_of(bench, wave(task=pairs)))
    contexts = {}
    for row in rows:
        assert f'"{row["context"]}"' in row["prompt"]
        contexts.setdefault((row["plm"], row["index"]), set()).add(row["context"])
    assert all(len(shared) == 1 for shared in contexts.values())
    assert len(set.union(*contexts.values())) > 5


def test_a_slot_in_a_shot_of_a_pair_task_stays_what_it_is(bench, wave, pairs):
    key = select(bench, same_for_all(["A first <C>[SEP]a second."]))
    for row in requests_of(blocks_of(bench, wave(task=pairs, round=1, shots=key))):
        assert row["prompt"].startswith("Pair: A first <C>[SEP]a second.\n\n\nNew: ")
        assert row["prompt"].count("<C>") == 1


@pytest.fixture
def questions_wave(tmp_path, wave):
    """A wave of three requests to a PLM for questions."""
    folder = questions.write(tmp_path)
    changes = {"counts": {"clerk": [3]}, "index": {"clerk": [0]}, "ordinal": {"clerk": [0]}}
    task = identity(Task.model_validate(questions.task(folder)))
    return wave(task=task, batch_sizes={"clerk": 4}, **changes)


def test_questions_are_asked_for_with_a_context_and_an_answer_in_it(bench, questions_wave):
    rows = requests_of(blocks_of(bench, questions_wave))
    assert len(rows) == 3
    years = {row["sentence"]: row["year"] for row in questions.contexts()}
    for row in rows:
        assert years[row["context"]] == row["answer"]
        assert row["context"][row["answer_start"] :].startswith(row["answer"])
        asked = f'"{row["answer"]}" is the answer of the following question: "'
        assert row["prompt"] == f'The context is: "{row["context"]}"\n{asked}'
    more = {**questions_wave, "counts": {"clerk": [1]}, "index": {"clerk": [2]}, "ordinal": {"clerk": [2]}}
    assert requests_of(blocks_of(bench, more)) == rows[2:]


def test_requests_of_other_tasks_have_no_answer(bench, wave):
    assert "answer" not in requests_of(blocks_of(bench, wave()))[0]
