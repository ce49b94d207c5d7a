"""`ray job submit` for runs: sends the code along, attaches to a job at work, follows it to its end."""

import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from cluster.session import PACKAGES
from cluster.storage import digest
from cluster.submission import INTERRUPTED, Submissions, exit_status
from configs.load import PACKAGE_ROOT, load, locate, read_yaml
from configs.schema.base import ConfigError
from configs.schema.foe import FoeConfig
from configs.schema.fusegen import FusegenConfig
from configs.schema.merge import MergeConfig

SCHEMAS = {"fusegen": FusegenConfig, "foe": FoeConfig, "merge": MergeConfig}
"""Jobs that can be submitted."""
LEFT_OUT = ("/runs", "/.venv", "/.git", "__pycache__")
"""What of the working directory stays here; so does what its .gitignore names."""
STOP_WAIT_S = "60"
"""Time that a job has to finish its piece of work once it is asked to stop."""


def main(
    arguments: list[str],
    given: dict[str, Any],
    *,
    address: str | None,
    environment: str | None,
    cpus: float,
    python: str,
    stop: bool,
) -> None:
    """Submit a command, or attach to the job that does it already, and exit as it does.

    `arguments` are those after `python -m jobs`, `given` is what they mean. ConfigError for what cannot work
    there, SessionError when there is no cluster.
    """
    name = run_name(arguments[0], given)
    there = environment_of(environment)
    jobs = Submissions(address)
    entrypoint = shlex.join([python, "-m", "jobs", *arguments])
    working = jobs.running(name)
    if stop:
        _stop(jobs, working.submission_id if working else None)
        return
    if working and working.entrypoint != entrypoint:
        raise ConfigError(
            f"--run {given['run']}: job {working.submission_id} is at work there with another command "
            f"({working.entrypoint}); end it first, with --stop"
        )
    job = working.submission_id if working else jobs.submit(name, entrypoint, there, cpus)
    typer.echo(f"{'attached to' if working else 'submitted'} job {job} at {jobs.address}")
    sys.exit(_follow(jobs, str(job)))  # not by typer, whose 130 says something else


def run_name(job: str, given: dict[str, Any]) -> str:
    """What jobs of a run are called; ConfigError where a command cannot be done by a cluster."""
    if given["plan"]:
        raise ConfigError("submit: --plan starts nothing anywhere; leave out submit")
    if given["fresh"]:
        raise ConfigError("submit: --fresh would begin anew with every attempt; name another --run")
    if given["address"] != "auto":
        raise ConfigError("submit: --address belongs before the job; there it is the cluster's own")
    config = load(given["config"], SCHEMAS[job], given["overrides"])
    run = given["run"]
    if run is None or ("://" not in run and not Path(run).is_absolute()):
        raise ConfigError(
            f"--run {run or '(none)'}: a folder (its whole path) or URI that all machines see is needed; "
            "what is written beside the code is lost with the job"
        )
    return f"{job}-{config.name}-{digest(run)}"


def environment_of(file: str | None) -> dict[str, Any]:
    """Ray's runtime environment: that of a YAML file, with the working directory and our code."""
    found = read_yaml(locate(file)) if file else {}
    found.setdefault("working_dir", str(Path.cwd()))
    found["excludes"] = [*found.get("excludes", []), *LEFT_OUT]
    if not (Path(found["working_dir"]) / "jobs/__main__.py").is_file():
        found.setdefault("py_modules", [str(PACKAGE_ROOT / name) for name in PACKAGES])
    found["env_vars"] = {"RAY_JOB_STOP_WAIT_TIME_S": STOP_WAIT_S, **found.get("env_vars", {})}
    return found


def _follow(jobs: Submissions, job: str) -> int:
    try:
        info = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        sys.stderr.write(
            f"jobs: job {job} goes on; the same command follows it again, with --stop after submit it ends\n"
        )
        return INTERRUPTED
    status = exit_status(info)
    if status and info.driver_exit_code is None:
        sys.stderr.write(f"jobs: job {job}: {' '.join(str(info.message).split())[:500]}\n")
    return status


def _stop(jobs: Submissions, job: str | None) -> None:
    if job is None:
        typer.echo("no job of this run is at work")
    else:
        info = jobs.stop(job)
        typer.echo(f"job {job}: {info.status.lower()}; the same command without --stop goes on")
