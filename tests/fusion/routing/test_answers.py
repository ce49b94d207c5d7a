import pytest

from fusion.routing.answers import codes, contains, exact, gist, last_number, named, number


@pytest.mark.parametrize(
    ("judge", "answer", "reference", "worth"),
    [
        (exact, " Paris.\n", "paris", 1),
        (exact, "The  Hague", "the hague!", 1),
        (exact, "Paris, France", "Paris", 0),
        (contains, "It is Paris, I think", "paris", 1),
        (contains, "comparison", "paris", 0),
        (contains, "anything", "", 0),
        (number, "so 3 + 4 = 7 apples", "7", 1),
        (number, "The total is $1,250.50.", "1250.5", 1),
        (number, "-3", "3", 0),
        (number, "no idea", "3", 0),
        (number, "0.1", "0.10", 1),
    ],
)
def test_judges(judge, answer, reference, worth):
    assert judge(answer, reference) == worth


def test_the_last_number_counts():
    assert last_number("first 1, then 2.5 and .75") == 0.75
    assert last_number("none") is None


def test_the_first_label_that_is_named_counts():
    labels = ("world", "sports", "science", "world affairs")
    assert named("Sports, not world.", labels) == 1
    assert named("It is WORLD affairs", labels) == 3
    assert named("the worlds of art", labels) is None
    assert named("", labels) is None


def test_equal_answers_to_an_item_have_equal_codes():
    assert gist(" Paris.") == "paris"
    assert gist("a long way to say that the result must be 1,200") == "1200"
    assert gist("a long way to say nothing that could be compared") == ""
    found = codes([["a", "b", ""], ["a", "c", "x"], ["b", "b", "x"]])
    assert found.tolist() == [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
