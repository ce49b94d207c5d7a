"""Gram matrices of a running torch model, one for every group of linear maps that read the same input.

Modules that are said to share an input are checked to be given one and the same tensor, by identity while
that tensor is alive: its address proves nothing, as memory is used again. Which rows of an input count is
declared with the group (`families.Rows`); padding does not, unless `everything` says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fusion.merging.architecture import Group
from fusion.merging.gram import Gram

Batch = Mapping[str, Tensor]
"""Keyword arguments of one pass."""
Masks = tuple[Tensor | None, Tensor | None]
"""Which tokens (B, T) count, in the input and in the decoder's; None: all."""
Counted = Callable[[Batch], Masks]


def no_padding(batch: Batch) -> Masks:
    """Count what the attention masks let through."""
    return batch.get("attention_mask"), batch.get("decoder_attention_mask")


def everything(_: Batch) -> Masks:
    """Count padding too, as the reference implementation does."""
    return None, None


@dataclass
class _Watch:
    group: Group
    pending: Tensor | None = None
    """The input, as long as not all modules of the group have been given it."""
    left: frozenset[str] = frozenset()
    calls: int = 0

    def first(self, module: str, x: Tensor) -> bool:
        """Whether this call shows a new input. Raises ValueError if the group was declared wrongly."""
        if self.pending is None and module == self.group.modules[0]:
            self.pending, self.left = x, frozenset(self.group.modules) - {module}
            self.calls += 1
        elif self.pending is not x or module not in self.left:
            raise ValueError(f"{module} is not given the input of {self.group.modules[0]}, as its group says")
        else:
            self.left -= {module}
        if not self.left:
            self.pending = None
        return module == self.group.modules[0]

    def reset(self) -> None:
        self.pending, self.left, self.calls = None, frozenset(), 0


class Collector:
    """Sums up `grams` by name of group while the model runs inside `with`.

    Call `expect` before each pass. With `partial`, groups need not be seen whole, as in a model of which only
    one block runs.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        *,
        dtype: torch.dtype = torch.float32,
        partial: bool = False,
    ) -> None:
        self.grams: dict[str, Gram] = {}
        self._model, self._dtype, self._partial = model, dtype, partial
        self._watches = [_Watch(group) for group in groups if group.expert is None]
        self._experts: dict[str, list[Group]] = {}
        for group in groups:
            if group.expert is not None:
                self._experts.setdefault(group.modules[0], []).append(group)
        self._masks: dict[str, Tensor | None] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for watch in self._watches:
            for module in watch.group.modules:
                self._hook(module, self._watching(watch, module))
        for module, groups in self._experts.items():
            self._hook(module, self._routing(groups))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def expect(self, masks: Masks = (None, None), ends: Tensor | None = None) -> None:
        """Tell which tokens of the next pass count, and by `ends` (B, T) where its sequences end."""
        self.check()
        for watch in self._watches:
            watch.reset()
        self._masks = {"tokens": _partial(masks[0]), "decoder": _partial(masks[1]), "last": ends}

    def check(self) -> None:
        """Raises ValueError if a module of a group was not run in a pass in which others were."""
        broken = [w for w in self._watches if w.left and not self._partial]
        if broken:
            raise ValueError(f"{min(broken[0].left)} is not given the input of {broken[0].group.name}")

    def _hook(self, module: str, function: Callable[..., None]) -> None:
        try:
            found = self._model.get_submodule(module)
        except AttributeError:
            raise ValueError(f"the model has no module {module}") from None
        if isinstance(found, nn.modules.conv._ConvNd):
            raise ValueError(f"{module} is a convolution, which has no closed form")
        self._handles.append(found.register_forward_pre_hook(function, with_kwargs=True))

    def _watching(self, watch: _Watch, module: str) -> Callable[..., None]:
        def seen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _tensors(args, kwargs)[0]
            if watch.first(module, x):
                self._gram(watch.group.name, x).add(self._rows(watch, x))

        return seen

    def _routing(self, groups: list[Group]) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x, chosen = _tensors(args, kwargs)[:2]
            mask = self._masks.get("tokens")
            for group in groups:
                routed = torch.eq(chosen, group.expert or 0).any(dim=-1)
                rows = x[routed if mask is None else routed & mask.reshape(-1)]
                if group.rows == "down":
                    rows = _activated(module, rows, group.expert)
                self._gram(group.name, rows).add(rows)

        return seen

    def _gram(self, name: str, x: Tensor) -> Gram:
        if name not in self.grams:
            self.grams[name] = Gram(x.shape[-1], dtype=self._dtype, device=x.device)
        return self.grams[name]

    def _rows(self, watch: _Watch, x: Tensor) -> Tensor:
        kind, flat = watch.group.rows, x.reshape(-1, x.shape[-1])
        if kind == "last":
            return _last(x, self._masks.get("last"))
        later, pooled = kind == "repeated" and watch.calls > 1, kind == "head" and x.ndim == 2
        mask = self._masks.get("decoder" if kind == "decoder" else "tokens")
        if kind == "positions" or later or pooled or mask is None:
            return flat
        if mask.numel() != len(flat):
            raise ValueError(f"{watch.group.name}: {len(flat)} rows under a mask of {mask.numel()} tokens")
        return flat[mask.reshape(-1)]


def collect(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Iterable[Batch],
    *,
    counted: Counted = no_padding,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Gram]:
    """Gram matrices by name of group, from passes over all batches, in evaluation mode."""
    with evaluating(model), Collector(model, groups, dtype=dtype) as collector:
        for batch in batches:
            collector.expect(counted(batch), batch.get("attention_mask"))
            model(**batch)
        collector.check()
    return collector.grams


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, gradients or caches of earlier tokens; what was set before is put back."""
    training, config = model.training, getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)
    model.eval()
    if cached is not None:
        config.use_cache = False  # type: ignore[union-attr]
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
        if cached is not None:
            config.use_cache = cached  # type: ignore[union-attr]


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]


def _partial(mask: Tensor | None) -> Tensor | None:
    """The mask as booleans, or nothing where it hides nothing."""
    return None if mask is None or bool((mask != 0).all()) else mask != 0


def _last(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None or x.ndim != 3:
        return x[:, -1] if x.ndim == 3 else x
    places = torch.arange(mask.shape[1], device=mask.device) * (mask != 0)
    return x[torch.arange(len(x), device=x.device), places.argmax(dim=1)]


def _activated(experts: Any, rows: Tensor, expert: int | None) -> Tensor:  # noqa: ANN401
    gate, up = linear(rows, experts.gate_up_proj[expert]).chunk(2, dim=-1)
    return torch.as_tensor(experts.act_fn(gate) * up)
