"""Doubts about a pool that a person should know of before trusting what is learnt from it."""

import numpy as np
from numpy.typing import NDArray

from actors.routing.pool import Pool
from configs.schema.foe import FoeConfig

MARGIN = 0.2
"""How much better than elsewhere, and than others there, an expert must be on some items to be suspected."""
CERTAIN = 0.95
FEWEST = 50
FREE = 1e-3
"""A price this many times below the dearest may be in another unit."""


def doubts(config: FoeConfig, pool: Pool) -> list[str]:
    """One line each."""
    found = [] if config.in_sample else [*_contaminated(pool)]
    return [*found, *_leaks(pool), *_units(pool)]


def _contaminated(pool: Pool) -> list[str]:
    """Experts that are nearly always right on some items, but neither elsewhere nor like others there: they
    were probably trained on them (foe.md, 8.12)."""
    if pool.about.answer != "label" or len(pool.about.experts) < 3:
        return []
    groups, kind = _groups(pool)
    suspects = []
    for expert, name in enumerate(pool.about.experts):
        mine = pool.quality[:, expert]
        others = np.delete(pool.quality, expert, axis=1).mean(axis=1)
        for group in np.unique(groups):
            here = groups == group
            if here.sum() < FEWEST or here.all():
                continue
            best_elsewhere = max(mine[groups == g].mean() for g in np.unique(groups) if g != group)
            stands_out = mine[here].mean() - max(best_elsewhere, others[here].mean()) >= MARGIN
            if mine[here].mean() >= CERTAIN and stands_out:
                suspects.append((name, group, mine[here].mean(), mine[~here].mean()))
    if not suspects:
        return []
    name, group, own, rest = suspects[0]
    also = f" (and {len(suspects) - 1} more experts are like it)" if len(suspects) > 1 else ""
    return [
        f"expert {name} is right on {own:.1%} of {kind} {group}, but on {rest:.1%} of the others{also}: "
        "it was probably trained on them, and what fusers learn here will not hold for new items; take "
        "items that no expert was trained on, or declare in_sample: true"
    ]


def _groups(pool: Pool) -> tuple[NDArray[np.str_], str]:
    """The group (n,) of each item: its domain, or which of K blocks it is in, in the order of the items."""
    if "domain" in pool.items.column_names:
        return np.array(pool.items["domain"].to_pylist()), "the items of domain"
    k = len(pool.about.experts)
    return (np.arange(len(pool)) * k // len(pool)).astype(str), f"the items in {k}th part"


def _leaks(pool: Pool) -> list[str]:
    """Texts that are both learnt from and judged."""
    if "text" not in pool.items.column_names:
        return []
    texts = np.array([" ".join(str(text).split()).lower() for text in pool.items["text"].to_pylist()])
    shared = set(texts[pool.rows("fit")]) & set(texts[pool.rows("test")])
    count = int(np.isin(texts[pool.rows("test")], list(shared)).sum()) if shared else 0
    return [f"{count} items that are judged repeat the text of one that is learnt from"] if count else []


def _units(pool: Pool) -> list[str]:
    prices = pool.expected_prices
    paid = prices[prices > 0]
    if not len(paid) or paid.min() > FREE * paid.max():
        return []
    cheap = pool.about.experts[int(np.where(prices > 0, prices, np.inf).argmin())]
    return [
        f"the price of expert {cheap} is {paid.max() / paid.min():,.0f} times below the highest: check that "
        f"all prices are in {pool.about.unit}"
    ]
