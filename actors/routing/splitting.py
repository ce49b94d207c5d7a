"""Which items fusers learn from, and which they are judged on."""

import numpy as np
import pandas as pd
import pyarrow as pa

from configs.schema.base import ConfigError
from configs.schema.foe import FoeConfig


def parts_of(config: FoeConfig, items: pd.DataFrame, source: pd.DataFrame) -> pa.Table:
    """The items with a column `part` (`fit`, `test`, or empty for neither), by the configured split."""
    split, n = config.split, len(items)
    shuffled = np.random.default_rng(config.seed).permutation(n)
    part = np.full(n, "", dtype=object)
    if split.column:
        if split.column not in source:
            raise ConfigError(
                f"split.column: the items have no column {split.column!r}; "
                f"there are {', '.join(source.columns)}"
            )
        values = source[split.column].astype(str)
        part[values.isin(split.fit)] = "fit"
        part[values.isin(split.test)] = "test"
        part[shuffled[split.limit or n :]] = ""
    else:
        used = shuffled[: split.limit or n]
        half = int(len(used) * split.share)
        part[used[:half]], part[used[half:]] = "fit", "test"
    for name, least in (("fit", 2), ("test", 1)):
        found = int((part == name).sum())
        if found < least:
            raise ConfigError(f"split: the part {name!r} has {found} of the {n} items; {least} are needed")
    return pa.Table.from_pandas(items.assign(part=part), preserve_index=False)
