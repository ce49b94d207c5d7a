"""Fine-tunes a model for one domain; all domains start from the same base and the same new head."""

import tempfile
from pathlib import Path
from typing import Any

from actors.merging.texts import part_of
from actors.stms import create
from cluster.storage import Run, Step
from configs.schema.merge import FineTuning
from configs.schema.stm import FullStm

MODEL = "model"


def tune(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint `model/`. `params`: fine_tuning, texts, domain, labels, seed."""
    texts, names = part_of(run, params["texts"], "train")
    labels = params["labels"]
    stm = create(spec_of(FineTuning.model_validate(params["fine_tuning"])), labels, seed=params["seed"])
    losses: list[float] = []
    stm.on_epoch = lambda _, loss: losses.append(round(loss, 6))
    stm.fit(stm.encode(texts, learn=True), [labels.index(name) for name in names])
    with tempfile.TemporaryDirectory() as folder:
        stm.save_pretrained(Path(folder), f"# Fine-tuned on the domain {params['domain']}\n")
        step.files.put_folder(MODEL, Path(folder))
    return {"texts": len(texts), "losses": losses}


def spec_of(spec: FineTuning) -> FullStm:
    """How a small task model is trained so."""
    return FullStm(
        model=spec.model,
        epochs=spec.epochs,
        learning_rate=spec.learning_rate,
        batch_size=spec.batch_size,
        max_length=spec.max_length,
        layers=spec.layers,
    )
