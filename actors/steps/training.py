"""Training of small task models on the accepted samples: per PLM, on the union, weighted or not."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import TypeAdapter

from actors import stms
from actors.steps.data import first_of_each, held_out, read_kept, read_step
from actors.steps.kinds import PROBABILITIES, kind_of
from cluster.storage import Run, Step
from configs.schema.stm import StmSpec


def stm_spec(data: dict[str, Any]) -> Any:  # noqa: ANN401
    """The configuration of a small task model from its JSON form."""
    return TypeAdapter(StmSpec).validate_python(data)


def train(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Train one model and, when asked, score every sample of the chain with it.

    `params`: chain, plms (whose samples it learns from; None for all), held_out (share it must not see),
    per_plm (samples of each PLM at most, where given), weights (key of a weighting step, or None), stm,
    labels, kind, seed, score (whether to write probabilities), checkpoints (whether to keep the weights of
    every epoch, where there are epochs). A set with fewer than two classes trains no classifier; the facts
    say so.
    """
    kind, table = kind_of(params), read_kept(run, params["chain"])
    targets = kind.targets(table)
    chosen = _chosen(table, params["plms"], params["held_out"], params.get("per_plm"))
    facts = {"n": int(chosen.sum()), "n_all": table.num_rows}
    if why := kind.lacking(targets[chosen]):
        return {**facts, "skipped": why}
    weights = _weights(run, params["weights"], table.column("id"))
    texts = np.array(table.column("text").to_pylist(), dtype=object)
    model = stms.create(stm_spec(params["stm"]), params["labels"], params["seed"], vector_cache(run))
    mine = model.encode(list(texts[chosen]), learn=True)
    if params["checkpoints"]:
        model.on_epoch = partial(_save_checkpoint, model, mine, step)
    model.fit(mine, targets[chosen], None if weights is None else weights[chosen])
    save(model, step)
    if params["score"]:
        scores = kind.scores(model, model.encode(list(texts)), targets)
        step.files.write_table(PROBABILITIES, kind.table(table.column("id"), scores))
    return facts


def vector_cache(run: Run) -> str:
    """Where the run keeps vectors of texts, for models of kind `head`."""
    return run.below("vectors").uri


def _save_checkpoint(model: Any, encoded: Any, step: Step, epoch: int, loss: float) -> None:  # noqa: ANN401, ARG001
    module, _ = model.probe(encoded)
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    import safetensors.torch

    step.files.write_bytes(f"checkpoints/{epoch:03d}.safetensors", safetensors.torch.save(state))


def read_checkpoints(run: Run, key: str) -> list[dict[str, Any]]:
    """Weights of the epochs of a training step; none where they were not kept."""
    files = run.below(f"steps/{key}/checkpoints")
    names = files.names()
    if not names:
        return []
    import safetensors.torch  # torch takes more than a second

    return [safetensors.torch.load(files.read_bytes(name)) for name in names]


def save(model: Any, step: Step) -> None:  # noqa: ANN401
    """Publish a trained model as the folder `model` of a step."""
    card = f"# Task model for {', '.join(model.labels)}\n\nTrained on generated texts.\n"
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder), card)
        step.files.put_folder("model", Path(folder))


def load_model(run: Run, key: str) -> Any:  # noqa: ANN401
    """The model of a committed training step."""
    with run.folder(f"steps/{key}/model") as folder:
        return stms.load(folder)


def _chosen(table: pa.Table, plms: list[str] | None, share: float, per_plm: int | None) -> NDArray[np.bool_]:
    owners = table.column("plm").to_pylist()
    chosen = np.ones(table.num_rows, dtype=bool)
    if plms is not None:
        chosen &= pc.is_in(table.column("plm"), pa.array(plms)).to_numpy().astype(bool)
    ids = table.column("id").to_pylist()
    if share:
        chosen &= ~held_out(ids, owners, share)
    return chosen if per_plm is None else chosen & first_of_each(ids, owners, per_plm)


def _weights(run: Run, key: str | None, ids: pa.ChunkedArray) -> NDArray[np.float64] | None:
    """Weights of a weighting step, in the order of `ids`."""
    if key is None:
        return None
    table = read_step(run, key, "weights.parquet")
    positions = pc.index_in(ids, table.column("id").combine_chunks())
    if positions.null_count:
        raise ValueError(f"{positions.null_count} samples have no weight in {key}")
    return np.asarray(table.column("weight").to_numpy()[positions.to_numpy()])
