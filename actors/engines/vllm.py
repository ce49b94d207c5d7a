"""Causal language models run by vLLM: the requests of all blocks in work are in one continuous batch.

    requests -> token ids (`texts`) -> AsyncLLM -> token ids -> completions

vLLM's scheduler and workers are processes of their own; this one talks to them from an event loop in a
thread, so that callers may be threads or loops of their own. How prompts are put, what ends a text and what
is counted is as in the engine `transformers`; but vLLM draws random numbers in its own way. A request's text
depends on its seed alone as far as the last bits of a probability do not depend on the batch, which on GPUs
they may. Beginnings that prompts share are read once.
"""

import asyncio
import itertools
import math
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from actors.engines.base import Completion, DeviceLostError, EngineError, FinishReason, Hear, Request, failure
from actors.engines.decoding import Ending
from actors.engines.launching import arguments, start
from actors.engines.likelihood import Continued
from actors.engines.texts import Texts, one_line, problem, source_of
from actors.routing.fingerprint import fingerprint
from configs.schema.plm import Sampling, VllmEngine

Found = TypeVar("Found")


class Vllm:
    """One loaded model and its tokenizer."""

    def __init__(self, spec: VllmEngine, num_gpus: float) -> None:
        """Start vLLM, which takes half a minute or more; `EngineError` in one line when it cannot work.

        `num_gpus` are those that Ray reserved for this process.
        """
        self._spec = spec
        source = source_of(spec.model)
        try:
            self.texts, self._revision = _texts(spec, source)
        except (OSError, ValueError, KeyError, ImportError, TemplateError) as error:
            raise EngineError(one_line(spec.model, error)) from None
        told = arguments(spec, source, num_gpus)
        loop = ExitStack()
        self.portal = loop.enter_context(start_blocking_portal(name=f"writing with {spec.model}"))
        """Where vLLM is asked: runs coroutines of this object for other threads."""
        try:
            self._engine = self.portal.call(start, spec, told)
        except BaseException:
            loop.close()
            raise
        self.close = weakref.finalize(self, _close, self.portal, self._engine, loop)
        self._numbers = itertools.count()
        self.limit: int = self._engine.model_config.max_model_len
        self._endings: dict[Sampling, Ending] = {}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Write a continuation for each request; those that do not fit the context get error completions."""
        return self.portal.call(self.write, requests, sampling)

    async def write(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """As `generate`, to be run by `portal`."""
        prompts = {prompt: self.texts.ids(prompt) for prompt in {request.prompt for request in requests}}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(r, prompts[r.prompt], sampling)) for r in requests]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def stream(self, request: Request, sampling: Sampling, hear: Hear) -> Completion:
        """As `write` for one request, and `hear` gets the text piece by piece. To be run by `portal`."""
        return await self._one(request, self.texts.ids(request.prompt), sampling, hear)

    async def run(self, task: Callable[..., Awaitable[Found]], *args: Any) -> Found:  # noqa: ANN401
        """Await what asks this engine; see `AsyncEngine.run`."""
        return await asyncio.wrap_future(self.portal.start_task_soon(task, *args))

    async def likelihoods(self, texts: Sequence[Continued]) -> NDArray[np.float64]:
        """Natural log-probabilities (n,) of continuations of prompts, NaN for those that vLLM refuses.

        A prompt with its continuation is shorter than `limit`. To be run by `portal`."""
        found = await asyncio.gather(*(self._likelihood(*one) for one in texts))
        return np.array(found, np.float64)

    async def _likelihood(self, prompt: Sequence[int], continuation: Sequence[int]) -> float:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False, skip_clone=True)
        whole, name = [*prompt, *continuation], f"likelihood-{next(self._numbers)}"
        try:
            async for output in self._engine.generate(tokens_input(whole), asked, name):
                known = output.prompt_logprobs
        except EngineDeadError as error:
            raise DeviceLostError(one_line(self._spec.model, error)) from None
        except (VLLMClientError, EngineGenerateError):
            return math.nan
        said = range(len(prompt), len(whole))
        return math.fsum(known[place][whole[place]].logprob for place in said)

    async def _one(
        self, request: Request, prompt: list[int], sampling: Sampling, hear: Hear | None = None
    ) -> Completion:
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        why = problem([prompt], sampling, self.limit)
        if why:
            return failure(why)
        ends, heard = self.texts.end_tokens, 0
        asked = parameters(
            sampling, request.seed, ends, streamed=hear is not None, logprobs=self._spec.logprobs
        )
        try:
            async for output in self._engine.generate(tokens_input(prompt), asked, request.id):
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
        tokens, known = list(written.token_ids), written.logprobs
        logprobs = known.logprobs if known is not None else None
        return self._completion(len(prompt), tokens, logprobs, written.finish_reason, sampling)

    def _completion(
        self,
        prompt_tokens: int,
        tokens: list[int],
        logprobs: Sequence[float] | None,
        finish: FinishReason,
        sampling: Sampling,
    ) -> Completion:
        count, finish = self._ended(tokens, finish, sampling)
        logprob = None if logprobs is None else math.fsum(logprobs[:count]) / count
        if logprob is not None and not math.isfinite(logprob):
            return failure("the model's probabilities are not numbers")
        return Completion(self.texts.text(tokens[:count]), finish, prompt_tokens, count, logprob)

    def _ended(self, tokens: list[int], finish: FinishReason, sampling: Sampling) -> tuple[int, FinishReason]:
        """How many tokens the text has, and why it ends there.

        vLLM overlooks stop strings that lie within the least length, and so goes on for too long.
        """
        if not (sampling.min_new_tokens and sampling.stop):
            return len(tokens), finish
        if sampling not in self._endings:
            self._endings[sampling] = Ending(self.texts.tokenizer, sampling, self.texts.end_tokens)
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
            "chat": "yes" if self.texts.chat else "no",
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


def parameters(
    sampling: Sampling,
    seed: int,
    end_tokens: frozenset[int],
    *,
    streamed: bool = False,
    logprobs: bool = False,
) -> Any:  # noqa: ANN401
    """How vLLM is to draw a text."""
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
        logprobs=0 if logprobs else None,
        flat_logprobs=logprobs,
        output_kind=RequestOutputKind.CUMULATIVE if streamed else RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _close(portal: BlockingPortal, engine: Any, loop: ExitStack) -> None:  # noqa: ANN401
    """End vLLM's processes, what is still asked, and the thread."""
    with suppress(RuntimeError):  # the loop has ended before
        portal.call(engine.shutdown)
        portal.call(portal.stop, True)
    loop.close()
