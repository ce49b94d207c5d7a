"""Distil recorded language models: train a miniature of each from the texts that it wrote.

    python tests/benchmarks/distil_recorded.py FOLDER [--plm gpt2-xl ...] [--steps 1500] [--threads 2]

Reads `fusegen_imdb/initial_10k.parquet` of the data folder beside the repository and runs the pretrain job
once per model. The miniatures are for tests on one's own machine: the texts may not be passed on, so neither
may these.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = ROOT.parent / "shared" / "data" / "fusegen_imdb" / "initial_10k.parquet"
PLMS = ("gpt2-xl", "llama-2-7b-chat-hf", "vicuna-7b-1.5v", "opt-6.7b", "chatglm3-6b-base", "flan-t5-xl")


def main() -> int:
    """Train the miniatures that are asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the models are written, one folder each")
    parser.add_argument("--plm", nargs="+", choices=PLMS, default=PLMS)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    sys.path.insert(0, str(ROOT))
    from configs.load import read_yaml
    from configs.schema.base import ConfigError
    from configs.schema.pretrain import PretrainConfig
    from jobs.pretrain import pretrain

    task = read_yaml(ROOT / "configs" / "tasks" / "imdb.yaml")
    for plm in options.plm:
        corpus = {"path": str(RECORDED), "where": {"plm": plm}}
        training = {"steps": options.steps, "batch_tokens": 3072}
        config = PretrainConfig.model_validate(
            {
                "name": plm,
                "output": str(options.folder / plm),
                "task": task,
                "corpus": corpus,
                "training": training,
                "threads": options.threads,
            }
        )
        try:
            pretrain(config, lambda line, plm=plm: print(f"{plm}: {line}", flush=True))
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
