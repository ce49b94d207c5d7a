"""The site: what is made from the code is complete, and all of it builds without a warning."""

import importlib.util
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.pages import Outline


@pytest.fixture(scope="module")
def hooks():
    """The module that makes pages from the code."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(hooks):
    return hooks.pages()


def test_every_key_of_every_job_is_in_the_reference(hooks, pages):
    for model in hooks.used():
        page = pages[f"reference/configuration/{model.__module__.rpartition('.')[2]}.md"]
        section = page.partition(f"{{#{model.__name__.lower()}}}")[2].partition("\n## ")[0]
        assert section, model
        parent = next((base for base in model.__mro__[1:] if base in hooks.used()), None)
        for key, field in model.model_fields.items():
            if parent is None or key not in parent.model_fields:
                assert f"\n| `{key}` |" in section, (model, key)
                assert field.description or key == "kind", f"{model.__name__}.{key} has no description"


def test_every_command_and_option_is_in_the_reference(pages):
    import typer

    from jobs.__main__ import app

    for name, command in typer.main.get_command(app).commands.items():
        section = pages["reference/commands.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert command.help in section
        for option in command.params:
            assert option.help and option.help in section, (name, option.name)


def test_bounds_defaults_and_links_are_said(pages):
    plm, fusegen = pages["reference/configuration/plm.md"], pages["reference/configuration/fusegen.md"]
    assert "| `top_p` | number above 0 and at most 1 | `0.9` |" in plm
    assert "| `gpu_memory_utilization` | number above 0 and at most 1 or `null` | `null` |" in plm
    assert "| `plms` | list of [PlmSpec](plm.md#plmspec) (1 at least) | **required** |" in fusegen
    assert "It has all keys of [Source](#source)" not in pages["reference/configuration/expert.md"]
    assert "It has all keys of [Source](task.md#source)" in pages["reference/configuration/expert.md"]


def test_every_module_of_the_mathematics_is_in_the_reference(pages):
    for package in ("generation", "routing", "merging"):
        for file in (ROOT / "fusion" / package).glob("[a-z]*.py"):
            assert f"::: fusion.{package}.{file.stem}\n" in pages[f"reference/python/{package}.md"]
            assert import_module(f"fusion.{package}.{file.stem}").__doc__


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="needs requirements/docs.txt (make docs)")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = list(Path(tmp_path).rglob("*.html"))
    assert len(found) > 25
    for file in found:
        fetched = Outline(file.read_text()).fetched
        assert [place for place in fetched if "//" in place] == [], file
