"""The merging job as a person runs it: check, drive the coordinator, print the result."""

import io
from collections import Counter
from typing import Any

import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from actors.merging.checking import Plan, check_statistics, doubts, planned, short_of
from actors.merging.checkpoints import GIB, Checkpoint, fetch
from actors.merging.collecting import take_over
from actors.merging.errors import CheckpointError
from actors.merging.estimating import Estimate, disk, estimate, speed
from actors.merging.grams import read_manifest
from actors.merging.heads import heads_of
from actors.merging.merging import GRAMS, RESULT
from actors.merging.models import architecture_of
from actors.merging.solving import PLUS_PLUS, carrier_of, rules_of
from actors.merging.texts import files_of, limited, parts_of, read
from actors.sources import local_files
from cluster.session import connect
from cluster.storage import Run, Storage
from configs.load import load
from configs.schema.merge import RESERVED_MODELS, MergeConfig
from configs.schema.task import Source
from fusion.merging.architecture import check_alike
from jobs import launch, needs, report

GIGA, TERA = 1e9, 1e12


def main(
    path: str,
    overrides: list[str],
    run: str | None,
    *,
    plan: bool,
    start_over: bool,
    cluster: str | None = None,
    address: str,
    reuse: str | None = None,
) -> None:
    """Run the job of a configuration file; ConfigError, CheckpointError, ResumeError or SessionError, or
    exit 1."""
    config = load(path, MergeConfig, overrides)
    checkpoints, plans, table = check(config, path)
    place = run or f"runs/{config.name}"
    found = _doubts(config, checkpoints, plans, place)
    if cluster:
        typer.echo(needs.describe(config, cluster))
    if plan:
        said = describe(config, checkpoints, plans, estimate(config, plans, table))
        typer.echo("\n".join([said, *(f"warning: {one}" for one in found)]))
        return
    uri = _open(config, checkpoints, found, place, start_over=start_over, reuse=reuse)
    with launch.failing_by_status():
        summary = conduct(uri, config, address)
    typer.echo(result_table(summary))
    made = RESULT if config.merges else GRAMS
    typer.echo(f"\nReport    {report.write(uri, None)}")
    typer.echo(f"{made.capitalize():9} {Run(uri).below(made).uri}")


def prepare(
    config: MergeConfig, path: str, run: str | None, *, start_over: bool, reuse: str | None = None
) -> str:
    """Check everything that the configuration names, and open the run directory; its URI."""
    checkpoints, plans, _ = check(config, path)
    place = run or f"runs/{config.name}"
    found = _doubts(config, checkpoints, plans, place)
    return _open(config, checkpoints, found, place, start_over=start_over, reuse=reuse)


def _doubts(config: MergeConfig, checkpoints: list[Checkpoint], plans: list[Plan], place: str) -> list[str]:
    return [*doubts(checkpoints, base_of(config)), *short_of(place, sum(disk(config, plans).values()))]


def _open(
    config: MergeConfig,
    checkpoints: list[Checkpoint],
    found: list[str],
    place: str,
    *,
    start_over: bool,
    reuse: str | None,
) -> str:
    inputs = launch.digests(f for p in _files(config) for f in local_files(Source(path=p)))
    for doubt in found:
        typer.echo(f"warning: {doubt}", err=True)
    other = launch.reused(reuse) if reuse else None
    uri = launch.open_run(place, config, inputs, start_over=start_over)
    if other:
        taken = take_over(Run(uri), other, checkpoints if config.fine_tuning is None else None)
        typer.echo(
            f"{len(taken)} steps are taken over from {reuse} where nothing that they depend on has changed"
        )
    return uri


def conduct(uri: str, config: MergeConfig, address: str, console: Console | None = None) -> dict[str, Any]:
    """Run the job in its directory, and return its summary; JobError when it fails."""
    with launch.left(connect(address)) as session:
        return launch.drive_to_end(uri, config, session, console)


def _files(config: MergeConfig) -> list[str]:
    data = config.texts
    return [] if data is None else [*files_of(data.path).values(), *data.elsewhere.values()]


def check(config: MergeConfig, path: str) -> tuple[list[Checkpoint], list[Plan], pa.Table | None]:
    """Everything that can be known before anything starts; the models that are there already, all that will
    be merged, and the texts in use."""
    try:
        models = [Checkpoint(fetch(one.model, one.revision), one.name) for one in config.models]
        for model in models:
            architecture_of(model)
        if models:
            heads = heads_of(models, config.heads)
            check_alike({model.name: heads.comparable(model) for model in models})
            if PLUS_PLUS in config.methods:
                carrier_of(models[0])
        for one in config.models:
            if one.grams is not None:
                read_manifest(Storage(one.grams))
        table, domains = _texts(config)
        plans = planned(config, models, domains)
        check_statistics(config, plans, table)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return models, plans, table


def _texts(config: MergeConfig) -> tuple[pa.Table | None, list[str]]:
    """Texts in use, and the domains that are learnt from."""
    if config.texts is None:
        return None, []
    table = read(config.texts, config.seed)
    domains, _ = parts_of(config.texts, table)
    if config.fine_tuning is not None:
        taken = [name for name in domains if name in RESERVED_MODELS]
        if taken:
            raise ValueError(f"a domain is called {taken[0]}, as a method or baseline is; name it otherwise")
    return limited(table, config.texts, config.seed), domains


def describe(config: MergeConfig, models: list[Checkpoint], plans: list[Plan], needs: Estimate) -> str:
    """What the job will do, and need."""
    made = f"{', '.join(config.methods)}; the result is {config.result}"
    lines = [f"{config.name}: {made if config.merges else 'Gram files of one model; nothing is merged'}"]
    if config.texts is not None:
        lines.append(f"domains   {', '.join(dict.fromkeys(plan.domain for plan in plans if plan.domain))}")
    size = plans[0].like.bytes
    lines.append(f"models    {len(plans)} x {size / GIB:.2f} GiB, {plans[0].architecture.family}")
    if models:
        params = {"exclude": config.exclude, "average": config.average}
        counts = Counter(
            rule.kind for rule in rules_of(models, params, heads_of(models, config.heads)).values()
        )
        lines.append("tensors   " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    core = speed()
    kinds = ", ".join(f"{size / GIB:.2f} {name}" for name, size in needs.disk.items())
    lines.append(f"disk      {sum(needs.disk.values()) / GIB:.2f} GiB: {kinds}")
    lines.append(f"memory    {needs.memory / GIB:.2f} GiB in the largest process, one per model at work")
    kinds = ", ".join(f"{count / TERA:.3g} {name}" for name, count in needs.work.items())
    lines.append(
        f"work      {sum(needs.work.values()) / TERA:.3g} TFLOP: {kinds}; about "
        f"{duration(needs.seconds(core))} on one core of this machine ({core / GIGA:.0f} GFLOP/s)"
    )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time that a person can read."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def base_of(config: MergeConfig) -> Checkpoint | None:
    """The model that all descend from, where it is named."""
    return None if config.base is None else Checkpoint(fetch(config.base), "base")


def inspect(place: str) -> None:
    """Print what Gram files hold."""
    about = read_manifest(Storage(place))
    rows = about.pop("rows")
    for name, value in about.items():
        typer.echo(f"{name:16} {value}")
    typer.echo(f"{'matrices':16} {len(rows)}, of {min(rows.values()):,} to {max(rows.values()):,} rows")


def result_table(summary: dict[str, Any]) -> str:
    """Methods by accuracy, in their domains and elsewhere."""
    console = Console(file=io.StringIO(), force_jupyter=False, width=110, highlight=False)
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
