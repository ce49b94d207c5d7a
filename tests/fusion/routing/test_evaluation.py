import numpy as np
import pytest

from fusion.routing.evaluation import Point, aiq, hull, paired, pareto, quality_at

POINTS = [Point(1, 0.5), Point(2, 0.7), Point(3, 0.6), Point(4, 0.75), Point(5, 0.9), Point(6, 0.9)]


def test_the_hull_is_convex_and_never_falls():
    assert hull(POINTS) == [Point(1, 0.5), Point(2, 0.7), Point(5, 0.9)]
    assert hull([Point(1, 0.5), Point(1, 0.8)]) == [Point(1, 0.8)]


def test_quality_between_two_points_is_that_of_their_mixture():
    assert quality_at(POINTS, 3.5) == pytest.approx(0.8)
    assert quality_at(POINTS, 50) == pytest.approx(0.9)
    assert np.isnan(quality_at(POINTS, 0.5))


def test_aiq_is_the_mean_height_of_the_hull():
    assert aiq([Point(0, 0.5), Point(10, 1.0)], 10) == pytest.approx(0.75)
    assert aiq([Point(5, 0.8)], 10) == pytest.approx(0.4)
    assert aiq([Point(11, 0.8)], 10) == 0


def test_the_pareto_front_holds_what_nothing_beats():
    assert pareto(POINTS) == [True, True, False, True, True, False]


def test_a_paired_test_sees_what_is_common_to_all_pairs():
    rng = np.random.default_rng(0)
    base = rng.random(8)
    better = paired(base + 0.1 + rng.normal(0, 0.01, 8), base)
    assert 0.08 < better.low < better.high < 0.12
    assert better.p < 1e-5
    assert paired(base, base).p == 1
