"""What the path requests -> Ray Data -> actor -> Parquet costs, against the same engine in a plain loop.

    python -m tests.benchmarks.bench_orchestration [REQUESTS]

The same requests in the same blocks go to the same engine in one run: first in a loop in this process, then
through a wave of a FuseGen round, whose actor has loaded its model before the clock starts. Both use one
thread. Prints tokens per second, and the ratio; what the engine itself took in its actor tells a busy
machine from a slow path.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from actors.budget import Budget
from actors.dispatch import _request, ask_all
from actors.engines.base import load_engine
from actors.steps.runner import Call, Steps
from actors.writing import Writers
from cluster.session import connect
from cluster.storage import Run, Storage
from configs.load import load
from configs.schema.base import identity
from configs.schema.fusegen import FusegenConfig
from configs.schema.plm import PlmSpec

REQUESTS = 6000


def main(arguments: list[str]) -> None:
    """Measure both ways and print a table."""
    count = int(arguments[0]) if arguments else REQUESTS
    torch.set_num_threads(1)
    config = load("configs/fusegen/demo.yaml", FusegenConfig)
    config = config.model_copy(update={"plms": config.plms[:1]})
    with tempfile.TemporaryDirectory() as folder:
        run = Run.open(str(Path(folder) / "run"), {}, {}, "benchmark")
        session = connect("local")
        steps = Steps(run, lambda: False)
        table = steps.one(Call("requests", "actors.steps.requests:write_requests", _params(config, count)))
        plain = _plain(config, run.below(f"steps/{table.key}"), len(table.facts["blocks"]))
        writers = Writers(config, session)
        writers.start()
        path, engine = _path(run, table.key, len(table.facts["blocks"]), writers)
    print(f"{'':28}{'tokens':>10}{'seconds':>10}{'tokens/s':>10}")
    rows = (("plain loop", plain), ("Ray Data -> actor -> Parquet", path), ("  of it in the engine", engine))
    for name, (tokens, seconds) in rows:
        print(f"{name:28}{tokens:10,}{seconds:10.1f}{tokens / seconds:10.0f}")
    print(f"ratio {path[0] / path[1] / (plain[0] / plain[1]):.3f}")


def _params(config: FusegenConfig, count: int) -> dict[str, object]:
    plm, labels = config.plms[0], len(config.task.labels)
    each = {plm.name: [count // labels] * labels}
    none = {plm.name: [0] * labels}
    return {
        "seed": config.seed,
        "round": 0,
        "task": identity(config.task),
        "counts": each,
        "index": none,
        "ordinal": none,
        "shots": None,
        "batch_sizes": {plm.name: plm.batch_size},
        "self_debias": [],
    }


def _plain(config: FusegenConfig, table: Storage, blocks: int) -> tuple[int, float]:
    """Tokens and seconds of a loop over the blocks."""
    import pyarrow.parquet as pq

    spec: PlmSpec = config.plms[0]
    engine = load_engine(spec, config.task.label_names, config.seed)
    file = pq.ParquetFile(table.at("requests.parquet"))
    tokens, started = 0, time.perf_counter()
    for number in range(blocks):
        block = file.read_row_group(number).to_pylist()[0]
        requests = [_request(block, row) for row in block["requests"]]
        tokens += sum(c.completion_tokens for c in engine.generate(requests, spec.sampling))
    return tokens, time.perf_counter() - started


def _path(run: Run, table: str, blocks: int, writers: Writers) -> tuple[tuple[int, float], tuple[int, float]]:
    """Tokens and seconds of a wave, and of the engine's part in it."""
    answers = run.below("steps/answers").uri
    started = time.perf_counter()
    requests, plms = run.below(f"steps/{table}").uri, writers.callable()
    facts = list(ask_all(requests, answers, range(blocks), plms, "wave", Budget()))
    wall, tokens = time.perf_counter() - started, sum(int(f["completion_tokens"]) for f in facts)
    return (tokens, wall), (tokens, sum(float(f["seconds"]) for f in facts))


if __name__ == "__main__":
    main(sys.argv[1:])
