"""Language models as classifiers of texts."""

import numpy as np
import pytest

from actors.engines.base import EngineError
from actors.experts.base import load_expert
from configs.schema.expert import ExpertSpec
from tests.experts import LABELS, texts

TEXTS = [text for text, _ in texts(9)]
ENGINE = {"kind": "transformers", "model": "configs/embedded/critic", "device": "cpu"}
PROMPT = "The movie review in negative or positive sentiment is: {text} It is"


def spec(**fields):
    model = {"kind": "prompted", "engine": ENGINE, "prompt": PROMPT, **fields}
    return ExpertSpec.model_validate({"name": "critic", "model": model})


def load(**fields):
    return load_expert(spec(**fields), LABELS, 0)


@pytest.fixture(scope="module")
def critic():
    return load()


def vectors(answers):
    return np.stack([answer.vector for answer in answers])


def test_it_gives_the_labels_probabilities(critic):
    answers = critic.answer(TEXTS)
    found = vectors(answers)
    assert found.shape == (9, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert 0 < found.min() < found.max() < 1
    assert len({tuple(row) for row in found}) == 9
    assert all(answer.text is None and answer.prompt_tokens > 10 for answer in answers)
    assert critic.describe()["kind"] == "prompted"


def test_an_answer_depends_on_its_text_alone(critic):
    together = vectors(critic.answer(TEXTS))
    np.testing.assert_array_equal(together, vectors(critic.answer(TEXTS[::-1]))[::-1])
    np.testing.assert_array_equal(together[:3], vectors([critic.answer([text])[0] for text in TEXTS[:3]]))


def test_labels_go_by_their_texts(critic):
    swapped = load(label_texts={"negative": " positive", "positive": " negative"})
    np.testing.assert_allclose(vectors(swapped.answer(TEXTS)), vectors(critic.answer(TEXTS))[:, ::-1])


def test_what_a_text_that_says_nothing_makes_likely_is_taken_off(critic):
    held = load(neutral=TEXTS[0])
    odds = np.log(vectors(critic.answer(TEXTS)))
    np.testing.assert_allclose(vectors(held.answer(TEXTS[:1])), [[0.5, 0.5]])
    less = odds - odds[0]
    np.testing.assert_allclose(
        vectors(held.answer(TEXTS)), np.exp(less) / np.exp(less).sum(axis=1, keepdims=True), rtol=1e-6
    )


def test_long_texts_are_cut_and_prompts_that_do_not_fit_fail_alone(critic):
    long = "words " * 400
    cut, same = critic.answer([long, long + "more"])
    np.testing.assert_array_equal(cut.vector, same.vector)
    good, bad = load(max_length=5000).answer([TEXTS[0], "words " * 1500])
    assert good.error is None
    assert bad.error is not None and "exceed the 1024 that the model reads" in bad.error


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_texts": {"good": "fine"}}, "label_texts: 'good' is no label of the task; allowed: negative"),
        ({"label_texts": {"negative": " positive"}}, "label_texts: two labels have the same text"),
        ({"prompt": "no place"}, "prompt: {text} is missing"),
        ({"engine": {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m"}}, "engine"),
    ],
)
def test_what_is_wrong_is_said(fields, message):
    with pytest.raises((EngineError, ValueError), match=message.replace("{", r"\{")):
        load(**fields)
