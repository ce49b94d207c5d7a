"""Generators as experts: what they write, and the states that they wrote it in."""

import numpy as np
import pytest

from actors.experts.base import load_expert
from configs.schema.expert import ExpertSpec
from tests.experts import generator, texts

TEXTS = [text for text, _ in texts(9)]


def load(seed=0, **fields):
    return load_expert(ExpertSpec.model_validate(generator("critic", **fields)), (), seed)


@pytest.fixture(scope="module")
def critic():
    return load()


def test_writes_answers_with_states_and_counts(critic):
    answers = critic.answer(TEXTS)
    assert all(answer.error is None and answer.text and '"' not in answer.text for answer in answers)
    assert {answer.vector.shape for answer in answers} == {(256,)}
    assert all(answer.prompt_tokens > 20 and 0 < answer.completion_tokens <= 12 for answer in answers)
    assert critic.describe()["pooling"] == "mean_all"


def test_an_answer_depends_on_its_text_alone(critic):
    together, alone = critic.answer(TEXTS), [critic.answer([text])[0] for text in TEXTS[:3]]
    again = critic.answer(TEXTS[::-1])[::-1]
    for others in (alone, again):
        for answer, other in zip(together, others, strict=False):
            assert answer.text == other.text
            np.testing.assert_array_equal(answer.vector, other.vector)


def test_sampling_draws_from_the_seed_and_the_text():
    free = {"max_new_tokens": 12, "top_k": 0, "temperature": 1.5, "stop": ['"']}
    first, same, other = (load(seed, sampling=free).answer(TEXTS[:3]) for seed in (1, 1, 2))
    assert [a.text for a in first] == [a.text for a in same]
    assert [a.text for a in first] != [a.text for a in other]


def test_a_prompt_that_does_not_fit_fails_alone(critic):
    good, bad = critic.answer([TEXTS[0], "words " * 1500])
    assert good.error is None
    assert bad.error is not None and "exceed the model's context of 1024" in bad.error
