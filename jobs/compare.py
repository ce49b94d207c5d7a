"""The comparison as a person runs it: check, drive the coordinator, print the result."""

import io
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from actors.comparing.texts import check_apart
from actors.sources import local_files, read_labelled
from cluster.session import connect
from configs.load import load, locate
from configs.schema.base import ConfigError
from configs.schema.compare import FUSIONS, CompareConfig
from jobs import fusegen, launch, report
from jobs import plan as plans


def main(
    path: str, overrides: list[str], run: str | None, *, plan: bool, start_over: bool, address: str
) -> None:
    """Run the job of a configuration file; ConfigError, ResumeError or SessionError, or exit 1."""
    config = load(path, CompareConfig, overrides)
    if plan:
        typer.echo(describe(config))
        return
    uri = prepare(config, path, run, start_over=start_over)
    with launch.failing_by_status():
        summary = conduct(uri, config, address)
    page = report.write(uri, None)
    typer.echo(result_table(summary))
    typer.echo(f"\n{summary['recommendation']}\n")
    typer.echo(f"Report    {page}\nServe it  python -m jobs serve {run or uri}")


def prepare(config: CompareConfig, path: str, run: str | None, *, start_over: bool) -> str:
    """Check everything that the configuration names, and open the run directory; its URI."""
    inputs = check_inputs(config, path)
    return launch.open_run(run or f"runs/{config.name}", config, inputs, start_over=start_over)


def conduct(uri: str, config: CompareConfig, address: str, console: Console | None = None) -> dict[str, Any]:
    """Run the job in its directory, and return its summary; JobError when it fails."""
    with launch.left(connect(address)) as session:
        fusegen.check_room(config, session)
        return launch.drive_to_end(uri, config, session, console)


def check_inputs(config: CompareConfig, path: str) -> dict[str, str]:
    """Digests of the local files that a configuration names; ConfigError for missing or unusable ones."""
    found = fusegen.check_inputs(config, path)
    sources = {f"elsewhere.{name}": source for name, source in config.elsewhere.items()}
    sources |= {"routing.items": config.routing.items} if config.routing.items else {}
    files = []
    for key, source in sources.items():
        for file in local_files(source):
            if not file.is_file():
                raise ConfigError(f"{path}: {key}: no such file: {file}")
            files.append(file)
    labels, items = config.task.label_names, config.routing.items
    sets = {n: read_labelled(of, labels) for n, of in config.sets.items() if local_files(of)}
    if items and local_files(items):
        check_apart(read_labelled(items, labels), sets)
    for name, model in config.experts.items():
        if model.startswith((".", "/", "~")) and not locate(model).is_dir():
            raise ConfigError(f"{path}: experts.{name}: no such folder: {model}")
    return found | launch.digests(files)


def describe(config: CompareConfig) -> str:
    """What the job will do, from the configuration alone."""
    k, final = len(config.plms), config.stm.final
    trained = k - len(config.experts) + 2
    epochs = f"{final.epochs} epochs" if final.epochs > 1 else "one epoch"
    learnt = "held-out samples" if config.routing.items is None else "routing.items"
    return "\n".join(
        [
            plans.describe(config),
            "",
            f"then {trained} trainings of {final.model or 'MiniLM-L6'} over {epochs}: one per PLM, one on "
            "the weighted set, one on everything",
            f"checkpoints on disk: {trained + len(config.merging.methods)}",
            f"fused: {', '.join(dict.fromkeys((*FUSIONS, *config.merging.methods)))}",
            f"fusers learn from {learnt}; judged on {', '.join(config.sets)}",
        ]
    )


def result_table(summary: dict[str, Any]) -> str:
    """Fusions by accuracy, with what they cost."""
    console = Console(file=io.StringIO(), force_jupyter=False, width=118, highlight=False)
    stms, samples = len(summary["stms"]), summary["samples"]
    console.print(
        f"{summary['name']}: {stms} models and {samples['kept']:,} samples fused, seed {summary['seed']}, "
        f"{summary['seconds']:.0f} s; served at {summary['timing']['unit']}"
    )
    table = Table("fusion")
    elsewhere = list(next(iter(summary["fusions"].values()))["elsewhere"])
    columns = (
        "accuracy",
        "95 % interval",
        *elsewhere,
        "winner better by",
        "calls",
        "train",
        "serve",
        "ms",
        "MB",
    )
    for name in columns:
        table.add_column(name, justify="right")
    fusions = summary["fusions"].items()
    for name, one in sorted(fusions, key=lambda of: -of[1]["accuracy"]):
        low, high = one["ci95"]
        against = one.get("against_winner")
        table.add_row(
            name,
            f"{one['accuracy']:.3f}",
            f"{low:.3f}–{high:.3f}",
            *(f"{one['elsewhere'][of]['accuracy']:.3f}" for of in elsewhere),
            f"{against['difference']:.3f} (p {against['p_value']:.2g})" if against else "",
            f"{one['calls']:.3g}",
            f"{one['train_seconds']:.0f} s",
            f"{one['serve_cost']:.4g}",
            f"{one['latency_ms']:.0f}",
            f"{one['bytes'] / 1e6:.0f}",
            style="bold" if name == summary["winner"] else "",
        )
    console.print(table)
    for warning in summary["warnings"]:
        console.print(f"Warning: {warning}", soft_wrap=True)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.rstrip()
