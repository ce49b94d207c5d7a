"""What the dashboards show is what the router counts."""

import ast
import json
import re
from pathlib import Path

import pytest

from actors.serving import measures
from configs.load import PACKAGE_ROOT

pytestmark = pytest.mark.cluster
SUFFIXES = r"(?:_total|_bucket|_sum|_count)"


def test_panels_ask_for_metrics_that_there_are():
    tree = ast.parse(Path(measures.__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    counted = {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in {"Counter", "Histogram"}
    }
    assert len(counted) == 9
    board = json.loads((PACKAGE_ROOT / "cluster/dashboards/router.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    shown = set(re.findall(rf"ray_(amalgam_[a-z_]+?){SUFFIXES}\b", " ".join(asked)))
    assert shown == counted
