from fusion.generation.text import shingles, words


def test_words_drop_case_spacing_and_punctuation():
    assert words("  It's 3.5 STARS — “naïve”, 好看!") == ["it's", "3", "5", "stars", "naïve", "好看"]


def test_shingles_are_a_set_of_runs():
    assert len(shingles(list("abcd"), 3)) == 2
    assert len(shingles(list("aaaa"), 3)) == 1
    assert shingles(list("ab"), 3) == shingles(["a b"], 3)
    assert shingles([], 3) == set()
