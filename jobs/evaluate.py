"""Evaluates the model of a finished run on labelled texts, on this machine, without a cluster."""

import typer

from actors import stms
from actors.sources import read_labelled
from actors.steps.measures import measures
from cluster.storage import Run
from configs.schema.base import ConfigError
from configs.schema.task import Source


def main(uri: str, source: Source) -> None:
    """Print accuracy, its 95 % interval, macro F1 and the number of texts; ConfigError for unusable input."""
    run = Run(uri)
    if not run.exists("run.json"):
        raise ConfigError(f"{uri}: not a run directory")
    if not run.exists("stm"):
        raise ConfigError(f"{uri}: holds no finished model yet; finish the job first")
    with run.folder("stm") as folder:
        model = stms.load(folder)
    table = read_labelled(source, model.labels)
    proba = model.predict_proba(model.encode(table.column("text").to_pylist()))
    score = measures(
        table.column("label").to_numpy(),
        proba.argmax(axis=1),
        len(model.labels),
        run.read_json("run.json")["config"]["seed"],
    )
    low, high = score["ci95"]
    typer.echo(
        f"accuracy {score['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"macro F1 {score['macro_f1']:.4f}, {score['n']} texts"
    )
