"""The pool: what every expert returned for every item, as arrays, and how a run keeps them.

items.parquet            item, part (`fit` or `test`), and label, domain and text where there are any
pool.safetensors         blocks, values, quality, prices
projections.safetensors  per expert and for the items' own vectors: what made columns of them, if any
pool.json                experts, classes, unit, and what was found on the way
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load, save

from cluster.storage import Storage
from fusion.routing.projection import Projection

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
ARRAYS, ITEMS, ABOUT = "pool.safetensors", "items.parquet", "pool.json"
PROJECTIONS = "projections.safetensors"
INPUTS = "inputs"
"""Whose projection that of the items' own vectors is."""


@dataclass(frozen=True)
class About:
    """What a pool says of itself in JSON."""

    experts: tuple[str, ...]
    answer: Literal["label", "expert"]
    classes: tuple[str, ...] = ()
    """Names of the labels, by class id."""
    unit: str = "calls"
    """What prices are counted in."""
    dropped: int = 0
    """Items left out because not every expert has answered them."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Outputs of K experts for n items: `blocks` K arrays (n, d_k), `values` (n, A) what each
    answer is worth (labels: 1 for the right one; experts: quality), `quality` (n, K) what each expert's own
    answer is worth, `prices` (n, K) of these calls."""

    about: About
    items: pa.Table
    blocks: tuple[Floats, ...]
    values: Floats
    quality: Floats
    prices: Floats
    raw: dict[str, NDArray[Any]] = field(default_factory=dict)
    """`labels` and `confidence` (n, K) of classifiers that report one label."""
    inputs: Floats | None = None
    """A vector of each item itself (n, d), which no expert has to be asked for."""
    projections: dict[str, Projection] = field(default_factory=dict)
    """What made columns of vectors, by expert, and for the items' own (`inputs`); not read back."""
    vectors: dict[str, str] = field(default_factory=dict)
    """How recorded answers became blocks, by expert; not read back."""

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, part: str) -> Rows:
        """Rows of `fit` or `test`."""
        return np.flatnonzero(np.asarray(self.items["part"].to_pylist()) == part)

    def only(self, experts: Sequence[int] | None) -> "Pool":
        """The pool of some of its experts, by number; None: of all."""
        if experts is None:
            return self
        chosen = list(experts)
        names = tuple(self.about.experts[expert] for expert in chosen)
        return replace(
            self,
            about=replace(self.about, experts=names),
            blocks=tuple(self.blocks[expert] for expert in chosen),
            values=self.values if self.about.answer == "label" else self.values[:, chosen],
            quality=self.quality[:, chosen],
            prices=self.prices[:, chosen],
            raw={name: array[:, chosen] for name, array in self.raw.items()},
        )

    @property
    def expected_prices(self) -> Floats:
        """Mean price (K,) of a call over the items that are learnt from: what a decision may know."""
        return np.asarray(self.prices[self.rows("fit")].mean(axis=0))

    def seen(self, *, numbers: bool) -> tuple[Floats, ...]:
        """What a router sees of each item: blocks of the experts, and a context where responses are chosen.
        With `numbers`, codes of answers, which have no distances, are blanked."""
        if self.about.answer == "label":
            return self.blocks
        blocks = self.blocks
        if numbers:
            blocks = tuple(np.concatenate([np.zeros_like(b[:, :1]), b[:, 1:]], axis=1) for b in blocks)
        return blocks if self.inputs is None else (*blocks, self.inputs)

    @property
    def labels(self) -> Rows:
        """The answer (n,) that is worth most."""
        return np.asarray(self.values.argmax(axis=1))

    def write(self, files: Storage) -> None:
        """Publish it."""
        arrays = {f"block.{i}": block for i, block in enumerate(self.blocks)}
        arrays |= {"values": self.values, "quality": self.quality, "prices": self.prices}
        arrays |= {f"raw.{name}": value for name, value in self.raw.items()}
        arrays |= {} if self.inputs is None else {"inputs": self.inputs}
        files.write_bytes(ARRAYS, save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))
        files.write_table(ITEMS, self.items)
        if self.projections:
            files.write_bytes(PROJECTIONS, save(projection_arrays(self.projections)))
        files.write_json(ABOUT, asdict(self.about))

    @classmethod
    def read(cls, files: Storage) -> "Pool":
        """Read what `write` wrote."""
        arrays = load(files.read_bytes(ARRAYS))
        about = files.read_json(ABOUT)
        return cls(
            About(**{name: tuple(v) if isinstance(v, list) else v for name, v in about.items()}),
            files.read_table(ITEMS),
            tuple(arrays[f"block.{i}"] for i in range(sum(name.startswith("block.") for name in arrays))),
            arrays["values"],
            arrays["quality"],
            arrays["prices"],
            {name.removeprefix("raw."): a for name, a in arrays.items() if name.startswith("raw.")},
            arrays.get("inputs"),
        )


def projection_arrays(projections: Mapping[str, Projection]) -> dict[str, NDArray[Any]]:
    """What projections have learnt, under `OWNER.PART`."""
    return {
        f"{name}.{part}": np.ascontiguousarray(array)
        for name, projection in projections.items()
        for part, array in projection.to_arrays().items()
    }
