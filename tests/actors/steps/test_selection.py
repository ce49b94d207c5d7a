"""Which samples become shots, under every rule."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from actors.steps.data import held_out, read_kept, read_step
from tests import corpus


def choose(bench, params):
    step, facts = bench.do("selection:select", params, "select")
    return step, json.loads(step.files.read_bytes("feedback.json")), facts


def ids_of(shots):
    return [shot["id"] for shot in shots]


def test_cross_gives_all_plms_and_labels_the_same_shots(bench, trained):
    params = trained()
    _, feedback, facts = choose(bench, params)
    sets = {tuple(ids_of(of)) for labels in feedback["shots"].values() for of in labels}
    assert len(sets) == 1
    (shots,) = sets
    assert len(set(shots)) == 3
    assert facts["shots"] == {plm: [list(shots)] * 2 for plm in corpus.PLMS}
    texts = dict(
        zip(*(read_kept(bench.run, params["chain"])[c].to_pylist() for c in ("id", "text")), strict=True)
    )
    for shot in feedback["shots"]["critic"][0]:
        assert shot["text"] == texts[shot["id"]]


def test_shots_are_the_most_helpful_candidates(bench, trained):
    step, feedback, _ = choose(bench, trained(balance="none"))
    rows = read_step(bench.run, step.key, "candidates.parquet").to_pylist()
    assert len(rows) == 10
    best = sorted(rows, key=lambda row: row["influence"])[:3]
    assert {row["id"] for row in best} == set(ids_of(feedback["shots"]["fan"][0]))
    assert {row["id"] for row in rows if row["shot"]} == {row["id"] for row in best}


def test_harmful_takes_the_other_end(bench, trained):
    step, *_ = choose(bench, trained(balance="none", sign="harmful"))
    rows = read_step(bench.run, step.key, "candidates.parquet").to_pylist()
    worst = sorted(rows, key=lambda row: -row["influence"])[:3]
    assert {row["id"] for row in rows if row["shot"]} == {row["id"] for row in worst}


def test_candidates_are_the_ends_of_variability(bench, trained):
    step, *_ = choose(bench, trained(balance="none"))
    every = read_step(bench.run, step.key, "cartography.parquet").to_pylist()
    owners = [row["plm"] for row in every]
    held = held_out([row["id"] for row in every], owners, 0.2)
    spread = sorted(row["variability"] for row, out in zip(every, held, strict=True) if not out)
    candidates = read_step(bench.run, step.key, "candidates.parquet").column("variability").to_pylist()
    assert sorted(candidates) == spread[:5] + spread[-5:]


def test_held_out_samples_are_never_shown(bench, trained):
    params = trained(rounds=2, candidates=60, shots=60)
    _, feedback, _ = choose(bench, params)
    table = read_kept(bench.run, params["chain"])
    ids = table.column("id").to_pylist()
    held = held_out(ids, table.column("plm").to_pylist(), 0.2)
    shown = set(ids_of(feedback["shots"]["critic"][0]))
    assert not shown & {i for i, out in zip(ids, held, strict=True) if out}


def test_the_same_parameters_give_the_same_bytes(bench, trained):
    params = trained()
    files = []
    for _ in range(2):
        step, *_ = choose(bench, params)
        files.append([step.files.read_bytes(name) for name in step.files.names() if name != "manifest.json"])
    assert files[0] == files[1]


def test_another_seed_shuffles_otherwise(bench, trained):
    params = trained(pick="random", candidates=60, shots=8)
    assert choose(bench, params)[2] != choose(bench, {**params, "seed": 2})[2]


def test_own_shots_come_from_the_plm_itself(bench, trained):
    _, feedback, _ = choose(bench, trained(feedback="self", pool="random"))
    for plm in corpus.PLMS:
        assert all(shot["id"].startswith(f"{plm}-") for of in feedback["shots"][plm] for shot in of)


def test_personalised_shots_come_from_the_others(bench, trained):
    _, feedback, _ = choose(bench, trained(feedback="personalised"))
    for plm in corpus.PLMS:
        (first, second) = feedback["shots"][plm]
        assert first == second
        assert len(first) == 3
        assert not any(shot["id"].startswith(f"{plm}-") for shot in first)


def test_progen_shots_carry_the_label_asked_for(bench, trained):
    _, feedback, _ = choose(bench, trained(feedback="progen", pool="random"))
    assert feedback["draw"] == 3
    for plm, labels in feedback["shots"].items():
        for label, shots in enumerate(labels):
            assert all(shot["id"].startswith(f"{plm}-r0-l{label}-") for shot in shots)


def test_random_shots_need_no_influence(bench, trained):
    step, feedback, _ = choose(bench, trained(pool="random", pick="random"))
    rows = read_step(bench.run, step.key, "candidates.parquet").to_pylist()
    assert len(feedback["shots"]["critic"][0]) == 3
    assert all(row["influence"] is None for row in rows)


@pytest.mark.parametrize("method", ["last_layer_hessian", "gradient_dot", "lissa", "tracin"])
def test_other_influence_methods_choose_too(bench, trained, method):
    _, feedback, _ = choose(bench, trained(influence=method))
    assert len(feedback["shots"]["critic"][0]) == 3


def test_one_plm_has_no_variability_and_still_gets_shots(bench, trained):
    params = trained(feedback="cross")
    alone = {**params, "plms": ["critic"], "models": {"critic": params["models"]["critic"]}}
    step, feedback, _ = choose(bench, alone)
    assert len(feedback["shots"]["critic"][0]) == 3
    rows = read_step(bench.run, step.key, "cartography.parquet").column("variability").to_pylist()
    assert not np.isnan(rows).any()


def labels_of(ids):
    return [int(i.split("-l")[1][0]) for i in ids]


def test_labels_take_turns_among_candidates_and_shots(bench, trained):
    step, feedback, _ = choose(bench, trained(candidates=12, shots=4))
    assert sorted(labels_of(ids_of(feedback["shots"]["fan"][0]))) == [0, 0, 1, 1]
    ids = read_step(bench.run, step.key, "candidates.parquet").column("id").to_pylist()
    assert sum(labels_of(ids)) == 6


def test_pairs_of_plm_and_label_take_turns_among_candidates(bench, trained):
    step, *_ = choose(bench, trained(balance="plm_and_label", candidates=12))
    ids = read_step(bench.run, step.key, "candidates.parquet").column("id").to_pylist()
    pairs = [(i.split("-")[0], label) for i, label in zip(ids, labels_of(ids), strict=True)]
    assert sorted(pairs) == sorted(2 * [(plm, label) for plm in corpus.PLMS for label in (0, 1)])


def test_a_confidence_margin_drops_hard_samples_of_low_variability(bench, trained):
    step, *_ = choose(bench, trained(alpha=0.0, confidence_margin=0.1, balance="none"))
    confidence = read_step(bench.run, step.key, "candidates.parquet").column("confidence").to_pylist()
    assert min(confidence) >= 0.6


def test_a_model_of_numbers_that_are_none_is_a_clear_error(bench, trained):
    params = trained()
    files = bench.run.below(f"steps/{params['union']}/model")
    tensors = load(files.read_bytes("model.safetensors"))
    files.write_bytes(
        "model.safetensors", save({**tensors, "weight": np.full_like(tensors["weight"], np.nan)})
    )
    with pytest.raises(ValueError, match="finite") as caught:
        choose(bench, params)
    assert "\n" not in str(caught.value)


def test_probabilities_that_are_no_numbers_are_a_clear_error(bench, trained):
    params = trained()
    key = params["models"]["fan"]
    table = bench.run.read_table(f"steps/{key}/probabilities.parquet")
    broken = table.set_column(1, "p0", [[float("nan")] * table.num_rows])
    broken = broken.set_column(2, "p1", [[float("nan")] * table.num_rows])
    bench.run.write_table(f"steps/{key}/probabilities.parquet", broken)
    with pytest.raises(ValueError, match="numbers"):
        choose(bench, params)
