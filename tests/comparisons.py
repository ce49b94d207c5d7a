"""A small comparison: three recorded writers, whose models are tiny BERTs."""

from pathlib import Path
from typing import Any

import yaml

from tests import corpus
from tests.experts import bert


def write(folder: Path) -> Path:
    """Write what a comparison needs into a folder: `corpus.write`, `bert`, and `compare.yaml`."""
    corpus.write(folder)
    bert(folder / "bert", corpus.LABELS, seed=1)
    (folder / "compare.yaml").write_text(yaml.safe_dump(config(folder), sort_keys=False))
    return folder


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """The comparison on the files of `write`."""
    return {
        **corpus.config(folder, **corpus.SHORT),
        "job": "compare",
        "stm": {
            "rounds": corpus.LINEAR,
            "final": {
                "kind": "full",
                "model": str(folder / "bert"),
                "epochs": 12,
                "learning_rate": 3e-3,
                "max_length": 32,
            },
        },
        "routing": {"held_out": 0.3, "policy": {"neighbours": 5, "rates": [0, 0.01, 0.1]}},
        "merging": {
            "statistics": {"sequences": 24, "max_length": 32, "batch_size": 8, "fisher_samples": 8},
        },
        "elsewhere": {"matinee": {"path": str(folder / "eval.jsonl"), "limit": 30}},
        "requests": {"timed": 2},
        **changes,
    }
