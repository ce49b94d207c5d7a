"""What RegMean costs beside the forward passes that it needs, here and done plainly.

    python -m tests.benchmarks.bench_regmean [LAYERS] [SEQUENCES]

Three BERTs of base size (12 layers, 768 wide) a little apart, SEQUENCES (256) of 64 tokens for each, batches
of 16, float32. Plain passes and passes that collect Gram matrices take turns, every four batches; where all
batches of a model go through a block before the next, half of the plain passes come before and half after.
Then the models are merged, three times between plain passes of the first one. `plainly` is the
method as its paper's code does it: a matrix for every linear map from a hook, a running mean that rescales
all of it, the explicit inverse in float32. `FusionBench` runs where it can be imported
(requirements/peers.txt). Ratios are of CPU time, in which other work on the machine counts little, and of
elapsed time. Memory is the peak of a process of its own, beyond that with the models loaded.
"""

import multiprocessing
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from fusion.merging.architecture import describe, rules
from fusion.merging.gram import Gram
from fusion.merging.models import Options, merge, merge_others, merge_stage
from fusion.merging.streaming import collect_streamed
from tests.benchmarks.bench_memory import peak_mib

MODELS, TOKENS, BATCH, CHUNK = 3, 64, 16, 4
"""CHUNK batches are passed before it is the other's turn."""
MERGES = 3
ALPHA = 0.9
Model = BertForSequenceClassification
Batches = list[dict[str, Tensor]]


@dataclass
class Times:
    """CPU and elapsed seconds by name of what took them."""

    cpu: dict[str, list[float]] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)

    def of(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work and note how long it took."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.cpu.setdefault(name, []).append(time.process_time() - cpu)
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        return result


class Plain:
    """RegMean as a short script does it."""

    def __init__(self, model: nn.Module) -> None:
        self.grams: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self.model = model

    def collect(self, batches: Batches) -> None:
        """Pass batches, with a hook on every linear map."""
        linear = [(name, m) for name, m in self.model.named_modules() if isinstance(m, nn.Linear)]
        handles = [module.register_forward_hook(self._hook(name)) for name, module in linear]
        with torch.no_grad():
            for batch in batches:
                self.model(**batch)
        for handle in handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def seen(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            n, found = self.rows.get(name, 0), self.grams.get(name)
            new = x.T @ x
            self.grams[name] = new / len(x) if found is None else (found * n + new) / (n + len(x))
            self.rows[name] = n + len(x)

        return seen

    @staticmethod
    def merge(models: Sequence[nn.Module], several: Sequence["Plain"]) -> dict[str, Tensor]:
        """All parameters but those of the classifier."""
        states = [dict(model.named_parameters()) for model in models]
        merged = {}
        for name in states[0]:
            module, own = name.removesuffix(".weight"), [state[name].data for state in states]
            if name.startswith("classifier"):
                continue
            if module not in several[0].grams:
                merged[name] = sum(own) / len(own)
                continue
            shrunk = [
                ALPHA * g + (1 - ALPHA) * g.diag().diag() for g in (one.grams[module] for one in several)
            ]
            total = sum(g @ weight.T for g, weight in zip(shrunk, own, strict=True))
            merged[name] = (torch.inverse(sum(shrunk)) @ total).T
        return merged


def main(arguments: list[str]) -> None:
    """Measure and print."""
    layers = int(arguments[0]) if arguments else 12
    sequences = int(arguments[1]) if len(arguments) > 1 else 256
    models = make(layers)
    print(f"{layers} layers, {sequences} sequences per model, {torch.get_num_threads()} threads")
    print(f"{'':12}{'Gram / F':>22}{'merge / F':>12}{'total / F':>12}{'elapsed':>10}{'memory':>10}")
    rivals = {"ours": ours, "plainly": plainly}
    if find_spec("fusion_bench"):
        rivals["FusionBench"] = fusion_bench
    for name, work in rivals.items():
        times = Times()
        work(models, sequences, times)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            extra = pool.apply(memory, (name, layers, sequences))
        gram, middle, merging = ratios(times.cpu)
        elapsed = ratios(times.wall)
        print(
            f"{name:12}{gram:14.2f} (~{middle:4.2f}){merging:12.2f}{gram + merging:12.2f}"
            f"{elapsed[0] + elapsed[2]:10.2f}{extra / 1024:6.2f} GiB"
        )


def ratios(seconds: dict[str, list[float]]) -> tuple[float, float, float]:
    """By plain passes of all models: Gram matrices, the median of their parts, and merging."""
    forward, gram = seconds["forward"], seconds["gram"]
    turns = len(forward) // len(gram)
    parts = [g / sum(forward[turns * n : turns * (n + 1)]) for n, g in enumerate(gram)]
    merging = fmean(seconds["merge"]) / fmean(seconds["beside"]) / MODELS
    return sum(gram) / sum(forward), median(parts), merging


def merges(models: Sequence[Model], sequences: int, times: Times, work: Callable[[], Any]) -> Any:
    """Merge between plain passes of the first model, some times; the last result."""
    batches = [batch for chunk in chunks(0, sequences) for batch in chunk]
    for _ in range(MERGES):
        result = None  # the one before makes room
        times.of("beside", lambda: passed(models[0], batches))
        result = times.of("merge", work)
    times.of("beside", lambda: passed(models[0], batches))
    return result


def make(layers: int) -> list[Model]:
    """Models that differ a little."""
    torch.manual_seed(0)
    first = BertForSequenceClassification(BertConfig(num_hidden_layers=layers)).eval()
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    models = [first, *(BertForSequenceClassification(first.config).eval() for _ in range(MODELS - 1))]
    for number, model in enumerate(models):
        model.load_state_dict(state)
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.002)
    return models


def chunks(model: int, sequences: int) -> Iterator[Batches]:
    """Synthetic texts, some batches at a time."""
    generator = torch.Generator().manual_seed(model)
    ids = torch.randint(1000, 30_000, (sequences, TOKENS), generator=generator)
    batches = [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(BATCH)]
    for start in range(0, len(batches), CHUNK):
        yield batches[start : start + CHUNK]


def ours(models: Sequence[Model], sequences: int, times: Times) -> None:
    """Block by block."""
    states = [dict(model.named_parameters()) for model in models]
    states = [{name: p.data for name, p in state.items()} for state in states]
    architecture = describe(models[0].config.to_dict(), list(states[0]))
    every: list[dict[str, Gram]] = []
    for number, model in enumerate(models):
        batches = [batch for chunk in chunks(number, sequences) for batch in chunk]
        half = len(batches) // 2
        times.of("forward", lambda b=batches[:half], m=model: passed(m, b))
        found = times.of("gram", lambda b=batches, m=model: list(collect_streamed(m, architecture, b)))
        times.of("forward", lambda b=batches[half:], m=model: passed(m, b))
        every.append({name: gram for _, grams in found for name, gram in grams.items()})
    known = rules(architecture, states[0], excluded=["classifier"])
    merges(models, sequences, times, lambda: list(merge(architecture, states, every, known, Options(ALPHA))))


def plainly(models: Sequence[Model], sequences: int, times: Times) -> None:
    """All at once."""
    several = [Plain(model) for model in models]
    for number, (model, one) in enumerate(zip(models, several, strict=True)):
        for batches in chunks(number, sequences):
            times.of("forward", lambda b=batches, m=model: passed(m, b))
            times.of("gram", lambda b=batches, one=one: one.collect(b))
    merges(models, sequences, times, lambda: Plain.merge(models, several))


class Trainer:
    """What FusionBench asks of the trainer of a model: its batches. Plain passes take turns here too."""

    _train_batch_size = BATCH

    def __init__(self, model: Model, number: int, sequences: int, times: Times) -> None:
        self.model, self.number, self.sequences, self.times = model, number, sequences, times

    def get_train_dataloader(self) -> Iterator[dict[str, Tensor]]:
        for batches in chunks(self.number, self.sequences):
            hooks = [(m, m._forward_hooks) for m in self.model.modules()]
            for module, _ in hooks:
                module._forward_hooks = OrderedDict()
            self.times.of("forward", lambda b=batches: passed(self.model, b))
            for module, kept in hooks:
                module._forward_hooks = kept
            cpu, wall = time.process_time(), time.perf_counter()
            yield from batches
            self.times.cpu.setdefault("gram", []).append(time.process_time() - cpu)
            self.times.wall.setdefault("gram", []).append(time.perf_counter() - wall)

    def _prepare_inputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return batch


def fusion_bench(models: Sequence[Model], sequences: int, times: Times) -> None:
    """By the function of FusionBench."""
    from fusion_bench.method.regmean import regmean

    solve = regmean.merging_with_regmean_weights

    def timed(**arguments: Any) -> Any:
        return merges(models, sequences, times, lambda: solve(**arguments))

    regmean.merging_with_regmean_weights = timed
    try:
        regmean.regmean_merging(
            models_to_merge=list(models),
            trainers=[Trainer(model, number, sequences, times) for number, model in enumerate(models)],
            exclude_param_names_regex=["classifier.*"],
            nums_regmean_examples=[sequences + 1] * len(models),  # all that there are
            reduce_non_diagonal_ratio=ALPHA,
        )
    finally:
        regmean.merging_with_regmean_weights = solve


def passed(model: Model, batches: Batches) -> None:
    """Nothing but passes."""
    with torch.no_grad():
        for batch in batches:
            model(**batch)


def memory(name: str, layers: int, sequences: int) -> float:
    """MiB that a process needs at its peak beyond the models, and beyond what it has merged."""
    models = make(layers)
    Path("/proc/self/clear_refs").write_text("5")  # from here on it is the peak
    before = peak_mib("self")
    several = [[batch for part in chunks(n, sequences) for batch in part] for n in range(MODELS)]
    if name == "FusionBench":
        fusion_bench(models, sequences, Times())
        merged = (p for n, p in models[0].named_parameters() if not n.startswith("classifier"))
        return peak_mib("self") - before - sum(p.nbytes for p in merged) / 2**20
    if name == "plainly":
        plain = [Plain(model) for model in models]
        for one, batches in zip(plain, several, strict=True):
            one.collect(batches)
        merged = Plain.merge(models, plain)
        return peak_mib("self") - before - sum(t.nbytes for t in merged.values()) / 2**20
    states = [{n: p.data for n, p in model.named_parameters()} for model in models]
    architecture = describe(models[0].config.to_dict(), list(states[0]))
    known = rules(architecture, states[0], excluded=["classifier"])
    for _ in merge_others(states, known, Options(ALPHA)):
        pass
    flows = [collect_streamed(m, architecture, b) for m, b in zip(models, several, strict=True)]
    for stage in architecture.stages:
        for _ in merge_stage(stage, states, (next(flow)[1] for flow in flows), known, Options(ALPHA)):
            pass
    return peak_mib("self") - before


if __name__ == "__main__":
    main(sys.argv[1:])
