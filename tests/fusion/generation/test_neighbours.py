import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.generation.neighbours import Neighbours

SETS = st.lists(st.sets(st.integers(0, 12), max_size=9), max_size=12)


def first_similar(sets, wanted, threshold):
    similar = (
        i
        for i, s in enumerate(sets)
        if s and wanted and len(s & wanted) >= threshold * len(s | wanted) - 1e-9
    )
    return next(similar, None)


@given(SETS, st.sets(st.integers(0, 12), max_size=9), st.sampled_from([0.1, 0.25, 0.5, 0.6, 0.75, 0.8, 1.0]))
def test_what_is_found_is_what_a_full_search_finds(sets, wanted, threshold):
    index = Neighbours(threshold)
    for elements in sets:
        index.add(elements)
    assert len(index) == len(sets)
    assert index.find(wanted) == first_similar(sets, wanted, threshold)


def test_learning_which_elements_are_frequent_changes_no_answer():
    rng = np.random.default_rng(0)
    sets = [set(np.minimum(rng.geometric(0.03, 12), 200).tolist()) for _ in range(600)]
    learned, plain = Neighbours(0.5), Neighbours(0.5)
    plain._learn_at = -1
    for elements in sets:
        learned.add(elements)
        plain.add(elements)
    assert learned._ranks and not plain._ranks
    wanted = sets[::7] + [elements ^ {0} for elements in sets[::5]]
    assert [learned.find(w) for w in wanted] == [plain.find(w) for w in wanted]
    assert [learned.find(w) for w in wanted] == [first_similar(sets, w, 0.5) for w in wanted]


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan")])
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        Neighbours(threshold)
