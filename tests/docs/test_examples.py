"""Every command and example of README and docs, held against the code without running anything heavy."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml

from actors.serving import api
from actors.serving.http import application
from configs import __version__
from configs.load import load, locate
from configs.schema.compare import CompareConfig
from configs.schema.evidence import EvidenceConfig
from configs.schema.foe import FoeConfig
from configs.schema.fusegen import FusegenConfig
from configs.schema.merge import MergeConfig
from configs.schema.pretrain import PretrainConfig
from configs.schema.serve import Serving
from configs.schema.task import Task
from jobs import needs, submit
from jobs.__main__ import app
from tests.docs.blocks import PAGES, ROOT, Block, Command, blocks, commands

SCHEMAS = {
    "fusegen": FusegenConfig,
    "foe": FoeConfig,
    "merge": MergeConfig,
    "compare": CompareConfig,
    "pretrain": PretrainConfig,
    "serve": Serving,
    "evidence": EvidenceConfig,
}
VAGUE = re.compile(r"…|->|\bCONFIG(?:\.yaml)?\b|\bJOB\b|\bCOMMAND\b")
"""What stands for words of the reader's own."""
TYPER = typer.main.get_command(app)
BLOCKS, COMMANDS = blocks(), commands()


def of(kind: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] == kind]


def jobs_commands() -> list[Command]:
    """Commands of ours, without what precedes their name."""
    found = []
    for command in COMMANDS:
        if command.words[:3] == ("python", "-m", "jobs"):
            found.append(Command(command.place, command.words[3:]))
        elif command.words[0] == "jobs":
            found.append(Command(command.place, command.words[1:]))
    return [command for command in found if not VAGUE.search(" ".join(command.words))]


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    """A folder with the files that pages show, under the names they give them."""
    folder = tmp_path_factory.mktemp("shown")
    for block in BLOCKS:
        if block.language == "yaml":
            content = yaml.safe_load(block.text)
            name = block.title or (f"{content['name']}.yaml" if "labels" in content else "")
            if name:
                (folder / name).write_text(block.text)
    (folder / "more.yaml").write_text((folder / "merge.yaml").read_text())
    return folder


def test_there_is_something_to_check():
    assert len(jobs_commands()) > 60 and len(of("make")) > 15
    assert {block.language for block in BLOCKS} >= {"sh", "yaml", "python", "json", "text"}


@pytest.mark.parametrize("command", jobs_commands(), ids=str)
def test_a_command_of_ours_is_understood(command, shown, monkeypatch):
    monkeypatch.chdir(shown)
    if len(command.words) == 1 or command.words[0].startswith("--"):
        names = {*TYPER.commands, *(option for one in TYPER.params for option in one.opts), "--help"}
        assert command.words[0] in names
        return
    check(list(command.words))


def check(words: list[str]) -> None:
    """Let the command line read the words, and the schema what they name."""
    name, *rest = words
    given = TYPER.commands[name].make_context(name, list(rest)).params
    if name == "submit":
        inner, *further = given["arguments"]
        assert inner in submit.SCHEMAS
        if "--run" in further:
            parsed = TYPER.commands[inner].make_context(inner, list(further)).params
            submit.run_name(inner, parsed)
            submit.environment_of(given["runtime_env"])
    elif name == "serve":
        load(given["config"] or "configs/serve/router.yaml", Serving, given["overrides"] or [])
    elif name in SCHEMAS and not given.get("inspect"):
        config = load(given["config"], SCHEMAS[name], given["overrides"] or [])
        if given.get("cluster"):
            needs.describe(config, given["cluster"])


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_a_target_exists(command):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(command.words[1:2]) <= set(targets)


@pytest.mark.parametrize("command", of("pip"), ids=str)
def test_what_is_installed_is_there(command):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]
    for before, word in zip(command.words, command.words[1:], strict=False):
        if before in {"-r", "-c"}:
            assert (ROOT / word).is_file()
        elif word.startswith(".["):
            wanted = word.removeprefix(".[").removesuffix("]").split(",")
            assert {f"optional-dependencies.{one}" for one in wanted} <= flat(extras)


def flat(tree: dict, above: str = "") -> set[str]:
    names = {f"{above}{name}" for name in tree}
    return names | {n for k, v in tree.items() if isinstance(v, dict) for n in flat(v, f"{above}{k}.")}


def test_modules_that_are_run_exist():
    for command in COMMANDS:
        if command.words[:2] == ("python", "-m") and command.words[2].startswith("tests"):
            assert importlib.util.find_spec(command.words[2]), command


@pytest.mark.parametrize("command", [*of("ray"), *of("kubectl"), *of("serve")], ids=str)
def test_files_of_clusters_exist(command):
    for word in command.words:
        assert not word.endswith((".yaml", ".json")) or (ROOT / word).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    named = re.findall(
        r"`((?:configs|cluster|tests|docs|requirements|actors|fusion|jobs)/[\w./-]+)`", page.read_text()
    )
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "yaml"], ids=str)
def test_yaml_is_what_the_schema_allows(block, shown, monkeypatch):
    monkeypatch.chdir(shown)
    content = yaml.safe_load(block.text)
    if set(content) <= {"env_vars"}:
        assert submit.environment_of(block.title)["env_vars"]
    elif "labels" in content:
        Task.model_validate(content)
    else:
        schema = SCHEMAS[content["job"]] if "job" in content else FusegenConfig
        whole = content if "job" in content else {"task": "imdb", **content}
        (shown / "checked.yaml").write_text(yaml.safe_dump(whole))
        load("checked.yaml", schema)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "python"], ids=str)
def test_python_compiles_and_runs_where_it_needs_nothing(block):
    code = compile(block.text, str(block), "exec")
    packages = set(re.findall(r"^(?:from|import) (\w+)", block.text, re.MULTILINE))
    for package in packages:
        assert importlib.util.find_spec(package), package
    if packages <= {"fusion", "numpy", "torch"}:
        exec(code, {})  # noqa: S102 - our own example


def requests() -> list[tuple[str, str, str]]:
    """Place, path and body of requests that are shown."""
    found = []
    for command in of("curl"):
        path = re.sub(r"^https?://[^/]+", "", command.words[1])
        body = command.words[command.words.index("-d") + 1]
        found.append((command.place, path, body))
    return found


@pytest.mark.parametrize(("place", "path", "body"), requests())
def test_requests_are_what_the_endpoint_takes(place, path, body):
    assert path in paths()
    api.ClassifyRequest.model_validate_json(body)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "json"], ids=str)
def test_json_is_what_the_endpoint_takes(block: Block):
    api.ClassifyRequest.model_validate(json.loads(block.text))


def test_paths_that_are_named_exist():
    text = (ROOT / "docs/serving.md").read_text() + (ROOT / "README.md").read_text()
    named = set(re.findall(r"(?:`|POST |GET )(/(?:v1/[\w/]+|health|docs))`", text))
    assert len(named) > 5
    assert named <= {*paths(), "/docs"}


def paths() -> set[str]:
    core = SimpleNamespace(serving=Serving(artefact="none"), keys=[], decider=None, measures=None)
    return set(application(core).openapi()["paths"])


def test_knobs_of_requests_are_all_described():
    text = (ROOT / "docs/serving.md").read_text()
    for name, field in api.Limits.model_fields.items():
        assert f"`{field.alias or name}`" in text


def test_the_changes_know_this_version():
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_a_wrong_example_is_noticed(shown, monkeypatch):
    monkeypatch.chdir(shown)
    good = ["fusegen", "configs/fusegen/demo.yaml", "--set", "seed=1", "--plan"]
    check(good)
    for bad in (
        ["fusegen", "configs/fusegen/none.yaml"],
        [*good, "--fast"],
        [*good[:3], "sede=1"],
        ["compare", "configs/fusegen/demo.yaml"],
        ["submit", "--", "fusegen", "my.yaml", "--run", "runs/mine"],
    ):
        with pytest.raises((Exception, SystemExit)):
            check(bad)
    assert locate("configs/fusegen/demo.yaml").is_file()
