"""Reads outputs that were recorded, and says in one line what is wrong with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.load import locate
from configs.schema.base import ConfigError
from configs.schema.foe import FoeConfig, RecordedExperts

FILES = ("items.parquet", "outputs.parquet")
PER_10K, PER_CALL = "cost_per_10k", "cost_usd"
DOLLARS = "$ per 10,000 requests"
MAX_MISSING = 0.05
"""Share of the items that may be left out because an expert has no answer."""


class Recording:
    """The two tables of a recorded folder, aligned: arrays have the `items` in rows, `experts` in columns."""

    def __init__(self, spec: RecordedExperts) -> None:
        """Read and check the folder; ConfigError in one line."""
        self.folder = folder_of(spec)
        items, outputs = (_table(self.folder / name) for name in FILES)
        self._check_columns(items, outputs)
        repeated = items.item[items.item.duplicated()]
        if len(repeated):
            raise self._error(FILES[0], f"item {repeated.iloc[0]} occurs more than once")
        everyone = list(dict.fromkeys(outputs.expert))
        absent = [name for name in spec.names if name not in everyone]
        if absent:
            raise ConfigError(f"experts.names: no expert {absent[0]!r}; there are {', '.join(everyone)}")
        self.experts = tuple(map(str, spec.names or everyone))
        outputs = outputs[outputs.expert.isin(self.experts)]
        twice = outputs[outputs.duplicated(["item", "expert"])]
        if len(twice):
            row = twice.iloc[0]
            raise self._error(FILES[1], f"expert {row['expert']} has item {row['item']} more than once")
        self._outputs = outputs.set_index(["expert", "item"]).sort_index()
        self.items = items.sort_values("item", ignore_index=True)
        self.dropped = 0

    def _check_columns(self, items: pd.DataFrame, outputs: pd.DataFrame) -> None:
        for name, table, needed in (
            (FILES[0], items, ("item",)),
            (FILES[1], outputs, ("item", "expert")),
        ):
            for column in needed:
                if column not in table:
                    raise self._error(name, f"no column {column!r}; there are {', '.join(table.columns)}")
            if not len(table):
                raise self._error(name, "holds no rows")

    def _error(self, file: str, problem: str) -> ConfigError:
        return ConfigError(f"{self.folder / file}: {problem}")

    def has(self, column: str) -> bool:
        """Whether the outputs have a column."""
        return column in self._outputs

    @property
    def columns(self) -> list[str]:
        """Columns of the outputs."""
        return list(self._outputs.columns)

    def keep_complete(self, columns: Sequence[str]) -> None:
        """Leave out items for which an expert has no row, or no number in one of `columns`."""
        found = np.stack([self._complete(expert, columns) for expert in self.experts], axis=1)
        lacking = (~found).mean(axis=0)
        complete = found.all(axis=1)
        if not complete.any() or (~complete).mean() > MAX_MISSING:
            worst = int(lacking.argmax())
            raise self._error(
                FILES[1],
                f"expert {self.experts[worst]} lacks a usable answer to {lacking[worst]:.0%} of the items; "
                f"at most {MAX_MISSING:.0%} may be left out (choose others with experts.names)",
            )
        self.dropped = int((~complete).sum())
        self.items = self.items[complete].reset_index(drop=True)

    def _complete(self, expert: str, columns: Sequence[str]) -> np.ndarray:
        rows = self._outputs.loc[[expert]].droplevel(0)
        usable = rows[list(columns)].notna().all(axis=1) if columns else pd.Series(True, rows.index)
        return usable.reindex(self.items.item, fill_value=False).to_numpy(bool)

    def values(self, column: str) -> np.ndarray:
        """A column of the outputs (n, K), objects or numbers."""
        columns = [
            self._outputs[column].loc[expert].reindex(self.items.item).to_numpy() for expert in self.experts
        ]
        return np.stack(columns, axis=1)

    def numbers(self, column: str, low: float, high: float) -> np.ndarray:
        """A column of the outputs (n, K) as numbers in [low, high]; ConfigError for others."""
        try:
            found = self.values(column).astype(float)
        except (TypeError, ValueError):
            raise self._error(FILES[1], f"column {column!r} does not hold numbers") from None
        wrong = np.argwhere((found < low) | (found > high) | np.isinf(found))
        if len(wrong):
            row, expert = wrong[0]
            raise self._error(
                FILES[1],
                f"{column} of expert {self.experts[expert]} for item {self.items.item[row]} is "
                f"{found[row, expert]:g}; allowed: {low:g} to {high:g}",
            )
        return found

    def item_column(self, name: str) -> list[Any] | None:
        """A column of the items as strings; None where there is none."""
        return [str(value) for value in self.items[name]] if name in self.items else None

    def prices(self, config: FoeConfig) -> tuple[np.ndarray, str]:
        """Prices (n, K) of the calls and their unit: configured, recorded, from `experts.csv`, or 1 each."""
        shape = (len(self.items), len(self.experts))
        unit, prices = DOLLARS, np.ones(shape)
        if config.cost_column:
            prices, unit = prices * self._listed(config), config.cost_column
        elif self.has(PER_10K):
            prices = self.numbers(PER_10K, 0, np.inf)
        elif self.has(PER_CALL):
            prices = self.numbers(PER_CALL, 0, np.inf) * 10_000
        else:
            unit = "calls"
        for name, price in config.prices.items():
            if name not in self.experts:
                raise ConfigError(f"prices: no expert {name!r}; there are {', '.join(self.experts)}")
            prices[:, self.experts.index(name)] = price
        return prices, config.unit or unit

    def _listed(self, config: FoeConfig) -> np.ndarray:
        """Prices (K,) in `experts.csv`, but for those that are configured."""
        column = config.cost_column
        path = self.folder / "experts.csv"
        try:
            table = pd.read_csv(path).set_index("expert")
            listed = table[column].reindex(self.experts)
            listed = listed.where(~listed.index.isin(list(config.prices)), 0)
        except (OSError, KeyError, ValueError):
            raise ConfigError(f"cost_column: {path}: holds no columns 'expert' and {column!r}") from None
        if listed.isna().any() or (listed < 0).any():
            name = listed.index[listed.isna() | (listed < 0)][0]
            raise ConfigError(f"cost_column: {path}: {column} of expert {name} is no number of at least 0")
        return listed.to_numpy(float)


def folder_of(spec: RecordedExperts) -> Path:
    """The folder of recorded outputs; ConfigError when there is none."""
    if not spec.path:
        raise ConfigError(
            "experts.path: missing, it must name a folder with items.parquet and outputs.parquet"
        )
    folder = locate(spec.path)
    for name in FILES:
        if not (folder / name).is_file():
            raise ConfigError(f"experts.path: no such file: {folder / name}")
    return folder


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as Parquet: {' '.join(str(error).split())[:200]}") from None
