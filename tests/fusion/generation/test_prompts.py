import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.generation.prompts import feedback, zero_shot

INSTRUCTION = (
    "The new movie review in {} sentiment which is diverse in the expression compared to the above given "
    'samples is: "'
)
PREFIX = "The movie review is: "


def test_zero_shot_without_slots_is_the_template():
    template = 'The movie review in positive sentiment for a movie is: "'
    assert zero_shot(template) == template


def test_slots_are_filled_literally_and_in_one_pass():
    template = 'The context is: "<C>"\n"<Y>" is the answer of the following question: "'
    filled = zero_shot(template, context="about <Y> {0} \\1", answer="<C>")
    assert filled == 'The context is: "about <Y> {0} \\1"\n"<C>" is the answer of the following question: "'


def test_a_slot_without_a_text_is_refused():
    with pytest.raises(ValueError, match="<C>"):
        zero_shot('"<C>"\nIn other words, "')


def test_fact_17_feedback_is_shot_lines_then_a_blank_line_then_the_instruction():
    shots = [f"sample number {i}" for i in range(8)]
    prompt = feedback(shots, PREFIX, INSTRUCTION.format("positive"))
    lines = prompt.split("\n")
    assert lines[:8] == [PREFIX + shot for shot in shots]
    assert lines[8] == ""
    assert len(lines) == 10
    assert lines[9] == INSTRUCTION.format("positive")
    assert prompt.endswith('"')


def test_fact_17_label_words_stand_only_in_the_instruction():
    prompt = feedback(["a fine film", "a dull film"], PREFIX, INSTRUCTION.format("negative"))
    assert "negative" not in prompt.split("\n\n")[0]
    assert prompt.count("negative") == 1


def test_fact_17_prompts_of_two_rounds_differ_and_of_one_round_agree():
    instruction = INSTRUCTION.format("positive")
    first, second = (feedback(shots, PREFIX, instruction) for shots in (["one"], ["two"]))
    assert first != second
    assert feedback(["one"], PREFIX, instruction) == first


def test_pair_tasks_leave_two_blank_lines():
    prompt = feedback(["p[SEP]h"], "The pair is: ", '"<C>"\nIn other words, "', blank_lines=2, context="c")
    assert prompt == 'The pair is: p[SEP]h\n\n\n"c"\nIn other words, "'


def test_without_shots_only_the_instruction_is_asked():
    assert feedback([], PREFIX, 'say: "') == 'say: "'


def test_a_line_break_in_a_shot_does_not_make_a_second_shot():
    assert feedback(["one\ntwo"], PREFIX, "x").count("\n") == 2


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])), min_size=1, max_size=4))
def test_shots_are_never_scanned_for_slots_or_braces(shots):
    shots = [*shots, "{} {0} <C> <Y> %s"]
    prompt = feedback(shots, "P: ", 'I "<C>": "', context="given")
    assert prompt == "".join(f"P: {shot}\n" for shot in shots) + '\nI "given": "'


def test_released_feedback_prompts_are_rebuilt_to_the_letter(shared):
    lines = (shared / "data/fusegen_imdb/prompts.jsonl").read_text().splitlines()
    released = [row for row in map(json.loads, lines) if row["kind"] == "feedback"]
    assert len(released) == 6
    for row in released:
        shots = [line.removeprefix(PREFIX) for line in row["prompt"].split("\n")[:8]]
        assert feedback(shots, PREFIX, INSTRUCTION.format(row["label_name"])) == row["prompt"]
