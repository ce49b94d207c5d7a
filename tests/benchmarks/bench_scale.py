"""What everything around the models costs as runs grow: many actors that only wait, more and more requests.

    python -m tests.benchmarks.bench_scale [ACTORS [REQUESTS ...]]

Each size is one wave of four PLMs, whose actors take 50 ms for a block of 64 requests: the request table, its
way through Ray Data and the actors to stored blocks, the manifest, and the filter. Prints seconds and
microseconds per request of each, the memory that the coordinator's process grew by, and the files left.
"""

import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from actors.budget import Budget
from actors.dispatch import ask_all
from actors.steps.filtering import filter_wave
from actors.steps.requests import write_requests
from actors.writing import Writers
from cluster.session import connect
from cluster.storage import Run
from configs.load import load
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig

ACTORS = 64
SIZES = (4_096, 16_384, 65_536)
BLOCK, LATENCY_S, PLMS = 64, 0.05, 4
WORDS = np.array([f"word{number}" for number in range(2000)])


def main(arguments: list[str]) -> None:
    """Measure each size and print a row of it."""
    actors, *sizes = [int(text) for text in arguments] or [ACTORS, *SIZES]
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "recording.parquet"
        _record(recording, max(sizes))
        config = _config(recording, actors)
        started = time.perf_counter()
        writers = Writers(config, connect("local"))
        writers.start()
        print(f"{len(writers.replicas)} PLMs, {actors} actors, up in {time.perf_counter() - started:.0f} s")
        cells = " ".join(f"{name:>16}" for name in ("table", "asking", "filter"))
        print(f"{'requests':>9} {'blocks':>7} {cells} {'MB':>6} {'files':>7}")
        for size in sizes:
            _measure(config, writers, Run(str(Path(folder) / f"run-{size}")), size)


def _record(path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(words) + "." for words in rng.choice(WORDS, (size, 20))]
    columns = {"plm": [f"plm{n % PLMS}" for n in range(size)], "text": texts}
    labels = ["positive" if n // PLMS % 2 else "negative" for n in range(size)]
    pq.write_table(pa.table({**columns, "label_name": labels}), path)


def _config(recording: Path, actors: int) -> FusegenConfig:
    engine = {"kind": "recorded", "path": str(recording), "mode": "pool", "latency_s": LATENCY_S}
    plm = {"engine": engine, "replicas": actors // PLMS, "batch_size": BLOCK, "num_cpus": 0.001}
    config = load("configs/fusegen/demo.yaml", FusegenConfig)
    data = config.model_dump(mode="json")
    return FusegenConfig.model_validate({**data, "plms": [{**plm, "name": f"plm{n}"} for n in range(PLMS)]})


def _measure(config: FusegenConfig, writers: Writers, run: Run, size: int) -> None:
    names, labels = [plm.name for plm in config.plms], len(config.task.labels)
    each, none = [size // len(names) // labels] * labels, [0] * labels
    task = identity(config.task)
    params: dict[str, Any] = {"seed": 0, "round": 0, "task": task, "shots": None, "self_debias": []}
    params |= {"counts": dict.fromkeys(names, each), "batch_sizes": dict.fromkeys(names, BLOCK)}
    params |= {"index": dict.fromkeys(names, none), "ordinal": dict.fromkeys(names, none)}
    process = psutil.Process(os.getpid())
    before, clock = process.memory_info().rss, [time.perf_counter()]
    table = run.step("requests", params)
    blocks = write_requests(run, table, params)["blocks"]
    table.commit(blocks=blocks)
    clock.append(time.perf_counter())
    step = run.step("generate", {"requests": table.key})
    arguments = (step.files.uri, range(len(blocks)), writers.callable(), "wave", Budget())
    asked = sum(int(facts["asked"]) for facts in ask_all(table.files.uri, *arguments))
    step.commit(files=[f"blocks/{block}.parquet" for _, block in blocks], dropped={})
    clock.append(time.perf_counter())
    grown = process.memory_info().rss - before
    room = dict.fromkeys(names, each)
    judged = {"wave": step.key, "chain": [], "task": task, "rules": identity(config.filter), "shots": None}
    filter_wave(run, run.step("filter", {}), {**judged, "plms": names, "room": room})
    clock.append(time.perf_counter())
    cells = [f"{b - a:7.1f} {(b - a) / asked * 1e6:6.0f} µs" for a, b in pairwise(clock)]
    files = sum(1 for path in Path(run.root).rglob("*") if path.is_file())
    print(f"{asked:9,} {len(blocks):7,} {' '.join(cells)} {grown / 1e6:6.0f} {files:7,}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
