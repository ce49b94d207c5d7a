"""What the dashboards show is what the router and the jobs count."""

import ast
import json
import re
from pathlib import Path

import pytest

from actors import observing
from actors.serving import measures
from configs.load import PACKAGE_ROOT

pytestmark = pytest.mark.cluster
SUFFIXES = {"Counter": "_total", "Histogram": "(?:_bucket|_sum|_count)", "Gauge": ""}


@pytest.mark.parametrize(("module", "name", "count"), [(measures, "router", 9), (observing, "jobs", 8)])
def test_panels_ask_for_metrics_that_there_are(module, name, count):
    tree = ast.parse(Path(module.__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    counted = {
        f"ray_{call.args[0].value}{SUFFIXES[call.func.id]}"
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in SUFFIXES
    }
    assert len(counted) == count
    board = json.loads((PACKAGE_ROOT / f"cluster/dashboards/{name}.json").read_text())
    asked = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    assert all(re.search(rf"{metric}\b", asked) for metric in counted)
    shown = set(re.findall(r"\bray_amalgam_\w+", asked))
    assert all(any(re.fullmatch(metric, one) for metric in counted) for one in shown)
