"""What a comparison refuses before anything starts, and its plan."""

import pytest
import yaml

from tests import comparisons, corpus


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of `comparisons.write`."""
    return comparisons.write(tmp_path_factory.mktemp("comparison"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plms": [corpus.plm("fan")]}, "plms: two at least"),
        ({"variant": ["fusegen", "zerogen"]}, "variant: one"),
        ({"baselines": {"union": False}}, "baselines: belongs to `jobs fusegen`"),
        ({"merging": {"methods": ["ties"]}}, "merging.methods: regmean is missing"),
        ({"merging": {"methods": ["regmean", "slerp"]}}, "slerp merges two models"),
        ({"elsewhere": {"fusing": {"path": "x.csv"}}}, "elsewhere: fusing is a name of ours"),
        ({"elsewhere": {"far": {"path": "x.csv"}}}, "elsewhere.far: no such file"),
        ({"experts": {"nobody": "x"}}, "experts: no PLM 'nobody'; there are critic, fan, grump"),
        ({"experts": {"fan": "./nowhere"}}, "experts.fan: no such folder"),
        ({"stm": {"final": {"kind": "linear"}}}, "stm.final.kind"),
        ({"eval": None}, "eval"),
        ({"routing": {"held_out": 1.0}}, "routing.held_out"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(small, command, tmp_path, changes, words):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(comparisons.config(small, **changes)))
    code, _, complaint = command("compare", path, "--run", tmp_path / "run")
    assert (code, complaint.count("\n")) == (2, 1) and words in complaint, complaint
    assert str(path) in complaint and not (tmp_path / "run").exists()


def test_fusers_must_not_learn_from_what_is_judged(small, command, tmp_path):
    path = tmp_path / "leak.yaml"
    items = {"items": {"path": str(small / "eval.jsonl")}}
    path.write_text(yaml.safe_dump(comparisons.config(small, routing=items)))
    code, _, complaint = command("compare", path, "--run", tmp_path / "run")
    assert code == 2 and "routing.items: 60 texts are in eval too" in complaint
    assert not (tmp_path / "run").exists()


def test_a_plan_says_what_will_be_done_and_starts_nothing(command, tmp_path):
    code, said, _ = command("compare", "configs/compare/demo.yaml", "--plan", "--run", tmp_path / "run")
    assert code == 0 and "then 6 trainings of MiniLM-L6 over 2 epochs" in said
    assert "fused: fusegen, foe, frugal, regmean, ensemble, best_single, pooled, simple" in said
    assert not (tmp_path / "run").exists()
