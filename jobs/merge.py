"""The merging job as a person runs it: check, drive the coordinator, print the result."""

import io
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from actors.merging.checkpoints import Checkpoint, fetch
from actors.merging.errors import CheckpointError
from actors.merging.grams import read_manifest
from actors.merging.job import RESULT
from actors.merging.merging import rules_of
from actors.merging.models import architecture_of
from actors.merging.texts import chosen, files_of, read
from actors.sources import local_files
from cluster.session import connect
from cluster.storage import Run, Storage, file_digest
from configs.load import load
from configs.schema.merge import MergeConfig
from configs.schema.task import Source
from fusion.merging.architecture import check_alike
from jobs import launch, needs, report

GIB = 1 << 30
VOCABULARY = ("tokenizer.json", "vocab.txt", "spiece.model", "tokenizer.model")


def main(
    path: str,
    overrides: list[str],
    run: str | None,
    *,
    plan: bool,
    start_over: bool,
    cluster: str | None = None,
    address: str,
) -> None:
    """Run the job of a configuration file; ConfigError, CheckpointError, ResumeError or SessionError, or
    exit 1."""
    config = load(path, MergeConfig, overrides)
    checkpoints = check(config, path)
    if cluster:
        typer.echo(needs.describe(config, cluster))
    if plan:
        typer.echo(describe(config, checkpoints))
        return
    inputs = launch.digests(f for p in _files(config) for f in local_files(Source(path=p)))
    for doubt in doubts(checkpoints):
        typer.echo(f"warning: {doubt}", err=True)
    uri = launch.open_run(run or f"runs/{config.name}", config, inputs, start_over=start_over)
    session = connect(address)
    summary = launch.drive_to_end(uri, config, session)
    typer.echo(result_table(summary))
    typer.echo(f"\nReport    {report.write(uri, None)}")
    typer.echo(f"Model     {Run(uri).below(RESULT).uri}")


def _files(config: MergeConfig) -> list[str]:
    data = config.texts
    return [] if data is None else [*files_of(data.path).values(), *data.elsewhere.values()]


def check(config: MergeConfig, path: str) -> list[Checkpoint]:
    """Everything that can be known before anything starts; the models that are there already."""
    try:
        if config.texts is not None:
            chosen(config.texts, read(config.texts, config.seed))
        models = [Checkpoint(fetch(one.model, one.revision), one.name) for one in config.models]
        for model in models:
            architecture_of(model)
        if models:
            check_alike({model.name: model.meta() for model in models})
        for one in config.models:
            if one.grams is not None:
                read_manifest(Storage(one.grams))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return models


def describe(config: MergeConfig, models: list[Checkpoint]) -> str:
    """What the job will do."""
    lines = [f"{config.name}: {', '.join(config.methods)}; the result is {config.result}"]
    if config.texts is not None:
        table = read(config.texts, config.seed)
        domains = chosen(config.texts, table)
        lines.append(f"domains   {', '.join(domains)} of {len(set(table.column('domain').to_pylist()))}")
    if models:
        size = models[0].bytes
        known = rules_of(models, {"exclude": config.exclude, "average": config.average})
        counts: dict[str, int] = {}
        for rule in known.values():
            counts[rule.kind] = counts.get(rule.kind, 0) + 1
        lines.append(f"models    {len(models)} x {size / GIB:.2f} GiB, {architecture_of(models[0]).family}")
        lines.append("tensors   " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
        written = (len(config.methods) + len(config.alphas)) * size / GIB
        lines.append(f"disk      {written:.2f} GiB of checkpoints")
    return "\n".join([*lines, *(f"warning: {one}" for one in doubts(models))])


def doubts(models: list[Checkpoint]) -> list[str]:
    """What speaks against merging models that fit by their shapes."""
    found = []
    for name in VOCABULARY:
        there = [model for model in models if (model.folder / name).is_file()]
        if len({file_digest(model.folder / name) for model in there}) > 1 or 0 < len(there) < len(models):
            found.append(f"the models' {name} differ; the result has that of {models[0].name}")
    templates = {model.folder / "chat_template.jinja" for model in models}
    if len({path.read_text() if path.is_file() else "" for path in templates}) > 1:
        found.append(f"the models' chat templates differ; the result has that of {models[0].name}")
    return found


def inspect(place: str) -> None:
    """Print what Gram files hold."""
    about = read_manifest(Storage(place))
    rows = about.pop("rows")
    for name, value in about.items():
        typer.echo(f"{name:16} {value}")
    typer.echo(f"{'matrices':16} {len(rows)}, of {min(rows.values()):,} to {max(rows.values()):,} rows")


def result_table(summary: dict[str, Any]) -> str:
    """Methods by accuracy, in their domains and elsewhere."""
    console = Console(file=io.StringIO(), width=110, highlight=False)
    names = ", ".join(model["name"] for model in summary["models"])
    console.print(f"{summary['name']}: {names}; seed {summary['seed']}, {summary['seconds']:.0f} s")
    if summary["methods"]:
        console.print(_methods(summary))
    if summary["objective_ratio"] is not None:
        ratio = summary["objective_ratio"]
        share = f"{ratio:.1%} of what the average's do"
        console.print(f"RegMean's layers differ from the models' own by {share} (known without data)")
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip()


def _methods(summary: dict[str, Any]) -> Table:
    table, methods = Table(), summary["methods"]
    table.add_column("method")
    columns = [name for name in ("in_domain", "held_out") if any(name in one for one in methods.values())]
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
        table.add_column("95 % interval", justify="right")
    own = {model["name"] for model in summary["models"]}
    for name, one in sorted(methods.items(), key=lambda of: (of[0] in own, -of[1]["in_domain"]["accuracy"])):
        cells = []
        for column in columns:
            if column in one:
                low, high = one[column]["ci95"]
                cells += [f"{one[column]['accuracy']:.3f}", f"{low:.3f}–{high:.3f}"]
            else:
                cells += ["", ""]
        table.add_row(name, *cells, style="bold" if name == summary["result"] else "")
    return table
