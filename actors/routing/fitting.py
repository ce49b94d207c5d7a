"""Steps that train: fusers of all outputs, tables and models of subsets, and the frugal policies on them.

Each is a Ray task with committed results. Policies store at most `max_stored` of the items that are learnt
from; fusers of all outputs learn from all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from actors.routing.curves import Curve
from actors.routing.pool import Pool
from cluster.storage import Run, Step, Storage
from configs.schema.base import identity
from configs.schema.foe import Policy
from configs.schema.foe import rates as default_rates
from fusion.routing import baselines, fusers
from fusion.routing.frugal import Walks
from fusion.routing.losses import KnnLosses
from fusion.routing.policy import FrugalPolicy, FrugalRouter
from fusion.routing.stored import Stored, Subset

CANDIDATES = (5, 9, 15, 25, 51)
TUNED_ON = 2000
SHARD = 1000
ALL_SUBSETS = 6
"""Up to so many experts, trained fusers of all subsets are made beforehand."""
Rows = NDArray[np.intp]


def read_pool(run: Run, key: str) -> Pool:
    """The pool of a committed step."""
    return Pool.read(run.below(f"steps/{key}"))


def policy_pool(run: Run, params: dict[str, Any]) -> Pool:
    """The pool of the experts that policies know."""
    return read_pool(run, params["pool"]).only(params["experts"])


def shortlist(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Which experts policies know. `params`: pool, size, rates."""
    pool = read_pool(run, params["pool"])
    quality = pool.quality[pool.rows("fit")].T
    chosen = baselines.shortlist(quality, pool.expected_prices, params["rates"], params["size"])
    return {"experts": chosen, "names": [pool.about.experts[expert] for expert in chosen]}


def stored_rows(pool: Pool, most: int, seed: int) -> Rows:
    """The rows that policies store."""
    rows = pool.rows("fit")
    return rows if len(rows) <= most else np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def neighbours(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """The number of neighbours that does best on stored items left out. `params`: pool, max_stored, seed."""
    pool = read_pool(run, params["pool"])
    rows = stored_rows(pool, params["max_stored"], params["seed"])
    return best_neighbours(pool, rows, params["seed"])


def best_neighbours(pool: Pool, rows: Rows, seed: int) -> dict[str, Any]:
    """The number of neighbours that does best on rows of a pool, each left out in turn, and the errors."""
    blocks = pool.seen(numbers=True)
    stored = Stored(tuple(block[rows] for block in blocks), pool.values[rows], _chooses(pool))
    tried = np.sort(np.random.default_rng(seed).permutation(len(rows))[:TUNED_ON])
    everyone = tuple(range(len(stored.blocks)))
    found = {}
    for count in CANDIDATES:
        if count < len(rows):
            table = KnnLosses(stored, neighbours=count, loss="zero_one").at(everyone, tried)
            found[count] = float(_missed(stored, table, tried).mean())
    best = min(found, key=lambda count: (found[count], count)) if found else CANDIDATES[0]
    return {"neighbours": best, "errors": {str(count): round(error, 6) for count, error in found.items()}}


def settled(policy: Policy, best: Callable[[], int], largest_price: float) -> dict[str, Any]:
    """What `fitted` and walks are told: policy, neighbours, sample and rates, where `auto` and defaults have
    become numbers; `best` finds the number of neighbours, if it is wanted."""
    count = policy.neighbours
    if policy.compat == "reference":
        count = 9 if count == "auto" else count
    if count == "auto":
        count = best()
    sample = max(30, 2 * count) if policy.sample == "auto" else policy.sample
    chosen = list(policy.rates or default_rates(largest_price))
    return {"policy": identity(policy), "neighbours": count, "sample": sample, "rates": chosen}


def _missed(stored: Stored, table: np.ndarray, rows: Rows) -> np.ndarray:
    if not stored.chooses:
        return table[:, 0]
    values = stored.values[rows]
    return np.asarray(values.max(axis=1) - values[np.arange(len(rows)), table.argmax(axis=1)])


def fuser(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Train one fuser on all outputs and let it answer the test items. `params`: pool, kind, seed,
    neighbours."""
    pool = read_pool(run, params["pool"])
    fit, test = pool.rows("fit"), pool.rows("test")
    kind, chooses = params["kind"], _chooses(pool)
    blocks = pool.seen(numbers=kind == "knn")
    x = np.concatenate(blocks, axis=1)
    model = fusers.make(kind, chooses=chooses, seed=params["seed"], neighbours=params["neighbours"])
    if "blocks" in model.get_params():
        contexts = len(blocks) - len(pool.blocks)
        model.set_params(blocks=[block.shape[1] for block in blocks], contexts=contexts)
    model.fit(x[fit], pool.values[fit] if chooses else pool.labels[fit])
    answers = model.predict(x[test]).argmax(axis=1) if chooses else model.predict(x[test])
    if kind != "knn":
        step.files.write_bytes("fuser.safetensors", save(_saveable(fusers.to_arrays(model))))
    cost = pool.prices[test].sum(axis=1)
    experts = np.full(len(test), len(pool.about.experts))
    curve = Curve.single(pool.values[test, answers], cost, experts, answers)
    return curve.write(step.files)


def tables(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Leave-one-out losses of nearest-neighbour fusers on subsets, for a slice of the stored items.
    `params`: pool, policy, max_stored, seed, neighbours, sample, subsets, start, stop."""
    policy = policy_of(run, params, "knn")
    rows = np.arange(params["start"], params["stop"])
    found = policy.losses_.build([tuple(subset) for subset in params["subsets"]], rows)
    step.files.write_bytes("tables.safetensors", save({"tables": found}))
    return {"subsets": params["subsets"], "items": len(rows)}


def subset(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Train one fuser on one subset, and its out-of-fold scores. `params` as of `tables`, kind, subset."""
    policy = policy_of(run, params, params["kind"])
    model, left_out = policy.losses_.fit(tuple(params["subset"]))
    arrays = {**fusers.to_arrays(model), "left_out": left_out}
    step.files.write_bytes("subset.safetensors", save(_saveable(arrays)))
    return {"subset": list(params["subset"])}


def policy_of(run: Run, params: dict[str, Any], kind: fusers.Kind) -> FrugalPolicy | FrugalRouter:
    """The frugal policy of a kind on the stored items, without tables or models of subsets. `params`: pool,
    experts, max_stored, and those of `fitted`."""
    pool = policy_pool(run, params)
    return fitted(pool, stored_rows(pool, params["max_stored"], params["seed"]), params, kind)


def fitted(pool: Pool, rows: Rows, params: dict[str, Any], kind: fusers.Kind) -> FrugalPolicy | FrugalRouter:
    """A frugal policy of a kind on some rows of a pool. `params`: policy, neighbours, sample, seed."""
    policy = frugal(
        kind,
        pool.seen(numbers=kind == "knn"),
        pool.expected_prices.tolist(),
        Policy.model_validate(params["policy"]),
        chooses=_chooses(pool),
        neighbours=params["neighbours"],
        sample=params["sample"],
        seed=params["seed"],
    )
    return policy.fit(inputs(pool, kind, rows), pool.values[rows] if _chooses(pool) else pool.labels[rows])


def inputs(pool: Pool, kind: fusers.Kind, rows: Rows) -> np.ndarray:
    """What a policy of a kind sees of rows (len(rows), sum of widths)."""
    return np.concatenate([block[rows] for block in pool.seen(numbers=kind == "knn")], axis=1)


def frugal(
    kind: fusers.Kind,
    blocks: Sequence[np.ndarray],
    prices: Sequence[float],
    spec: Policy,
    *,
    chooses: bool,
    neighbours: int,
    sample: int,
    seed: int,
) -> FrugalPolicy | FrugalRouter:
    """A frugal policy of a kind, not fitted yet."""
    shared: dict[str, Any] = {
        "blocks": [block.shape[1] for block in blocks],
        "prices": list(prices),
        "fuser": None if kind == "knn" else fusers.make(kind, chooses=chooses, seed=seed),
        "n_neighbors": neighbours,
        "m_neighbors": sample,
        "start": spec.start,
        "min_experts": spec.min_experts,
        "max_experts": spec.max_experts,
        "lookahead": spec.lookahead,
        "budget": spec.budget,
        "random_state": seed,
    }
    return FrugalRouter(**shared) if chooses else FrugalPolicy(**shared, loss=spec.loss, compat=spec.compat)


def policy(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Walk over the test items at every rate. `params` as of `tables`, and kind, rates, parts (keys of the
    steps `tables` or `subset`)."""
    pool, kind = policy_pool(run, params), params["kind"]
    found = policy_of(run, params, kind)
    load_parts(run, found, kind, params["parts"])
    test, rates = pool.rows("test"), params["rates"]
    walks = found.sweep(inputs(pool, kind, test), rates)
    facts = curve_of(found, walks, pool, test, rates).write(step.files)
    arrays = {f"{name}.{i}": getattr(walk, name) for i, walk in enumerate(walks) for name in TRACE}
    arrays |= {f"calls.{i}": _calls(walk, pool) for i, walk in enumerate(walks)}
    step.files.write_bytes("walks.safetensors", save(_saveable(arrays)))
    step.files.write_json("starts.json", {str(rate): order for rate, order in found.starts_.items()})
    reasons = [dict(zip(*np.unique(walk.reasons, return_counts=True), strict=True)) for walk in walks]
    return {
        **facts,
        "starts": [found.starts_[rate][0] for rate in rates],
        "reasons": [{str(name): int(count) for name, count in of.items()} for of in reasons],
    }


def _calls(walk: Walks, pool: Pool) -> Rows:
    """Experts (m, K) in the order in which they are called, -1 behind the last: without contexts, and with
    the expert whose response is given, if it had not been asked."""
    experts = len(pool.about.experts)
    calls = np.full((len(walk.order), experts), -1, np.intp)
    for row, (order, answer) in enumerate(zip(walk.order.tolist(), walk.answers.tolist(), strict=True)):
        called = [expert for expert in order if 0 <= expert < experts]
        if _chooses(pool) and answer not in called:
            called.append(answer)
        calls[row, : len(called)] = called
    return calls


TRACE = ("order", "current", "best", "spent", "answers", "distance")
"""What is kept of walks over the test items."""


def load_parts(run: Run, policy: Any, kind: fusers.Kind, parts: Sequence[str]) -> None:  # noqa: ANN401
    """Give a policy the tables or models of subsets that steps have computed."""
    if kind == "knn":
        add_tables(policy.losses_, (run.below(f"steps/{key}") for key in parts))
        return
    for key in parts:
        subset = tuple(run.read_json(f"steps/{key}/manifest.json")["subset"])
        arrays = load(run.read_bytes(f"steps/{key}/subset.safetensors"))
        left_out = arrays.pop("left_out")
        policy.losses_.add(subset, restored(policy, kind, subset, arrays), left_out)


def restored(policy: Any, kind: fusers.Kind, subset: Subset, arrays: fusers.Arrays) -> Any:  # noqa: ANN401
    """The trained fuser of a subset of a policy again."""
    widths = [policy.stored_.blocks[block].shape[1] for block in subset]
    if policy.stored_.chooses:
        experts = policy.stored_.values.shape[1]
        contexts = sum(block >= experts for block in subset)
        return fusers.responses_from_arrays(kind, arrays, widths, contexts)
    return fusers.from_arrays(kind, arrays, sum(widths))


def add_tables(losses: KnnLosses, steps: Iterable[Storage]) -> None:
    """Put the slices of tables together; each step says in its manifest which subsets it holds."""
    slices, subsets = [], []
    for files in steps:
        slices.append(load(files.read_bytes("tables.safetensors"))["tables"])
        subsets = files.read_json("manifest.json")["subsets"]
    for number, subset in enumerate(subsets):
        losses.add(tuple(subset), np.concatenate([part[number] for part in slices]))


def eager_subsets(experts: int, depth: int, most: int) -> list[Subset]:
    """All subsets of up to `depth` experts, sorted; smaller ones where there would be more than `most`."""
    found: list[Subset] = []
    for size in range(1, min(depth, experts) + 1):
        wider = list(combinations(range(experts), size))
        if len(found) + len(wider) > most:
            break
        found += wider
    return sorted(found)


def curve_of(policy: Any, walks: Sequence[Walks], pool: Pool, rows: Rows, rates: Sequence[float]) -> Curve:  # noqa: ANN401
    """What walks cost and were worth at the prices and values of each item."""
    answers = [_answers(policy, walk) for walk in walks]
    prices, k = pool.prices[rows], len(pool.about.experts)
    called = np.zeros((len(walks), len(rows), k), bool)
    for number, walk in enumerate(walks):
        asked = np.zeros((len(rows), k + 2), bool)
        np.put_along_axis(asked, np.where(walk.order < 0, k + 1, walk.order), True, axis=1)
        called[number] = asked[:, :k]
        if _chooses(pool):
            called[number, np.arange(len(rows)), answers[number]] = True
    return Curve(
        np.asarray(rates, float),
        np.stack([pool.values[rows, of] for of in answers]),
        (called * prices).sum(axis=2),
        called.sum(axis=2),
        np.stack(answers),
    )


def _answers(policy: Any, walk: Walks) -> Rows:  # noqa: ANN401
    classes = getattr(policy, "classes_", None)
    return walk.answers if classes is None else np.asarray(classes)[walk.answers]


def _chooses(pool: Pool) -> bool:
    return pool.about.answer == "expert"


def _saveable(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
