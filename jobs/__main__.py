"""The command line: `python -m jobs JOB CONFIG.yaml`, the same on a laptop and after `ray job submit … --`.

Exit status: 0 done, 1 the run failed (start the same command again to go on), 2 bad configuration or usage,
130 interrupted. Errors are one line on standard error.
"""

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cluster.proxy import prefer_haproxy
from cluster.session import SessionError
from cluster.storage import ResumeError, StorageError
from configs import __version__
from configs.schema.base import ConfigError
from configs.schema.task import Source

INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fuse language models on a Ray cluster: by what they write, answer and are.",
)

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG.yaml", help="The configuration of the job.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.SUB=VALUE", help="Replace a value of the configuration; repeatable."),
]
RunDirectory = Annotated[
    str | None,
    typer.Option(
        "--run", metavar="DIR", help="Run directory or URI (default: runs/NAME of the configuration)."
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or URI.")]


Plan = Annotated[bool, typer.Option("--plan", help="Print what the job will need; start nothing.")]
ClusterFile = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="FILE",
        help="Say whether the job fits the cluster of a file; exit if it does not.",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over under a new name; nothing is deleted.")]
Address = Annotated[
    str, typer.Option("--address", metavar="auto|local|HOST:PORT", help="The Ray cluster to run on.")
]


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"amalgam {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options that belong to no job."""


@app.command()
def fusegen(
    config: ConfigFile,
    overrides: Overrides = None,
    run: RunDirectory = None,
    plan: Plan = False,
    cluster: ClusterFile = None,
    fresh: Fresh = False,
    address: Address = "auto",
) -> None:
    """Let several language models write a labelled data set, and train a small classifier on it."""
    from jobs import fusegen as job

    job.main(config, overrides or [], run, plan=plan, start_over=fresh, cluster=cluster, address=address)


@app.command()
def foe(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG.yaml", help="The configuration; with --inspect, a run.")
    ],
    overrides: Overrides = None,
    run: RunDirectory = None,
    plan: Plan = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Check the artefact of a run and print what it holds.")
    ] = False,
    extend: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Add the experts and items of CONFIG to the artefact of a run."),
    ] = None,
    reuse: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Take over what live experts answered in another run."),
    ] = None,
    cluster: ClusterFile = None,
    fresh: Fresh = False,
    address: Address = "auto",
) -> None:
    """Let several experts answer the same items, and learn whom to trust, and whom to ask at which price."""
    from jobs import foe as job

    if inspect:
        job.inspect(config)
        return
    if extend:
        if run is None:
            raise ConfigError("--extend: give --run, the folder of the new artefact")
        job.extend(config, overrides or [], extend, run)
        return
    job.main(
        config,
        overrides or [],
        run,
        plan=plan,
        start_over=fresh,
        cluster=cluster,
        address=address,
        reuse=reuse,
    )


@app.command()
def merge(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG.yaml", help="The configuration; with --inspect, Gram files.")
    ],
    overrides: Overrides = None,
    run: RunDirectory = None,
    plan: Plan = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Print what a folder of Gram files holds.")
    ] = False,
    reuse: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Take over statistics and fine-tuned models of another run."),
    ] = None,
    cluster: ClusterFile = None,
    fresh: Fresh = False,
    address: Address = "auto",
) -> None:
    """Make one model of several of the same architecture, in closed form, and compare ways to do so."""
    from jobs import merge as job

    if inspect:
        job.inspect(config)
        return
    job.main(
        config,
        overrides or [],
        run,
        plan=plan,
        start_over=fresh,
        cluster=cluster,
        address=address,
        reuse=reuse,
    )


@app.command()
def compare(
    config: ConfigFile,
    overrides: Overrides = None,
    run: RunDirectory = None,
    plan: Plan = False,
    fresh: Fresh = False,
    address: Address = "auto",
) -> None:
    """Fuse the same models through data, outputs and weights, and say which way wins at which price."""
    from jobs import compare as job

    job.main(config, overrides or [], run, plan=plan, start_over=fresh, address=address)


@app.command()
def report(
    run: RunArgument,
    output: Annotated[str | None, typer.Option(help="Where to write (default: RUN/report.html).")] = None,
) -> None:
    """Write the report of a run again, from the run directory alone."""
    from jobs import report as job

    typer.echo(job.write(run, output))


@app.command()
def evidence(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN…", help="Finished runs, of any job, and .jsonl files of earlier pages."),
    ],
    config: Annotated[
        str, typer.Option(metavar="CONFIG.yaml", help="What is claimed.")
    ] = "configs/evidence.yaml",
    overrides: Overrides = None,
    output: Annotated[str, typer.Option(help="The page to write.")] = "evidence.md",
) -> None:
    """Hold what the papers claim against runs of several seeds, and write down what came out."""
    from jobs import evidence as job

    job.main(config, overrides or [], runs, output)


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[str, typer.Option("--data", help="A .jsonl, .jsonl.gz, .csv or .parquet file.")],
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    text_b: Annotated[
        str | None,
        typer.Option("--text-b", help="Column of the second text, for tasks of pairs; of the question."),
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Column of the answer, for span tasks.")] = None,
    label: Annotated[str, typer.Option(help="Column of the label name.")] = "label_name",
    label_names: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="VALUE=LABEL", help="Read a value as this label; repeatable."),
    ] = None,
) -> None:
    """Let the model of a finished run answer labelled texts, and print how often it is right."""
    from jobs import evaluate as job

    pairs = [pair.partition("=") for pair in label_names or []]
    wrong = next((value for value, equals, _ in pairs if not equals), None)
    if wrong is not None:
        raise ConfigError(f"--map {wrong}: needs VALUE=LABEL")
    names = {value: name for value, _, name in pairs}
    job.main(run, Source(path=data, text=text, text_b=text_b, answer=answer, label=label, label_names=names))


@app.command()
def pretrain(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train a miniature language model from a folder of labelled texts."""
    from jobs import pretrain as job

    raise typer.Exit(job.run(config, overrides or []))


@app.command()
def serve(
    artefact: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_ARTEFACT", help="A run of any job, or the folder of an artefact."),
    ],
    overrides: Overrides = None,
    config: Annotated[
        str | None, typer.Option(metavar="CONFIG.yaml", help="How it is served (see configs/serve).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8000,
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help="Ask for no API keys, whatever the configuration says."),
    ] = False,
    plan: Plan = False,
    address: Address = "auto",
) -> None:
    """Serve a router and its experts over HTTP, until interrupted; prints `ready URL` once it answers."""
    prefer_haproxy(address)
    from jobs import serve as job

    options = {"address": address, "host": host, "port": port}
    job.main(artefact, overrides or [], config, **options, auth=not no_auth, plan=plan)


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    arguments: Annotated[list[str], typer.Argument(metavar="JOB…", help="What follows `python -m jobs`.")],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The cluster's dashboard (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, 127.0.0.1:8265).",
        ),
    ] = None,
    runtime_env: Annotated[
        str | None, typer.Option("--runtime-env", metavar="FILE", help="Ray's runtime environment, in YAML.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs of the driver, which keep it off the head.")] = 1,
    python: Annotated[str, typer.Option(help="The interpreter's name on the cluster.")] = "python",
    stop: Annotated[
        bool, typer.Option("--stop", help="End the job of this run at its next committed piece of work.")
    ] = False,
) -> None:
    """Do a job on a cluster by `ray job submit`: sends the code along, follows it, and exits as it does.

    Started again, it follows the job that is at work. Ctrl-C leaves that running.
    """
    from jobs import submit as job

    name, *rest = arguments
    if name not in job.SCHEMAS:
        raise ConfigError(f"submit: {name} is no job of a cluster; allowed: {', '.join(job.SCHEMAS)}")
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    given = command.make_context(name, list(rest)).params
    options = {"address": address, "environment": runtime_env, "cpus": cpus, "python": python, "stop": stop}
    job.main(arguments, given, **options)


@app.command(name="bench-serve")
def bench_serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where `jobs serve` listens.")],
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time (closed loop).")] = 8,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Requests a second, whatever comes back (open loop).")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="For how long.")] = 10.0,
    texts: Annotated[str | None, typer.Option(metavar="FILE", help="Texts to send, one per line.")] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="NAME", help="Environment variable with the API key.")
    ] = None,
) -> None:
    """Load a served router for a while, and print latencies, throughput, experts asked, and errors."""
    from jobs import bench_serve as job

    job.main(url, concurrency=concurrency, rate=rate, seconds=seconds, texts=texts, key_env=key_env)


def main() -> None:
    """Run the command line and turn errors into one line and an exit status."""
    from actors.merging.errors import CheckpointError
    from actors.routing.artefact import ArtefactError
    from actors.stms.base import StmError

    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer's answer to KeyboardInterrupt
            raise KeyboardInterrupt
    except (ConfigError, ResumeError, ArtefactError, CheckpointError) as error:
        _fail(2, str(error))
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (StorageError, SessionError, StmError) as error:
        _fail(1, str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail(INTERRUPTED, "interrupted; start the same command again to go on")
    except TyperException as error:
        _fail(2, str(error))
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(code: int, message: str) -> None:
    if message:
        sys.stderr.write(f"jobs: {' '.join(message.split())}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
