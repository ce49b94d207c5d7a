"""What runs end with that needs no router, behind the same endpoint: a model alone, or several averaged."""

import json
import shutil

import numpy as np
import pytest

from actors import stms
from actors.router import about
from actors.routing.artefact import ArtefactError
from tests.actors.serving.conftest import Site
from tests.experts import texts

pytestmark = pytest.mark.ray
FILMS = [text for text, _ in texts(6)]


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    shutil.copytree(small / "linear", folder / "stm")
    (folder / "summary.json").write_text(json.dumps({"name": "films", "final": {"accuracy": 0.75}}))
    return folder


def test_it_answers_as_it_does_by_itself(run):
    here = Site(run, {})
    response = here.classify(*FILMS)
    assert response.status_code == 200, response.text
    model = stms.load(run / "stm")
    proba = model.predict_proba(model.encode(FILMS))
    for row, result in enumerate(response.json()["results"]):
        assert list(result["scores"].values()) == pytest.approx(proba[row], abs=1e-6)
        assert result["label"] == model.labels[int(np.argmax(proba[row]))]
        assert (result["experts"], result["stop_reason"], result["cost"]) == (["stm"], "all", 0)
        assert result["steps"][0]["expected_loss"] == pytest.approx(1 - proba[row].max(), abs=1e-6)
    described = here("GET", "/v1/artefact").json()
    assert (described["name"], described["kind"]) == ("films", "single")
    assert described["calibration"][0]["accuracy"] == 0.75
    assert here("POST", "/v1/route", json={}).json()["first"] == ["stm"]


def test_its_version_is_that_of_its_weights(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    assert about(str(run))["version"] == about(str(other))["version"]
    weights = other / "stm/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert about(str(run))["version"] != about(str(other))["version"]


def test_a_merged_classifier_is_served_too(small, tmp_path):
    shutil.copytree(small / "ab", tmp_path / "model")
    methods = {"regmean": {"in_domain": {"accuracy": 0.5}}}
    summary = {"name": "mix", "result": "regmean", "methods": methods}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "run.json").write_text(json.dumps({"hash": "h"}))
    here = Site(tmp_path, {})
    (result,) = here.classify(FILMS[0]).json()["results"]
    assert set(result["scores"]) == {"negative", "positive"} and result["experts"] == ["model"]
    assert here("GET", "/v1/artefact").json()["calibration"][0]["accuracy"] == 0.5


def test_an_ensemble_answers_with_the_mean_of_its_models(small, tmp_path):
    shutil.copytree(small / "linear", tmp_path / "steps/one/model")
    models = {"one": "run:steps/one/model", "other": str(small / "ab")}
    (tmp_path / "ensemble.json").write_text(
        json.dumps({"labels": ["negative", "positive"], "models": models})
    )
    (tmp_path / "summary.json").write_text(json.dumps({"name": "both", "final": {"accuracy": 0.8}}))
    (tmp_path / "run.json").write_text(json.dumps({"hash": "h"}))
    here = Site(tmp_path, {})
    means = np.mean(
        [[answer.vector for answer in here.models[name].answer(FILMS)] for name in models], axis=0
    )
    for row, result in enumerate(here.classify(*FILMS).json()["results"]):
        assert list(result["scores"].values()) == pytest.approx(means[row], abs=1e-6)
        assert result["experts"] == ["one", "other"]
    assert here("GET", "/v1/artefact").json()["kind"] == "ensemble"
    (alone,) = here.classify(FILMS[0], allow=["other"]).json()["results"]
    assert alone["experts"] == ["other"]


def test_an_unfinished_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(ArtefactError, match="neither a finished run"):
        about(str(tmp_path))
