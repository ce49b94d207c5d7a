"""The fusion-of-experts job as a person runs it: check, drive the coordinator, print the result."""

from typing import Any

import typer
from rich.console import Console

from actors.routing import artefact, collected, collecting, fitting
from actors.routing import items as live_items
from actors.routing.pool import Pool
from actors.routing.recorded import FILES, folder_of
from actors.sources import local_files
from cluster.session import Session, connect
from cluster.storage import Run, Storage
from configs.load import load
from configs.schema.base import ConfigError
from configs.schema.expert import LiveExperts
from configs.schema.foe import FoeConfig, RecordedExperts
from jobs import launch, needs, report
from jobs.foe_table import artefact_text, result_table
from jobs.plan import budget, remote


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
    """Run the job of a configuration file; ConfigError, ResumeError or SessionError, or exit 1."""
    config = load(path, FoeConfig, overrides)
    inputs = check_inputs(config, path)
    if cluster:
        typer.echo(needs.describe(config, cluster))
    if plan:
        typer.echo(describe(config))
        return
    uri = _open(config, inputs, run, start_over=start_over, reuse=reuse)
    with launch.failing_by_status():
        summary = conduct(uri, config, address)
    typer.echo(result_table(summary))
    typer.echo(f"\nReport    {report.write(uri, None)}")
    typer.echo(f"Artefact  {Run(uri).below('artefact').uri}")


def prepare(
    config: FoeConfig, path: str, run: str | None, *, start_over: bool, reuse: str | None = None
) -> str:
    """Check everything that the configuration names, and open the run directory; its URI."""
    return _open(config, check_inputs(config, path), run, start_over=start_over, reuse=reuse)


def _open(
    config: FoeConfig, inputs: dict[str, str], run: str | None, *, start_over: bool, reuse: str | None
) -> str:
    other = reused(config, reuse) if reuse else None
    uri = launch.open_run(run or f"runs/{config.name}", config, inputs, start_over=start_over)
    if other:
        collecting.take_over(Run(uri), other)
    return uri


def conduct(uri: str, config: FoeConfig, address: str, console: Console | None = None) -> dict[str, Any]:
    """Run the job in its directory, and return its summary; JobError when it fails."""
    with launch.left(connect(address)) as session:
        check_room(config, session)
        return launch.drive_to_end(uri, config, session, console)


def reused(config: FoeConfig, uri: str) -> Run:
    """The run whose answers are taken over; ConfigError when there are none to take."""
    if not isinstance(config.experts, LiveExperts):
        raise ConfigError(f"--reuse {uri}: belongs to live experts; recorded ones are not asked anything")
    return launch.reused(uri)


def check_room(config: FoeConfig, session: Session) -> None:
    """ConfigError when a machine of our own can never give what the experts ask for; a cluster may grow."""
    if session.local and isinstance(config.experts, LiveExperts):
        asked = sum(expert.num_gpus * expert.replicas for expert in config.experts.pool)
        if asked > session.gpus:
            raise ConfigError(
                f"experts.pool: asks for {asked:g} GPUs, this machine has {session.gpus:g}; "
                "name a cluster with --address, or lower num_gpus"
            )


def inspect(place: str) -> None:
    """Print what an artefact holds, after checking that it is whole; `place` is its folder or its run's."""
    typer.echo(artefact_text(artefact.read(_artefact_at(place)).manifest))


def extend(path: str, overrides: list[str], place: str, output: str) -> None:
    """Write a wider artefact to `output`: with the experts and items of a configuration that it lacks."""
    config = load(path, FoeConfig, overrides)
    if isinstance(config.experts, LiveExperts):
        raise ConfigError(f"{path}: experts: live experts are collected by a run first; give recorded ones")
    target = Storage(output)
    if target.names():
        raise ConfigError(f"--run {output}: not empty; an artefact never changes, name another folder")
    old = artefact.read(_artefact_at(place))
    if old.manifest["answer"] == "expert":
        raise ConfigError(f"{place}: routes among language models: run the job again to add to it")
    version = artefact.write(artefact.widened(old, collected.read(config)), target)
    typer.echo(artefact_text(artefact.read(target).manifest))
    typer.echo(f"\nArtefact  {target.uri} ({version}, made from {old.manifest['version']})")


def _artefact_at(place: str) -> Storage:
    files = Storage(place)
    return files.below("artefact") if files.exists("artefact") else files


def describe(config: FoeConfig) -> str:
    """What the job will do, from the configuration and the outputs that it names; nothing is started."""
    if isinstance(config.experts, LiveExperts):
        return _describe_live(config, config.experts)
    pool: Pool = collected.read(config)
    about, policy = pool.about, config.policy
    experts = len(about.experts)
    prices = dict(zip(about.experts, pool.expected_prices.tolist(), strict=True))
    kinds = config.policy_kinds(experts)
    subsets = len(fitting.eager_subsets(experts, policy.eager_depth, policy.eager_tables))
    models = 2**experts - 1 if experts <= fitting.ALL_SUBSETS else 0
    tasks = [f"tables of {subsets} subsets" if kind == "knn" else f"{models} {kind} models" for kind in kinds]
    stored = min(len(pool.rows("fit")), config.split.max_stored)
    return "\n".join(
        [
            f"{config.name}: {experts} experts, {len(pool):,} items, seed {config.seed}; decides a "
            + ("label" if about.answer == "label" else "response"),
            f"learns from {len(pool.rows('fit')):,} items (policies store {stored:,}), judged on "
            f"{len(pool.rows('test')):,}; {about.dropped} left out for want of an answer",
            f"prices ({about.unit}): " + ", ".join(f"{name} {price:g}" for name, price in prices.items()),
            f"fusers: {', '.join(config.fuser_kinds())}",
            f"policies: {', '.join(kinds)} ({', '.join(tasks)})",
            f"each task asks Ray for {config.num_cpus:g} CPU",
        ]
    )


def _describe_live(config: FoeConfig, live: LiveExperts) -> str:
    lines = [
        f"{config.name}: {len(live.pool)} live experts, seed {config.seed}; items: "
        f"{live.items.path or live.items.dataset}",
        f"{'expert':24} {'kind':12} {'replicas':>8} {'CPU':>5} {'GPU':>5}  model",
        *(
            f"{one.name:24} {one.model.kind:12} {one.replicas:8} {one.num_cpus:5g} {one.num_gpus:5g}  "
            f"{one.engine.source if one.engine else one.model.model}"
            for one in live.pool
        ),
        *remote((e.name, e.engine, e.replicas) for e in live.pool if e.engine),
        *budget(config.max_cost, config.max_tokens),
        f"policies: {', '.join(config.policy_kinds(len(live.pool)))}; each task asks Ray for "
        f"{config.num_cpus:g} CPU",
    ]
    return "\n".join(lines)


def check_inputs(config: FoeConfig, path: str) -> dict[str, str]:
    """Digests of the local files that a configuration names; ConfigError for missing or unusable ones."""
    spec = config.experts
    if isinstance(spec, LiveExperts):
        live_items.check(config)
        sources = [spec.items, *(expert.trained_on for expert in spec.pool if expert.trained_on)]
        return launch.digests(file for source in sources for file in local_files(source))
    if not isinstance(spec, RecordedExperts):
        return {}
    try:
        folder = folder_of(spec)
        collected.read(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    files = [*FILES, *(["experts.csv"] if config.cost_column else [])]
    return launch.digests(folder / name for name in files)
