"""Running a model one block at a time over all batches, so that its blocks need not be there together.

No block's call is imitated: for every step the model's own forward runs, in which finished blocks and
embeddings hand on the hidden states that were kept, the next block runs, and the one after it stops the pass.
Whatever lies between blocks (masks, position biases, a convolution) is thereby the model's own. Parameters of
finished and of later blocks are never touched and may be anywhere, or nowhere (the meta device); those of the
embeddings are needed for the first step only.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fusion.merging.architecture import Architecture, Stage
from fusion.merging.collection import Batch, Collector, Counted, evaluating, no_padding
from fusion.merging.gram import Gram


class _Reached(Exception):  # noqa: N818
    """Enough of the model has run."""


@dataclass
class Flow:
    """One batch on its way through the blocks."""

    inputs: Batch
    hidden: dict[int, Tensor] = field(default_factory=dict)
    """By stack, what its next block reads, or what its last one gave."""
    extras: dict[int, tuple[Any, ...] | None] = field(default_factory=dict)
    """By stack, what a block returned beside its hidden states, which later ones may ask for."""


class Streamer:
    """Takes flows through the stages of a model in their order."""

    def __init__(self, model: nn.Module, architecture: Architecture) -> None:
        self.model, self.stages = model, architecture.stages
        self._blocks = [(model.get_submodule(stage.name), stage.stack) for stage in architecture.stages[:-1]]
        self._embeddings = {
            stack: model.get_submodule(name)
            for stack, name in enumerate(architecture.embeddings)
            # A stack of one block may read its embeddings again after it.
            if sum(of == stack for _, of in self._blocks) > 1
        }

    def advance(self, flow: Flow, number: int, *, keep: bool = True) -> None:
        """Run stage `number` on what the stages before gave; -1 runs what lies before the first block.
        Without `keep` the flow stays where it is."""
        going = Flow(flow.inputs, dict(flow.hidden), dict(flow.extras))
        with ExitStack() as stack:
            for of, module in self._embeddings.items():
                if of in going.hidden:
                    stack.enter_context(_replaced(module, _handing(going, of)))
            for i, (block, of) in enumerate(self._blocks):
                role = _finished if i < number else _running if i == number else _reached
                last = i + 1 == len(self._blocks)
                stack.enter_context(_replaced(block, role(going, of, block.forward, last)))
            with suppress(_Reached):
                self.model(**flow.inputs)
        if keep:
            flow.hidden = {of: _settled(flow.hidden.get(of), now) for of, now in going.hidden.items()}
            flow.extras = going.extras


def collect_streamed(
    model: nn.Module,
    architecture: Architecture,
    batches: Iterable[Batch],
    *,
    counted: Counted = no_padding,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Stage, dict[str, Gram]]]:
    """Each stage with the Gram matrices of its groups, the same as `collect` finds. Nothing of a stage is
    kept but hidden states, so whoever iterates may load the blocks one after another."""
    streamer, flows = Streamer(model, architecture), [Flow(batch) for batch in batches]
    for number, stage in enumerate(architecture.stages):
        yield stage, collect_stage(streamer, flows, number, counted=counted, dtype=dtype)


def collect_stage(
    streamer: Streamer,
    flows: Iterable[Flow],
    number: int,
    *,
    counted: Counted = no_padding,
    dtype: torch.dtype = torch.float32,
    keep: bool = True,
) -> dict[str, Gram]:
    """Gram matrices of the groups of one stage, all flows taken through it (and, with `keep`, past it)."""
    groups = streamer.stages[number].groups
    if not groups:
        return {}
    with (
        evaluating(streamer.model),
        Collector(streamer.model, groups, dtype=dtype, partial=True) as collector,
    ):
        for flow in flows:
            collector.expect(counted(flow.inputs), flow.inputs.get("attention_mask"))
            streamer.advance(flow, number, keep=keep)
    return collector.grams


def _settled(before: Tensor | None, now: Tensor) -> Tensor:
    """Hidden states in the memory of those before: what a pass allocates is then free again at its end, in
    the order in which allocators reuse it. The first ones are copied, as they may be a parameter's."""
    if before is None or before.shape != now.shape or before.dtype != now.dtype:
        return now.clone()
    return before if now is before else before.copy_(now)


def _handing(flow: Flow, of: int) -> Callable[..., Any]:
    return lambda *_, **__: flow.hidden[of]


def _running(flow: Flow, of: int, forward: Callable[..., Any], last: bool) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = forward(flow.hidden.get(of, args[0]), *args[1:], **kwargs)
        flow.extras[of] = tuple(result[1:]) if isinstance(result, tuple) else None
        flow.hidden[of] = result[0] if isinstance(result, tuple) else result
        if last:
            raise _Reached
        return result

    return run


def _finished(flow: Flow, of: int, *_: Any) -> Callable[..., Any]:  # noqa: ANN401
    def hand_on(*_: Any, **__: Any) -> Any:  # noqa: ANN401
        extras = flow.extras[of]
        return flow.hidden[of] if extras is None else (flow.hidden[of], *extras)

    return hand_on


def _reached(flow: Flow, of: int, *_: Any) -> Callable[..., Any]:  # noqa: ANN401
    def stop(hidden_states: Tensor, *_: Any, **__: Any) -> Any:  # noqa: ANN401
        flow.hidden[of] = hidden_states
        raise _Reached

    return stop


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
