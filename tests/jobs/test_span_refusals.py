"""What a job on a span task says of input that it cannot use, before anything is started."""

import json

import pytest

from configs.load import load
from configs.schema.base import ConfigError
from configs.schema.compare import CompareConfig
from configs.schema.fusegen import FusegenConfig
from tests import questions


def refused(command, folder, **changes) -> str:
    path = folder / "job.yaml"
    path.write_text(json.dumps(questions.config(folder, **changes)))
    status, _, said = command("fusegen", path, "--run", folder / "run")
    assert (status, said.strip().count("\n")) == (2, 0)
    return str(said)


def test_bad_input_is_refused_in_one_line(command, tmp_path):
    folder = questions.write(tmp_path)
    plain = folder / "plain.jsonl"
    plain.write_text('{"sentence": "there is nothing to ask for here", "year": "1999"}\n')
    source = {"path": str(plain), "text": "sentence"}
    task = questions.task(folder, contexts=source)
    assert "holds an answer that can be asked for" in refused(command, folder, task=task)
    task = questions.task(folder, contexts={**source, "answer": "year"})
    assert "holds an answer named in column 'year'" in refused(command, folder, task=task)
    task = questions.task(folder, contexts={**source, "answer": "month"})
    assert "no column 'month'; there are" in refused(command, folder, task=task)
    real = {"path": str(plain), "text": "sentence", "text_b": "sentence", "answer": "year"}
    said = refused(command, folder, eval=real)
    assert "no row has an answer (column 'year') that is in its context (column 'sentence')" in said
    said = refused(command, folder, eval={**real, "answer": None})
    assert "eval: a span task needs the columns" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stm": {"rounds": {"kind": "linear"}}}, "stm.rounds.kind: not linear for a span task"),
        ({"task": "movies"}, "stm.rounds.kind: not span for a label task; allowed: linear, full, head"),
        ({"weights": {"kind": "sungen"}}, "sungen: not available for span tasks"),
        ({"variant": ["fusegen", "sungen"]}, "sungen: not available for span tasks"),
        ({"selection": {"influence": "last_layer_hessian"}}, "last_layer_hessian is not available"),
        ({"baselines": {"scaling": True}}, "baselines.scaling: not available for span tasks"),
        ({"stm": {"rounds": {"kind": "span", "stride": 200}}}, "stride (200) must not exceed half"),
    ],
)  # fmt: skip
def test_what_span_tasks_do_not_have_is_refused(command, tmp_path, changes, said):
    assert said in refused(command, questions.write(tmp_path), **changes)


@pytest.mark.parametrize("task", ["squad", "mnli_matched"])
def test_miniatures_are_not_trained_for_tasks_with_a_given_sentence(command, tmp_path, task):
    path = tmp_path / "job.yaml"
    corpus = {"path": str(tmp_path / "texts.jsonl")}
    job = {
        "job": "pretrain",
        "name": "mini",
        "task": task,
        "output": str(tmp_path / "mini"),
        "corpus": corpus,
    }
    path.write_text(json.dumps(job))
    status, _, said = command("pretrain", path)
    assert (status, said.strip().count("\n")) == (2, 0)
    assert "task: tasks with a given sentence are not available here" in said


def test_a_span_task_is_described_wholly(command, tmp_path):
    folder = questions.write(tmp_path)
    task = questions.task(folder)
    (label,) = task["labels"]
    assert "has one label" in refused(
        command, folder, task={**task, "labels": [label, {**label, "name": "b"}]}
    )
    assert "at least two labels" in refused(command, folder, task={**task, "kind": "label"})
    without = {**label, "zero_shot": 'The context is: "<C>": "'}
    assert "the slot <Y>" in refused(command, folder, task={**task, "labels": [without]})
    assert "needs contexts" in refused(command, folder, task={**task, "contexts": None})


def test_models_of_a_span_task_are_of_its_kind_by_default(tmp_path):
    config = questions.config(tmp_path)
    del config["stm"]
    for gpus in (0, 1):
        plms = [{**plm, "num_gpus": gpus} for plm in config["plms"]]
        stm = FusegenConfig.model_validate({**config, "plms": plms}).stm
        assert [(of.kind, of.num_gpus) for of in (stm.rounds, stm.final)] == [("span", gpus)] * 2


def test_comparing_fusions_is_for_classifiers():
    with pytest.raises(ConfigError, match="task: span tasks are not available here"):
        load("configs/compare/demo.yaml", CompareConfig, ["task=squad"])
