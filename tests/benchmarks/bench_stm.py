"""Time and accuracy of the three kinds of small task model on recorded generations and real reviews.

    OMP_NUM_THREADS=2 python -m tests.benchmarks.bench_stm [linear] [head] [full]

trains on the six PLMs' 6,000 recorded texts (seed 1), evaluates on the 3,000 real reviews and prints one
line per model: seconds and CPU seconds of training and evaluation, accuracy with its standard error. For
`linear` it also prints the 30 refits of SWA and the training on 60,000 texts.
"""

import gzip
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.stms import Stm, create
from configs.schema.stm import FullStm, HeadStm, LinearStm

DATA = Path(__file__).parents[3] / "shared" / "data"
LABELS = ("positive", "negative")
MODELS = {
    "linear": [LinearStm()],
    "head": [HeadStm()],
    "full": [FullStm(epochs=1, eval_max_length=256)],
}


def main(kinds: list[str]) -> None:
    """Print the table for `kinds`, or for all of them."""
    if not DATA.is_dir():
        print("skipped: needs the recorded generations beside the repository")
        return
    train, test = generations(), reviews()
    kinds = kinds or list(MODELS)
    for kind in kinds:
        for spec in MODELS[kind]:
            measure(create(spec, LABELS, seed=0), train, test)
    if "linear" in kinds:
        measure_refits(create(LinearStm(), LABELS, seed=0), train, initial())


def measure(model: Stm, train: tuple[list[str], np.ndarray], test: tuple[list[str], np.ndarray]) -> None:
    """Train and evaluate one model."""
    texts, y = train
    with timed(f"{model.kind} train {len(y)}"):
        model.fit(model.encode(texts, learn=True), y)
    reviews, truth = test
    with timed(f"{model.kind} evaluate {len(truth)}"):
        accuracy = (model.predict_proba(model.encode(reviews)).argmax(axis=1) == truth).mean()
    error = np.sqrt(accuracy * (1 - accuracy) / len(truth))
    print(
        f"{model.kind} accuracy {accuracy:.4f} +- {error:.4f}  {model.spec.model_dump(exclude_defaults=True)}"
    )


def measure_refits(
    model: Stm, train: tuple[list[str], np.ndarray], large: tuple[list[str], np.ndarray]
) -> None:
    """Time what SWA does, and a training set of 60,000 texts."""
    encoded, y = model.encode(train[0], learn=True), train[1]
    weights = np.full(len(y), 0.5)
    with timed("linear 30 refits and predictions"):
        for _ in range(30):
            p = model.fit(encoded, y, weights).predict_proba(encoded)
            factor = 0.568 ** ((1 - p[np.arange(len(y)), y]) * (p.argmax(axis=1) != y))
            weights = weights * factor * weights.sum() / (weights * factor).sum()
    with timed(f"linear train {len(large[1])}"):
        model.fit(model.encode(large[0], learn=True), large[1])


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the wall and CPU seconds of the block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"{what}: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} CPU s", flush=True)


def generations() -> tuple[list[str], np.ndarray]:
    """The six PLMs' texts of one run with feedback, and their labels."""
    table = pq.read_table(DATA / "fusegen_imdb" / "generations.parquet")
    table = table.filter(pc.and_(pc.equal(table["split"], "fusegen"), pc.equal(table["seed"], 1)))
    return table["text"].to_pylist(), indices(table["label_name"].to_pylist())


def initial() -> tuple[list[str], np.ndarray]:
    """60,000 zero-shot texts and their labels."""
    table = pq.read_table(DATA / "fusegen_imdb" / "initial_10k.parquet").slice(0, 60_000)
    return table["text"].to_pylist(), indices(table["label_name"].to_pylist())


def reviews() -> tuple[list[str], np.ndarray]:
    """The real reviews and their labels."""
    with gzip.open(DATA / "eval" / "imdb" / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["text"] for row in rows], indices([row["label_name"] for row in rows])


def indices(names: list[str]) -> np.ndarray:
    """Label names as indices into `LABELS`."""
    return np.array([LABELS.index(name) for name in names])


if __name__ == "__main__":
    main(sys.argv[1:])
