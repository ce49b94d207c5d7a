"""Stored answers to a pool: what answers are worth, what they cost, which items are left out."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.experts.base import Answer
from actors.routing.asking import _record, answers_of
from actors.routing.assembling import pool
from actors.routing.pool import Pool
from actors.steps.runner import StepError
from cluster.storage import Run
from configs.schema.base import identity
from configs.schema.expert import ExpertSpec
from configs.schema.foe import Features
from tests.experts import classifier, generator

N = 40
LABELS = ("negative", "positive")


def put(run: Run, answers: list[Answer], **fields: Any) -> dict[str, Any]:
    """Commit an expert's answers, and return what the pool is told of it."""
    spec = ExpertSpec.model_validate(fields)
    step = run.step("answers", spec.name)
    half = len(answers) // 2
    for name, part in (("a", answers[:half]), ("b", answers[half:])):
        table = _record(spec, [str(row) for row in range(len(part))], part, 1.0)
        step.files.write_table(f"answers/{name}.parquet", table)
    errors = [answer.error for answer in answers if answer.error]
    files = ["answers/a.parquet", "answers/b.parquet"]
    step.commit(files=files, failed=len(errors), reason=next(iter(errors), ""))
    return {"answers": step.key, **identity(spec)}


class Made:
    """A run with items, whose labels and references alternate."""

    def __init__(self, folder: str) -> None:
        self.run = Run(folder)
        items = self.run.step("items", 0)
        columns = {
            "item": [str(row) for row in range(N)],
            "text": [f"text {row}" for row in range(N)],
            "label": [row % 2 for row in range(N)],
            "reference": ["yes" if row % 2 else "no" for row in range(N)],
            "part": ["fit" if row < N // 2 else "test" for row in range(N)],
        }
        items.files.write_table("items.parquet", pa.table(columns))
        self.items = items.key

    def pool(self, *experts: dict[str, Any], answer: str = "label", **changes: Any) -> Pool:
        params = {
            "items": self.items,
            "classes": list(LABELS),
            "warnings": [],
            "experts": list(experts),
            "answer": answer,
            "features": identity(Features(prompt=False, dimensions=3)),
            "unit": None,
            "prices": {},
            **changes,
        }
        step = self.run.step("pool", params)
        step.commit(**pool(self.run, step, params))
        return Pool.read(step.files)


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(str(tmp_path / "run"))


def sure(row: int, label: int) -> Answer:
    return Answer(np.eye(2)[label] * 0.8 + 0.1, prompt_tokens=row, completion_tokens=2)


def written(text: str, row: int = 0) -> Answer:
    return Answer(np.array([row, 1, row % 3, 5], np.float32), text, row, 2)


def test_labels_that_generators_name_are_votes(made):
    says = ["Positive!", "it is negative", "no idea", "positive"] * (N // 4)
    found = made.pool(
        put(made.run, [sure(row, row % 2) for row in range(N)], **classifier("bert", "x")),
        put(made.run, [written(text) for text in says], **generator("critic", judge="label")),
    )
    assert found.blocks[1][:4].tolist() == [[0, 1], [1, 0], [0.5, 0.5], [0, 1]]
    assert found.quality[:4].tolist() == [[1, 0], [1, 0], [1, 0], [1, 1]]
    assert found.raw["confidence"][:3].tolist() == [[0.9, 1], [0.9, 1], [0.9, 0.5]]
    assert (found.prices == 1).all() and found.about.unit == "calls"


def test_generators_are_judged_by_reference_and_paid_by_token(made):
    answers = [written("Yes." if row < 10 else "the answer is no", row) for row in range(N)]
    priced = {"price_per_call": 0.5, "price_per_million_tokens": {"prompt": 1e6, "completion": 2e6}}
    found = made.pool(
        put(made.run, answers, **generator("exact", judge="exact"), **priced),
        put(made.run, answers, **generator("inside", judge="contains"), price_per_call=1),
        answer="expert",
        prices={"inside": 7.0},
    )
    assert found.quality[:, 0].tolist() == [float(row % 2 and row < 10) for row in range(N)]
    assert found.quality[10:, 1].tolist() == [float(row % 2 == 0) for row in range(10, N)]
    np.testing.assert_array_equal(found.prices[:, 0], [0.5 + row + 4 for row in range(N)])
    assert (found.prices[:, 1] == 7).all()
    np.testing.assert_array_equal(found.blocks[0], found.blocks[1])
    assert found.blocks[0].shape == (N, 4) and found.raw == {}
    assert not found.blocks[0][:, 0].any() and found.blocks[0][:, 1:3].any(axis=0).all()


def test_what_responses_look_like_can_be_withheld(made):
    expert = put(made.run, [written("yes", row) for row in range(N)], **generator("exact"))
    features = identity(Features(prompt=False, responses=False))
    assert (made.pool(expert, answer="expert", features=features).blocks[0] == -1).all()


def test_items_that_an_expert_failed_on_are_left_out_with_a_warning(made):
    answers = [sure(row, row % 2) for row in range(N)]
    answers[3] = Answer(error="out of luck")
    found = made.pool(put(made.run, answers, **classifier("bert", "x")))
    assert found.about.dropped == 1 and "3" not in found.items["item"].to_pylist()
    line = "expert bert failed on 1 of 40 items, which are left out; first: out of luck"
    assert found.about.warnings == (line,)
    others = put(made.run, answers[3:] + answers[:3], **classifier("other", "x"))
    assert made.pool(put(made.run, answers, **classifier("bert", "x")), others).about.dropped == 2


def test_too_many_items_without_all_answers_are_an_error(made):
    experts = []
    for number in range(3):
        answers = [sure(row, row % 2) for row in range(N)]
        answers[number] = Answer(error="out of luck")
        experts.append(put(made.run, answers, **classifier(f"e{number}", "x")))
    with pytest.raises(
        StepError, match=r"3 of 40 items lack an answer of some expert, at most 5% may: expert e0"
    ):
        made.pool(*experts)


def test_answers_are_stored_as_they_are():
    answers = [written("yes", 3), Answer(error="no"), Answer(text="no states", prompt_tokens=1)]
    spec = ExpertSpec.model_validate(generator("a"))
    found = answers_of(_record(spec, ["1", "2", "3"], answers, 3.0))
    assert found[0].vector.dtype == np.float32 and found[0].vector.tolist() == [3, 1, 0, 5]
    assert [(a.text, a.prompt_tokens, a.error) for a in found] == [
        ("yes", 3, None),
        (None, 0, "no"),
        ("no states", 1, None),
    ]
    assert found[1].vector is None and found[2].vector is None
