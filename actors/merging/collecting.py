"""Statistics of one model on its own texts, as a task that may die at any time: what it has published stays.

Gram matrices are collected one block at a time: only the block's weights and hidden states are in memory.
"""

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from actors.merging import grams, models
from actors.merging.checkpoints import Checkpoint, fetch
from actors.merging.errors import CheckpointError
from actors.merging.texts import part_of
from cluster.storage import Run, Step, Storage, bytes_digest
from configs.schema.merge import Statistics
from fusion.merging.architecture import Stage, width
from fusion.merging.collection import Counted, collect, evaluating, everything, no_padding
from fusion.merging.fisher import diagonal_fisher
from fusion.merging.gram import Gram, doubt
from fusion.merging.streaming import Flow, Streamer, collect_stage

FISHER, FINGERPRINT = "fisher.safetensors", "fingerprint"


def opened(run: Run, source: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a model: what a step has written, a folder, or the hub's."""
    if "step" in source:
        path = f"steps/{source['step']}/model"
        folder = Path(run.at(path)) if run.local else _copy(run.uri, path)
        return Checkpoint(folder, source["name"])
    return Checkpoint(fetch(source["model"], source.get("revision")), source["name"])


@lru_cache
def _copy(uri: str, path: str) -> Path:
    """A folder of a run that is not on this machine, for as long as this process lives."""
    target = tempfile.mkdtemp(prefix="amalgam-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    with Run(uri).folder(path) as folder:
        shutil.copytree(folder, target, dirs_exist_ok=True)
    return Path(target)


def check_grams(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Whether Gram files that another run has published belong to a model. `params`: source, grams."""
    checkpoint, about = opened(run, params["source"]), grams.read_manifest(Storage(params["grams"]))
    if about.get(FINGERPRINT) != checkpoint.fingerprint():
        raise CheckpointError(
            f"{checkpoint.name}: the Gram files {params['grams']} were collected from other weights "
            f"({about.get('model')})"
        )
    return {"few": [], "sequences": about["sequences"]}


def collect_grams(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write Gram files. `params`: source, texts, domain, statistics."""
    spec = Statistics.model_validate(params["statistics"])
    checkpoint = opened(run, params["source"])
    architecture = models.architecture_of(checkpoint)
    texts = part_of(run, params["texts"], "train")[0][: spec.sequences]
    if not texts:
        raise CheckpointError(f"{checkpoint.name}: the domain {params['domain']} has no texts to learn from")
    flows = [Flow(batch) for batch in models.batches(checkpoint, texts, spec.batch_size, spec.max_length)]
    rows: dict[str, int] = {}
    few: list[str] = []
    skipped = 0
    for stage, found in by_stage(step, checkpoint, architecture, flows, counted_of(spec)):
        if not grams.has_stage(step.files, stage):
            grams.write_stage(step.files, stage, found)
        rows |= {name: gram.rows for name, gram in found.items()}
        few += [name for name, gram in found.items() if doubt(gram.rows, gram.width, alpha=0)]
        skipped = max([skipped, *(gram.skipped for gram in found.values())])
        if skipped > len(flows) // 10:
            raise CheckpointError(f"{checkpoint.name}: {skipped} of {len(flows)} batches are not finite")
    about = {
        "model": checkpoint.name,
        FINGERPRINT: checkpoint.fingerprint(),
        "texts": bytes_digest("\0".join(texts).encode()),
        "sequences": len(texts),
        "max_length": spec.max_length,
        "masked": not spec.count_padding,
        "dtype": "float32",
        "rows": rows,
        "skipped_batches": skipped,
        "warning": f"{len(few)} matrices rest on few rows and may give inputs away" if few else "",
    }
    grams.write_manifest(step.files, about)
    return {"sequences": len(texts), "few": few, "skipped": skipped, FINGERPRINT: about[FINGERPRINT]}


def counted_of(spec: Statistics) -> Counted:
    """Which tokens count."""
    return everything if spec.count_padding else no_padding


def by_stage(step: Step, checkpoint: Checkpoint, architecture: Any, flows: list[Flow], counted: Any) -> Any:  # noqa: ANN401
    """Names and Gram matrices of stages: streamed, or from the whole model where files are named otherwise
    than its modules."""
    try:
        model = models.hollow(checkpoint)
    except CheckpointError:
        model = models.whole(checkpoint)
        batches = [flow.inputs for flow in flows]
        found = collect(model, architecture.groups, batches, counted=counted)
        for stage in architecture.stages:
            yield stage.name, {group.name: found[group.name] for group in stage.groups}
        return
    loader, streamer = models.Loader(model, checkpoint, architecture.stages), Streamer(model, architecture)
    loader.load_around()
    for number, stage in enumerate(architecture.stages):
        loader.load(stage.name)
        if grams.has_stage(step.files, stage.name):
            known = grams.read_stage(step.files, stage.name, widths(checkpoint, stage))
            with evaluating(model):
                for flow in flows:
                    streamer.advance(flow, number)
            yield stage.name, known
        else:
            yield stage.name, collect_stage(streamer, flows, number, counted=counted)
        loader.drop(stage.name)


def widths(checkpoint: Checkpoint, stage: Stage) -> dict[str, int]:
    """Input features of each group of a stage."""
    return {group.name: width(group, checkpoint.shapes) for group in stage.groups}


def collect_fisher(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the diagonal of the Fisher matrix. `params` as of `collect_grams`."""
    spec = Statistics.model_validate(params["statistics"])
    checkpoint = opened(run, params["source"])
    texts = part_of(run, params["texts"], "train")[0][: spec.fisher_samples]
    model = models.whole(checkpoint).float()
    if not hasattr(model, "num_labels") or "Classification" not in type(model).__name__:
        raise CheckpointError(f"{checkpoint.name}: fisher merges classifiers, not a {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = True
    parameters = dict(model.named_parameters())

    def log_probabilities(batch: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = model(**batch).logits[0]
        return torch.log_softmax(logits, -1)

    samples = list(models.batches(checkpoint, texts, 1, spec.max_length))
    fisher = diagonal_fisher(log_probabilities, parameters, samples)
    step.files.write_bytes(FISHER, save({name: t.contiguous().cpu() for name, t in fisher.mean().items()}))
    return {
        "samples": fisher.samples,
        "skipped": fisher.skipped,
        FINGERPRINT: checkpoint.fingerprint(),
    }


def take_over(run: Run, other: Run, models: Sequence[Checkpoint] | None) -> list[str]:
    """Take over from another run what was collected from these models, as they are now, or where None are
    given what it fine-tuned and collected from that; the keys of these steps. They are named by all that
    they depend on, so that only what is asked for again is used."""
    known = None if models is None else {model.fingerprint() for model in models}
    taken = []
    for key in other.names("steps"):
        if not key.startswith(("tune-", "collect-")) or not other.exists(f"steps/{key}/manifest.json"):
            continue
        manifest = other.read_json(f"steps/{key}/manifest.json")
        if known is None or manifest.get(FINGERPRINT) in known:
            run.adopt(other, f"steps/{key}")
            taken.append(key)
    return taken


def read_grams(run: Run, place: Mapping[str, Any], stage: Stage, like: Checkpoint) -> dict[str, Gram]:
    """Matrices of a stage from a step of this run, or from a folder that another has published."""
    return grams.read_stage(files_of(run, place), stage.name, widths(like, stage))


def files_of(run: Run, place: Mapping[str, Any]) -> Storage:
    """Where Gram files are."""
    return run.below(f"steps/{place['step']}") if "step" in place else Storage(place["grams"])
