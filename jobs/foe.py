"""The fusion-of-experts job as a person runs it: check, drive the coordinator, print the result."""

import typer

from actors.routing import collected, fitting
from actors.routing.pool import Pool
from actors.routing.recorded import FILES, folder_of
from cluster.session import connect
from cluster.storage import Run
from configs.load import load
from configs.schema.base import ConfigError
from configs.schema.foe import FoeConfig, RecordedExperts
from jobs import launch, report
from jobs.foe_table import result_table


def main(
    path: str, overrides: list[str], run: str | None, *, plan: bool, start_over: bool, address: str
) -> None:
    """Run the job of a configuration file; ConfigError, ResumeError or SessionError, or exit 1."""
    config = load(path, FoeConfig, overrides)
    inputs = check_inputs(config, path)
    if plan:
        typer.echo(describe(config))
        return
    uri = launch.open_run(run or f"runs/{config.name}", config, inputs, start_over=start_over)
    session = connect(address)
    summary = launch.drive_to_end(uri, config, session)
    typer.echo(result_table(summary))
    typer.echo(f"\nReport    {report.write(uri, None)}")
    typer.echo(f"Artefact  {Run(uri).below('artefact').uri}")


def describe(config: FoeConfig) -> str:
    """What the job will do, from the configuration and the outputs that it names; nothing is started."""
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


def check_inputs(config: FoeConfig, path: str) -> dict[str, str]:
    """Digests of the local files that a configuration names; ConfigError for missing or unusable ones."""
    spec = config.experts
    if not isinstance(spec, RecordedExperts):
        return {}
    try:
        folder = folder_of(spec)
        collected.read(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    files = [*FILES, *(["experts.csv"] if config.cost_column else [])]
    return launch.digests(folder / name for name in files)
