"""The step that judges: every fusion on every set, with intervals, and paired tests against the winner.

It is the only one that reads labels of what is judged on, and nothing is chosen by them but the winner.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.comparing import answering
from actors.comparing.pooling import SET
from actors.routing.curves import Curve
from actors.routing.fitting import read_pool
from actors.steps.measures import measures, paired
from cluster.storage import Run, Step
from configs.schema.compare import EVAL

Predicted = NDArray[np.int64]
DIGITS = 6


def judge(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Facts: `winner`, `fusions` and `stms`, each with the measures of the first set, `calls` per request,
    `elsewhere` {set: measures} and `against_winner`.

    `params`: pool (key), sets (names), seed, alone {fusion: {set: key of an answer step}}, curves {fusion:
    [key, rate or None]}, fusions (names, cheapest first).
    """
    pool, sets = read_pool(run, params["pool"]), params["sets"]
    test = pool.rows("test")
    place = {name: np.array(pool.items[SET].to_pylist())[test] == name for name in sets}
    labels = pool.labels[test].astype(np.int64)
    said: dict[str, Predicted] = {}
    calls = dict.fromkeys(params["fusions"], 1.0)
    for name, keys in params["alone"].items():
        said[name] = np.concatenate([answering.read(run, keys[s]).argmax(axis=1) for s in sets])
    for name, (key, rate) in params["curves"].items():
        curve = Curve.read(run.below(f"steps/{key}"))
        setting = 0 if rate is None else int(np.argmin(abs(curve.rates - rate)))
        said[name] = curve.answers[setting]
        calls[name] = round(float(curve.experts[setting][place[EVAL]].mean()), DIGITS)
    right = {name: (said[name] == labels)[place[EVAL]] for name in params["fusions"]}
    winner = max(right, key=lambda name: float(right[name].mean()))  # the cheapest of equals
    raw = pool.raw["labels"][test]
    said |= {f"stm/{name}": raw[:, k] for k, name in enumerate(pool.about.experts)}
    found: dict[str, dict[str, Any]] = {}
    for name, answers in said.items():
        of = {
            s: measures(labels[at], answers[at], len(pool.about.classes), params["seed"])
            for s, at in place.items()
        }
        found[name] = {**of.pop(EVAL), "elsewhere": of}
        if name in right and name != winner:
            found[name]["against_winner"] = paired(right[winner], right[name], params["seed"])
    fusions = {name: {**found[name], "calls": calls[name]} for name in params["fusions"]}
    stms = {name: found[f"stm/{name}"] for name in pool.about.experts}
    return {"winner": winner, "fusions": fusions, "stms": stms}
