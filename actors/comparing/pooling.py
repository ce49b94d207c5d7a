"""What STMs answer, as the pool of experts that the routing job works on."""

from typing import Any

import numpy as np
import pyarrow as pa

from actors.comparing import answering
from actors.merging.texts import part_of
from actors.routing.pool import About, Pool
from cluster.storage import Run, Step
from configs.schema.compare import FUSING

SET = "set"
"""Column of the items that says which set they are of."""


def pool(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the pool: fusers learn from the set `fusing` and are judged on the others. `params`: texts
    (by set), labels, answers {expert: {set: key}}, price (of a call), unit."""
    labels, answers = params["labels"], params["answers"]
    of = {name: part_of(run, texts, "test")[1] for name, texts in params["texts"].items()}
    truth = np.array([labels.index(label) for names in of.values() for label in names])
    sets = [name for name, names in of.items() for _ in names]
    blocks = tuple(
        np.concatenate([answering.read(run, keys[name]) for name in of]) for keys in answers.values()
    )
    said = np.stack([block.argmax(axis=1) for block in blocks], axis=1)
    items = pa.table(
        {
            "item": [f"{name}-{place}" for name, names in of.items() for place in range(len(names))],
            SET: sets,
            "part": ["fit" if name == FUSING else "test" for name in sets],
            "label": pa.array(truth, pa.int32()),
        }
    )
    raw = {"labels": said, "confidence": np.stack([block.max(axis=1) for block in blocks], axis=1)}
    about = About(tuple(answers), "label", tuple(labels), params["unit"])
    found = Pool(
        about,
        items,
        blocks,
        np.eye(len(labels))[truth],
        (said == truth[:, None]).astype(float),
        np.full(said.shape, params["price"], float),
        raw,
    )
    found.write(step.files)
    return {"items": len(found)}
