"""Which kind of classifier lies in a folder, and one clear line when none does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from actors import stms
from actors.engines.base import EngineError
from actors.experts.base import Answerer
from actors.stms.base import DESCRIPTION, Description
from cluster.storage import Storage, StorageError
from configs.load import locate
from configs.schema.expert import ClassifierModel
from configs.schema.stm import FullStm, SpanStm

FAULTS = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StorageError,
    stms.StmError,
)


def load_classifier(spec: ClassifierModel, labels: Sequence[str]) -> Answerer:
    """The classifier of a folder or of the hub; `EngineError` in one line when it cannot work."""
    try:
        with _folder(spec.model) as folder:
            described = Description.read(Path(folder)) if (Path(folder) / DESCRIPTION).is_file() else None
            small = described.spec if described is not None else None
            if isinstance(small, SpanStm):
                raise ValueError("is no classifier: it finds answers")
            if small is not None and not isinstance(small, FullStm):
                from actors.experts.small import SmallClassifier

                return SmallClassifier(spec, stms.load(Path(folder)), labels)
            from actors.experts.classifier import SequenceClassifier

            if small is not None:
                length = small.eval_max_length or small.max_length
                spec = spec.model_copy(update={"max_length": length})
            return SequenceClassifier(spec, folder, labels)
    except FAULTS as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise EngineError(f"{spec.model}: {lines[0] if lines else type(error).__name__}") from None


@contextmanager
def _folder(model: str) -> Iterator[str]:
    """The local folder of a model, a copy where it lies elsewhere; hub ids as they are."""
    if "://" in model:
        with Storage(model).folder("") as folder:
            yield str(folder)
    elif locate(model).is_dir():
        yield str(locate(model))
    elif model.startswith(("/", ".", "~")):
        raise EngineError(f"{model}: no such folder")
    else:
        yield model
