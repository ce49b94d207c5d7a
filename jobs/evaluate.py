"""Evaluates the model of a finished run on labelled texts, on this machine, without a cluster."""

import typer

from actors import stms
from actors.steps.kinds import KINDS
from cluster.storage import Run
from configs.schema.base import ConfigError
from configs.schema.task import Source


def main(uri: str, source: Source) -> None:
    """Print accuracy, its 95 % interval, macro F1 and the number of texts, of a span task F1 and exact match;
    ConfigError for unusable input."""
    run = Run(uri)
    if not run.exists("run.json"):
        raise ConfigError(f"{uri}: not a run directory")
    if not run.exists("stm"):
        raise ConfigError(f"{uri}: holds no finished model yet; finish the job first")
    with run.folder("stm") as folder:
        model = stms.load(folder)
    config = run.read_json("run.json")["config"]
    kind = KINDS[config["task"].get("kind", "label")]
    table = kind.evaluation(source, model.labels)
    score = kind.measures(kind.answers(model, table), len(model.labels), config["seed"])
    low, high = score["ci95"]
    interval = f"(95 % interval {low:.4f} to {high:.4f})"
    if kind.measure == "f1":
        typer.echo(
            f"F1 {score['f1']:.4f} {interval}, exact match {score['exact_match']:.4f}, {score['n']} questions"
        )
        return
    typer.echo(
        f"accuracy {score['accuracy']:.4f} {interval}, macro F1 {score['macro_f1']:.4f}, {score['n']} texts"
    )
