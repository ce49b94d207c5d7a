"""From a YAML file to a configuration: what may be written, and what is said when it may not."""

from pathlib import Path

import pytest
import yaml

from configs.load import load, locate, read_yaml
from configs.schema.base import ConfigError, identity
from configs.schema.fusegen import FusegenConfig
from tests import corpus


@pytest.fixture
def job(tmp_path):
    """A job file of the small corpus with changes, and its path."""

    def write(**changes) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(corpus.config(tmp_path, **changes)))
        return str(path)

    return write


def refused(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(path, FusegenConfig, list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_job_loads(job):
    config = load(job(), FusegenConfig)
    assert config.task.label_names == corpus.LABELS
    assert [plm.name for plm in config.plms] == list(corpus.PLMS)
    assert config.plms[0].engine.seed == corpus.SEED


def test_an_override_replaces_one_value(job):
    path = job()
    config = load(path, FusegenConfig, ["samples.per_plm=40", "seed=9", "plms.1.batch_size=7"])
    assert (config.samples.per_plm, config.seed, config.plms[1].batch_size) == (40, 9, 7)
    assert config.samples.initial == 10
    assert load(path, FusegenConfig).seed == corpus.SEED


def test_an_override_makes_sections_that_the_file_lacks(job):
    config = load(job(), FusegenConfig, ["filter.min_words=4", "stm.final.kind=full"])
    assert (config.filter.min_words, config.stm.final.kind) == (4, "full")


def test_values_of_overrides_are_yaml(job):
    config = load(job(), FusegenConfig, ["variant=[fusegen, zerogen]", "weights.patience=null", "eval=null"])
    assert config.variant == ("fusegen", "zerogen")
    assert config.weights.patience is None
    assert config.eval is None


def test_a_seed_given_on_the_command_line_reaches_the_recorded_generations(job):
    config = load(job(), FusegenConfig, ["seed=42"])
    assert [plm.engine.seed for plm in config.plms] == [42] * 3


def test_the_generations_path_can_be_overridden(job):
    config = load(job(), FusegenConfig, ["generations.path=other.parquet"])
    assert {plm.engine.path for plm in config.plms} == {"other.parquet"}


def test_a_key_inside_a_named_task_can_be_overridden(job):
    config = load(job(), FusegenConfig, ["task.description=Mine.", "task=imdb"])
    assert (config.task.name, config.task.description) == ("imdb", "Mine.")


@pytest.mark.parametrize(
    "override", ["seed", "=3", "plms.9.name=a", "plms.x.name=a", "seed.sub=1", "a.b=[", "name.x.y=1"]
)
def test_an_override_that_leads_nowhere_is_refused(job, override):
    assert override.partition("=")[0] in refused(job(), override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sampels.per_plm=3", ["sampels: unknown key", "samples"]),
        ("samples.per_pml=3", ["samples.per_pml: unknown key", "per_plm, initial, rounds"]),
        ("plms.0.batchsize=3", ["plms.0.batchsize: unknown key", "batch_size"]),
        ("plms.0.engine.modus=pool", ["plms.0.engine.modus: unknown key", "mode"]),
        ("stm.final.epochs=3", ["stm.final: kind is missing; allowed: full, head, linear"]),
        ("stm.rounds.epochs=3", ["stm.rounds.epochs: unknown key", "ngrams"]),
        ("samples.rounds=many", ["samples.rounds", "integer", "'many'"]),
        ("samples.rounds=-1", ["samples.rounds", "greater than or equal to 0", "-1"]),
        ("selection.alpha=1.5", ["selection.alpha", "less than or equal to 1", "1.5"]),
        ("selection.shots=50", ["shots (50) must not exceed candidates (10)"]),
        ("samples.initial=99", ["initial (99) must not exceed per_plm (30)"]),
        ("preset=best", ["preset", "'fixed', 'paper' or 'authors'", "'best'"]),
        ("variant=fuse", ["variant", "'fusegen'", "'fuse'"]),
        ("variant=[zerogen, zerogen]", ["variant names each method once"]),
        ("plms.0.engine.kind=magic", ["plms.0.engine", "magic", "'recorded', 'transformers'"]),
        ("stm.rounds.kind=big", ["stm.rounds", "big", "'linear', 'full', 'head'"]),
        ("plms.1.name=critic", ["different names", "critic"]),
        ("plms=[]", ["plms", "at least 1"]),
        ("name=../up", ["name", "../up"]),
        ("eval.dataset=a/b", ["eval", "either path (a file) or dataset"]),
        ("generations=null", ["critic", "needs a path"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_file_key_problem_and_what_is_allowed(job, override, said):
    path = job()
    message = refused(path, override)
    assert message.startswith(f"{path}: ")
    for part in said:
        assert part in message


def test_a_missing_section_is_named(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("task: imdb\n")
    assert "plms: missing, it must be given" in refused(str(path))


def test_an_unknown_task_is_refused_with_the_tasks_there_are(job):
    message = refused(job(task="poetry"))
    assert "task: unknown name 'poetry'" in message
    assert "imdb" in message
    assert "yelp" in message


def label(name, **changes):
    return {"name": name, "zero_shot": f'A {name} text: "', "feedback": f'New {name} text: "', **changes}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([label("a"), {"name": "b", "zero_shot": 'b: "'}], "task.labels.1.feedback: missing"),
        ([label("a"), label("b", zero_shot="")], "task.labels.1.zero_shot"),
        ([label("a"), label("b", zero_shot="no quote")], "label b: the zero_shot prompt must end in an open"),
        ([label("a"), label("a")], "labels must have different names"),
        ([label("a")], "task.labels"),
        ([label("a", zero_shot='"<C>": "'), label("b")], "only a pair task"),
    ],
)  # fmt: skip
def test_a_label_without_its_prompts_is_refused(job, labels, said):
    task = {"name": "mine", "shot_prefix": "Text: ", "labels": labels}
    assert said in refused(job(task=task))


def test_a_pair_task_needs_contexts(job):
    labels = [label(name, zero_shot=f'"<C>" {name}: "') for name in "ab"]
    task = {"name": "mine", "shot_prefix": "", "labels": labels, "pair": True}
    assert "needs contexts" in refused(job(task=task))


@pytest.mark.parametrize(
    ("content", "said"),
    [("a: [", "not readable as YAML"), ("- 1", "a mapping of keys to values is needed, got list"),
     ("", "got NoneType"), ("\x00", "not readable as YAML")],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content, said):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    assert said in refused(str(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no such file" in refused(str(tmp_path / "none.yaml"))
    assert "is a folder" in refused(str(tmp_path))


def test_a_task_of_ones_own_is_a_file(job, tmp_path):
    task = {"name": "mine", "shot_prefix": "", "labels": [label("a"), label("b")]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(task))
    assert load(job(task=str(tmp_path / "mine.yaml")), FusegenConfig).task.name == "mine"


def test_paths_are_looked_up_here_first_and_then_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = locate("configs/tasks/imdb.yaml")
    assert shipped.is_absolute()
    Path("configs/tasks").mkdir(parents=True)
    Path("configs/tasks/imdb.yaml").write_text("name: mine\n")
    assert read_yaml(locate("configs/tasks/imdb.yaml")) == {"name": "mine"}


def test_resources_are_not_part_of_what_a_run_is(job):
    path = job()
    one = load(path, FusegenConfig)
    two = load(path, FusegenConfig, ["plms.0.num_cpus=3", "plms.1.replicas=2", "plms.2.request_timeout_s=5"])
    other = load(path, FusegenConfig, ["plms.0.batch_size=5"])
    assert identity(one) == identity(two)
    assert identity(one) != identity(other)
    assert "num_cpus" not in str(identity(one)["plms"])
