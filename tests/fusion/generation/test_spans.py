from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.generation.cartography import variability
from fusion.generation.spans import best_span, error, exact_match, f1, normalised, phrases


def found(context):
    return [context[start:end] for start, end in phrases(context)]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("Russia's army won on 12 March 1999 at the Bank of Oslo.", ["12 March 1999", "Bank of Oslo"]),
        ("Élan Vital moved to São Paulo on March 3, 2001.", ["Élan Vital", "São Paulo", "March 3, 2001"]),
        ('He said "to be or not" for $3.5 million, 50% of it.', ["to be or not", "$3.5 million", "50%"]),
        ("Dr. John Smith met J. Doe in May 1990.", ["Dr. John Smith", "J. Doe", "May 1990"]),
        ("The Spanish won. In Paris they lost.", ["Spanish", "Paris"]),
        ("They sang “Ode to Joy” in the 1820s.", ["Ode to Joy", "1820s"]),
        ("The mayor met the mayor's wife.", []),
        ("When I came, I saw the 3rd of them.", ["3rd"]),
        ("Nobody knew it, and the Emperor's new clothes were gone.", ["Emperor"]),
        ("Anna Berg", []),
        ("", []),
    ],
)  # fmt: skip
def test_numbers_dates_names_and_quotations_can_be_asked_for(context, expected):
    assert found(context) == expected


def test_the_first_word_of_a_sentence_is_a_name_only_where_it_is_one_elsewhere():
    assert found("Berlin is large. All like Berlin.") == ["Berlin", "Berlin"]
    assert found("Cheese is good. All like cheese.") == []
    assert found("Boston Harbor is deep.") == ["Boston Harbor"]


@given(st.text(max_size=80))
def test_phrases_never_overlap_and_are_no_more_than_the_text(context):
    spans = phrases(context)
    assert all(0 <= start < end <= len(context) for start, end in spans)
    assert all(end <= later for (_, end), (later, _) in pairwise(spans))
    assert all(context[start:end] == context[start:end].strip() for start, end in spans)


@pytest.mark.parametrize(
    ("predicted", "answers", "exact", "overlap"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], True, 1.0),
        ("Eiffel Tower in Paris", ["Eiffel Tower"], False, 2 / 3),  # precision 1/2, recall 1
        ("in the year 1889", ["1889", "year 1889"], False, 0.8),  # 2/3 and 1 for the second answer
        ("an a the", ["the"], True, 1.0),
        ("the", ["1889"], False, 0.0),
        ("Paris", ["London"], False, 0.0),
        ("to be or not to be", ["to be"], False, 0.5),  # words count as often as they occur: 2/6 and 1
        ("d'Arc", ["darc"], True, 1.0),
        ("", ["1889"], False, 0.0),
    ],
)
def test_exact_match_and_f1_are_those_of_squad(predicted, answers, exact, overlap):
    assert exact_match(predicted, answers) == exact
    assert f1(predicted, answers) == pytest.approx(overlap)


def test_normalised_drops_case_punctuation_and_articles_but_no_accents():
    assert normalised("  The café, an Émile-Zola place.") == "café émilezola place"


def test_the_best_span_begins_before_it_ends_and_is_short_enough():
    start, end = np.log([0.1, 0.2, 0.6, 0.1]), np.log([0.5, 0.1, 0.1, 0.3])
    assert best_span(start, end, 4) == (2, 3)
    assert best_span(start, end, 1) == (2, 2)  # .6 * .1
    assert best_span(start, end[::-1], 9) == (2, 3)
    assert best_span([0.0], [0.0], 30) == (0, 0)


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
def test_the_best_span_is_that_of_all_pairs(n, longest, seed):
    start, end = np.random.default_rng(seed).normal(size=(2, n))
    pairs = [(start[i] + end[j], i, j) for i in range(n) for j in range(i, min(n, i + longest))]
    assert best_span(start, end, longest) == max(pairs)[1:]


def test_error_and_variability_of_two_models_and_two_samples():
    first, second = np.array([[0.9, 0.8], [0.5, 0.2]]), np.array([[0.6, 0.5], [0.5, 0.4]])  # p_start, p_end
    assert_allclose(error(*first.T), [0.3, 1.3])
    products = np.stack([first.prod(axis=1), second.prod(axis=1)])
    assert_allclose(products, [[0.72, 0.1], [0.3, 0.2]])
    assert_allclose(variability(products), [0.42 / np.sqrt(2), 0.1 / np.sqrt(2)])
