"""Pools of classifiers: recorded labels and confidences, and experts on digits, trained on the spot."""

import numpy as np
import pandas as pd
import pyarrow as pa

from actors.routing.pool import About, Pool
from actors.routing.recorded import Recording
from actors.routing.splitting import parts_of
from configs.schema.base import ConfigError
from configs.schema.foe import DigitsExperts, FoeConfig, RecordedExperts
from fusion.routing.features import one_hot, spread

VECTORS = {"spread": spread, "one_hot": one_hot}


def recorded(config: FoeConfig, spec: RecordedExperts) -> Pool:
    """The pool of a folder of recorded classifiers."""
    found = Recording(spec)
    for column in ("pred", "confidence"):
        if not found.has(column):
            raise ConfigError(
                f"{found.folder}: outputs.parquet has no column {column!r}, which answer: label needs; there "
                f"are {', '.join(found.columns)} (for language models: answer: expert)"
            )
    if "label" not in found.items:
        raise ConfigError(f"{found.folder}: items.parquet has no column 'label'")
    found.keep_complete(["pred", "confidence"])
    truth, classes = _labels(found)
    labels = found.numbers("pred", 0, len(classes) - 1).astype(np.intp)
    confidence = found.numbers("confidence", 0, 1)
    prices, unit = found.prices(config)
    blocks = tuple(
        VECTORS[config.features.vectors](labels[:, k], confidence[:, k], len(classes))
        for k in range(len(found.experts))
    )
    columns = {"item": found.item_column("item"), "label": truth.tolist()}
    columns |= {name: found.item_column(name) for name in ("domain", "text") if name in found.items}
    items = parts_of(config, pd.DataFrame(columns), found.items)
    return Pool(
        About(found.experts, "label", classes, unit, dropped=found.dropped),
        items,
        blocks,
        np.eye(len(classes))[truth],
        (labels == truth[:, None]).astype(float),
        prices,
        {"labels": labels.astype(np.int64), "confidence": confidence},
    )


def _labels(found: Recording) -> tuple[np.ndarray, tuple[str, ...]]:
    """True labels (n,) and the names of the classes; ConfigError where they contradict each other."""
    values = found.items["label"]
    if values.isna().any() or not pd.api.types.is_integer_dtype(values) or values.min() < 0:
        raise ConfigError(
            f"{found.folder}: items.parquet: label must be an integer of at least 0 in every row"
        )
    truth = values.to_numpy(np.intp)
    if len(np.unique(truth)) < 2:
        raise ConfigError(f"{found.folder}: items.parquet: all items have label {truth[0]}; two are needed")
    seen = found.values("pred").astype(float)
    count = int(max(truth.max(), np.nanmax(seen))) + 1
    if count > len(truth):
        raise ConfigError(f"{found.folder}: outputs.parquet: pred {count - 1} is no class id of these items")
    if "label_name" not in found.items:
        return truth, tuple(map(str, range(count)))
    names = found.items.groupby("label").label_name.unique()
    if (names.map(len) > 1).any():
        label = names.index[names.map(len) > 1][0]
        raise ConfigError(
            f"{found.folder}: items.parquet: label {label} has several names: {', '.join(names[label])}"
        )
    known = {int(label): str(of[0]) for label, of in names.items()}
    if len(set(known.values())) < len(known):
        raise ConfigError(f"{found.folder}: items.parquet: several labels have the same label_name")
    return truth, tuple(known.get(label, str(label)) for label in range(count))


def digits(config: FoeConfig, spec: DigitsExperts) -> Pool:
    """Ten logistic regressions on handwritten digits, each trained on neighbouring classes: a third of the
    rows trains them, the others are shared by fusers and test."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    x = x / 16
    part = np.arange(len(x)) % 3
    kept = part > 0
    outputs = np.zeros((10, len(x), 10))
    for expert in range(10):
        mine = (part == 0) & np.isin(y, (expert + np.arange(spec.known)) % 10)
        model = LogisticRegression(max_iter=2000).fit(x[mine], y[mine])
        outputs[expert][:, model.classes_] = model.predict_proba(x)
    labels, confidence = outputs[:, kept].argmax(axis=2).T, outputs[:, kept].max(axis=2).T
    truth = y[kept]
    items = pa.table(
        {
            "item": [str(row) for row in np.flatnonzero(kept)],
            "label": truth,
            "part": np.where(part[kept] == 1, "fit", "test").tolist(),
        }
    )
    names = tuple(f"knows {'-'.join(str((e + i) % 10) for i in range(spec.known))}" for e in range(10))
    prices = np.ones((len(truth), 10)) * [config.prices.get(name, 1.0) for name in names]
    return Pool(
        About(names, "label", tuple(map(str, range(10))), config.unit or "calls"),
        items,
        tuple(outputs[:, kept]),
        np.eye(10)[truth],
        (labels == truth[:, None]).astype(float),
        prices,
        {"labels": labels.astype(np.int64), "confidence": confidence},
        x[kept],
    )
