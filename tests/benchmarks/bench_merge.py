"""A merge of three large random checkpoints: memory of each process, and the same bytes after two kills.

    python -m tests.benchmarks.bench_merge [FOLDER] [LAYERS]

Makes three Llamas (2048 wide, 6 layers: 1.7 GB each in float32), merges them by the average and by RegMean
without disturbance, and once more with its driver killed twice on the way. Prints the largest resident memory
of a process (shared pages of mapped files included), the seconds, and whether the two results are the same.
"""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests import corpus

MODELS, SEED = 3, 0
GIB = 1 << 30


def main(arguments: list[str]) -> None:
    """Measure and print."""
    folder = Path(arguments[0]) if arguments else Path(tempfile.mkdtemp(prefix="amalgam-"))
    layers = int(arguments[1]) if len(arguments) > 1 else 6
    folder.mkdir(exist_ok=True)
    try:
        size = prepare(folder, layers)
        print(f"{MODELS} models of {size / 1e9:.2f} GB each")
        whole, peak, seconds = run(folder, "whole", kills=0)
        print(f"undisturbed: {seconds:.0f} s, largest process {peak / GIB:.2f} GiB")
        again, peak, seconds = run(folder, "killed", kills=2)
        print(f"killed twice: {seconds:.0f} s, largest process {peak / GIB:.2f} GiB")
        print("same bytes" if whole == again else "DIFFERENT BYTES")
    finally:
        if not arguments:
            shutil.rmtree(folder, ignore_errors=True)


def prepare(folder: Path, layers: int) -> int:
    """Write models, texts and configuration; bytes of a model."""
    tokenizer = AutoTokenizer.from_pretrained("configs/embedded/critic")
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        tie_word_embeddings=False,
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    for number in range(MODELS):
        place = folder / f"model{number}"
        if not (place / "config.json").exists():
            torch.manual_seed(number)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.002)
            model.save_pretrained(place)
            tokenizer.save_pretrained(place)
    texts = [{"domain": f"d{i % MODELS}", **row} for i, row in enumerate(corpus.rows())]
    lines = [json.dumps({k: row[k] for k in ("domain", "text", "label_name")}) for row in texts]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    models = [{"name": f"m{i}", "model": str(folder / f"model{i}"), "domain": f"d{i}"} for i in range(MODELS)]
    job = {
        "job": "merge",
        "data": {"path": str(folder / "texts.jsonl"), "domains": [f"d{i}" for i in range(MODELS)]},
        "models": models,
        "methods": ["simple", "regmean"],
        "statistics": {"sequences": 32, "max_length": 64, "batch_size": 8},
        "shard_bytes": 1_000_000_000,
    }
    (folder / "merge.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    return sum(p.numel() * p.element_size() for p in model.parameters())


def run(folder: Path, name: str, *, kills: int) -> tuple[str, int, float]:
    """Digest of the result, the largest resident memory of a process, and seconds."""
    place, started = folder / name, time.perf_counter()
    command = [sys.executable, "-m", "jobs", "merge", str(folder / "merge.yaml"), "--run", str(place)]
    command += ["--address", "local"]
    peak = [0]
    for attempt in range(kills + 1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, peak, done), daemon=True)
        watcher.start()
        if attempt < kills:
            target = committed(place) + 4
            while committed(place) < target and process.poll() is None:
                time.sleep(0.1)
            below = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.wait()
            for child in psutil.wait_procs(below, timeout=15)[1]:
                child.kill()
        assert process.wait() == (0 if attempt == kills else -signal.SIGKILL)
        done.set()
        watcher.join()
    digest = hashlib.sha256()
    for file in sorted((place / "model").glob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest(), peak[0], time.perf_counter() - started


def committed(place: Path) -> int:
    """Steps that are done."""
    return len(list(place.glob("steps/*/manifest.json")))


def watch(pid: int, peak: list[int], done: threading.Event) -> None:
    """Note the largest resident memory among a process and its children."""
    while not done.wait(0.2):
        try:
            tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            continue
        for process in tree:
            try:
                peak[0] = max(peak[0], process.memory_info().rss)
            except psutil.Error:
                continue


if __name__ == "__main__":
    main(sys.argv[1:])
