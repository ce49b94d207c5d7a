"""The items that live experts are asked about: read, split, checked against what experts were trained on.

items.parquet    item, text, part, and label (class id), domain and reference where there are any; a row group
                 is a block of items
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from actors.routing.splitting import parts_of
from actors.sources import label_ids, names_of, read_rows, strings_of, texts_of
from cluster.storage import Run, Step, digest
from configs.schema.base import ConfigError
from configs.schema.expert import Items, LiveExperts
from configs.schema.foe import FoeConfig, Split
from configs.schema.task import Source

FILE = "items.parquet"


def check(config: FoeConfig) -> None:
    """Read the items of live experts, and what these were trained on; ConfigError for what is wrong."""
    live = config.experts
    if isinstance(live, LiveExperts):
        items, _ = read(live.items, live.labels, config.split, config.seed, labelled=labelled(config))
        trained = {e.name: e.trained_on for e in live.pool if e.trained_on}
        known(items, trained, in_sample=config.in_sample)


def labelled(config: FoeConfig) -> bool:
    """Whether the items of live experts need labels."""
    live = config.experts
    return isinstance(live, LiveExperts) and (
        config.answer == "label" or any(expert.judges_labels for expert in live.pool)
    )


def write(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Write the items. `params`: items, labels, labelled, split, seed, block, content (digests of files)."""
    items, classes = read(
        Items.model_validate(params["items"]),
        params["labels"],
        Split.model_validate(params["split"]),
        params["seed"],
        labelled=params["labelled"],
    )
    with step.files.writing(FILE) as stream:
        pq.write_table(items, stream, compression="zstd", row_group_size=params["block"])
    texts = digest(items["text"].to_pylist(), 24)
    return {"n": len(items), "classes": list(classes), "texts": texts}


def trained_on(run: Run, step: Step, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Look for items in what experts were trained on. `params`: items (step), sources by expert, in_sample,
    content (digests of files)."""
    items = run.read_table(f"steps/{params['items']}/{FILE}", ["item", "text"])
    sources = {name: Source.model_validate(source) for name, source in params["sources"].items()}
    return {"warnings": known(items, sources, in_sample=params["in_sample"])}


def read(
    source: Items, labels: Sequence[str], split: Split, seed: int, *, labelled: bool
) -> tuple[pa.Table, tuple[str, ...]]:
    """The items that are learnt from or judged, and the names of the labels; ConfigError in one line."""
    rows = read_rows(source)
    texts = texts_of(source, rows)
    columns: dict[str, Any] = {"item": _ids(source, rows), "text": texts.to_pylist()}
    classes = tuple(labels)
    if labelled:
        names = names_of(source, rows, texts)
        classes = classes or tuple(sorted(set(names)))
        if len(classes) < 2:
            raise ConfigError(f"experts.items: all items have the label {classes[0]!r}; two are needed")
        columns["label"] = label_ids(source, names, classes).to_pylist()
    for name, column in (("domain", source.domain), ("reference", source.reference)):
        if column or (name == "domain" and name in rows.column_names):
            columns[name] = strings_of(source, rows, column or name).to_pylist()
    config = FoeConfig.model_construct(**{"split": split, "seed": seed})
    whole = parts_of(config, pd.DataFrame(columns), rows.to_pandas())
    table = whole.filter([bool(part) for part in whole["part"].to_pylist()])
    return table.replace_schema_metadata(None), classes


def _ids(source: Items, rows: pa.Table) -> list[str]:
    if source.id is None:
        return [str(row) for row in range(len(rows))]
    ids: list[str] = strings_of(source, rows, source.id).to_pylist()
    if None in ids or len(set(ids)) < len(ids):
        raise ConfigError(f"experts.items.id: column {source.id!r} does not name every item differently")
    return ids


def known(items: pa.Table, sources: dict[str, Source], *, in_sample: bool) -> list[str]:
    """One line for each expert that was trained on items; ConfigError with it unless `in_sample`.

    Texts are compared exactly, but for case and spaces.
    """
    ids = {_normal(text): item for item, text in zip(*(items[c].to_pylist() for c in ("item", "text")))}  # noqa: B905
    warnings = []
    for name, source in sources.items():
        seen = {_normal(text) for text in texts_of(source, read_rows(source)).to_pylist()}
        both = [item for text, item in ids.items() if text in seen]
        if not both:
            continue
        line = f"expert {name} was trained on {len(both)} of {len(ids)} items, e.g. item {both[0]}"
        if not in_sample:
            raise ConfigError(f"{line}; take them out of the items, or allow it with in_sample: true")
        warnings.append(line)
    return warnings


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
