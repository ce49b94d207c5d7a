import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.encoder import Encoder
from actors.stms import create
from actors.vectors import cache_folder, embed_once, read_vectors, text_hash
from configs.schema.stm import HeadStm

SPEC = HeadStm(batch_size=4)
TEXTS = ["a film", "a fine film", "", "words " * 40, "words " * 400] + [
    f"number {i} of many" for i in range(9)
]


@pytest.fixture(scope="module")
def encoder():
    return Encoder(SPEC)


def seeded_cache(folder, text, commit=True):
    """A cache that claims the vector of `text` is 0, 1, 2, ..."""
    call = folder / cache_folder("", SPEC).strip("/") / "call"
    call.mkdir(parents=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(384, dtype=np.float32)), 384)
    pq.write_table(pa.table({"hash": [text_hash(text)], "vector": column}), call / "0.parquet")
    if commit:
        (call.parent / "call.json").write_text(json.dumps({"rows": 1}))
    return str(folder)


@pytest.mark.ray
def test_the_cache_embeds_no_text_twice(tmp_path, encoder, ray_session):
    cache = seeded_cache(tmp_path / "cache", TEXTS[0])
    pq.write_table(pa.table({"text": TEXTS[:6] + TEXTS[:2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": TEXTS[6:]}), tmp_path / "b.parquet")
    files = [str(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    assert embed_once(files, cache, SPEC) == 13
    assert embed_once(files, cache, SPEC) == 0
    vectors, places = read_vectors([*TEXTS, "never seen", TEXTS[1]], cache, SPEC)
    assert sorted(places) == [*range(14), 15]
    in_order = vectors[np.argsort(places)]
    np.testing.assert_array_equal(in_order[0], np.arange(384))
    np.testing.assert_array_equal(in_order[1:14], encoder.embed(TEXTS[1:]))
    np.testing.assert_array_equal(in_order[14], in_order[1])


def test_unfinished_work_is_not_read(tmp_path):
    cache = seeded_cache(tmp_path, "a film", commit=False)
    assert read_vectors(["a film"], cache, SPEC)[0] is None


def test_head_takes_from_the_cache_and_computes_the_rest(tmp_path, encoder):
    model = create(SPEC, ("a", "b"), 0, cache=seeded_cache(tmp_path, "a film"))
    vectors = model._vectors(["another", "a film"])
    np.testing.assert_array_equal(vectors[1], np.arange(384))
    np.testing.assert_array_equal(vectors[0], encoder.embed(["another"])[0])


def test_other_encoders_have_other_folders():
    folders = {cache_folder("c", HeadStm(**change)) for change in ({}, {"layer": 2}, {"pooling": "first"})}
    assert len(folders) == 3
    assert cache_folder("c", HeadStm(c=5.0, batch_size=8)) in folders
