"""The FuseGen job on a span task: from contexts to a model that finds answers."""

from typing import Any

import pytest
from transformers import AutoModelForQuestionAnswering

from actors.board import Board
from actors.routing.artefact import ArtefactError
from actors.steps.runner import StoppedError
from configs.schema.fusegen import VARIANTS
from fusion.generation.spans import phrases
from jobs import report
from jobs.api.classifier import Classifier
from jobs.table import result_table
from tests import questions
from tests.docs.blocks import undocumented
from tests.jobs.conftest import Conducted, coordinated, ids_of_chains, results

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def asked(once):
    """A folder of `questions.write`, with a model that is quickly trained."""

    def fill(folder):
        questions.write(folder)
        (folder / "bert").mkdir()
        questions.small_bert(folder / "bert")

    return once("questions", fill)


def config(folder, **changes) -> dict[str, Any]:
    span = {**questions.SPAN, "model": str(folder / "bert")}
    return questions.config(folder, **{"stm": {"rounds": span, "final": span}, **changes})


def run(asked, folder, **changes) -> Conducted:
    return Conducted(folder, coordinated(asked, str(folder), **config(asked, **changes)))


@pytest.fixture(scope="module")
def done(ray_session, asked, tmp_path_factory) -> Conducted:
    """The undisturbed run."""
    return run(asked, tmp_path_factory.mktemp("spans") / "run")


def test_samples_are_contexts_with_questions_that_do_not_give_their_answers_away(done):
    rows = done.dataset()
    years = {row["sentence"]: row["year"] for row in questions.contexts()}
    assert len(rows) == 40
    for row in rows:
        context, _, question = row["text"].partition("[SEP]")
        assert row["answer"] == years[context] == context[row["answer_start"] :][: len(row["answer"])]
        assert question.endswith("?")
        assert question.count("?") == 1
        assert row["answer"] not in question
    assert {row["label_name"] for row in rows} == {"question"}
    weights = [row["weight"] for row in rows]
    assert sum(weights) == pytest.approx(40)
    assert max(weights) > min(weights) > 0


def test_the_summary_has_exact_match_and_f1(done):
    final = done.summary["final"]
    assert final["n"] == 24
    assert 0 <= final["exact_match"] <= final["f1"] <= 1
    assert final["ci95"][0] <= final["f1"] <= final["ci95"][1]
    assert final["not_in_context"] == 0
    assert set(done.summary["baselines"]) == {*questions.PLMS, "union", "union_swa"}
    for score in done.summary["baselines"].values():
        assert 0 < score["against_result"]["p_value"] <= 1
    assert [0 <= entry["f1"] <= 1 for entry in done.summary["rounds"]] == [True, True]
    diagnosis = done.summary["rounds"][0]["diagnosis"]
    assert set(diagnosis["shares"]) == set(diagnosis["label_agreement"]) == set(questions.PLMS)
    assert undocumented("fusegen", done.summary) == set()


def test_shots_are_pairs_and_the_prompts_of_round_1_show_them(done):
    shots = done.shots(done.summary["rounds"][0]["selection"])
    assert [len(of) for of in shots["clerk"]] == [2]
    (key,) = done.steps("r1w0-requests")
    (block, *_) = done.run.read_table(f"steps/{key}/requests.parquet").to_pylist()
    request = block["requests"][0]
    first, second, *blank, context, asked = request["prompt"].split("\n")
    assert all(
        line.startswith("The Context-Question pair is: ") and "[SEP]" in line for line in (first, second)
    )
    assert blank == ["", ""]
    assert context.endswith(f'is: The context is: "{request["context"]}"')
    assert asked == f'"{request["answer"]}" is the answer of the following question: "'


def test_report_table_and_evaluation_speak_of_f1(done, asked, command):
    page = report.write(str(done.folder), None)
    with open(page, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    assert "exact match" in text
    assert "24 real questions" in text
    assert "accuracy" not in text.split("<pre>")[0].split('id="shots"')[0].replace("accuracy of", "")
    assert "F1" in result_table(done.summary)
    columns = ["--text", "context", "--text-b", "question", "--answer", "answer"]
    status, said, _ = command("evaluate", done.folder, "--data", asked / "eval.jsonl", *columns)
    final = done.summary["final"]
    assert (status, f"F1 {final['f1']:.4f}" in said, "24 questions" in said) == (0, True, True)
    status, _, said = command("evaluate", done.folder, "--data", asked / "eval.jsonl")
    assert (status, "text_b (question) and answer" in said) == (2, True)


def test_the_model_opens_as_a_plain_checkpoint_and_is_not_served(done, command):
    assert AutoModelForQuestionAnswering.from_pretrained(done.folder / "stm").config.num_hidden_layers == 2
    assert "question-answering" in (done.folder / "stm/README.md").read_text()
    status, _, said = command("serve", done.folder)
    assert status == 2
    assert "models that find answers are not served" in said
    with pytest.raises(ArtefactError, match="not served"):
        Classifier(done.folder)


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(done, asked, tmp_path, monkeypatch):
    enter = Board.enter

    def stop(board, phase):
        if phase.startswith("weighing"):
            raise StoppedError
        enter(board, phase)

    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(Board, "enter", stop)
        run(asked, tmp_path)
    assert not (tmp_path / "stm").exists()
    again = run(asked, tmp_path)
    assert results(again.folder) == results(done.folder)
    assert ids_of_chains(again.folder) == ids_of_chains(done.folder)


def test_language_models_that_ship_write_about_phrases_found_in_contexts(ray_session, asked, tmp_path):
    plms = [
        {
            "name": name,
            "engine": {"kind": "transformers", "model": f"configs/embedded/{name}"},
            "sampling": {"max_new_tokens": 40},
            "num_cpus": 0.5,
        }
        for name in ("critic", "fan")
    ]
    source = {"path": str(asked / "contexts.jsonl"), "text": "sentence"}
    # They know reviews alone: their sentences end in quotation marks, and no question mark is to be had.
    task = questions.task(asked, cut="quote", contexts=source)
    more = {"plms": plms, "generations": None, "samples": {"per_plm": 8, "initial": 4, "rounds": 1}}
    left = run(asked, tmp_path, task=task, variant=["fusegen", "random_shots"], **more)
    assert left.summary["samples"]["plms"] == {"critic": 8, "fan": 8}
    assert set(left.summary["baselines"]) >= {"critic", "fan", "union", "union_swa", "random_shots"}
    for row in left.dataset():
        context = row["text"].partition("[SEP]")[0]
        assert (row["answer_start"], row["answer_start"] + len(row["answer"])) in phrases(context)


def test_all_variants_but_sungen_run_on_the_same_generations(ray_session, asked, tmp_path):
    names = [name for name in VARIANTS if name != "sungen"]
    few = {"samples": {"per_plm": 12, "initial": 6, "rounds": 1}, "weights": {"iterations": 1}}
    left = run(asked, tmp_path, variant=names, baselines={"plms": False, "union": False}, **few)
    assert {name: v["samples"]["kept"] for name, v in left.summary["variants"].items()} == dict.fromkeys(
        names, 24
    )
    assert set(left.summary["baselines"]) == set(names) - {"fusegen"}
    assert len(left.steps("r0w0-generate")) == 1


@pytest.mark.parametrize("influence", ["gradient_dot", "lissa", "tracin"])
def test_influence_by_gradients(ray_session, asked, tmp_path, influence):
    selection = {"candidates": 4, "shots": 2, "held_out": 0.2, "influence": influence}
    left = run(asked, tmp_path, selection=selection, baselines={"plms": False, "union": False}, eval=None)
    (key,) = left.steps("select")
    scores = left.run.read_table(f"steps/{key}/candidates.parquet").column("influence").to_pylist()
    assert len(set(scores)) == 4
