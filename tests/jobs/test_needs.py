"""What a job asks a cluster for, and whether the cluster of a file has it."""

import pytest
import yaml

from configs.load import PACKAGE_ROOT

pytestmark = pytest.mark.cluster


def test_the_command_line_says_what_a_job_needs_of_a_cluster_or_why_that_is_too_small(command, tmp_path):
    line = ["fusegen", "configs/fusegen/imdb.yaml", "--plan", "--cluster"]
    code, out, err = command(*line, "cluster/aws.yaml")
    assert code == 0, err
    assert "imdb fits" in out and "writing and training in rounds: 7 x l4, 6.86 USD an hour" in out
    small = yaml.safe_load((PACKAGE_ROOT / "cluster/aws.yaml").read_text())
    for name in ("l4", "l40s", "h100"):
        small["available_node_types"][name]["max_workers"] = 1 if name == "l4" else 0
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    code, _, err = command(*line, tmp_path / "small.yaml")
    assert code == 2 and err.count("\n") == 1
    assert "small.yaml: too small for imdb: writing and training in rounds: plm" in err
    small["available_nodes"] = {}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(small))
    code, _, err = command(*line, tmp_path / "wrong.yaml")
    assert code == 2 and "available_nodes" in err and err.count("\n") == 1
    code, _, err = command(*line, "cluster/kuberay/job.yaml")
    assert code == 2 and "another file describes" in err
    code, _, err = command(*line, tmp_path / "none.yaml")
    assert code == 2 and "No such file" in err
