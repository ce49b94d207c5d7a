"""From completions to records: order, quotas, reasons, counts."""

import pyarrow as pa
import pytest

from actors.dispatch import RECORD
from actors.steps.data import read_kept, read_step
from actors.steps.filtering import rules_of
from actors.steps.requests import ANSWER
from configs.schema.base import identity
from configs.schema.fusegen import FilterRules
from configs.schema.task import Task
from tests import corpus, questions
from tests.actors.steps.conftest import answer

TEXTS = [row["text"] for row in corpus.rows()]


@pytest.fixture
def judge(bench, movies):
    """Judges blocks of answers; the records, the accepted samples and the facts."""

    def run(blocks, *, chain=(), room=None, rules=None, name="wave"):
        room = room or {plm: [99, 99] for plm in corpus.PLMS}
        params = {
            "wave": bench.answers(blocks, name),
            "chain": list(chain),
            "task": movies,
            "rules": rules or {},
            "shots": None,
            "plms": list(corpus.PLMS),
            "room": room,
        }
        step, facts = bench.do("filtering:filter_wave", params, "filter")
        records = read_step(bench.run, step.key, "records.parquet").to_pylist()
        return step.key, records, facts["plms"]

    return run


def row(plm="critic", label=0, index=0, **changes):
    text = TEXTS[(corpus.PLMS.index(plm) * 2 + label) * 20 + index]
    name = f"{plm}-r0-l{label}-{index:07d}"
    return {"id": name, "plm": plm, "label": label, "index": index, "raw": text, **changes}


def test_every_completion_gets_a_record_and_accepted_ones_a_sample(bench, judge):
    key, records, _ = judge([[row(), row(index=1, raw="too short")], [row("fan")]])
    assert [(r["id"], r["status"]) for r in records] == [
        ("critic-r0-l0-0000000", "kept"),
        ("fan-r0-l0-0000000", "kept"),
        ("critic-r0-l0-0000001", "short"),
    ]
    assert set(answer()) | {"status", "text", "of"} == set(records[0])
    samples = read_kept(bench.run, [key])
    assert samples.column_names == ["id", "plm", "round", "label", "text"]
    assert samples.column("id").to_pylist() == ["critic-r0-l0-0000000", "fan-r0-l0-0000000"]


def test_the_order_of_answers_changes_nothing(judge):
    rows = [row(plm, label, index) for plm in corpus.PLMS for label in range(2) for index in range(3)]
    rows[7]["raw"] = rows[0]["raw"]
    _, first, facts = judge([rows[:9], rows[9:]])
    _, second, same = judge([[r] for r in rows[::-1]], name="backwards")
    assert first == second
    assert facts == same


def test_the_first_by_index_is_the_original_and_the_other_its_duplicate(judge):
    _, records, _ = judge([[row("grump", index=1, raw=TEXTS[0]), row("critic", index=0)]])
    assert [(r["plm"], r["status"], r["of"]) for r in records] == [
        ("critic", "kept", None),
        ("grump", "duplicate", TEXTS[0]),
    ]


def test_texts_accepted_earlier_count_as_seen(bench, judge):
    key, *_ = judge([[row()]])
    _, records, _ = judge([[row("fan", raw=TEXTS[0])]], chain=[key], name="next")
    assert records[0]["status"] == "duplicate"


def test_a_full_label_leaves_the_rest_as_surplus(judge):
    rows = [row(label=label, index=i) for label in range(2) for i in range(4)]
    _, records, facts = judge([rows], room={plm: [3, 1] for plm in corpus.PLMS})
    assert facts["critic"]["kept"] == [3, 1]
    assert facts["critic"]["rejected"] == {"surplus": 4}
    assert [r["index"] for r in records if r["label"] == 0 and r["status"] == "kept"] == [0, 1, 2]


def test_a_quota_per_plm_counts_all_labels_together(judge):
    rows = [row(label=label, index=i) for label in range(2) for i in range(4)]
    _, _, facts = judge([rows], room=dict.fromkeys(corpus.PLMS, 5))
    assert facts["critic"]["kept"] == [3, 2]


def test_a_rejected_text_takes_no_room(judge):
    rows = [row(raw="too short"), row(index=1), row(index=2)]
    _, records, _ = judge([rows], room={plm: [1, 1] for plm in corpus.PLMS})
    assert [r["status"] for r in records] == ["short", "kept", "surplus"]


def test_errors_and_exhaustion_are_counted_and_never_judged(judge):
    rows = [row(finish_reason="error", error="boom", raw=""), row(index=1, finish_reason="exhausted", raw="")]
    _, records, facts = judge([rows])
    assert [(r["status"], r["error"]) for r in records] == [("error", "boom"), ("exhausted", None)]
    assert facts["critic"]["rejected"] == {"error": 1, "exhausted": 1}


def test_facts_sum_up_what_was_paid(judge):
    _, _, facts = judge([[row(), row(index=1)], [row("fan", 1)]])
    assert facts["critic"]["asked"] == [2, 0]
    assert facts["fan"]["asked"] == [0, 1]
    assert facts["grump"] == {
        "asked": [0, 0], "kept": [0, 0], "rejected": {},
        "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0,
    }  # fmt: skip
    assert (facts["critic"]["prompt_tokens"], facts["critic"]["completion_tokens"]) == (14, 6)
    assert facts["critic"]["seconds"] == 0.5


def test_a_wave_of_errors_alone_leaves_readable_empty_samples(bench, judge):
    key, _, _ = judge([[row(finish_reason="error", raw="")]])
    other, *_ = judge([[row("fan")]], chain=[key], name="next")
    assert read_kept(bench.run, [key, other]).column("plm").to_pylist() == ["fan"]


def test_unfinished_texts_are_cut_and_finished_ones_are_not(judge):
    text = TEXTS[0]
    _, records, _ = judge([[row(raw=f'{text}" and more', cut=False), row("fan", raw=f'{TEXTS[90]} "so"')]])
    assert [r["text"] for r in records] == [text, f'{TEXTS[90]} "so"']


def test_an_echo_of_the_prompt_is_rejected_unless_switched_off(movies, judge):
    echo = f"{TEXTS[0]} The movie review is: {TEXTS[1]}"
    assert judge([[row(raw=echo)]])[1][0]["status"] == "template"
    assert judge([[row(raw=echo)]], rules={"echoes": False}, name="off")[1][0]["status"] == "kept"


def test_rules_of_a_task_know_its_prompts_and_markers(movies):
    marked = {
        **movies,
        "labels": [{**movies["labels"][0], "required": "$"}, {**movies["labels"][1], "forbidden": "$"}],
    }
    rules = rules_of(FilterRules(min_words=4, duplicates="exact"), Task.model_validate(marked))
    assert (rules.min_words, rules.duplicates) == (4, "exact")
    assert (rules.required, rules.forbidden) == ({0: "$"}, {1: "$"})
    assert "The movie review is:" in rules.templates
    assert "The movie review in positive sentiment for a movie is:" in rules.templates
    assert not any('"' in template for template in rules.templates)


def test_questions_carry_their_answers_and_must_not_give_them_away(bench, tmp_path):
    task = identity(Task.model_validate(questions.task(tmp_path)))
    asked = {
        "plm": "clerk",
        "context": "In 1873 Anna left São Paulo.",
        "answer": "São Paulo",
        "answer_start": 18,
    }
    raw = {
        "kept": 'Which was the town that Anna left in those days? "And',
        "no_question": "The town that Anna left in those days was a large one.",
        "answer_in_question": "Was it the town of SÃO PAULO that Anna left in those days?",
        "short": "What did Anna leave?",
    }
    rows = [answer(**asked, id=f"c{i}", index=i, cut=False, raw=text) for i, text in enumerate(raw.values())]
    schema = pa.schema([*RECORD, *ANSWER])
    wave = bench.commit(
        "wave", {"blocks/a.parquet": pa.Table.from_pylist(rows, schema)}, files=["blocks/a.parquet"]
    )
    params = {"wave": wave, "chain": [], "task": task, "rules": {}, "shots": None, "plms": ["clerk"]}
    step, facts = bench.do("filtering:filter_wave", {**params, "room": {"clerk": [9]}}, "filter")
    records = read_step(bench.run, step.key, "records.parquet").to_pylist()
    assert [record["status"] for record in records] == list(raw)
    assert facts["plms"]["clerk"]["kept"] == [1]
    (kept,) = read_kept(bench.run, [step.key]).to_pylist()
    assert kept["text"] == "In 1873 Anna left São Paulo.[SEP]Which was the town that Anna left in those days?"
    assert (kept["answer"], kept["answer_start"]) == ("São Paulo", 18)
