"""Lays the winner of a comparison down where `jobs serve` looks for it.

stm/            one model, as other jobs leave theirs; `jobs evaluate` asks it too
artefact/       a router: full (everyone is asked) or frugal
ensemble.json   which models are averaged
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from actors.comparing.made import Made, Place, where
from actors.merging.collecting import opened
from actors.routing.job import FoeJob
from actors.serving.single import ENSEMBLE, HERE
from actors.steps.runner import Call, Steps
from actors.steps.training import stm_spec
from actors.stms.base import Description
from cluster.storage import Run, Step
from configs.schema.base import identity
from configs.schema.compare import CompareConfig
from configs.schema.expert import ClassifierModel, ExpertSpec


def lay_down(
    config: CompareConfig, steps: Steps, routing: FoeJob, made: Made, winner: str, score: dict[str, Any]
) -> None:
    """Publish the winner, whose measures are `score`."""
    if winner in {"foe", "frugal"}:
        policy = dict(made.routed.params["policy"])
        policy |= {"min_experts": len(made.stms)} if winner == "foe" else {}
        served = {one["name"]: _served(config, one) for one in made.stms}
        routing.publish(made.routed, served, policy=policy)
        return
    labels = list(config.task.label_names)
    if winner == "ensemble":
        models = {one["name"]: _path(one) for one in made.stms}
        steps.run.write_json(ENSEMBLE, {"labels": labels, "models": models})
        return
    place = made.best_single(steps.run) if winner == "best_single" else made.alone[winner]
    params = {
        "source": where(place),
        "stm": identity(config.stm.final),
        "labels": labels,
        "seed": config.seed,
        "card": _card(config, winner, score),
    }
    steps.one(Call("publish", "actors.comparing.serving:publish", params))


def publish(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write `stm/` of the run. `params`: source, stm, labels, seed, card."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(opened(run, params["source"]).folder, copy, dirs_exist_ok=True)
        Description(stm_spec(params["stm"]), tuple(params["labels"]), params["seed"]).write(Path(copy))
        (Path(copy) / "README.md").write_text(params["card"], encoding="utf-8")
        run.put_folder("stm", Path(copy))
    return {}


def _path(place: Place) -> str:
    return f"{HERE}steps/{place['step']}/model" if "step" in place else str(place["model"])


def _served(config: CompareConfig, place: Place) -> dict[str, Any]:
    """How an STM is started as an expert."""
    price = config.requests.price_per_call
    model = ClassifierModel(model=_path(place), max_length=config.stm.final.max_length)
    spec = ExpertSpec(name=place["name"], model=model, price_per_call=1.0 if price is None else price)
    found: dict[str, Any] = identity(spec)
    return found


def _card(config: CompareConfig, winner: str, score: dict[str, Any]) -> str:
    low, high = score["ci95"]
    return (
        f"---\npipeline_tag: text-classification\n---\n\n# {config.name}\n\nThe winner of a comparison "
        f"(`{winner}`): a classifier for the labels {', '.join(config.task.label_names)}.\n\nAccuracy on "
        f"{score['n']} real texts: {score['accuracy']:.4f} "
        f"(95 % bootstrap interval {low:.4f} to {high:.4f}).\n"
    )
