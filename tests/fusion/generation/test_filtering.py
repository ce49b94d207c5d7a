import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.generation.filtering import STATUSES, Filter, Rules, cut

TEN = "one two three four five six seven eight nine ten"
OTHER = "the quick brown fox jumps over a lazy dog near some river bank"


def status(raw, rules=None, label=0, shots=(), **given_):
    return Filter(rules or Rules(), shots).judge(raw, label, **given_).status


def test_fact_16_the_quote_ends_a_text():
    verdict = Filter(Rules(), []).judge(TEN + '" tail', 0)
    assert (verdict.text, verdict.status) == (TEN, "kept")


def test_fact_16_nine_words_are_too_few():
    assert status(TEN.removesuffix(" ten") + '"') == "short"


def test_fact_16_without_quote_the_last_full_stop_ends_a_text():
    assert cut("a b c d e f g h i j k. l m n", "quote") == "a b c d e f g h i j k."


def test_fact_16_a_text_without_an_end_is_rejected():
    assert status(TEN + " eleven twelve") == "uncut"


def test_fact_16_a_full_stop_inside_a_number_ends_a_text_too():
    assert cut(TEN + " 3.5 stars", "quote") == TEN + " 3."


def test_fact_16_double_spaces_count_only_for_the_authors():
    raw = 'a  b  c  d  e  f"'
    assert status(raw, Rules(word_count="fields")) == "kept"
    assert status(raw) == "short"


def test_fact_16_a_question_needs_its_mark():
    assert status(TEN + '"', Rules(cut="question")) == "no_question"
    assert cut(f"{TEN}? tail?", "question") == TEN + "?"


def test_fact_16_marked_news():
    rules = Rules(required={4: "$"}, forbidden=dict.fromkeys(range(4), "$"))
    raw = f'{TEN} $5 more"'
    assert status(raw, rules, label=2) == "forbidden_marker"
    assert status(raw, rules, label=4) == "kept"
    assert status(TEN + '"', rules, label=4) == "missing_marker"


def test_the_first_line_is_the_text_where_there_is_no_quote():
    assert cut("first line. more\nsecond", "quote") == "first line. more"
    assert cut('first\nstill "quoted"', "quote") == "first\nstill"


@pytest.mark.parametrize("raw", ["", '"', "\n", "?", "   ."])
@pytest.mark.parametrize("rule", ["quote", "question"])
def test_empty_continuations_are_rejected(raw, rule):
    assert status(raw, Rules(cut=rule)) in {"uncut", "no_question", "short"}


def test_pairs_are_stored_with_their_context():
    rules = Rules(pair=True)
    verdict = Filter(rules, []).judge(TEN + '"', 0, context="given first")
    assert verdict.text == f"given first[SEP]{TEN}"
    assert status(TEN + '"', rules, context=f" {TEN} ") == "same_as_context"


def test_a_question_must_not_tell_its_answer():
    rules = Rules(cut="question", pair=True)
    assert status(f"{TEN} in PARIS?", rules, context="c", answer="Paris") == "answer_in_question"
    assert status(f"{TEN} in Rome?", rules, context="c", answer="Paris") == "kept"


@pytest.mark.parametrize(
    "slot", ["<C>", "<Y>", "<X1>", "[Movie Title]", "[insert themes]", "{name}", "<movie>"]
)
def test_unfilled_slots_are_rejected(slot):
    assert status(f'{TEN} {slot} more"') == "placeholder"
    assert status(f'{TEN} {slot} more"', Rules(placeholders=False)) == "kept"


@pytest.mark.parametrize("aside", ["[sic]", "(the movie)", "[7 out of 10]", "a < b > c", "[...]", "<br />"])
def test_brackets_that_people_write_are_no_slots(aside):
    assert status(f'{TEN} {aside} more"') == "kept"


@pytest.mark.parametrize(
    "phrase",
    [
        "As an AI language model, I",
        "I'm sorry, but I can't help with that:",
        "I cannot generate content of",
        "I am an AI",
    ],
)
def test_refusals_are_rejected(phrase):
    assert status(f'{phrase} {TEN}"') == "refusal"
    assert status(f'{phrase} {TEN}"', Rules(refusals=False)) == "kept"


@pytest.mark.parametrize(
    "phrase",
    [
        "I'm sorry to say that",
        "I cannot recommend this film",
        "as an aimless drama",
        "I can't give it less than",
        "I'm sorry, but I can't stand",
        "I can't help but",
    ],
)
def test_reviewers_may_be_sorry(phrase):
    assert status(f'{phrase} {TEN}"') == "kept"


def test_echoes_of_the_prompt_are_rejected():
    rules = Rules(templates=("The movie review is:",))
    assert status(f'{TEN} the  Movie review is: good"', rules) == "template"


def test_copies_of_shots_are_rejected_even_with_other_ends():
    assert status(OTHER + '"', shots=[OTHER]) == "copy"
    assert status(f'{OTHER.upper()} indeed"', shots=[OTHER]) == "copy"
    assert status(OTHER + '"', shots=[TEN]) == "kept"
    assert status(OTHER + '"', Rules(copies=False), shots=[OTHER]) == "kept"


def test_repeated_texts_are_rejected_whatever_their_label():
    judge = Filter(Rules(), [])
    assert judge.judge(OTHER + '"', 0).status == "kept"
    again = judge.judge(OTHER + '"', 1)
    assert (again.status, again.of) == ("duplicate", OTHER)
    near = judge.judge(OTHER.replace(" ", ", ", 1) + '!"', 0)
    assert (near.status, near.of) == ("near_duplicate", OTHER)


def test_duplicate_rules_are_switches():
    changed = OTHER + "!"
    for mode, expected in {"off": ["kept"] * 3, "exact": ["kept", "duplicate", "kept"]}.items():
        judge = Filter(Rules(duplicates=mode), [])
        assert [judge.judge(t + '"', 0).status for t in (OTHER, OTHER, changed)] == expected


def test_remembered_texts_are_compared_with():
    judge = Filter(Rules(), [])
    judge.remember([OTHER])
    assert judge.judge(OTHER + '"', 0).status == "duplicate"


def test_one_hypothesis_may_serve_two_premises_but_not_one_twice():
    judge = Filter(Rules(pair=True), [])
    assert judge.judge(OTHER + '"', 0, context="first").status == "kept"
    assert judge.judge(OTHER + '"', 0, context="second").status == "kept"
    assert judge.judge(OTHER + '."', 1, context="first").status == "near_duplicate"


@given(st.lists(st.text(max_size=80), max_size=8))
def test_what_was_kept_passes_again(raws):
    rules = Rules(min_words=2)
    judge = Filter(rules, [])
    kept = [v.text for v in (judge.judge(raw, 0) for raw in raws) if v.status == "kept"]
    again = Filter(rules, [])
    assert [again.judge(text, 0, finished=True).status for text in kept] == ["kept"] * len(kept)


@given(st.text(max_size=60), st.sampled_from(["quote", "question"]), st.booleans())
def test_every_text_gets_a_verdict(raw, rule, pair):
    judge = Filter(Rules(cut=rule, pair=pair, min_words=1), ["{} <C>", "", raw])
    assert judge.judge(raw, 0, context="c" if pair else None).status in STATUSES


def test_verdicts_are_the_same_in_every_process():
    program = (
        "from fusion.generation.text import shingles, words;"
        "print(sorted(shingles(words('Ünï code, it’s one small text'), 3)))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


@pytest.fixture(scope="module")
def released(shared):
    pandas = pytest.importorskip("pandas")
    rows = pandas.read_parquet(shared / "data/fusegen_imdb/generations.parquet")
    prompts = pandas.read_json(shared / "data/fusegen_imdb/prompts.jsonl", lines=True)
    return rows[rows.split == "fusegen"], prompts[prompts.kind == "feedback"]


OFF = Rules(min_words=0, placeholders=False, refusals=False, copies=False, duplicates="off")


def test_fact_18_distinct_texts_of_the_released_unions(released):
    rows, _ = released
    for seed, distinct in ((1, 5975), (42, 5772), (12345, 5718)):
        judge = Filter(replace(OFF, duplicates="exact"), [])
        verdicts = Counter(
            judge.judge(text, 0, finished=True).status for text in rows[rows.seed == seed].text
        )
        assert verdicts == {"kept": distinct, "duplicate": 6000 - distinct}


def test_fact_18_exact_copies_of_shots_in_the_released_texts(released):
    rows, prompts = released
    prompt = prompts[prompts.seed == 12345].prompt.iloc[0]
    shots = [line.removeprefix("The movie review is: ") for line in prompt.split("\n")[:8]]
    llama = rows[(rows.seed == 12345) & (rows.plm == "llama-2-7b-chat-hf") & (rows["round"] > 0)].text
    judge = Filter(replace(OFF, copies=True), shots)
    verdicts = [judge.judge(text, 0, finished=True) for text in llama]
    assert sum(v.status == "copy" and v.text == v.of for v in verdicts) == 123
    assert sum(v.status == "copy" for v in verdicts) > 123
