import numpy as np
import pyarrow as pa
import pytest

from actors.encoder import Encoder, fixed_batches
from configs.schema.stm import HeadStm

SPEC = HeadStm(batch_size=4)
TEXTS = ["a film", "a fine film", "", "words " * 40, "words " * 400] + [
    f"number {i} of many" for i in range(9)
]


@pytest.fixture(scope="module")
def encoder():
    return Encoder(SPEC)


def test_a_vector_depends_on_its_text_alone(encoder):
    vectors = encoder.embed(TEXTS)
    assert vectors.shape == (14, 384) and vectors.dtype == np.float32
    np.testing.assert_array_equal(encoder.embed(TEXTS[::-1])[::-1], vectors)
    for place in (0, 3, 7):
        np.testing.assert_array_equal(encoder.embed([TEXTS[place]])[0], vectors[place])
    assert len(np.unique(vectors, axis=0)) == 14


def test_is_a_batch_function_with_a_text_column(encoder):
    batch = encoder(pa.table({"id": [1, 2], "text": ["a film", "a fine film"]}))
    assert batch.column_names == ["id", "text", "vector"]
    assert batch.schema.field("vector").type == pa.list_(pa.float32(), 384)
    np.testing.assert_array_equal(batch["vector"].to_pylist()[1], encoder.embed(["a fine film"])[0])
    assert encoder(batch.select(["text"]).slice(0, 0)).num_rows == 0


def test_mean_pooling_ignores_padding(encoder):
    tokens = encoder._tokenizer(["a fine film"], return_tensors="pt")
    hidden = encoder._model(**tokens).last_hidden_state[0].mean(dim=0).detach().numpy()
    np.testing.assert_allclose(encoder.embed(["a fine film"])[0], hidden, atol=1e-5)


def test_batches_share_a_width():
    lengths = np.array([3, 16, 17, 5, 40, 2, 9])
    batches = [list(batch) for batch in fixed_batches(lengths, 3)]
    assert batches == [[0, 1, 3], [5, 6], [2], [4]]
