"""Peak memory of coordinator and driver for 1 000 and 10 000 samples of each of six models.

    python -m tests.benchmarks.bench_memory

Draws without replacement from the recorded zero-shot generations beside the repository (skipped where they
are absent), two rounds. Both sizes run in processes of their own, so that neither inherits the other's peak.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from configs.load import load
from configs.schema.fusegen import FusegenConfig

DATA = Path(__file__).parents[3] / "shared" / "data" / "fusegen_imdb" / "initial_10k.parquet"
SIZES = (1000, 10000)


def main(arguments: list[str]) -> None:
    """Measure both sizes and print a table."""
    if not DATA.exists():
        print("skipped: needs the recorded generations beside the repository")
        return
    print(f"{'N per PLM':>10}{'texts kept':>12}{'seconds':>9}{'coordinator MiB':>17}{'driver MiB':>12}")
    for size in SIZES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            kept, seconds, coordinator, driver = pool.apply(measure, (size,))
        print(f"{size:10,}{kept:12,}{seconds:9.0f}{coordinator:17.0f}{driver:12.0f}")


def measure(size: int) -> tuple[int, float, float, float]:
    """Texts kept, seconds, and the peaks of resident memory in MiB."""
    import ray

    from actors import coordinator
    from cluster.session import connect
    from cluster.storage import Run

    overrides = [
        f"generations={{path: {DATA}, mode: pool}}",
        f"samples={{per_plm: {size}, initial: {size // 2}, rounds: 1, quota: plm}}",
        "weights.iterations=3",
        "variant=fusegen",
        "baselines={plms: false, union: false}",
    ]
    config = load("configs/fusegen/imdb_recorded.yaml", FusegenConfig, overrides)
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "run")
        Run.open(uri, {}, {}, "benchmark")
        started = time.perf_counter()
        actor = coordinator.start(uri, config, connect("local"))
        pid = ray.get(actor.pid.remote())
        summary = ray.get(actor.run.remote())
        seconds = time.perf_counter() - started
        peaks = peak_mib(pid), peak_mib("self")
        ray.shutdown()
    return summary["samples"]["kept"], seconds, *peaks


def peak_mib(pid: int | str) -> float:
    """Peak of a process's resident memory, in MiB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
