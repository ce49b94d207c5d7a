"""The model that finds answers: characters and tokens, windows, training, and what it leaves on disk."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from actors.stms import StmError, create, load
from actors.stms.pretrained import load_tokenizer
from actors.stms.windows import Windows, gathered
from configs.schema.stm import SpanStm
from fusion.generation.influence import Probe, gradient_dot, last_layer_of_spans
from fusion.generation.spans import best_span
from tests import questions

QUICK = {
    "epochs": 1,
    "learning_rate": 5e-4,
    "batch_size": 4,
    "max_length": 32,
    "stride": 8,
    "dtype": "float32",
}
PLACES = ["Paris", "Zürich", "São Paulo", "Kraków"]
TEXTS = [
    f"{name} left {first} for {second} in {1900 + i}.[SEP]{asked}"
    for i, (name, first, second) in enumerate(
        [(n, a, b) for n in ("Anna", "Émile") for a in PLACES for b in PLACES]
    )
    for asked in ("Who left?", "When was that?")
]
Y = np.array(
    [
        (0, text.index(" ")) if "Who" in text else (text.index("19"), text.index("19") + 4)
        for text in TEXTS
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(None)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A BERT of two narrow layers."""
    return questions.small_bert(tmp_path_factory.mktemp("small"))


def model(**settings):
    return create(SpanStm(**{**QUICK, **settings}), ["question"], 0)


def windows(text, tokenizer, max_length=64, stride=16):
    return Windows.of([text], tokenizer, max_length, stride).passages[0]


@pytest.mark.parametrize(
    ("context", "answer", "nth"),
    [
        ("Émile Roux left Zürich for São Paulo.", "São Paulo", 0),
        ("Émile Roux left Zürich for São Paulo.", "Émile Roux", 0),
        ("Gül saw Gül, and Gül saw Gül's cat.", "Gül", 2),
        ("It cost $3.5 million, or 50%.", "$3.5 million", 0),
        ("naïve e\u0301tudes — „quotation“", "e\u0301tudes", 0),
    ],
)
def test_characters_to_tokens_and_back_with_accents_and_repeated_words(tokenizer, context, answer, nth):
    start = [i for i in range(len(context)) if context.startswith(answer, i)][nth]
    passage = windows(f"{context}[SEP]What is it?", tokenizer)
    first, last = passage.tokens(np.array([start, start + len(answer)]))
    assert passage.characters(first, last) == (start, start + len(answer))


def test_a_span_inside_a_token_is_that_token(tokenizer):
    passage = windows("Berlin-born musicians[SEP]Who?", tokenizer)
    first, last = passage.tokens(np.array([1, 3]))
    assert passage.characters(first, last) == (0, 6)
    assert passage.tokens(np.array([20, 99])) == (len(passage.offsets) - 1,) * 2


def test_windows_overlap_by_the_stride_and_cover_the_context_once(tokenizer):
    words = " ".join(f"w{i}" for i in range(60))
    passage = windows(f"{words}[SEP]Which is it?", tokenizer, max_length=32, stride=8)
    whole = tokenizer(words, add_special_tokens=False, return_offsets_mapping=True)
    assert_array_equal(passage.offsets, whole["offset_mapping"])
    read = [passage.ids[w][p] for w, p in zip(passage.windows, passage.places, strict=True)]
    assert read == whole["input_ids"]
    room = 32 - 3 - len(tokenizer("Which is it?", add_special_tokens=False)["input_ids"])
    assert len(passage.ids) == 1 + -(-(len(whole["input_ids"]) - room) // (room - 8))
    # Of a stretch that two windows share, each reads the half further from its edge.
    ends = [int(np.flatnonzero(passage.windows == w).max()) for w in range(len(passage.ids) - 1)]
    assert ends == [(w + 1) * (room - 8) + 3 for w in range(len(ends))]
    assert all(len(ids) <= 32 for ids in passage.ids)
    assert passage.types[0].sum() == room + 1


def test_a_long_question_leaves_room_for_the_context(tokenizer):
    passage = windows(f"Anna left Paris.[SEP]{'why ' * 100}?", tokenizer, max_length=32, stride=8)
    assert len(passage.ids) == 1
    assert (passage.types[0] == 0).sum() == 8 + 2
    assert passage.context == "Anna left Paris."


def test_what_is_gathered_comes_from_the_places_where_tokens_are_read(tokenizer):
    texts = ["Anna left Paris.[SEP]Who?", f"{'all the words ' * 20}[SEP]What?"]
    encoded = Windows.of(texts, tokenizer, 32, 8)
    inputs, where = encoded.padded(np.array([1, 0]), torch.device("cpu"))
    ids = gathered(inputs["input_ids"], where, -5)
    long, short = (tokenizer(t.split("[SEP]")[0], add_special_tokens=False)["input_ids"] for t in texts[::-1])
    assert ids[0].tolist() == long
    assert ids[1].tolist() == short + [-5] * (len(long) - len(short))


@pytest.mark.slow
def test_learns_to_find_answers():
    finder = model(epochs=4, max_length=48, layers=3)
    encoded = finder.encode(TEXTS)
    finder.fit(encoded, Y)
    predicted = finder.predict(encoded)
    assert_allclose([np.exp(row).sum(axis=1) for row in predicted], 1)
    assert (finder.answers(encoded, predicted) == Y).all(axis=1).mean() > 0.9
    unseen = finder.encode(["In Oslo we met when Clara left Vienna for Rome in 1855.[SEP]When was that?"])
    ((start, end),) = finder.answers(unseen, finder.predict(unseen))
    assert unseen.passages[0].context[start:end] == "1855"


def test_contexts_longer_than_a_window_have_one_prediction(small):
    texts = [text.replace("left", "left the old and very quiet harbour town of") for text in TEXTS[:8]]
    y = [(0, text.index(" ")) for text in texts]
    finder = model(model=small, max_length=24)
    encoded = finder.encode(texts)
    assert max(len(passage.ids) for passage in encoded.passages) > 1
    found = finder.fit(encoded, y).predict(encoded)
    assert [row.shape for row in found] == [(2, len(p.offsets)) for p in encoded.passages]
    assert_allclose([np.exp(row).sum(axis=1) for row in found], 1)


@pytest.mark.parametrize("dropout", [False, True])
def test_same_seed_same_bits(small, dropout):
    finder = model(model=small, dropout=dropout)
    encoded = finder.encode(TEXTS)
    first = finder.fit(encoded, Y).predict(encoded)
    finder.fit(encoded, Y[::-1])
    assert all(map(np.array_equal, finder.fit(encoded, Y).predict(encoded), first))
    other = create(SpanStm(**QUICK, model=small, dropout=dropout), ["question"], 1)
    assert not np.array_equal(other.fit(encoded, Y).predict(encoded)[0], first[0])


def test_samples_of_weight_zero_change_nothing_and_others_count_by_their_weight(small):
    finder = model(model=small)
    encoded, some = finder.encode(TEXTS), np.arange(len(TEXTS)) % 4 > 0
    weights = np.where(some, 0.5, 0.0)
    without = finder.fit(encoded.take(np.flatnonzero(some)), Y[some], weights[some]).predict(encoded)
    assert all(map(np.array_equal, finder.fit(encoded, Y, weights).predict(encoded), without))
    assert not np.array_equal(finder.fit(encoded, Y, weights * 2).predict(encoded)[0], without[0])


@pytest.mark.parametrize(
    ("y", "weights", "said"),
    [
        (Y[:, 0], None, "spans of at least one character"),
        (Y[:, ::-1], None, "spans of at least one character"),
        (Y, -np.ones(len(Y)), "non-negative weights"),
        (Y, np.zeros(len(Y)), "at least one text"),
    ],
)
def test_what_cannot_be_learnt_is_refused(small, y, weights, said):
    finder = model(model=small)
    with pytest.raises(StmError, match=said):
        finder.fit(finder.encode(TEXTS), y, weights)


def test_a_context_without_tokens_is_refused(tokenizer):
    with pytest.raises(StmError, match="a context has no tokens"):
        windows("\u200b[SEP]What?", tokenizer)


def test_the_folder_opens_as_ours_and_as_a_plain_checkpoint(small, tmp_path):
    finder = model(model=small)
    encoded = finder.encode(TEXTS)
    before = finder.fit(encoded, Y).predict(encoded)
    finder.save_pretrained(tmp_path, "# A card\n")
    assert all(map(np.array_equal, load(tmp_path).predict(encoded), before))
    plain, tokens = (of.from_pretrained(tmp_path) for of in (AutoModelForQuestionAnswering, AutoTokenizer))
    context, question = TEXTS[0].split("[SEP]")
    inputs = tokens(question, context, return_tensors="pt")
    output = plain(**inputs)
    inside = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])
    ends = [logits[0][inside].detach().numpy() for logits in (output.start_logits, output.end_logits)]
    assert best_span(*ends, 30) == best_span(*before[0], 30)


def test_influence_by_the_closed_form_is_that_of_the_gradients_of_the_last_layer(small):
    finder = model(model=small, layers=0)
    encoded = finder.encode(TEXTS[:10])
    gradients = finder.fit(encoded, Y[:10]).gradients(encoded, Y[:10])
    places = finder.places(encoded, Y[:10])
    rows = zip(finder.predict(encoded), places, strict=True)
    right = np.exp([[row[0, first], row[1, last]] for row, (first, last) in rows])
    closed = last_layer_of_spans(gradients[:6], gradients[6:], right[6:])
    network, logits = finder.probe(encoded)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.endswith("qa_outputs.weight"))
    probe = Probe(network, logits, places)
    assert_allclose(gradient_dot(probe, np.arange(6), np.arange(6, 10)), closed, rtol=1e-3, atol=1e-7)
