"""Texts of several requests, answered together by one model."""

import asyncio

import pytest

from actors.experts.base import Answer
from actors.serving.batching import Batches


class Model:
    """Answers with the text itself, and notes what it was asked together."""

    def __init__(self):
        self.calls = []

    def __call__(self, texts):
        self.calls.append(list(texts))
        if "bad" in texts:
            raise RuntimeError("no such text")
        return [Answer(text=text) for text in texts]


def test_those_who_come_together_are_answered_together_in_parts():
    model = Model()
    batches = Batches(model, 3)

    async def both():
        return await asyncio.gather(batches.answer(["a", "b"]), batches.answer(["c", "d"]))

    first, second = asyncio.run(both())
    assert [a.text for a in first] == ["a", "b"] and [a.text for a in second] == ["c", "d"]
    assert model.calls == [["a", "b", "c"], ["d"]]


def test_one_alone_does_not_wait_for_others():
    model = Model()
    batches = Batches(model, 3)

    async def one_after_another():
        return [await batches.answer([text]) for text in "ab"]

    assert [[a.text for a in some] for some in asyncio.run(one_after_another())] == [["a"], ["b"]]
    assert model.calls == [["a"], ["b"]]


def test_an_error_reaches_its_batch_alone_and_who_has_left_is_not_answered():
    model = Model()
    batches = Batches(model, 2)

    async def several():
        gone = asyncio.ensure_future(batches.answer(["gone"]))
        await asyncio.sleep(0)
        bad, other = (asyncio.ensure_future(batches.answer([text])) for text in ("bad", "other"))
        later = asyncio.ensure_future(batches.answer(["later"]))
        gone.cancel()
        return await asyncio.gather(bad, other, later, return_exceptions=True)

    bad, other, later = asyncio.run(several())
    assert isinstance(bad, RuntimeError) and isinstance(other, RuntimeError)
    assert later[0].text == "later"
    assert [text for call in model.calls for text in call if text != "gone"] == ["bad", "other", "later"]


@pytest.mark.parametrize("size", [1, 5])
def test_no_texts_no_answers(size):
    assert asyncio.run(Batches(Model(), size).answer([])) == []
