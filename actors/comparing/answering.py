"""STMs answer texts, each in a step of its own; and how long a request takes that comes alone.

The arithmetic is that of training (`actors.stms`), so that an STM answers here as for `jobs evaluate`.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from actors.merging.collecting import opened
from actors.merging.errors import CheckpointError
from actors.merging.texts import part_of
from actors.routing import fitting
from actors.routing.pool import Pool
from actors.steps.training import stm_spec
from actors.stms.full import FullModel
from cluster.storage import Run, Step

FILE = "probabilities.safetensors"
WARM_UP = 4
Floats = NDArray[np.float64]


def answer(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write probabilities (n, C) for the texts of a set. `params`: source, stm, labels, texts (of which
    content)."""
    texts, _ = part_of(run, params["texts"], "test")
    model = model_of(run, params)
    proba = model.predict_proba(model.encode(texts))
    step.files.write_bytes(FILE, save({"probabilities": np.ascontiguousarray(proba)}))
    return {"n": len(texts)}


def model_of(run: Run, params: Mapping[str, Any]) -> FullModel:
    """The STM of a source, which a step has written or a checkpoint that is there. `params`: source, stm,
    labels."""
    checkpoint, labels = opened(run, params["source"]), params["labels"]
    known = checkpoint.config.get("id2label") or {}
    names = [known[place] for place in sorted(known, key=int)]
    if names != labels:
        raise CheckpointError(
            f"{checkpoint.name}: its labels are {', '.join(names) or 'not named'}; the task has "
            f"{', '.join(labels)}, in this order"
        )
    return FullModel.restored(stm_spec(params["stm"]), labels, 0, checkpoint.folder)


def read(run: Run, key: str) -> Floats:
    """What `answer` wrote."""
    return np.asarray(load(run.read_bytes(f"steps/{key}/{FILE}"))["probabilities"])


def clock(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts in milliseconds, medians over requests that come one at a time: `call` of an STM, and what a
    decision takes beside the calls, `full` of everyone's answers and `frugal` on as few as it pays to ask.

    `params`: source, stm, labels, texts, timed (requests), fused (parameters that the routing steps
    share), kind (of the fuser), walked (key of the policy's step), parts (keys), rate.
    """
    texts, _ = part_of(run, params["texts"], "test")
    model = model_of(run, params)
    few = [texts[place % len(texts)] for place in range(params["timed"] + WARM_UP)]
    pool = fitting.policy_pool(run, params["fused"])
    return {
        "call": _median(lambda place: model.predict_proba(model.encode([few[place]])), len(few)),
        **_decisions(run, pool, params, len(few)),
    }


def _decisions(run: Run, pool: Pool, params: Mapping[str, Any], count: int) -> dict[str, float]:
    policy = fitting.policy_of(run, params["fused"], params["kind"])
    fitting.load_parts(run, policy, params["kind"], params["parts"])
    starts = run.read_json(f"steps/{params['walked']}/starts.json")
    policy.starts_ = {float(rate): order for rate, order in starts.items()}
    test, experts = pool.rows("test"), len(pool.about.experts)

    def decide(place: int, least: int | None) -> None:
        row = test[[place % len(test)]]
        policy.begin(1, params["rate"], min_experts=least).run(lambda expert, _: pool.blocks[expert][row])

    return {
        "full": _median(lambda place: decide(place, experts), count),
        "frugal": _median(lambda place: decide(place, None), count),
    }


def _median(work: Callable[[int], object], count: int) -> float:
    """Milliseconds of a piece of work, those of the first few left out."""
    found = []
    for place in range(count):
        started = time.perf_counter()
        work(place)
        found.append(1e3 * (time.perf_counter() - started))
    return round(float(np.median(found[WARM_UP:])), 3)
