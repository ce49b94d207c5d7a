"""The report: made from any run directory, complete, escaped, the same every time, alone in the world."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from configs.load import load
from configs.schema.base import ConfigError, identity
from configs.schema.fusegen import FusegenConfig
from jobs import report
from jobs.report import tables, words
from jobs.report.facts import Facts
from tests.pages import Outline, text_of

PLMS = ["gpt2-xl", "opt-6.7b", "flan-t5-xl"]
HOSTILE = '<script>alert("x")</script> & <img src=x onerror=alert(1)> {{ 7 * 7 }}'


def _config(**changes: Any) -> dict[str, Any]:
    config = load("configs/fusegen/imdb_recorded.yaml", FusegenConfig)
    kept = [plm for plm in identity(config)["plms"] if plm["name"] in PLMS]
    return {**json.loads(json.dumps(identity(config))), "plms": kept, **changes}


def _score(accuracy: float, difference: float | None = None, p: float = 0.0001) -> dict[str, Any]:
    score = {
        "accuracy": accuracy,
        "ci95": [accuracy - 0.014, accuracy + 0.014],
        "macro_f1": accuracy,
        "n": 3000,
    }
    if difference is not None:
        low, high = difference - 0.01, difference + 0.01
        score["against_result"] = {"difference": difference, "ci95": [low, high], "p_value": p}
    return score


def _round(number: int, plms: list[str]) -> dict[str, Any]:
    return {
        "round": number,
        "asked": dict.fromkeys(plms, 240),
        "kept": dict.fromkeys(plms, 200),
        "rejected": {plm: {"duplicate": 13, "placeholder": 21, "surplus": 6} for plm in plms},
        "dropped": {},
        "selection": None,
        "accuracy": 0.75 + number / 50,
        "ci95": [0.73 + number / 50, 0.77 + number / 50],
        "n": 3000,
    }


def _summary(plms: list[str] = PLMS, **changes: Any) -> dict[str, Any]:
    n = 3 * 200
    costs = {
        "asked": 720,
        "kept": n,
        "prompt_tokens": 9123,
        "completion_tokens": 4567,
        "seconds": 12.5,
        "cost": 0.25,
    }
    baselines = {plm: _score(0.71 + i / 100, 0.11 - i / 100) for i, plm in enumerate(plms)}
    return {
        "status": "done",
        "job": "fusegen",
        "task": "imdb",
        "name": "imdb_recorded",
        "seed": 12345,
        "preset": "fixed",
        "variant": "fusegen",
        "plms": plms,
        "stm": {"rounds": "linear", "final": "linear"},
        "baseline_stm": "linear",
        "seconds": 84.9,
        "final": _score(0.821667),
        "baselines": {**baselines, "union": _score(0.812, 0.0097, 0.21), "zerogen": _score(0.8, 0.02, 0.03)},
        "samples": {
            "asked": 720 * len(plms),
            "kept": n * len(plms),
            "rejected": {
                "duplicate": 39 * len(plms),
                "placeholder": 63 * len(plms),
                "surplus": 18 * len(plms),
            },
            "plms": dict.fromkeys(plms, n),
            "shortfall": {plms[-1]: 400},
        },
        "rounds": [_round(number, plms) for number in range(3)],
        "variants": {},
        "costs": dict.fromkeys(plms, costs),
        **changes,
    }


def _shot(plm: str, label: int, number: int) -> dict[str, str]:
    return {"id": f"{plm}-r0-l{label}-{number:07d}", "text": f"shot {number} of {plm}"}


def _row(plm: str, **values: Any) -> dict[str, Any]:
    text = f"a text that {plm} wrote"
    common = {"id": f"{plm}-r1-l0-0000005", "plm": plm, "round": 1, "label": 0, "text": text, "raw": text}
    record = {"status": "kept", "of": None, "prompt_hash": "c0ffee", "shot_ids": "", "seed": 99}
    return {**common, **record, **values}


def _report(plms: list[str] = PLMS) -> dict[str, Any]:
    k = len(plms)
    points = [
        {
            "id": f"{plm}-r0-l0-{i:07d}",
            "plm": plm,
            "label": 0,
            "variability": 0.01 * i,
            "confidence": 1 - 0.02 * i,
        }
        for plm in plms
        for i in range(20)
    ]
    shares = {"easy": 0.61, "ambiguous": 0.3, "hard": 0.09}
    measures = {
        "texts": 600,
        "distinct_1": 0.123,
        "distinct_2": 0.456,
        "duplicates": 0.0,
        "self_overlap": 0.07,
    }
    measures["words"] = {"mean": 33.4, "median": 31.0, "q05": 11.0, "q95": 72.0}
    weighed = {"survivors": 0.93, "mean": 1.02}
    shots = [_shot(plms[0], 0, 1), _shot(plms[-1], 1, 2)]
    return {
        "labels": ["positive", "negative"],
        "cartography": {"points": points, "shares": dict.fromkeys(plms, shares)} if k > 1 else None,
        "pair_matrix": {
            "plms": plms,
            "accuracy": [[0.7 + (i * k + j) / 100 for j in range(k)] for i in range(k)],
        },
        "label_agreement": dict.fromkeys(plms, 0.887) if k > 1 else {},
        "weights": {
            "edges": [0.001, 0.01, 0.1, 1.0, 2.0],
            "counts": {plm: [10, 5, 500, 85] for plm in plms},
            "plms": dict.fromkeys(plms, weighed),
        },
        "weight_history": [
            {
                "share_ok": 0.8 - i / 50,
                "min_weight": 0.1,
                "survivors": 1 - i / 50,
                "quantiles": [0, 1, 1, 1, 1],
            }
            for i in range(4)
        ],
        "diversity": {"plms": dict.fromkeys(plms, measures), "rounds": [measures] * 3},
        "records": {"plms": {}, "rounds": {}},
        "shots": [{"round": 0, "sets": [{"for": plms, "shots": shots}]}],
        "examples": {
            "kept": [_row(plm, shot_ids=" ".join(shot["id"] for shot in shots)) for plm in plms],
            "rejected": [_row(plms[0], status="near_duplicate", of="an older text that it repeats")],
            "heaviest": [{**_row(plms[0]), "weight": 1.234}],
            "lightest": [{**_row(plms[0]), "weight": 0.000321}],
        },
        "plms": {},
    }


def _record(**changes: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "hash": "x",
        "config": _config(**changes),
        "inputs": {"data/eval.csv": "ab12"},
    }


def _write(folder: Path, **files: Any) -> str:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(_summary(), _report(), _record())


def test_page_shows_the_numbers_of_the_summary(page: str) -> None:
    text = text_of(page)
    for number in (
        ".822",
        ".808–.836",
        "3,000",
        "1,800",
        "2,160",
        ".812",
        "+.010",
        ".21",
        ".750",
        "9,123",
        "0.2500",
    ):
        assert number in text, number
    assert (
        "FuseGen reaches .822 (.808–.836) on 3,000 real texts; the best single PLM, flan-t5-xl, .730" in text
    )
    assert "all texts with equal weights .812" in text


def test_page_shows_every_part_in_order(page: str) -> None:
    anchors = re.findall(r'<section id="(\w+)"', page)
    expected = [
        "result",
        "rounds",
        "samples",
        "map",
        "pairs",
        "habits",
        "weights",
        "shots",
        "examples",
        "cost",
    ]
    assert anchors == [*expected, "configuration"]
    assert page.count("<svg ") == 7


def test_page_is_well_formed_and_its_links_lead_somewhere(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.tags.count("h1") == 1
    assert {target[1:] for target in outline.targets} <= set(outline.ids)


def test_page_needs_nothing_from_elsewhere(page: str) -> None:
    outline = Outline(page)
    assert outline.fetched == []
    assert not {"script", "link", "iframe", "object", "img"} & set(outline.tags)
    assert "://" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(page.encode()) < 2_000_000


def test_figures_take_their_colours_from_the_style_sheet_and_keep_theirtext_of(page: str) -> None:
    figures = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    for figure in figures:
        assert "#0a0" not in figure
        assert "#ffffff" not in figure
        assert 'role="img" aria-label="' in figure
    assert any(">flan-t5-xl</text>" in figure for figure in figures)
    used = set(re.findall(r"var\((--\w+)\)", page))
    assert used <= set(re.findall(r"(--\w+):", page))


def test_same_files_give_the_same_bytes(page: str) -> None:
    assert report.render(_summary(), _report(), _record()) == page


def test_texts_are_escaped_wherever_they_appear() -> None:
    found = _report()
    found["shots"][0]["sets"][0]["shots"][0]["text"] = HOSTILE
    found["examples"]["kept"][0]["text"] = HOSTILE
    found["examples"]["rejected"][0]["of"] = HOSTILE
    summary = _summary()
    summary["rounds"][1]["dropped"] = {PLMS[1]: HOSTILE}
    page = report.render(summary, found, _record(name="x"))
    outline = Outline(page)
    assert not {"script", "img"} & set(outline.tags)
    assert text_of(page).count(HOSTILE) == 5  # a dropped PLM is named twice


def test_names_with_markup_are_escaped_in_figures() -> None:
    plms = ["a<b>&c", "$x_1$ and $y$"]
    config = _config()
    config["plms"] = [{**config["plms"][0], "name": plm} for plm in plms]
    page = report.render(_summary(plms), _report(plms), {**_record(), "config": config})
    assert "<b>&c" not in page
    assert ">$x_1$ and $y$</text>" in page


def test_running_page_says_so_and_leaves_out_what_is_not_known() -> None:
    summary = _summary(status="running", final={}, baselines={})
    for record in summary["rounds"]:
        record.update(accuracy=None, ci95=None, n=None)
    page = report.render(summary, None, _record())
    text = text_of(page)
    assert "in progress" in text
    assert "Still running: 1,800 accepted texts of 3 language models so far." in text
    assert re.findall(r'<section id="(\w+)"', page) == ["rounds", "samples", "cost", "configuration"]
    assert "Shortfalls" not in text


def test_run_that_has_just_begun() -> None:
    empty = {"asked": 0, "kept": 0, "rejected": {}, "plms": dict.fromkeys(PLMS, 0), "shortfall": {}}
    nothing = {
        "asked": 0,
        "kept": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "seconds": 0.0,
        "cost": None,
    }
    costs = dict.fromkeys(PLMS, nothing)
    summary = _summary(status="running", final={}, baselines={}, rounds=[], samples=empty, costs=costs)
    assert "Still running: 0 accepted texts" in text_of(report.render(summary, None, _record()))


def test_page_without_evaluation_data() -> None:
    summary = _summary(final={}, baselines={})
    for record in summary["rounds"]:
        record.update(accuracy=None, ci95=None, n=None)
    page = report.render(summary, _report(), _record(eval=None))
    assert 'id="result"' not in page
    assert "no real texts were given, so nothing was measured" in text_of(page)


def test_page_of_one_plm_with_equal_weights() -> None:
    found = {**_report(PLMS[:1]), "weights": None, "weight_history": []}
    page = report.render(_summary(PLMS[:1]), found, _record(plms=_config()["plms"][:1]))
    anchors = re.findall(r'<section id="(\w+)"', page)
    assert not {"map", "pairs", "weights"} & set(anchors)
    assert {"result", "habits", "shots"} <= set(anchors)


def test_dropped_plms_and_shortfalls_are_named() -> None:
    summary = _summary()
    summary["rounds"][1]["dropped"] = {"opt-6.7b": "no block was answered"}
    del summary["rounds"][1]["asked"]["opt-6.7b"]
    text = text_of(report.render(summary, _report(), _record()))
    assert "opt-6.7b was dropped in round 1: no block was answered." in text
    assert "Fewer than the 1,000 texts wanted per PLM: flan-t5-xl by 400." in text


def test_rejections_are_counted_per_plm_and_reason(page: str) -> None:
    table = tables.rejections(Facts(_summary(), _report(), _config()))
    assert [name for name, _ in table["reasons"]] == ["placeholder", "duplicate", "surplus"]
    counts = {"duplicate": 39, "placeholder": 63, "surplus": 18}
    assert table["rows"][2] == {
        "plm": "flan-t5-xl",
        "asked": 720,
        "kept": 600,
        "reasons": counts,
        "shortfall": 400,
    }
    assert "unfilled placeholder" in page


def test_pair_matrix_leaves_the_own_texts_out_of_its_means() -> None:
    table = tables.pairs(Facts(_summary(), _report(), _config()))
    assert table is not None
    assert table["rows"][0][2] == pytest.approx((0.71 + 0.72) / 2)
    assert table["means"][2] == pytest.approx((0.72 + 0.75) / 2)


def test_texts_come_with_their_provenance(page: str) -> None:
    text = text_of(page)
    assert "shot 2 of flan-t5-xl" in text
    assert "flan-t5-xl-r0-l1-0000002" in text
    assert "1 negative, 1 positive; 1 flan-t5-xl, 1 gpt2-xl" in text
    for value in ("c0ffee", "the 2 chosen after round 0", "repeats: an older text", "weight 0.000321"):
        assert value in text, value


def test_a_difference_is_called_what_it_is() -> None:
    def notes(difference: float, p: float) -> str:
        summary = _summary(baselines={"union": _score(0.8, difference, p)})
        return words.notes(Facts(summary, {}, _config()))[0][0]

    assert ": better (+.020" in notes(0.02, 0.001)
    assert ": worse (−.020" in notes(-0.02, 0.001)
    assert "no difference that these texts can show" in notes(0.02, 0.2)


def test_best_single_plm_may_be_a_zero_shot_one() -> None:
    summary = _summary()
    summary["baselines"]["zerogen/opt-6.7b"] = _score(0.79, 0.03)
    assert "the best single PLM, opt-6.7b (zero-shot only), .790" in words.outcome(
        Facts(summary, {}, _config())
    )


def test_shots_of_a_single_label_are_pointed_out() -> None:
    found = _report()
    found["shots"][0]["sets"][0]["shots"] = [_shot("gpt2-xl", 1, 1), _shot("opt-6.7b", 1, 2)]
    assert any(
        "one and the same label" in text for text, _ in words.notes(Facts(_summary(), found, _config()))
    )
    assert not any("same label" in text for text, _ in words.notes(Facts(_summary(), _report(), _config())))


def test_replayed_plms_are_not_sold_as_fast(page: str) -> None:
    assert "replayed from recorded generations" in text_of(page)
    assert "Replayed PLMs have not seen them" in text_of(page)
    engine = {"kind": "transformers", "model": "gpt2"}
    plms = [{**plm, "engine": engine} for plm in _config()["plms"]]
    assert "replayed" not in text_of(report.render(_summary(), _report(), _record(plms=plms)))


def test_configuration_of_the_page_loads_again(page: str, tmp_path: Path) -> None:
    outline = re.search(r"<pre>(job: .*?)</pre>", page, flags=re.DOTALL)
    assert outline
    file = tmp_path / "again.yaml"
    file.write_text(Outline(outline[0]).text[0], encoding="utf-8")
    assert json.loads(json.dumps(identity(load(str(file), FusegenConfig)))) == _config()


@pytest.mark.parametrize(
    ("value", "shown"), [(0.8149, ".815"), (1.0, "1.000"), (0.0, ".000"), (-0.0004, ".000"), (-0.02, "−.020")]
)
def test_shares_are_written_as_papers_do(value: float, shown: str) -> None:
    assert words.share(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "< .001"), (0.0312, ".031"), (0.96, ".96"), (1.0, "1.00")]
)
def test_p_values(value: float, shown: str) -> None:
    assert words.p_value(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(4.26, "4.3 s"), (84.9, "85 s"), (187, "3 min 07 s"), (7260, "2 h 01 min")]
)
def test_durations(value: float, shown: str) -> None:
    assert words.seconds(value) == shown


def test_write_puts_the_page_into_the_run(tmp_path: Path) -> None:
    uri = _write(tmp_path, run=_record(), summary=_summary(), report=_report())
    path = Path(report.write(uri, None))
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == report.render(_summary(), _report(), _record())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "report.html",
        "report.json",
        "run.json",
        "summary.json",
    ]


def test_write_puts_the_page_where_it_is_told(tmp_path: Path) -> None:
    uri = _write(tmp_path, run=_record(), summary=_summary(status="running", final={}, baselines={}))
    output = tmp_path / "pages" / "mine.html"
    assert report.write(uri, str(output)) == str(output)
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not (tmp_path / "report.html").exists()


def test_write_refuses_what_is_no_run_and_what_has_no_results(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        report.write(str(tmp_path / "absent"), None)
    with pytest.raises(ConfigError, match="holds no results yet"):
        report.write(_write(tmp_path, run=_record()), None)
