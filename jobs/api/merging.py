"""Merging from Python: checkpoints of one architecture become one."""

import filecmp
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from actors.merging.estimating import estimate
from actors.merging.merging import GRAMS, RESULT
from configs.schema.base import ConfigError
from configs.schema.merge import DomainData, MergeConfig
from jobs import merge as job
from jobs.api.base import Job, Result, Work
from jobs.api.classifier import Classifier


class Merged(Result):
    """What a merge left."""

    job = "merge"

    @property
    def checkpoint(self) -> str:
        """Folder or URI of the merged model, as `transformers` reads it; of its Gram files where a model was
        alone."""
        return self.run.below(self._made).uri

    @property
    def _made(self) -> str:
        return RESULT if len(self.summary["models"]) > 1 else GRAMS

    @cached_property
    def model(self) -> Any:  # noqa: ANN401
        """The merged model, loaded by `transformers`."""
        import transformers

        from actors.stms.pretrained import quiet

        with self.run.folder(RESULT) as folder, quiet():
            name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
            return getattr(transformers, name).from_pretrained(folder)

    @cached_property
    def tokenizer(self) -> Any:  # noqa: ANN401
        """Its tokenizer."""
        from transformers import AutoTokenizer

        with self.run.folder(RESULT) as folder:
            return AutoTokenizer.from_pretrained(folder)

    @cached_property
    def classifier(self) -> Classifier:
        """The merged classifier; ArtefactError where it is none."""
        return Classifier(self.path)

    @cached_property
    def methods(self) -> pd.DataFrame:
        """Accuracy of every method and model by domain, and elsewhere; empty where nothing was judged."""
        rows = {
            name: {part: score["accuracy"] for part, score in of.items() if "accuracy" in score}
            for name, of in self.summary["methods"].items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def save(self, out: str | PathLike[str]) -> Path:
        """Copy `checkpoint` to a local folder; ConfigError where something else lies there."""
        target = Path(out)
        with self.run.folder(self._made) as folder:
            names = sorted(path.name for path in folder.iterdir())
            there = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
            same, *_ = filecmp.cmpfiles(folder, target, there, shallow=False)
            if there and sorted(same) != names:
                raise ConfigError(f"{target}: not empty; name another folder")
            if not there:
                shutil.copytree(folder, target, dirs_exist_ok=True)
        return target

    def __str__(self) -> str:
        return job.result_table(self.summary)


class Merge(Job[MergeConfig, Merged]):
    """Several checkpoints of one architecture become one, by one method or several that are compared.

    >>> result = Merge("configs/merge/demo.yaml", run="runs/merged", data__train_limit=50).run()
    >>> result.methods, result.model, result.tokenizer
    """

    schema, result = MergeConfig, Merged
    work: ClassVar[Work] = job

    def plan(self) -> str:
        """Tensors, disk, memory and work."""
        checkpoints, plans, table = job.check(self.config, self.origin)
        return job.describe(self.config, checkpoints, plans, estimate(self.config, plans, table))


def merge(
    models: Sequence[str | PathLike[str]] | Mapping[str, Any],
    *,
    method: str = "regmean",
    data: str | PathLike[str] | Mapping[str, Any] | DomainData | None = None,
    out: str | PathLike[str] | None = None,
    run: str | PathLike[str] | None = None,
    address: str = "auto",
    progress: bool = True,
    **settings: Any,  # noqa: ANN401
) -> Merged:
    """Merge checkpoints (folders or hub ids), and copy the result to `out`.

    `models` by name, or else named after their folders; the name is the domain of `data` whose texts are the
    model's own, unless it is a mapping with `model` and `domain` or `grams`. `data` is a folder or file (see
    `configs.schema.merge.DomainData`); `settings` are further keys of the configuration: `base=…`,
    `alpha=.5`, `methods=["simple", "regmean"]` to have others compared. Errors as of `Merge`.

    >>> merge({"films": "runs/films/stm", "books": "runs/books/stm"}, data="reviews", out="merged").model
    """
    named = models if isinstance(models, Mapping) else {Path(fspath(m)).name: m for m in models}
    if len(named) < len(models):
        raise ConfigError("models: several have the same folder name; give them by name")
    checkpoints = [_checkpoint(name, of, texts=data is not None) for name, of in named.items()]
    config: dict[str, Any] = {"models": checkpoints, "result": method, "methods": [method]}
    if data is not None:
        config["data"] = {"path": fspath(data)} if isinstance(data, str | PathLike) else data
    done = Merge(config, run=run, address=address, **settings).run(progress=progress)
    if out is not None:
        done.save(out)
    return done


def _checkpoint(name: str, of: Any, *, texts: bool) -> dict[str, Any]:  # noqa: ANN401
    if isinstance(of, Mapping):
        return {"name": name, **of}
    return {"name": name, "model": fspath(of), **({"domain": name} if texts else {})}
