"""A merge by one worker and by two: how long from the first statistics to the merged checkpoint.

    python -m tests.benchmarks.bench_merge_workers [FOLDER] [LAYERS]

Four BERTs of base size (12 layers) with a few hundred texts each, RegMean; a worker is a task with one
thread. Two on two cores ought to take little more than half as long.
"""

import json
import multiprocessing
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from tests import corpus

MODELS, TEXTS, CPUS = 4, 256, 4
"""CPUS are logical; those that no worker may have are kept back."""


def main(arguments: list[str]) -> None:
    """Measure and print."""
    folder = Path(arguments[0]) if arguments else Path(tempfile.mkdtemp(prefix="amalgam-"))
    layers = int(arguments[1]) if len(arguments) > 1 else 12
    try:
        prepare(folder, layers)
        seconds = {}
        for workers in (1, 2):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds[workers] = pool.apply(merged, (folder, workers))
            print(f"{workers} at work: {seconds[workers]:.1f} s")
        print(f"two take {seconds[2] / (seconds[1] / 2):.2f} times half as long as one")
    finally:
        if not arguments:
            shutil.rmtree(folder, ignore_errors=True)


def prepare(folder: Path, layers: int) -> None:
    """Write models, texts and configuration."""
    folder.mkdir(exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained("configs/embedded/critic")
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=layers, vocab_size=len(tokenizer)))
    for number in range(MODELS):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.002)
        model.save_pretrained(folder / f"model{number}")
        tokenizer.save_pretrained(folder / f"model{number}")
    rows = [{"domain": f"d{n}", **row} for n in range(MODELS) for row in (corpus.rows() * 9)[: 2 * TEXTS]]
    lines = [json.dumps({k: row[k] for k in ("domain", "text", "label_name")}) for row in rows]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    names = [f"d{number}" for number in range(MODELS)]
    job = {
        "job": "merge",
        "data": {"path": str(folder / "texts.jsonl"), "domains": names, "test_share": 0.05},
        "models": [{"name": n, "model": str(folder / n.replace("d", "model")), "domain": n} for n in names],
        "methods": ["regmean"],
        "heads": "positions",
        "statistics": {"sequences": TEXTS, "max_length": 64},
    }
    (folder / "merge.yaml").write_text(yaml.safe_dump(job, sort_keys=False))


def merged(folder: Path, workers: int) -> float:
    """Seconds from the start of the first statistics to the merged checkpoint."""
    import ray
    from ray.util.placement_group import placement_group

    from jobs.api import Merge

    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    ray.get(placement_group([{"CPU": CPUS - workers}]).ready())  # kept back from the job
    place = folder / f"by-{workers}"
    shutil.rmtree(place, ignore_errors=True)
    Merge(folder / "merge.yaml", run=place).run(progress=False)
    done = {one.parent.name: one for one in place.glob("steps/*/manifest.json")}
    wall = {key: json.loads(one.read_text())["wall_seconds"] for key, one in done.items()}
    ends = {key: one.stat().st_mtime for key, one in done.items()}
    first = min(ends[key] - wall[key] for key in done if key.startswith("collect-grams"))
    return max(ends[key] for key in done if key.startswith("assemble")) - first


if __name__ == "__main__":
    main(sys.argv[1:])
