"""A small task of the kind span: sentences about journeys, recorded questions about them, and real ones.

Every sentence has a year, a name and places. The answers of the generated samples are the years, so that all
recorded questions suit all sentences: they ask when. `guide` sometimes asks who, which is wrong.
"""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.corpus import plm

PLMS = ("clerk", "guide")
SEED = 5
SPAN = {"kind": "span", "epochs": 4, "learning_rate": 5e-4, "batch_size": 4, "max_length": 64, "stride": 16}
NAMES = ["Anna Berg", "Émile Roux", "Clara Novák", "David Stein", "Fatima Aziz", "Gül Demir", "Hans Vogel"]
PLACES = ["Paris", "Zürich", "São Paulo", "Vienna", "Kraków", "Oslo", "Lisbon"]
THINGS = ["two red boats", "an old piano", "the first map", "a box of letters", "some rare seeds"]
QUESTIONS = {
    "clerk": ["In which year did {what} {where}?", "What is the year in which {what} {where}?"],
    "guide": ["When was it that {what} {where}?", "Do you know when {what} {where}?"],
}
WRONG = "Who of the {} people was it that carried all of the things?"
WHATS = [
    "this journey took place",
    "the traveller left the city",
    "the ship arrived",
    "the things were carried",
]
WHERES = [
    "by sea",
    "over the hills",
    "in the end",
    "at last",
    "for the first time",
    "after all trouble",
]


def sentence(rng: random.Random) -> tuple[str, str]:
    """A context and the year in it."""
    first, second = rng.sample(PLACES, 2)
    name, thing, year = rng.choice(NAMES), rng.choice(THINGS), str(rng.randint(1700, 1999))
    form = rng.choice(
        [
            f"In {year} {name} carried {thing} from {first} to {second}.",
            f"{name} left {first} for {second} in {year} with {thing}.",
            f"With {thing}, {name} reached {second} from {first} in {year}.",
        ]
    )
    return form, year


def contexts(n: int = 60) -> list[dict[str, str]]:
    """Sentences with their answers."""
    rng = random.Random(SEED)
    return [{"sentence": text, "year": year} for text, year in (sentence(rng) for _ in range(n))]


def rows() -> list[dict[str, Any]]:
    """Recorded questions, 24 of each PLM for each of two rounds."""
    table = []
    for name in PLMS:
        rng = random.Random(f"{SEED}/{name}")
        every = [q.format(what=w, where=p) for q in QUESTIONS[name] for w in WHATS for p in WHERES]
        for place, text in enumerate(rng.sample(every, 48)):
            row = {"plm": name, "split": "fusegen", "seed": SEED, "round": place // 24, "idx": place}
            said = WRONG.format(place) if name == "guide" and place % 5 == 0 else text
            table.append({**row, "label": 0, "label_name": "question", "text": said})
    return table


def evaluation(n: int = 24) -> list[dict[str, Any]]:
    """Questions with their answers, one of several."""
    rng = random.Random(SEED + 1)
    found = [sentence(rng) for _ in range(n)]
    return [
        {"context": text, "question": "In which year was this?", "answer": [year, f"the year {year}"]}
        for text, year in found
    ]


def task(folder: Path, **changes: Any) -> dict[str, Any]:
    """The task that ships, with contexts of our own."""
    shipped = yaml.safe_load((Path(__file__).parents[1] / "configs/tasks/squad.yaml").read_text())
    source = {"path": str(folder / "contexts.jsonl"), "text": "sentence", "answer": "year"}
    return {**shipped, "contexts": source, **changes}


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """A job on the recorded questions: 20 samples per PLM in two rounds, 8 candidates, 2 shots."""
    data = {
        "job": "fusegen",
        "name": "questions",
        "seed": SEED,
        "task": task(folder),
        "generations": {"path": str(folder / "generations.parquet"), "split": "fusegen"},
        "plms": [plm(name) for name in PLMS],
        "samples": {"per_plm": 20, "initial": 10, "rounds": 1},
        "filter": {"min_words": 5, "duplicates": "exact"},
        "selection": {"candidates": 8, "shots": 2, "held_out": 0.2},
        "weights": {"iterations": 2},
        "stm": {"rounds": SPAN, "final": SPAN},
        "eval": {
            "path": str(folder / "eval.jsonl"),
            "text": "context",
            "text_b": "question",
            "answer": "answer",
        },
    }
    return {**data, **changes}


def write(folder: Path) -> Path:
    """Write `contexts.jsonl`, `generations.parquet`, `eval.jsonl` and `job.yaml` into a folder."""
    for name, lines in (("contexts", contexts()), ("eval", evaluation())):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pq.write_table(pa.Table.from_pylist(rows()), folder / "generations.parquet")
    (folder / "job.yaml").write_text(yaml.safe_dump(config(folder), sort_keys=False))
    return folder


def small_bert(folder: Path) -> str:
    """A BERT of two narrow layers with the tokenizer of MiniLM-L6, untrained: quick, and good for nothing."""
    import torch
    from transformers import BertConfig, BertModel

    from actors.stms.pretrained import load_tokenizer

    tokenizer = load_tokenizer(None)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
