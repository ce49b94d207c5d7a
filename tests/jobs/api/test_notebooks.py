"""The notebooks run from a clean start, in order, and are kept without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.progress import Progress
from jobs.table import result_table

NOTEBOOKS = Path(__file__).parents[3] / "docs/notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def cells(name, kind="code"):
    """Sources of the cells of a kind."""
    found = json.loads((NOTEBOOKS / name).read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def run(name, folder):
    """What a notebook says when its cells are run in order, without Jupyter."""
    script = folder / "cells.py"
    script.write_text("\n\n".join(cells(name)))
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(NOTEBOOKS.parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_clean(name):
    notebook = json.loads((NOTEBOOKS / name).read_text())
    assert notebook["nbformat"] == 4 and notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert cells(name, "markdown")[0].startswith("# ")


def test_there_are_three():
    assert NAMES == ["1_generation.ipynb", "2_routing.ipynb", "3_merging.ipynb"]


def test_routing_pays_less_for_as_much(tmp_path):
    said = run("2_routing.ipynb", tmp_path)
    alone = {line.split()[0]: float(line.split()[-1]) for line in said.splitlines() if " price " in line[:18]}
    right, paid = next(line.split() for line in said.splitlines() if "on average" in line)[1:4:2]
    assert float(right) > alone["linear"] and float(paid) < 10
    assert "asked " in said and "stopped: " in said and " cents" in said


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_data_set_is_written_and_learnt_from(tmp_path):
    said = run("1_generation.ipynb", tmp_path)
    accuracy = float(said.rpartition("accuracy ")[2].split()[0])
    assert accuracy > 0.6 and "on 520 sentences" in said
    assert (tmp_path / "runs/notebook-generation/report.html").exists()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_three_classifiers_become_one(tmp_path):
    said = run("3_merging.ipynb", tmp_path)
    assert "regmean" in said and "simple" in said
    *_, ratio, model = said.splitlines()
    assert 0 < float(ratio) < 0.9 and model.startswith("BertForSequenceClassification ")


def test_in_a_notebook_tables_are_text_and_progress_is_lines(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    summary = {"task": "films", "seed": 1, "seconds": 2.0, "final": {}, "samples": {"kept": 3, "asked": 4}}
    assert result_table(summary).startswith("films: 3 texts kept of 4 asked")
    with Progress("runs/nb") as progress:
        assert progress.live is None
        progress.show({"events": ["writing"], "experts": {}, "plms": {}, "phase": "writing"})
    assert capsys.readouterr().out == "[0:00] run runs/nb\n[0:00] writing\n"
