"""What the router adds to bare deployments of Ray Serve that do the same: HTTP in, one expert, HTTP out.

    python -m tests.benchmarks.bench_serve [SECONDS]

All ways run in one cluster, in turns, with the client beside them: a bare ingress that calls nothing; a bare
ingress that calls a bare deployment of the same classifier; the router in `single` mode with experts of their
own, and within its processes; and the router as it decides.
"""

import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.serving import artefact, cluster, compared, deploy, posting, router, table

SECONDS = 12.0
BARE = "tests.benchmarks.bare"


def main(arguments: list[str]) -> None:
    """Measure and print tables."""
    seconds = float(arguments[0]) if arguments else SECONDS
    with cluster() as url, artefact() as run:
        deploy(
            router(run),
            router(run, "inside", "/inside", service={"placement": "router"}),
            bare(run, "nothing"),
            bare(run, "expert"),
        )

        def single(text: str) -> dict[str, Any]:
            return {"inputs": [text], "mode": "single"}

        def frugal(text: str) -> dict[str, Any]:
            return {"inputs": [text], "lambda": 0.02}

        ways = {
            "bare: HTTP only": posting(f"{url}/nothing", single),
            "bare: HTTP and an expert": posting(f"{url}/expert", single),
            "router: single": posting(f"{url}/v1/classify", single),
            "router: single, expert inside": posting(f"{url}/inside/v1/classify", single),
            "router: frugal": posting(f"{url}/v1/classify", frugal),
            "router: frugal, experts inside": posting(f"{url}/inside/v1/classify", frugal),
        }
        for connections in (1, 16):
            found = compared(ways, connections, seconds)
            table(f"{connections} at a time", found)
            added = found["router: single"][0] - found["bare: HTTP and an expert"][0]
            print(f"the router adds {added:.2f} ms p50 to the bare two hops")


def bare(run: Path, name: str) -> dict[str, Any]:
    """An application without any of our code but the classifier."""
    args = {"model": str(run.parent / "linear"), "asks": name == "expert"}
    return {"name": name, "route_prefix": f"/{name}", "import_path": f"{BARE}:build", "args": args}


if __name__ == "__main__":
    main(sys.argv[1:])
