"""What vLLM in a PLM's actor writes, against bare `LLM.generate` and against the engine `transformers`.

    python -m tests.benchmarks.bench_vllm [REQUESTS [MODEL]]

The same requests go to all three, one after the other, in one run on two threads: to `LLM.generate` in one
call; to the actors in blocks, as a round of writing sends them. All give texts. Engines have started, and
written a few, before the clock starts. Prints tokens per second and ratios.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "2")

import ray

from actors.engines.base import Request
from actors.engines.launching import arguments
from actors.engines.vllm import parameters
from actors.plm import generate_block, start_plm, wait_ready
from actors.replicas import Turns
from actors.steps.data import seed_of
from cluster.session import connect
from configs.load import load, locate
from configs.schema.fusegen import FusegenConfig
from configs.schema.plm import PlmSpec, VllmEngine

REQUESTS = 1500
MODEL = "configs/embedded/critic"
FEW = 32


def main(options: list[str]) -> None:
    """Measure all three and print a table."""
    count = int(options[0]) if options else REQUESTS
    model = options[1] if len(options) > 1 else MODEL
    specs = {kind: _spec(kind, model) for kind in ("vllm", "transformers")}
    requests = _requests(count)
    bare = _bare(specs["vllm"], requests)
    connect("local")
    found = {kind: asyncio.run(_actor(spec, requests)) for kind, spec in specs.items()}
    rows = {"LLM.generate": bare, "vllm in its actor": found["vllm"], "transformers": found["transformers"]}
    print(f"{'':20}{'start s':>9}{'tokens':>10}{'seconds':>9}{'tokens/s':>10}")
    for name, (start, tokens, seconds) in rows.items():
        print(f"{name:20}{start:9.1f}{tokens:10,}{seconds:9.1f}{tokens / seconds:10.0f}")
    speed = {name: tokens / seconds for name, (_, tokens, seconds) in rows.items()}
    for other in ("LLM.generate", "transformers"):
        print(f"vllm in its actor / {other}: {speed['vllm in its actor'] / speed[other]:.3f}")


def _spec(kind: str, model: str) -> PlmSpec:
    fields = {"name": kind, "engine": {"kind": kind, "model": model}, "num_cpus": 2, "batch_size": 50}
    return PlmSpec.model_validate({**fields, "sampling": {"max_new_tokens": 80}})


def _requests(count: int) -> list[Request]:
    task = load("configs/fusegen/demo.yaml", FusegenConfig).task
    prompts = [label.zero_shot for label in task.labels]
    return [
        Request(f"r{i}", prompts[i % len(prompts)], seed_of(7, "bench", i), i % len(prompts), 0, i, i, True)
        for i in range(count)
    ]


def _bare(spec: PlmSpec, requests: Sequence[Request]) -> tuple[float, int, float]:
    """Seconds to start, tokens and seconds of `LLM.generate`."""
    assert isinstance(spec.engine, VllmEngine)
    started = time.perf_counter()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"  # as vLLM has it by itself
    told = arguments(spec.engine, str(locate(spec.engine.model)), 0)
    from vllm import LLM

    model = LLM(**told)
    asked = [parameters(spec.sampling, request.seed, frozenset()) for request in requests]
    for one in asked:
        one.detokenize = True  # as it is by itself: all give texts
    prompts = [request.prompt for request in requests]
    model.generate(prompts[:FEW], asked[:FEW], use_tqdm=False)
    start, began = time.perf_counter() - started, time.perf_counter()
    outputs = model.generate(prompts, asked, use_tqdm=False)
    seconds = time.perf_counter() - began
    model.llm_engine.engine_core.shutdown()
    return start, sum(len(output.outputs[0].token_ids) for output in outputs), seconds


async def _actor(spec: PlmSpec, requests: Sequence[Request]) -> tuple[float, int, float]:
    """Seconds to start, tokens and seconds of blocks sent to an actor."""
    started = time.perf_counter()
    replicas = start_plm(spec, ("a", "b"), 0)
    await wait_ready(replicas[0], spec)
    await generate_block(replicas[0], requests[:FEW], spec)
    start, began = time.perf_counter() - started, time.perf_counter()
    turns, size = Turns(replicas, spec.blocks), spec.batch_size
    blocks = [requests[begin : begin + size] for begin in range(0, len(requests), size)]
    answers = await asyncio.gather(
        *(turns.take(lambda replica, block=block: generate_block(replica, block, spec)) for block in blocks)
    )
    seconds = time.perf_counter() - began
    ray.kill(replicas[0])
    return start, sum(c.completion_tokens for answer in answers for c in answer.completions), seconds


if __name__ == "__main__":
    main(sys.argv[1:])
