"""The router on this machine or a cluster: start it, say where it is, and keep it until interrupted."""

import signal
import time
from typing import Any

import httpx
import typer
from ray import serve
from ray.serve.config import HTTPOptions

from actors import router
from actors.serving import access
from cluster.proxy import free_port, is_free
from cluster.session import Session, SessionError, connect
from configs.load import load
from configs.schema.base import ConfigError
from configs.schema.serve import Access, Service, Serving
from jobs import launch

NAME = "amalgam"
DEFAULT = "configs/serve/router.yaml"
POLL_S = 0.5
START_S = 60.0
"""Time in which the endpoint must answer once its processes have started."""
GRACE_S = 2.0
"""Time beyond a request's deadline after which Serve itself gives it up."""


def main(
    place: str,
    overrides: list[str],
    config: str | None,
    *,
    address: str,
    host: str,
    port: int,
    auth: bool,
    plan: bool,
) -> None:
    """Serve an artefact until interrupted; ConfigError, ArtefactError or SessionError."""
    serving = load(config or DEFAULT, Serving, [f"artefact={place}", *overrides])
    if not auth:
        serving = serving.model_copy(update={"access": Access(origins=serving.access.origins)})
    manifest = router.opened(serving.artefact).manifest
    specs = router.specs_of(serving, manifest)
    _check_access(serving, host)
    if plan:
        typer.echo(describe(serving, manifest, [spec.name for spec in specs]))
        return
    if port and not is_free(host, port):
        raise ConfigError(f"--port {port}: something listens there already; 0 takes a free one")
    session = connect(address)
    port = port or free_port(host)
    limit = serving.router.deadline_ms / 1e3 + GRACE_S
    serve.start(
        http_options=HTTPOptions(host=host, port=port, request_timeout_s=limit),
        logging_config={"enable_access_log": False},  # the router has a line for each request
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it is ignored
    try:
        with launch.terminated_as_interrupted():
            serve.run(router.build(fitted(serving, [spec.name for spec in specs], session)), name=NAME)
            url = f"http://{'127.0.0.1' if host in {'', '0.0.0.0'} else host}:{port}"  # noqa: S104
            names = ", ".join(spec.name for spec in specs)
            typer.echo(f"Artefact  {manifest['version']} ({manifest['name']}: {names})")
            typer.echo(f"Try it    {url}/")
            typer.echo(f"API       {url}/docs\n")
            typer.echo(curl(url, keys=serving.access.required))
            wait_for(f"{url}/health")
            typer.echo(f"\nready {url}")
            while True:
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        typer.echo("stopped")
    finally:
        serve.delete(NAME)


def wait_for(url: str) -> None:
    """Wait until a page answers; SessionError when it does not for long."""
    end = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(url, timeout=POLL_S).is_success:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > end:
            raise SessionError(f"{url}: no answer within {START_S:g} s")
        time.sleep(POLL_S / 5)


def fitted(serving: Serving, names: list[str], session: Session) -> Serving:
    """The same with CPU shares that a machine of our own has."""
    services = {name: serving.service_of(name) for name in names}
    services = {name: service for name, service in services.items() if service.placement == "own"}
    demands = {name: service.num_cpus * service.max_replicas for name, service in services.items()}
    demands["/"] = serving.router.num_cpus * serving.router.replicas
    found = session.fit_cpus(demands)

    def share(name: str, service: Service) -> Service:
        return service.model_copy(update={"num_cpus": round(found[name] / service.max_replicas, 3)})

    router_cpus = round(found["/"] / serving.router.replicas, 3)
    return serving.model_copy(
        update={
            "services": {**serving.services, **{name: share(name, one) for name, one in services.items()}},
            "router": serving.router.model_copy(update={"num_cpus": router_cpus}),
        }
    )


def curl(url: str, *, keys: bool) -> str:
    """A command that asks the endpoint."""
    key = ' -H "Authorization: Bearer $KEY"' if keys else ""
    return (
        f"curl {url}/v1/classify{key} -H 'Content-Type: application/json' "
        """-d '{"inputs": ["A clever, warm film."]}'"""
    )


def describe(serving: Serving, manifest: dict[str, Any], names: list[str]) -> str:
    """What will be served."""
    rows = [f"{'deployment':24} {'replicas':>9} {'CPU':>5} {'GPU':>5}"]
    for name in names:
        service = serving.service_of(name)
        if service.placement == "router":
            rows.append(f"{name:24} {'in the router':>21}")
            continue
        replicas = f"{service.min_replicas}-{service.max_replicas}"
        rows.append(f"{name:24} {replicas:>9} {service.num_cpus:5g} {service.num_gpus:5g}")
    router_ = serving.router
    rows.append(f"{'the router':24} {router_.replicas:>9} {router_.num_cpus:5g} {0:5g}")
    head = f"{manifest['name']}: artefact {manifest['version']}, {len(names)} experts, {manifest['unit']}"
    return "\n".join([head, *rows])


def _check_access(serving: Serving, host: str) -> None:
    """ConfigError where anybody could use the endpoint from elsewhere."""
    if serving.access.required:
        return
    if not access.loopback(host):
        raise ConfigError(
            f"--host {host}: reaches other machines; set access.keys_env or access.keys_file first"
        )
    typer.echo(
        "warning: no API keys (access.keys_env): anyone on this machine may use the endpoint", err=True
    )
