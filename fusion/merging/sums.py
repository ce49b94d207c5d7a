"""What RegMean keeps of the models it merges: sums, so that models come and go in any order.

With coefficients l, Gram matrices G and D = W - W_ref for some reference: sum l G, sum l G D,
sum l diag(G) D and sum l D. From these follow the merged weight for any alpha, and by how much it beats the
average, without data.
"""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from fusion.merging.average import coefficient
from fusion.merging.gram import Gram

TENSORS = "gram", "full", "diagonal", "plain"
NUMBERS = "energy", "weight", "precision", "fewest"
NOISE = 8
"""Units of rounding below which what is left of a sum is not told from nothing."""


class Sums:
    """What models add to one Gram matrix's linear maps, around `reference` (m, n), which is kept as it is."""

    def __init__(self, reference: Tensor, *, dtype: torch.dtype = torch.float64) -> None:
        m, n = reference.shape
        self.reference = reference
        self.gram = torch.zeros(m, m, dtype=dtype, device=reference.device)
        """S = sum l G."""
        # Laid out by columns, as the weights of linear maps are, and as systems are solved.
        self.full, self.diagonal, self.plain = (
            torch.zeros(n, m, dtype=dtype, device=reference.device).mT for _ in range(3)
        )
        """Sums of l G D, of l diag(G) D and of l D."""
        self.energy = 0.0
        """sum l tr(D^T G D)."""
        self.weight = 0.0
        """sum l."""
        self.precision = torch.finfo(dtype).eps
        """Rounding of the coarsest Gram matrix in here."""
        self.fewest: int | None = None
        """Rows that the poorest Gram matrix in here rests on."""

    def add(self, gram: Gram, weight: Tensor, scale: float = 1.0) -> None:
        """Take in a model: its Gram matrix, its weight (m, n), and its coefficient l > 0."""
        self._count(gram, weight, coefficient(scale))
        self.fewest = min(gram.rows, gram.rows if self.fewest is None else self.fewest)

    def remove(self, gram: Gram, weight: Tensor, scale: float = 1.0) -> None:
        """Take out a model that was added with the same arguments."""
        before = self.gram.diagonal().clone()
        self._count(gram, weight, -coefficient(scale))
        gone = self.gram.diagonal() <= NOISE * self.precision * before
        for sums in (self.gram, self.full, self.diagonal):
            sums[gone] = 0
        self.gram[:, gone] = 0

    def absorb(self, other: "Sums") -> None:
        """Add the sums of other models around the same reference."""
        if other.reference.shape != self.reference.shape or not torch.equal(other.reference, self.reference):
            raise ValueError("sums around different references do not add up")
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine.add_(theirs)
        self.energy += other.energy
        self.weight += other.weight
        self.precision = max(self.precision, other.precision)
        known = [rows for rows in (self.fewest, other.fewest) if rows is not None]
        self.fewest = min(known, default=None)

    def average(self) -> Tensor:
        """The average (m, n) of the models, weighted by their coefficients, in the finer type of sums and
        reference."""
        if not self.weight > 0:
            raise ValueError("there is no model to merge")
        return self.reference + self.plain / self.weight

    def state(self) -> tuple[dict[str, Tensor], dict[str, float | int | None]]:
        """All that is needed to go on later, without the models: tensors and numbers by name."""
        tensors = {name: getattr(self, name) for name in TENSORS}
        return {**tensors, "reference": self.reference}, {name: getattr(self, name) for name in NUMBERS}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, float | int | None]) -> Self:
        """The sums of a `state`, whose tensors are taken over. Raises ValueError if shapes do not agree."""
        reference, gram = tensors["reference"], tensors["gram"]
        m = len(reference)
        if gram.shape != (m, m) or any(tensors[name].shape != reference.shape for name in TENSORS[1:]):
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            raise ValueError(f"these are not the sums of one linear map: {shapes}")
        sums = cls(reference[:, :0], dtype=gram.dtype)
        for name in (*TENSORS, "reference"):
            setattr(sums, name, tensors[name])
        for name in NUMBERS:
            setattr(sums, name, numbers[name])
        return sums

    def _tensors(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, name) for name in TENSORS)

    def _count(self, gram: Gram, weight: Tensor, scale: float) -> None:
        if weight.shape != self.reference.shape or gram.width != len(weight):
            raise ValueError(
                f"a weight {tuple(weight.shape)} with {gram.width} input features does not fit one of "
                f"{tuple(self.reference.shape)}"
            )
        # An expert that no token was routed to has no say, but a share of the average.
        total, share = gram.symmetric().to(self.gram.device), scale / max(gram.rows, 1)
        self.precision = max(self.precision, torch.finfo(total.dtype).eps)
        self.weight += scale
        self.gram.add_(total, alpha=share)
        delta = weight.to(self.full) - self.reference.to(self.full)
        if delta.any():
            pulled = total.to(self.full) @ delta
            self.full.add_(pulled, alpha=share)
            self.energy += share * float(pulled.mul_(delta).sum(dtype=torch.float64))
            self.diagonal.addcmul_(total.diagonal().to(self.full)[:, None], delta, value=share)
            self.plain.add_(delta, alpha=scale)
