"""What steps read of each other: order of samples, held-out samples, seeds."""

import numpy as np

from actors.steps.data import first_of_each, held_out, read_kept, seed_of
from tests import corpus


def test_samples_come_in_the_order_of_the_chain(bench):
    chain = bench.chain(rounds=2, per_label=2)
    table = read_kept(bench.run, chain, ["id", "round"])
    assert table.column_names == ["id", "round"]
    assert table.column("round").to_pylist() == [0] * 12 + [1] * 12
    assert read_kept(bench.run, chain[::-1]).column("round").to_pylist() == [1] * 12 + [0] * 12


def test_each_owner_holds_out_its_share():
    owners = ["a"] * 20 + ["b"] * 9
    mask = held_out([f"id{i}" for i in range(29)], owners, 0.2)
    assert (mask[:20].sum(), mask[20:].sum()) == (4, 1)


def test_so_many_of_each_owner_are_those_that_would_be_held_out_last():
    ids, owners = [f"id{i}" for i in range(30)], ["a"] * 20 + ["b"] * 10
    few = first_of_each(ids, owners, 8)
    assert [int(few[:20].sum()), int(few[20:].sum())] == [8, 8]
    assert not (few & held_out(ids, owners, 0.2)).any()
    assert (first_of_each(ids, owners, 4) <= few).all()
    assert first_of_each(ids, owners, 15).sum() == 25


def test_what_is_held_out_does_not_depend_on_the_order_of_samples():
    ids, owners = [f"id{i}" for i in range(40)], ["a", "b"] * 20
    order = np.random.default_rng(0).permutation(40)
    mask = held_out(ids, owners, 0.25)
    shuffled = held_out([ids[i] for i in order], [owners[i] for i in order], 0.25)
    assert (shuffled == mask[order]).all()


def test_what_is_held_out_does_not_depend_on_other_owners():
    mine = [f"id{i}" for i in range(20)]
    alone = held_out(mine, ["a"] * 20, 0.2)
    together = held_out([*mine, *[f"x{i}" for i in range(9)]], ["a"] * 20 + ["b"] * 9, 0.2)
    assert (together[:20] == alone).all()


def test_a_seed_is_the_same_everywhere_and_different_for_every_piece_of_work():
    assert seed_of(1, "critic", 0, 1, 7) == 354668241860120857
    seeds = {seed_of(1, plm, r, i) for plm in corpus.PLMS for r in range(3) for i in range(100)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
