"""What a job will need, from its configuration alone; nothing is started or loaded."""

import os
from collections.abc import Iterable, Iterator

from actors.searching import numbers_of_rounds, rungs_of
from configs.schema.fusegen import VARIANTS, FusegenConfig
from configs.schema.plm import OpenaiEngine, PlmSpec

BYTES_PER_SAMPLE = 700


def describe(config: FusegenConfig) -> str:
    """Requests, tokens, money, actors and disk of a FuseGen job, as text."""
    samples = config.samples
    chains = _chains(config)
    lines = [
        f"{config.name}: task {config.task.name} ({', '.join(config.task.label_names)}), seed {config.seed}",
        f"preset {config.preset}, variants {', '.join(config.variant)}",
        f"{len(config.plms)} PLMs x {samples.per_plm} samples: {samples.initial} zero-shot, then "
        f"{samples.rounds} rounds of feedback"
        + (f" ({chains} different histories of generation)" if chains > 1 else ""),
        "",
        f"{'PLM':24} {'engine':14} {'replicas':>8} {'CPU':>5} {'GPU':>5} {'requests':>9} "
        f"{'tokens':>11}  cost",
        *(_plm(plm, config, chains) for plm in config.plms),
        *remote((plm.name, plm.engine, plm.replicas) for plm in config.plms),
        "",
        f"STM in rounds and for weighting: {config.stm.rounds.kind}, about {_trainings(config)} trainings; "
        f"final STM: {config.stm.final.kind}",
        *_search(config),
        f"evaluation: {_evaluation(config)}",
        *budget(config.max_cost, config.max_tokens),
        f"disk: about {_size(chains * len(config.plms) * samples.per_plm, config):.0f} MB",
        f"These are estimates at a yield of {1 / samples.oversample:.0%}. The limit is "
        f"{samples.max_attempts:g} requests per sample: {_limit(config, chains):,} in all; then a shortfall "
        "is reported.",
    ]
    return "\n".join(lines)


def _search(config: FusegenConfig) -> Iterator[str]:
    """How many settings are tried how far."""
    if config.search is None:
        return
    for n, size in enumerate(rungs_of(config)):
        yield f"search: {size} settings write {n + 1} round{'s' * (n > 0)} of feedback"
    numbers = [str(number) for number in numbers_of_rounds(config)]
    if numbers[1:]:
        yield f"search: the best writes all texts in {', '.join(numbers[:-1])} and {numbers[-1]} rounds"


def budget(max_cost: float | None, max_tokens: int | None) -> Iterator[str]:
    """At what a run stops, where it has limits."""
    money = [f"{max_cost:g} of money"] if max_cost else []
    tokens = [f"{max_tokens:,} tokens"] if max_tokens else []
    if money or tokens:
        yield f"budget: {', '.join(money + tokens)}"


def remote(models: Iterable[tuple[str, object, int]]) -> Iterator[str]:
    """What is asked at which URL, how much at a time and with which key, of (name, engine, replicas)."""
    for name, engine, replicas in models:
        if isinstance(engine, OpenaiEngine):
            key = "no key"
            if engine.key_env:
                key = f"key in {engine.key_env}" + (" (not set here)" * (engine.key_env not in os.environ))
            yield f"{name}: {engine.source}, {engine.concurrency * replicas} requests at a time, {key}"


def _chains(config: FusegenConfig) -> int:
    """Number of different histories: variants that differ only in weights share their generations."""
    selections = {str(VARIANTS[name].get("selection", {})) for name in config.variant}
    return len(selections)


def _requests(config: FusegenConfig, chains: int) -> int:
    return int(_written(config, chains) * config.samples.oversample)


def _limit(config: FusegenConfig, chains: int) -> int:
    return int(_written(config, chains) * config.samples.max_attempts * len(config.plms))


def _written(config: FusegenConfig, chains: int) -> float:
    """Samples of each PLM, those of settings that are tried in vain too."""
    samples = config.samples
    fed = samples.per_plm - samples.initial
    tried = 0.0
    if config.search:
        tried = (
            sum(size - 1 for size in rungs_of(config)) / samples.rounds + len(numbers_of_rounds(config)) - 1
        )
    return samples.initial + (chains + tried) * fed


def _plm(plm: PlmSpec, config: FusegenConfig, chains: int) -> str:
    requests = _requests(config, chains)
    streams = len(config.task.labels) if plm.sampling.self_debias else 1
    shots = config.selection.shots * plm.sampling.max_new_tokens
    written = requests * plm.sampling.max_new_tokens
    read = requests * streams * (40 + (shots if config.selection.feedback != "none" else 0))
    price = plm.price_per_million_tokens
    cost = f"{(read * price.prompt + written * price.completion) / 1e6:.2f}" if price else "–"
    gpu = f"{plm.num_gpus:g}" + (f" {plm.accelerator_type}" if plm.accelerator_type else "")
    tokens = "0" if plm.engine.kind == "recorded" else f"{read + written:,}"
    return (
        f"{plm.name:24} {plm.engine.kind:14} {plm.replicas:8} {plm.num_cpus:5g} {gpu:>5} {requests:9,} "
        f"{tokens:>11}  {cost}"
    )


def _trainings(config: FusegenConfig) -> int:
    first, *others = (config.as_variant(name) for name in config.variant)
    trainings = 0
    for variant in (first, *others):
        fed = variant.selection.feedback != "none" or variant is first
        rounds = variant.samples.rounds + 1 if fed else 1
        weighing = variant.weights.iterations if variant.weights.kind != "uniform" else 0
        trainings += rounds * (len(config.plms) + 1) + weighing
    return trainings


def _size(samples: int, config: FusegenConfig) -> float:
    models = (config.samples.rounds + 2) * (len(config.plms) + 2)
    each = {"linear": 2.0, "full": 90.0, "head": 0.1, "span": 90.0}[config.stm.rounds.kind]
    return (
        samples * BYTES_PER_SAMPLE / 1e6
        + models * each
        + (90 if config.stm.final.kind in {"full", "span"} else 2)
    )


def _evaluation(config: FusegenConfig) -> str:
    if config.eval is None:
        return "none (give eval.path or eval.dataset)"
    return config.eval.path or f"hub data set {config.eval.dataset}, split {config.eval.split}"
