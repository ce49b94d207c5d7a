"""Distil recorded language models: train a miniature of each from the texts that it wrote.

    python tests/benchmarks/distil_recorded.py [FOLDER] [--plm gpt2-xl ...] [--threads 2]

Reads `fusegen_imdb/initial_10k.parquet` of the data folder beside the repository and runs the pretrain job:
once on the texts of all, then from there once per model. `configs/fusegen/imdb_live.yaml` lets them write.
They are for tests on one's own machine: the texts may not be passed on, so neither may these.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORDED = ROOT.parent / "shared" / "data" / "fusegen_imdb" / "initial_10k.parquet"
PLMS = ("gpt2-xl", "llama-2-7b-chat-hf", "vicuna-7b-1.5v", "opt-6.7b", "chatglm3-6b-base", "flan-t5-xl")


def main() -> int:
    """Train the miniatures that are asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/miniatures"))
    parser.add_argument("--plm", nargs="+", choices=PLMS, default=PLMS)
    parser.add_argument("--base-steps", type=int, default=700)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    sys.path.insert(0, str(ROOT))
    from configs.load import resolve
    from configs.schema.base import ConfigError
    from configs.schema.pretrain import PretrainConfig
    from jobs.pretrain import pretrain

    def distil(name: str, steps: int, writers: Sequence[str], **more: Any) -> None:
        corpus = [{"path": str(RECORDED), "where": {"plm": plm}} for plm in writers]
        training = {"steps": steps, "batch_tokens": 3072}
        output = str(options.folder / name)
        config = resolve(
            {"name": name, "task": "imdb", "output": output, "corpus": corpus, "training": training, **more},
            PretrainConfig,
            {"threads": options.threads},
        )
        pretrain(config, lambda line: print(f"{name}: {line}", flush=True))

    base = options.folder / "base"
    try:
        if not base.exists():
            distil("base", options.base_steps, PLMS)
        for plm in options.plm:
            if not (options.folder / plm).exists():
                distil(plm, options.steps, [plm], start=str(base), check={"max_new_tokens": 80})
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
