"""Pools of language models: recorded responses or short answers with their quality, and what routing sees.

The block of an expert is a code of its answer (equal answers to an item have equal codes, -1 is none), the
logarithm of the response's length where it is known, and principal components of the response's vector. The
item itself is a context that costs nothing: components of its text's vector.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actors.routing.pool import INPUTS, About, Pool
from actors.routing.recorded import Recording
from actors.routing.splitting import parts_of
from configs.schema.base import ConfigError
from configs.schema.foe import FoeConfig, RecordedExperts
from fusion.routing.answers import SHORT, codes, gist
from fusion.routing.projection import Projection

Floats = NDArray[np.float64]
Embed = Callable[[Sequence[str]], Floats]
"""Texts to vectors (n, d)."""
RESPONSE, SIZED = "response", "length and response"
"""What is in a block behind the code: components of the response's vector, if it has any; before them, its
length."""
DOMAINS = ("domain", "task", "dataset", "category", "subject")
ANSWERS = ("pred", "answer")
LENGTHS = ("response_chars", "output_chars")
LONG = float(np.log(1e4))
"""A length whose logarithm counts as 1."""


def recorded(config: FoeConfig, spec: RecordedExperts, embed: Embed | None) -> Pool:
    """The pool of a folder of recorded language models; without `embed` it has no vectors of texts."""
    found = Recording(spec)
    column = _quality_column(found, spec)
    found.keep_complete([column])
    quality = found.numbers(column, 0, 1)
    prices, unit = found.prices(config)
    columns = {"item": found.item_column("item")}
    domain = next((name for name in DOMAINS if name in found.items), None)
    columns |= {"domain": found.item_column(domain)} if domain else {}
    columns |= {"text": found.item_column("text")} if "text" in found.items else {}
    items = parts_of(config, pd.DataFrame(columns), found.items)
    fit = np.asarray(items["part"].to_pylist()) == "fit"
    texts = [str(text) for text in columns.get("text") or []]
    responses = found.values("response") if found.has("response") else None
    vectors = _vectors(config, texts, responses, embed) if embed else []
    prompted = vectors.pop(0) if vectors and config.features.prompt and texts else None
    blocks = _blocks(config, found, responses)
    kind = SIZED if blocks[0][1:] else RESPONSE
    projections = {
        name: Projection(config.features.dimensions).fit(of[fit])
        for name, of in zip(found.experts, vectors, strict=False)
        if of[fit].any()
    }
    for name, parts, of in zip(found.experts, blocks, vectors, strict=False):
        if name in projections:
            parts.append(projections[name].transform(of))
    inputs = None
    if prompted is not None:
        projections[INPUTS] = Projection(config.features.dimensions).fit(prompted[fit])
        inputs = projections[INPUTS].transform(prompted)
    return Pool(
        About(found.experts, "expert", (), unit, dropped=found.dropped),
        items,
        tuple(np.concatenate(of, axis=1) for of in blocks),
        quality,
        quality,
        prices,
        inputs=inputs,
        projections=projections,
        vectors=dict.fromkeys(found.experts, kind),
    )


def _vectors(
    config: FoeConfig, texts: list[str], responses: NDArray[np.object_] | None, embed: Embed
) -> list[Floats]:
    """Vectors of the items, then of each expert's responses, as configured; that of a short response is 0, as
    its code says all."""
    wanted, places = [], []
    if config.features.prompt and texts:
        wanted, places = list(texts), [np.arange(len(texts))]
    if config.features.responses and responses is not None:
        for column in responses.T:
            long = np.flatnonzero([len(_text(response)) > SHORT for response in column])
            places.append(long)
            wanted += [str(column[row]) for row in long]
    if not wanted:
        return []
    vectors = iter(np.split(embed(wanted), np.cumsum([len(rows) for rows in places])[:-1]))
    found = []
    for rows in places:
        of = next(vectors)
        whole = np.zeros((len(responses if responses is not None else texts), of.shape[1]))
        whole[rows] = of
        found.append(whole)
    return found


def _quality_column(found: Recording, spec: RecordedExperts) -> str:
    wins = [name for name in found.columns if name.startswith("win_")]
    candidates = [spec.quality] if spec.quality else ["score", "correct", *(wins if len(wins) == 1 else [])]
    column = next((name for name in candidates if found.has(name)), None)
    if column is None:
        raise ConfigError(
            f"experts.quality: {found.folder}: outputs.parquet has no column {' or '.join(candidates)}; "
            f"there are {', '.join(found.columns)}"
        )
    return column


def _blocks(config: FoeConfig, found: Recording, responses: NDArray[np.object_] | None) -> list[list[Floats]]:
    """Codes and lengths, as columns per expert."""
    n, k = len(found.items), len(found.experts)
    parts = [[np.full((n, 1), -1.0)] for _ in range(k)]
    if not config.features.responses:
        return parts
    answers = next((found.values(name) for name in ANSWERS if found.has(name)), responses)
    if answers is not None:
        given = [[gist(_text(answer)) for answer in column] for column in answers.T]
        for of, column in zip(parts, codes(given).T, strict=True):
            of[0] = column[:, None]
    length = next((name for name in LENGTHS if found.has(name)), None)
    if length or responses is not None:
        sizes = found.numbers(length, 0, np.inf) if length else _sizes(responses)
        for of, column in zip(parts, np.log1p(sizes).T, strict=True):
            of.append(column[:, None] / LONG)
    return parts


def block_of(said: Sequence[str], codes: Floats, kind: str, components: Floats | None) -> Floats:
    """The block (n, d) of responses that are given now, with their codes (n, 1), as recorded ones have it."""
    parts = [codes]
    if kind == SIZED:
        parts.append(np.log1p([[len(text)] for text in said]) / LONG)
    return np.hstack(parts if components is None else [*parts, components])


def _sizes(responses: NDArray[np.object_] | None) -> Floats:
    return np.array([[len(_text(response)) for response in row] for row in responses], float)  # type: ignore[union-attr]


def _text(value: object) -> str:
    return "" if pd.isna(value) else str(value)
