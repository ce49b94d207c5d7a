"""Models asked together instead of merged: the baseline that costs every model's inference."""

from collections.abc import Sequence

from torch import Tensor

from fusion.merging.average import normalised, working
from fusion.merging.heads import LabelSpace


def ensemble(
    probabilities: Sequence[Tensor], space: LabelSpace, *, coefficients: Sequence[float] | None = None
) -> Tensor:
    """Probabilities (n, labels) over the union of labels from those of every model (n, labels_i): for each
    label the weighted mean of the models that know it, then divided by the sum over labels."""
    scales = normalised(coefficients, len(probabilities))
    total = working(probabilities[0]).new_zeros(len(probabilities[0]), len(space.labels))
    for label, rows in enumerate(space.rows):
        known = zip(probabilities, rows, scales, strict=True)
        knowing = [(p[:, row], scale) for p, row, scale in known if row is not None]
        weight = sum(scale for _, scale in knowing)
        for column, scale in knowing:
            total[:, label].add_(column, alpha=scale / weight)
    return total / total.sum(dim=1, keepdim=True)


def vote(answers: Tensor) -> Tensor:
    """The answer (n,) that most models give, of answers (models, n); among equals that of the first model."""
    counts = (answers[:, None] == answers[None]).sum(dim=1)
    return answers.gather(0, counts.argmax(dim=0, keepdim=True))[0]
