import numpy as np

from fusion.routing.projection import Projection


def test_keeps_distances_of_normalised_vectors_when_nothing_is_cut():
    x = np.random.default_rng(0).normal(size=(40, 6)) * [1, 10, 0.1, 5, 2, 3] + 7
    normal = (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(6)
    found = Projection(dimensions=6).fit_transform(x)
    np.testing.assert_allclose(
        np.linalg.norm(found[:, None] - found, axis=2), np.linalg.norm(normal[:, None] - normal, axis=2)
    )


def test_keeps_the_directions_that_vary_most_and_few_of_them():
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(30, 1)), 5, axis=1) + 0.01 * rng.normal(size=(30, 5))
    found = Projection(dimensions=2).fit(x)
    parts = found.transform(x)
    assert parts.shape == (30, 2)
    assert parts[:, 0].var() > 0.99 * 1.0
    assert Projection(dimensions=32).fit(x[:3]).transform(x).shape == (30, 3)


def test_columns_that_never_change_are_no_trouble():
    x = np.ones((10, 4))
    x[:, 0] = np.arange(10)
    assert np.isfinite(Projection().fit_transform(x)).all()
