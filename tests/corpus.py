"""A small recorded corpus: three writers with habits of their own, readable sentences, and an evaluation set.

Every text is drawn from seeded templates, so that it is the same on every machine. No two are alike, and two
are unfit. `critic` writes plainly, `fan` says everything twice, and `grump` gives one text in five the words
of the other label.
"""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

LABELS = ("positive", "negative")
PLMS = ("critic", "fan", "grump")
SEED = 5
LINEAR = {"kind": "linear", "c": 0.3}
SHORT = {"samples": {"per_plm": 20, "initial": 10, "rounds": 1}}
"""Changes that make the job a short one."""
PER_ROUND = 14
"""Texts of each PLM, round and label."""
MORE = 34
"""Zero-shot texts of each PLM and label beyond those of round 0."""

OPENINGS = {
    "critic": ["The {noun} by this {maker}", "Seen {when}, the {noun}", "In every scene the {noun}"],
    "fan": ["We watched it {when} and the {noun}", "My friends agree that the {noun}", "Truly, the {noun}"],
    "grump": ["After {count} minutes the {noun}", "People said that the {noun}", "I waited until the {noun}"],
}
NOUNS = ["plot", "score", "camera", "dialogue", "ending", "cast", "pacing", "humour", "story", "costume"]
MAKERS = ["director", "newcomer", "veteran", "studio", "writer", "composer"]
WHENS = ["last night", "on a rainy Sunday", "at the festival", "with my sister", "after work", "twice in May"]
COUNTS = ["ten", "twenty", "thirty", "forty", "fifty", "ninety"]
VERDICTS = {
    "positive": [
        "is a delight", "feels warm and honest", "moved me deeply", "shines from start to finish",
        "is superb and funny", "won me over", "deserves every prize", "is brilliant and tender",
        "made me smile", "is wonderful to follow",
    ],
    "negative": [
        "is a bore", "feels cold and false", "left me angry", "drags from start to finish",
        "is awful and clumsy", "lost me early", "deserves no prize", "is dreadful and shallow",
        "made me yawn", "is painful to follow",
    ],
}  # fmt: skip
REASONS = {
    "positive": [
        "because {who} played with great care",
        "and {who} found a lovely tone",
        "thanks to {who} and a clever script",
        "while {who} gave it real charm",
    ],
    "negative": [
        "because {who} played with no care",
        "and {who} found a hollow tone",
        "despite {who} and a lazy script",
        "while {who} gave it no charm",
    ],
}
WHOS = ["the young lead", "the old captain", "a quiet nurse", "two brothers", "the narrator", "a stray dog"]
PLACES = ["in the harbour", "on the train", "at the wedding", "under the bridge", "inside the school"]
FAULTS = {
    ("critic", "fusegen", 0, 6): "It was good.",
    (
        "fan",
        "fusegen",
        2,
        2,
    ): "The film <C> is a delight because the cast played with great care at the wedding.",
}
"""Texts that the filter rejects, by PLM, split, round and idx."""


def sentence(rng: random.Random, plm: str, label: str) -> str:
    """A sentence of fourteen words or more in the voice of a PLM."""
    if plm == "grump" and rng.random() < 0.2:
        label = LABELS[1 - LABELS.index(label)]
    first, second = rng.sample(VERDICTS[label], 2)
    second = first if plm != "fan" else second
    opening = rng.choice(OPENINGS[plm]).format(
        noun=rng.choice(NOUNS), maker=rng.choice(MAKERS), when=rng.choice(WHENS), count=rng.choice(COUNTS)
    )
    reason = rng.choice(REASONS[label]).format(who=rng.choice(WHOS))
    doubled = f", {second}," if second != first else ""
    return f"{opening} {first}{doubled} {reason} {rng.choice(PLACES)} near the {rng.choice(NOUNS)}."


def rows() -> list[dict[str, Any]]:
    """Rows of recorded generations: split `fusegen` with rounds 0 to 2, and split `initial`."""
    rng, seen, table = random.Random(SEED), set(), []
    plan = [("fusegen", SEED, r, PER_ROUND) for r in range(3)] + [("initial", None, 0, MORE)]
    for plm in PLMS:
        for split, seed, round_, count in plan:
            for idx in range(2 * count):
                name = LABELS[idx % 2]
                text = sentence(rng, plm, name)
                while text in seen:
                    text = sentence(rng, plm, name)
                seen.add(text)
                text = FAULTS.get((plm, split, round_, idx), text)
                row = {"plm": plm, "split": split, "seed": seed, "round": round_, "idx": idx}
                table.append({**row, "label": idx % 2, "label_name": name, "text": text})
    return table


def evaluation(n: int = 60) -> list[dict[str, str]]:
    """Labelled sentences in the critic's voice, of both labels in turn."""
    rng = random.Random(SEED + 1)
    return [{"text": sentence(rng, "critic", LABELS[i % 2]), "label_name": LABELS[i % 2]} for i in range(n)]


def write(folder: Path) -> Path:
    """Write `generations.parquet`, `eval.jsonl`, `job.yaml` and `quick.yaml`, which is shorter and trains no
    transformer, into a folder."""
    pq.write_table(pa.Table.from_pylist(rows()), folder / "generations.parquet")
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluation()))
    (folder / "job.yaml").write_text(yaml.safe_dump(config(folder), sort_keys=False))
    quick = config(folder, **SHORT, stm={"rounds": LINEAR, "final": LINEAR})
    (folder / "quick.yaml").write_text(yaml.safe_dump(quick, sort_keys=False))
    return folder


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job on the corpus: 30 samples per PLM in three rounds, 10 candidates, 3 shots, 3 iterations."""
    data = {
        "job": "fusegen",
        "name": "tiny",
        "seed": SEED,
        "task": "movies",
        "generations": {
            "path": str(folder / "generations.parquet"),
            "split": "fusegen",
            "zero_shot_split": "initial",
        },
        "plms": [plm(name) for name in PLMS],
        "samples": {"per_plm": 30, "initial": 10, "rounds": 2},
        "selection": {"candidates": 10, "shots": 3, "held_out": 0.2},
        "weights": {"iterations": 3},
        "stm": {"rounds": LINEAR},
        "eval": {"path": str(folder / "eval.jsonl")},
    }
    return {**data, **changes}


def plm(name: str, **changes: Any) -> dict[str, Any]:
    """A recorded PLM that asks in blocks of four."""
    return {"name": name, "engine": {"kind": "recorded"}, "batch_size": 4, "num_cpus": 0.1, **changes}
