"""The fusion-of-experts job: by the command line, on Ray, and beside the same steps without Ray."""

import json

import pytest
import yaml

from actors.coordinator import Coordinator
from cluster.session import Session
from cluster.storage import Run
from configs.load import PACKAGE_ROOT, load
from configs.schema.base import identity
from configs.schema.foe import FoeConfig
from tests.actors.routing.conftest import fused, llms, services  # noqa: F401 - fixtures
from tests.docs.blocks import undocumented

SETTINGS = ["policy.rates=[0, 0.005, 0.05]", "policy.neighbours=9"]
SHIPPED = sorted(path.name for path in (PACKAGE_ROOT / "configs/foe").glob("*.yaml"))


@pytest.fixture
def recorded(services, tmp_path):  # noqa: F811
    """A configuration file of the recorded services."""
    path = tmp_path / "job.yaml"
    body = {"job": "foe", "name": "services", "experts": {"kind": "recorded", "path": str(services)}}
    path.write_text(yaml.safe_dump(body))
    return path


def test_a_run_on_ray_is_the_one_without(ray_session, recorded, tmp_path, fused):  # noqa: F811
    config = load(str(recorded), FoeConfig, SETTINGS)
    folder = Run.open(str(tmp_path / "ray"), identity(config), {}, "0")
    summary = Coordinator(folder.uri, config, Session(local=False, cpus=0, gpus=0)).run()
    without, plain = fused(config)
    assert {**summary, "seconds": 0} == {**without, "seconds": 0}
    for name in plain.names("artefact"):
        assert folder.read_bytes(f"artefact/{name}") == plain.read_bytes(f"artefact/{name}")
    assert folder.read_json("summary.json")["status"] == "done"
    assert undocumented("foe", summary) == set()


def test_an_artefact_is_inspected_and_extended(fused, recorded, tmp_path, command):  # noqa: F811
    two = load(str(recorded), FoeConfig, [*SETTINGS, "experts.names=[dear, cheap]", "policy.fusers=[knn]"])
    run = fused(two)[1].uri
    code, out, _ = command("foe", run, "--inspect")
    assert code == 0
    assert "services: version" in out
    assert "dear" in out
    target = tmp_path / "wider"
    code, _, err = command("foe", recorded, "--extend", run, "--run", target)
    assert code == 0, err
    names = [expert["name"] for expert in json.loads((target / "manifest.json").read_text())["experts"]]
    assert names == ["dear", "cheap", "middle"]
    code, _, err = command("foe", recorded, "--extend", run, "--run", target)
    assert code == 2
    assert "an artefact never changes" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "experts.path=nowhere"], "no such file: nowhere/items.parquet"),
        (["--set", "experts.kind=mysterious"], "experts: "),
        (["--set", "policy.rates=[]"], "policy.rates: "),
        (["--set", "policy.sampel=3"], "policy.sampel: unknown key; allowed: fusers, neighbours, sample"),
        (["--set", "answer=expert"], "outputs.parquet has no column score or correct"),
        (["--set", "answer=expert", "--set", "policy.fusers=[mlp]"], "mlp predicts labels only"),
        (["--reuse", "nowhere"], "--reuse nowhere: belongs to live experts"),
        (["--extend", "nowhere"], "--extend: give --run"),
        (["--extend", "nowhere", "--run", "x"], "no artefact"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(command, recorded, arguments, message):
    code, _, err = command("foe", recorded, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_plan_starts_nothing(command, recorded, tmp_path):
    code, out, _ = command("foe", recorded, "--plan")
    assert code == 0
    assert "3 experts, 300 items" in out
    assert not (tmp_path / "runs").exists()


def test_a_plan_says_which_urls_are_asked(command, tmp_path, monkeypatch):
    engine = {"kind": "openai", "url": "http://127.0.0.1:8000/v1", "model": "m", "concurrency": 4}
    pool = [
        {"name": "one", "model": {"kind": "generator", "engine": engine}, "replicas": 2},
        {"name": "two", "model": {"kind": "generator", "engine": {**engine, "key_env": "TWO_KEY"}}},
        {"name": "three", "model": {"kind": "generator", "engine": {"model": "here"}}},
    ]
    items = {"path": str(tmp_path / "items.jsonl"), "reference": "answer"}
    (tmp_path / "items.jsonl").write_text("".join(f'{{"text": "{n}", "answer": "{n}"}}\n' for n in range(9)))
    body = {"job": "foe", "answer": "expert", "experts": {"kind": "live", "items": items, "pool": pool}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(body))
    monkeypatch.delenv("TWO_KEY", raising=False)
    code, out, err = command("foe", tmp_path / "job.yaml", "--plan")
    assert code == 0, err
    assert "one: m at http://127.0.0.1:8000/v1, 8 requests at a time, no key\n" in out
    assert "two: m at http://127.0.0.1:8000/v1, 4 requests at a time, key in TWO_KEY (not set here)\n" in out
    assert "three:" not in out
    code, _, err = command("foe", tmp_path / "job.yaml", "--set", "experts.pool.0.model.engine.key_env=sk-12")
    assert code == 2 and "sk-12" not in err.replace("key_env=sk-12", "")
    assert "experts.pool.0.model.engine.key_env: the name of an environment variable" in err
    code, _, err = command("foe", tmp_path / "job.yaml", "--set", "experts.pool.0.model.engine.keys=x")
    assert code == 2 and "engine.keys: unknown key; allowed: kind, url, model, key_env, api, system" in err


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_read(name):
    config = load(f"configs/foe/{name}", FoeConfig)
    assert config.name == name.removesuffix(".yaml")


@pytest.mark.parametrize("name", [n for n in SHIPPED if "_" in n and n != "llm_pool.yaml"])
def test_what_ships_fits_its_recorded_set(name, shared):
    from actors.routing import collected

    folder = shared / "data/experts" / name.removesuffix(".yaml")
    config = load(f"configs/foe/{name}", FoeConfig, [f"experts.path={folder}"])
    pool = collected.read(config)
    assert len(pool.rows("fit")) > 300
    assert pool.about.unit != "calls" or config.answer == "expert" or "cifar" not in name
