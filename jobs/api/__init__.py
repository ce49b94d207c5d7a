"""The jobs from Python: what notebooks and scripts use, by the same code as the command line.

    from jobs.api import FuseGen, FusionOfExperts, merge

    result = FuseGen("configs/fusegen/demo.yaml", run="runs/nb", samples__per_plm=100).run()
    result.classifier.predict(["A clever, warm film."])

    router = FusionOfExperts(prices={"small": 1, "large": 10}).fit({"small": p, "large": q}, labels)
    router.explain({"small": p_new, "large": q_new})

    merged = merge({"films": "runs/films/stm", "books": "runs/books/stm"}, data="reviews", out="merged")

A job takes a YAML file, a mapping or a configuration object (`configs.schema`), and keywords that replace
values of it: `seed=1`, `samples__rounds=2`. A finished run is read, not done again; one that was killed goes
on. A process that has called `ray.init` keeps its session; else one is started, and ended with the job.
Errors are those of the command line, each one line.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.merging.errors import CheckpointError
    from actors.routing.artefact import ArtefactError
    from cluster.session import SessionError
    from cluster.storage import ResumeError, StorageError
    from configs.schema.base import ConfigError
    from jobs.api.base import Job, Result
    from jobs.api.classifier import Classifier
    from jobs.api.comparing import Compare, Comparison
    from jobs.api.generation import FuseGen, Generated
    from jobs.api.merging import Merge, Merged, merge
    from jobs.api.router import Explanation, Router
    from jobs.api.routing import FusionOfExperts, Routed
    from jobs.drive import JobError

__all__ = [
    "ArtefactError",
    "CheckpointError",
    "Classifier",
    "Compare",
    "Comparison",
    "ConfigError",
    "Explanation",
    "FuseGen",
    "FusionOfExperts",
    "Generated",
    "Job",
    "JobError",
    "Merge",
    "Merged",
    "Result",
    "ResumeError",
    "Routed",
    "Router",
    "SessionError",
    "StorageError",
    "merge",
]
PLACES = {
    "actors.merging.errors": ("CheckpointError",),
    "actors.routing.artefact": ("ArtefactError",),
    "cluster.session": ("SessionError",),
    "cluster.storage": ("ResumeError", "StorageError"),
    "configs.schema.base": ("ConfigError",),
    "jobs.api.base": ("Job", "Result"),
    "jobs.api.classifier": ("Classifier",),
    "jobs.api.comparing": ("Compare", "Comparison"),
    "jobs.api.generation": ("FuseGen", "Generated"),
    "jobs.api.merging": ("Merge", "Merged", "merge"),
    "jobs.api.router": ("Explanation", "Router"),
    "jobs.api.routing": ("FusionOfExperts", "Routed"),
    "jobs.drive": ("JobError",),
}
"""Where names come from: they are imported when they are used, as PyTorch takes seconds."""


def __getattr__(name: str) -> Any:  # noqa: ANN401
    place = next((place for place, names in PLACES.items() if name in names), None)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(place), name)
