"""Claims held against runs: what counts as a run of a claim, what is concluded, and what is written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.storage import Run
from configs.load import load, resolve
from configs.schema.base import ConfigError, identity
from configs.schema.evidence import EvidenceConfig
from configs.schema.foe import FoeConfig
from jobs import evidence
from jobs.evidence import records
from jobs.evidence.measuring import kinds, read
from jobs.evidence.testing import FAILS, FEW, HOLDS, OPEN, UNTESTED, judge

DIGITS = "configs/foe/digits.yaml"
CLAIM = {
    "claim": "The fuser is better.",
    "data": "Digits",
    "configs": [DIGITS],
    "measure": {"path": ["methods", "ours", "accuracy"]},
    "against": {"path": ["methods", "theirs", "accuracy"]},
}


def run(folder: Path, seed: int, methods: dict, status: str = "done", **changes) -> Path:
    """A run directory of the digits' configuration in which methods have these accuracies, or points."""
    config = identity(resolve(DIGITS, FoeConfig, {"seed": seed, **changes}))
    place = folder / f"run-{len(list(folder.glob('*')))}"
    store = Run.open(str(place), config, {}, "1.0")
    found = {
        name: {"points": value} if isinstance(value, list) else {"accuracy": value}
        for name, value in methods.items()
    }
    store.write_json("summary.json", {"status": status, "policy": "ours", "methods": found})
    return place


def pairs(folder: Path, ours: list[float], theirs: list[float]) -> list:
    both = zip(ours, theirs, strict=True)
    return [read(str(run(folder, seed, {"ours": a, "theirs": b}))) for seed, (a, b) in enumerate(both)]


def claims(**changes) -> EvidenceConfig:
    section = {"title": "Routing", "claims": [CLAIM | changes]}
    return EvidenceConfig.model_validate({"sections": [section]})


def verdict(runs: list, **changes):
    return judge(claims(**changes).sections[0].claims[0], runs)


@pytest.mark.parametrize(("file", "claims"), [("evidence.yaml", 15), ("evidence_merging.yaml", 7)])
def test_the_claims_that_ship_are_about_configurations_that_ship(file, claims):
    config = load(f"configs/{file}", EvidenceConfig)
    found = [claim for section in config.sections for claim in section.claims]
    assert len(found) == claims
    for claim in found:
        for kind in kinds(claim, claim.measure) + kinds(claim, claim.against):
            assert Path(kind.config).is_file()


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        ([0.90, 0.91, 0.92], [0.80, 0.815, 0.82], HOLDS),
        ([0.80, 0.815, 0.82], [0.90, 0.91, 0.92], FAILS),
        ([0.80, 0.90, 0.85], [0.84, 0.84, 0.84], OPEN),
        ([0.90, 0.91], [0.80, 0.81], FEW),
        ([], [], UNTESTED),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side(tmp_path, ours, theirs, word):
    assert verdict(pairs(tmp_path, ours, theirs)).word == word


def test_the_difference_is_that_of_pairs_of_one_seed(tmp_path):
    found = verdict(pairs(tmp_path, [0.9, 0.7, 0.5], [0.888, 0.69, 0.49]))
    assert found.pairs == 3
    assert found.measured == pytest.approx(0.7)
    assert found.test.difference == pytest.approx(0.032 / 3)
    assert found.test.low > 0  # the runs differ far more from each other


def test_seeds_that_change_nothing_count_once(tmp_path):
    assert verdict(pairs(tmp_path, [0.9, 0.9, 0.9], [0.8, 0.8, 0.8])).word == FEW


def test_what_may_be_lost_is_a_margin_and_lower_can_be_better(tmp_path):
    runs = pairs(tmp_path, [0.896, 0.911, 0.917], [0.90, 0.91, 0.92])
    assert verdict(runs).word == OPEN
    assert verdict(runs, margin=0.02).word == HOLDS
    assert verdict(pairs(tmp_path, [0.1, 0.2, 0.3], [0.4, 0.49, 0.61]), better="lower").word == HOLDS


def test_patterns_and_names_of_the_summary_lead_to_numbers(tmp_path):
    runs = pairs(tmp_path, [0.9, 0.8, 0.7], [0.5, 0.6, 0.7])
    best = {"path": ["methods", "*", "accuracy"], "take": "max"}
    policy = {"path": ["methods", "$policy", "accuracy"]}
    assert verdict(runs, measure=best, against=policy).test.difference == pytest.approx(0)
    assert verdict(runs, measure={**best, "take": "min"}).measured == pytest.approx(0.6)


def test_a_curve_is_read_at_a_price(tmp_path):
    points = [{"cost": 2, "accuracy": 0.6}, {"cost": 6, "accuracy": 0.8}]
    runs = [read(str(run(tmp_path, seed, {"ours": points, "theirs": 0.6}))) for seed in range(3)]
    at = {"path": ["methods", "ours", "points"], "at_cost": 4}
    assert verdict(runs, measure=at).measured == pytest.approx(0.7)
    with pytest.raises(ConfigError, match=r"run-0: summary.json has no number at methods > ours > points"):
        verdict(runs, measure={**at, "at_cost": 1})  # cheaper than the cheapest point
    with pytest.raises(ConfigError, match="no number at methods > nobody > accuracy"):
        verdict(runs, measure={"path": ["methods", "nobody", "accuracy"]})


def test_only_runs_of_a_configuration_that_ships_count(tmp_path):
    other = read(str(run(tmp_path, 3, {"ours": 0.1, "theirs": 0.9}, **{"policy.neighbours": 5})))
    runs = [*pairs(tmp_path, [0.9, 0.91, 0.92], [0.8, 0.815, 0.82]), other]
    assert verdict(runs).pairs == 3
    wanted = kinds(claims().sections[0].claims[0], claims().sections[0].claims[0].measure)
    assert other.why_not(wanted) == f"it differs from {DIGITS} in policy.neighbours"
    where = {"path": ["methods", "ours", "accuracy"], "where": {"policy.neighbours": 5}}
    assert verdict([*runs, other], measure=where).word == UNTESTED  # no run of that seed to compare with
    pair = read(str(run(tmp_path, 3, {"ours": 0.2, "theirs": 0.3})))
    assert verdict([*runs, pair], measure=where).measured == pytest.approx(0.1)


def test_runs_from_before_a_key_was_there_count_with_its_default(tmp_path):
    place = run(tmp_path, 0, {"ours": 0.9, "theirs": 0.8})
    record = yaml.safe_load((place / "run.json").read_text())
    del record["config"]["split"]["max_stored"]
    (place / "run.json").write_text(json.dumps(record))
    assert verdict([read(str(place))]).pairs == 1


def test_runs_of_other_jobs_and_files_lie_beside_them(tmp_path):
    rafdb = "configs/foe/frugalml_rafdb.yaml"
    config = identity(resolve(rafdb, FoeConfig, {"experts.path": "somewhere"}))
    store = Run.open(str(tmp_path / "faces"), config, {}, "1.0")
    store.write_json("summary.json", {"status": "done", "methods": {"ours": {"accuracy": 0.7}}})
    faces = read(str(tmp_path / "faces"))
    runs = [*pairs(tmp_path, [0.9, 0.91, 0.92], [0.8, 0.815, 0.82]), faces]
    assert verdict(runs).pairs == 3
    both = {"configs": [rafdb, DIGITS], "against": {"path": ["methods", "ours", "accuracy"]}}
    assert verdict(runs, **both).configs == (rafdb, DIGITS)
    assert verdict(runs, configs=[rafdb], against={"path": ["methods", "ours", "accuracy"]}).pairs == 1


def test_a_claim_about_a_file_that_is_no_jobs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tasks/imdb.yaml: not the file of a job; allowed: fusegen, foe"):
        verdict(pairs(tmp_path, [0.9], [0.8]), configs=["configs/tasks/imdb.yaml"])


def command(*arguments: object) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "jobs", "evidence", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_page_says_what_came_out_and_how_to_get_it(tmp_path):
    folder, page = tmp_path / "runs", tmp_path / "docs" / "evidence.md"
    folder.mkdir()
    pairs(folder, [0.9, 0.91, 0.92], [0.8, 0.815, 0.82])
    run(folder, 0, {"ours": 0.1, "theirs": 0.9}, **{"policy.neighbours": 5})
    mine = tmp_path / "claims.yaml"
    mine.write_text(yaml.safe_dump(claims(remark="and why.").model_dump(mode="json")))
    done = command(*sorted(folder.iterdir()), "--config", mine, "--output", page)
    assert done.returncode == 0, done.stderr
    assert "1 claims tested on 3 runs" in done.stdout
    assert "run-3: not used: it differs from configs/foe/digits.yaml in policy.neighbours" in done.stderr
    text = page.read_text()
    assert "| 1. The fuser is better. *Digits.* | .910 | .812 | +.098 (+.091 to +.106), p < .001" in text
    assert "**holds**, 3 pairs" in text
    assert "1: and why." in text
    assert "python -m jobs foe configs/foe/digits.yaml --set seed=2" in text
    picture = (page.parent / "figures" / "evidence.svg").read_text()
    assert picture.startswith("<svg xmlns=") and "evidence.svg" in text
    before = page.read_bytes()
    command(*sorted(folder.iterdir(), reverse=True), "--config", mine, "--output", page)
    assert page.read_bytes() == before


def test_records_stand_for_runs_that_are_gone(tmp_path):
    folder, page = tmp_path / "runs", tmp_path / "evidence.md"
    folder.mkdir()
    curve = [{"cost": 2, "accuracy": 0.6}, {"cost": 6, "accuracy": 0.8}]
    for seed in range(3):
        run(folder, seed, {"ours": 0.9 + seed / 90, "theirs": 0.8, "curve": curve, "unread": 0.1})
    more = [
        CLAIM,
        CLAIM | {"measure": {"path": ["methods", "$policy", "accuracy"]}},
        CLAIM | {"against": {"path": ["methods", "curve", "points"], "at_cost": 4}},
        CLAIM | {"against": {"path": ["methods", "t*", "accuracy"], "take": "max"}},
    ]
    mine = tmp_path / "claims.yaml"
    mine.write_text(yaml.safe_dump({"job": "evidence", "sections": [{"title": "All", "claims": more}]}))
    evidence.main(str(mine), [], [str(one) for one in folder.iterdir()], str(page))
    before, records = page.read_bytes(), tmp_path / "evidence.jsonl"
    kept = records.read_bytes()
    assert b"unread" not in kept and kept.count(b"\n") == 3
    evidence.main(str(mine), [], [str(records)], str(page))
    assert (page.read_bytes(), records.read_bytes()) == (before, kept)
    again = str(run(folder, 2, {"ours": 0.5, "theirs": 0.8, "curve": curve}))
    evidence.main(str(mine), [], [str(records), again], str(page))
    assert records.read_bytes().count(b"\n") == 3  # the newer one counts
    assert b'"accuracy":0.5}' in records.read_bytes()


def test_records_name_no_folder_of_a_machine(tmp_path):
    rafdb = "configs/foe/frugalml_rafdb.yaml"
    config = identity(resolve(rafdb, FoeConfig, {"experts.path": "/data/of/mine/frugalml_rafdb"}))
    Run.open(str(tmp_path / "faces"), config, {}, "1.0").write_json("summary.json", {"status": "done"})
    faces = records.load([str(tmp_path / "faces")])
    records.write(tmp_path / "kept.jsonl", faces, [])
    assert "/data" not in (tmp_path / "kept.jsonl").read_text()
    (found,) = records.load([str(tmp_path / "faces"), str(tmp_path / "kept.jsonl")])
    assert found.config["experts"]["path"] == "frugalml_rafdb"
    claim = claims(configs=[rafdb]).sections[0].claims[0]
    assert not found.strays(kinds(claim, claim.measure)[0])


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"config": {}}', '{"config": {"seed": 1}, "version": "1", "summary": {}}']
)
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    kept = tmp_path / "kept.jsonl"
    kept.write_text(line + "\n")
    with pytest.raises(ConfigError, match=r"kept.jsonl, line 1: not the record of a run"):
        records.load([str(kept)])
    with pytest.raises(ConfigError, match=r"gone.jsonl: cannot be read: No such file"):
        records.load([str(tmp_path / "gone.jsonl")])


def test_what_is_no_evidence_is_refused_in_one_line(tmp_path):
    running = run(tmp_path, 0, {"ours": 0.9, "theirs": 0.8}, status="running")
    foreign = run(tmp_path, 0, {"ours": 0.9, "theirs": 0.8}, name="mine")
    for folder, said in (
        (tmp_path, "not a run directory with results"),
        (running, "running; only finished runs are evidence"),
        (foreign, "none of these runs is one that the claims are about"),
    ):
        with pytest.raises(ConfigError, match=said):
            evidence.main("configs/evidence.yaml", [], [str(folder)], str(tmp_path / "page.md"))
    assert not (tmp_path / "page.md").exists()
