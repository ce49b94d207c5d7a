"""Every family from files to files: collected block by block, merged stage by stage, loaded again."""

from pathlib import Path

import pytest
import torch

from actors.merging import collecting, solving
from actors.merging.checkpoints import Checkpoint
from actors.merging.errors import CheckpointError
from actors.merging.merging import assemble, rival
from actors.merging.models import architecture_of, model_class, whole
from actors.merging.solving import solve, solve_pp
from cluster.storage import Run
from fusion.merging.architecture import distinct, rules
from fusion.merging.collection import collect, no_padding
from fusion.merging.models import Options
from fusion.merging.regmean_pp import regmean_pp
from fusion.merging.streaming import Flow
from tests.fusion.merging.families import MODELS, batches, make

SHARED = {
    "coefficients": [1.0, 3.0],
    "shares": [0.25, 0.75],
    "exclude": [],
    "average": [],
    "heads": "positions",
    "dtype": None,
    "shard_bytes": 30_000,
    "name": "tiny",
}


@pytest.fixture(params=sorted(MODELS))
def pair(request, tmp_path) -> tuple[str, list[Checkpoint]]:
    """Two models of a family on disk."""
    found = []
    for seed in (1, 2):
        folder = tmp_path / f"model{seed}"
        make(request.param, seed=seed, spread=0.05).float().save_pretrained(folder)
        found.append(Checkpoint(folder, f"m{seed}"))
    return request.param, found


def test_models_go_through_files_and_merged_layers(pair, tmp_path, monkeypatch):
    name, sources = pair
    monkeypatch.setattr(solving, "LARGE", 1500)
    architecture, run = architecture_of(sources[0]), Run.open(str(tmp_path / "run"), {}, {}, "0")
    inputs = {source.name: batches(name, seed=seed) for seed, source in enumerate(sources)}
    monkeypatch.setattr(solving.models, "batches", lambda source, *_: inputs[source.name])
    monkeypatch.setattr(solving, "part_of", lambda *_: ([], []))
    params = {
        **SHARED,
        "sources": [{"name": one.name, "model": str(one.folder)} for one in sources],
        "method": "regmean_pp",
        "alpha": 0.5,
    }
    more = {"overrides": [], "ridge": 0.0, "texts": ["x", "y"], "statistics": {}}
    step = run.step("solve-pp", 0)
    if name == "mixtral":
        with pytest.raises(CheckpointError, match="regmean_pp needs files whose tensors are named as"):
            solve_pp(run, step, {**params, **more})
        return
    solve_pp(run, step, {**params, **more})
    target = run.step("assemble", 0)
    assemble(run, target, {**params, "stages": [step.key]})
    merged = Checkpoint(Path(run.at(f"steps/{target.key}/model")), "merged")
    trio = [whole(source) for source in sources]
    states = [distinct(model.state_dict())[0] for model in trio]
    found, options = rules(architecture, states[0]), Options(0.5, (), SHARED["coefficients"])
    data = list(inputs.values())
    _, items = regmean_pp(trio[0], architecture, states, data, found, options)
    assert {item.name for item in items} <= set(merged)
    for item in items:
        assert torch.allclose(merged[item.name], item.tensor, rtol=1e-3, atol=1e-5), item.name


def test_models_go_through_files(pair, tmp_path, monkeypatch):
    name, sources = pair
    monkeypatch.setattr(solving, "LARGE", 1500)  # most groups in parts
    run = Run.open(str(tmp_path / "run"), {}, {}, "0")
    places, grams = [{"name": one.name, "model": str(one.folder)} for one in sources], []
    for number, source in enumerate(sources):
        architecture, step = architecture_of(source), run.step("collect-grams", number)
        flows = [Flow(batch) for batch in batches(name, seed=number)]
        model = whole(source)
        direct = collect(model, architecture.groups, batches(name, seed=number))
        for stage, found in collecting.by_stage(step, source, architecture, flows, no_padding):
            collecting.grams.write_stage(step.files, stage, found)
            for group, gram in found.items():
                assert torch.allclose(gram.symmetric(), direct[group].symmetric(), rtol=1e-4, atol=1e-5), (
                    group
                )
        grams.append({"step": step.key})
    keys = []
    for number, stage in enumerate(architecture_of(sources[0]).stages):
        if stage.groups:
            step = run.step("solve", number)
            params = {**SHARED, "sources": places, "grams": grams, "stage": number, "alpha": 0.5}
            step.commit(**solve(run, step, {**params, "overrides": [], "ridge": 0.0}))
            keys.append(step.key)
    step = run.step("assemble", 0)
    facts = assemble(run, step, {**SHARED, "sources": places, "alpha": 0.5, "stages": keys})
    assert facts["tensors"]["regmean"] > 0 and 0 < facts["objective_ratio"] < 1
    merged = Checkpoint(Path(run.at(f"steps/{step.key}/model")), "merged")
    assert set(merged) == set(sources[0]) and merged.headers == sources[0].headers
    plain = run.step("rival", 0)
    rival(run, plain, {**SHARED, "sources": places, "method": "simple"})
    average = Checkpoint(Path(run.at(f"steps/{plain.key}/model")), "average")
    for tensor in sources[0]:
        wanted = sources[0][tensor] * 0.25 + sources[1][tensor] * 0.75
        assert torch.allclose(average[tensor], wanted, atol=1e-6), tensor
    loaded = model_class(merged).from_pretrained(merged.folder)
    with torch.inference_mode():
        outputs = loaded(**batches(name, n=1)[0])
    assert all(torch.isfinite(t).all() for t in outputs.to_tuple() if isinstance(t, torch.Tensor))
