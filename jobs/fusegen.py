"""The FuseGen job as a person runs it: check, start the coordinator, show progress, print the result."""

from typing import Any

import typer
from rich.console import Console

from actors.sources import Contexts, local_files, read_texts
from actors.steps.kinds import KINDS
from cluster.session import Session, connect
from cluster.storage import Run
from configs.load import load, locate
from configs.schema.base import ConfigError
from configs.schema.fusegen import FusegenConfig
from configs.schema.plm import LocalEngine
from jobs import launch, needs, report
from jobs import plan as plans
from jobs.table import result_table


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
    """Run the job of a configuration file; ConfigError, ResumeError or SessionError, or exit 1."""
    config = load(path, FusegenConfig, overrides)
    if cluster:
        typer.echo(needs.describe(config, cluster))
    if plan:
        typer.echo(plans.describe(config))
        return
    uri = prepare(config, path, run, start_over=start_over)
    with launch.failing_by_status():
        summary = conduct(uri, config, address)
    page = report.write(uri, None)
    typer.echo(result_table(summary))
    dataset, model = (Run(uri).below(path).uri for path in ("dataset/train.parquet", "stm"))
    typer.echo(f"\nReport    {page}\nData set  {dataset}\nModel     {model}")


def prepare(config: FusegenConfig, path: str, run: str | None, *, start_over: bool) -> str:
    """Check everything that the configuration names, and open the run directory; its URI."""
    inputs = check_inputs(config, path)
    return launch.open_run(run or f"runs/{config.name}", config, inputs, start_over=start_over)


def conduct(uri: str, config: FusegenConfig, address: str, console: Console | None = None) -> dict[str, Any]:
    """Run the job in its directory, and return its summary; JobError when it fails."""
    with launch.left(connect(address)) as session:
        check_room(config, session)
        return launch.drive_to_end(uri, config, session, console)


def check_inputs(config: FusegenConfig, path: str) -> dict[str, str]:
    """Digests of the local files that a configuration names; ConfigError for missing or unusable ones."""
    files = [*local_files(config.eval), *local_files(config.task.contexts)]
    for plm in config.plms:
        engine = plm.engine
        if engine.kind == "recorded" and engine.path and "://" not in engine.path:
            files.append(locate(engine.path))
        local = isinstance(engine, LocalEngine) and _looks_local(engine.model)
        if local and not locate(engine.model).is_dir():
            raise ConfigError(f"{path}: plms.{plm.name}.engine.model: no such folder: {engine.model}")
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{path}: no such file: {file}")
    if config.eval and local_files(config.eval):
        KINDS[config.task.kind].evaluation(config.eval, config.task.label_names)
    if local_files(config.task.contexts) and config.task.contexts:
        contexts = Contexts if config.task.kind == "span" else read_texts
        contexts(config.task.contexts)
    return launch.digests(files)


def check_room(config: FusegenConfig, session: Session) -> None:
    """ConfigError when a machine of our own can never give what the job asks for; a cluster may grow."""
    if not session.local:
        return
    writers = sum(plm.num_gpus * plm.replicas for plm in config.plms)
    trainers = max(config.stm.rounds.num_gpus, config.stm.final.num_gpus)
    if writers + trainers > session.gpus:
        raise ConfigError(
            f"plms and stm ask for {writers:g} + {trainers:g} GPUs, this machine has {session.gpus:g}; "
            "name a cluster with --address, lower num_gpus, or give stm.rounds and stm.final that need none"
        )
    for name in ("rounds", "final"):
        cpus = getattr(config.stm, name).num_cpus
        if cpus > session.cpus - 1:
            raise ConfigError(
                f"stm.{name}.num_cpus: {cpus:g} asked for, this machine has {session.cpus - 2:g}"
            )


def _looks_local(model: str) -> bool:
    """Whether a model is meant as a folder: hub ids have one slash, and do not begin as paths do."""
    return model.startswith((".", "/", "~", "configs/")) or model.count("/") > 1
