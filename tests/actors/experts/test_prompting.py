"""What is told of a text while it is written is what will be its answer."""

import pytest

from actors.engines.base import Completion
from actors.experts.prompting import Pieces, answer_of
from configs.schema.expert import ExpertSpec
from tests.experts import remote


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "text",
    [
        "  A fine film. \n",
        "No.\n\nText: more",
        "ends in half a stop: \n\nTex",
        "a\n\nText:",
        "",
        "  ",
        "\n\nText:",
    ],
)
def test_pieces_are_the_answer(text, size):
    stop = ["\n\nText:", "<|end|>"]
    spec = ExpertSpec.model_validate(remote("far", "http://x/v1", sampling={"stop": stop})).model
    told: list[str] = []
    pieces = Pieces(stop, told.append)
    for start in range(0, len(text), size):
        pieces.add(text[start : start + size])
    answer = answer_of(spec, Completion(text, "stop"), None)
    assert answer.text.startswith("".join(told)) and "" not in told
    pieces.end(answer.text)
    assert "".join(told) == answer.text


def test_pieces_are_told_as_soon_as_they_are_sure():
    told: list[str] = []
    pieces = Pieces(["STOP"], told.append)
    for piece in (" One", " two", " ST", "ay", " STOP", "more"):
        pieces.add(piece)
    assert told == ["One", " two", " STay"]
