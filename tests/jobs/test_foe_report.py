"""The report of a fusion of experts: complete, true of its numbers, escaped, the same every time."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from configs.load import load
from configs.schema.base import identity
from configs.schema.foe import FoeConfig
from fusion.routing.evaluation import Point, pareto
from jobs import report
from jobs.report.routing import answers, notes, plots, tables, words
from jobs.report.routing.facts import BOUNDS, Facts
from tests.pages import Outline, text_of

HOSTILE = '<script>alert("x")</script> & <img src=x onerror=alert(1)> {{ 7 * 7 }}'
RATES = (0.0, 0.001, 0.004, 0.02, 0.1)
DOLLARS = "$ per 10,000 requests"


def _config(**changes: Any) -> dict[str, Any]:
    config = identity(load("configs/foe/digits.yaml", FoeConfig))
    return {**json.loads(json.dumps(config)), **changes}


def _names(count: int) -> list[str]:
    return [f"expert {number}" for number in range(count)]


def _prices(names: list[str]) -> list[float]:
    return [round(float(p), 3) for p in np.geomspace(0.5, 12, len(names))] if len(names) > 1 else [2.0]


def _score(accuracy: float, cost: float, experts: float, against: float | None = None) -> dict[str, Any]:
    found = {"accuracy": accuracy, "cost": cost, "experts": experts}
    if against is not None:
        ci95 = [round(against - 0.02, 6), round(against + 0.02, 6)]
        found["ci95"] = [round(accuracy - 0.01, 6), round(accuracy + 0.01, 6)]
        found["against_best_single"] = {"difference": against, "ci95": ci95}
    return found


def _points(accuracies: list[float], costs: list[float]) -> list[dict[str, float]]:
    rows = zip(RATES, accuracies, costs, (2.4, 2.4, 2.0, 1.5, 1.0), strict=True)
    return [{"lambda": r, "accuracy": a, "cost": c, "experts": n} for r, a, c, n in rows]


def _curve(points: list[dict[str, float]], at: int, single: float) -> dict[str, Any]:
    point = points[at]
    score = _score(point["accuracy"], point["cost"], point["experts"], round(point["accuracy"] - single, 6))
    return {**score, "lambda": point["lambda"], "aiq": 0.7, "points": points}


def _summary(names: list[str], answer: str = "label", **changes: Any) -> dict[str, Any]:
    prices, single = _prices(names), 0.715
    whole, best = sum(prices), prices[-1]
    seen = _points([0.81, 0.81, 0.803, 0.76, 0.62], [v * whole for v in (0.4, 0.4, 0.3, 0.15, 0.05)])
    methods = {
        "foe_logistic": _score(0.815, whole, len(names), 0.1),
        "any_correct": _score(0.95, 1.0, 1.0, 0.235),
        "best_single": _score(single, best, 1.0, 0.0),
        "mean_single": _score(0.6, whole / len(names), 1.0, -0.115),
    }
    if answer == "label":
        methods |= {
            "majority": _score(0.74, whole, len(names), 0.025),
            "frugalml": _curve(_points([0.78, 0.78, 0.77, 0.7, 0.6], [v["cost"] for v in seen]), 0, single),
            "cascade": _curve(_points([0.79, 0.78, 0.76, 0.7, 0.6], [v["cost"] for v in seen]), 0, single),
        }
    methods["input_knn"] = _curve(_points([0.7] * 5, [prices[0]] * 5), 0, single)
    methods["frugal_knn"] = _curve(seen, 1, single)
    methods |= {
        f"single/{name}": _score(0.5 + 0.215 * (i + 1) / len(names), price, 1.0)
        for i, (name, price) in enumerate(zip(names, prices, strict=True))
    }
    return {
        "status": "done",
        "job": "foe",
        "name": "trial",
        "seed": 7,
        "answer": answer,
        "unit": DOLLARS,
        "items": {"fit": 4000, "test": 3000, "left_out": 0},
        "warnings": [],
        "seconds": 84.9,
        "policy": "frugal_knn",
        "aiq": 0.7,
        "largest_cost": whole,
        "frugal": [{**p, "ci95": [p["accuracy"] - 0.01, p["accuracy"] + 0.01]} for p in seen],
        "calibration": [{**p, "accuracy": round(p["accuracy"] + 0.004, 6)} for p in seen],
        "methods": methods,
        "artefact": "0123456789abcdef",
        **changes,
    }


def _places(names: list[str]) -> dict[str, list[float]]:
    found = {name: [0.0, 0.1, 0.05, 0.05, 0.8] for name in names}
    found[names[0]] = [1.0, 0.0, 0.0, 0.0, 0.0]
    return found


def _difference(values: list[float]) -> list[dict[str, Any]]:
    return [
        {"cost": 1.0 + i, "difference": value, "ci95": [round(value - 0.02, 6), round(value + 0.02, 6)]}
        for i, value in enumerate(values)
    ]


def _report(names: list[str], classes: int = 3, domains: int = 4, answer: str = "label") -> dict[str, Any]:
    columns = names if answer == "expert" else [f"class {i}" for i in range(classes)]
    rows = [f"domain {i}" for i in range(domains)] if answer == "expert" else columns
    counts = [[50 if i == j else i + j + 1 for j in range(len(columns))] for i in range(len(rows))]
    steps = [
        {"expert": names[0], "current": 0.5, "best": 0.25},
        {"expert": names[-1], "current": 0.125, "best": 0.2},
    ]
    unseen = {"auroc": 0.655, "limit": 0.03, "flagged_seen": 0.05, "flagged_unseen": 0.133}
    return {
        "experts": [
            {"name": name, "price": price, "accuracy": 0.6, "accuracy_fit": 0.61, "only_one_right": 0.0125}
            for name, price in zip(names, _prices(names), strict=True)
        ],
        "best_single": names[-1],
        "comparisons": {
            "frugalml": _difference([0.05, 0.04, 0.0]),
            "input_knn": _difference([-0.1, 0.0, 0.06]),
        },
        "pareto": ["frugal_knn"],
        "sequences": [{"lambda": rate, "places": _places(names)} for rate in RATES],
        "confusion": {
            "rows": rows,
            "columns": columns,
            "counts": counts,
            "by": "domain" if answer == "expert" else "label",
        },
        "domains": [
            {
                "domain": f"domain {i}",
                "n": 100 + i,
                "policy": 0.8 + i / 1000,
                "best_single": 0.7,
                "any_correct": 0.9,
            }
            for i in range(domains)
        ],
        "unseen": {
            "column": "label",
            "values": ["class 2"],
            "n": [2900, 100],
            "experts": {"1": unseen, "4": {**unseen, "auroc": 0.883}},
            "roc": [[0.0, 0.0], [0.1, 0.6], [1.0, 1.0]],
        },
        "trace": [
            {
                "item": "i-17",
                "steps": steps,
                "answer": columns[0],
                "right": columns[-1],
                "worth": 0.0,
                "cost": 2.5,
            }
        ],
    }


def _record(**changes: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "hash": "x",
        "config": _config(**changes),
        "inputs": {"data/items.parquet": "ab12"},
    }


def _page(names: list[str], answer: str = "label", **changes: Any) -> str:
    return report.render(_summary(names, answer, **changes), _report(names, answer=answer), _record())


def _facts(summary: dict[str, Any], found: dict[str, Any] | None = None) -> Facts:
    return Facts(summary, found or {}, _config())


LLMS = _names(41)
FOUR = _names(4)


@pytest.fixture(scope="module")
def page() -> str:
    return _page(FOUR)


@pytest.fixture(scope="module")
def large() -> str:
    found = _report(LLMS, domains=57, answer="expert")
    return report.render(_summary(LLMS, "expert"), found, _record(answer="expert"))


def _outcome(summary: dict[str, Any]) -> str:
    return words.outcome(_facts(summary)).replace("\u00a0", " ")


def _notes(summary: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [text.replace("\u00a0", " ") for text, _ in notes.notes(_facts(summary, found))]


def _anchors(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page)


def test_page_shows_every_part_in_order(page: str) -> None:
    expected = ["curve", "methods", "rates", "rivals", "asked", "decisions", "answers", "domains", "unseen"]
    assert _anchors(page) == [*expected, "experts", "configuration"]
    assert page.count("<svg ") == 6


def test_header_says_what_was_found(page: str) -> None:
    text = text_of(page)
    assert (
        "Asking 2.4 of 4 experts per item, the policy is right on 81.0 % (80.0–82.0) at $7.24 per 10,000 "
        "requests; the best single expert, expert 3, on 71.5 % at $12. "
        "Routing pays: +9.5 points, 95 % interval +7.5 to +11.5, at 60 % of its price." in text
    )
    for number in ("3,000", "4,000", "$18.1", ".700", "85 s"):
        assert number in text, number


@pytest.mark.parametrize(
    ("difference", "cost", "says"),
    [
        (0.1, 24.0, "Routing pays: +10.0 points, 95 % interval +8.0 to +12.0, at 2.0 times its price."),
        (0.01, 5.0, "These items show no difference between them (+1.0 points"),
        (0.01, 20.0, "Routing does not pay here: these items show no difference (+1.0 points"),
        (-0.1, 20.0, "Routing does not pay here: it is worse (−10.0 points"),
        (-0.1, 5.0, "Routing costs accuracy here (−10.0 points"),
    ],
)
def test_verdict_is_true_of_the_numbers(difference: float, cost: float, says: str) -> None:
    summary = _summary(FOUR)
    summary["methods"]["frugal_knn"] |= _score(0.715 + difference, cost, 2.0, difference)
    verdict = _outcome(summary)
    assert says in verdict
    assert ("Routing pays" in verdict) == (difference > 0.02)


def test_what_the_price_of_the_best_single_expert_buys_is_said_where_the_policy_costs_more() -> None:
    summary = _summary(FOUR)
    summary["methods"]["best_single"]["cost"] = 7.0
    assert "it already reaches 80.3 % (79.3–81.3), at $5.43." in _outcome(summary)
    summary["methods"]["best_single"]["cost"] = 0.1
    assert "already" not in _outcome(summary)


def test_without_intervals_there_is_no_verdict() -> None:
    summary = _summary(FOUR)
    for method in summary["methods"].values():
        method.pop("ci95", None)
        method.pop("against_best_single", None)
    for point in summary["frugal"]:
        point.pop("ci95")
    page = report.render(summary, None, _record())
    assert "Routing" not in text_of(page).partition("Worth knowing")[0].replace("routing", "")
    assert "interval" not in page[page.index('<section id="methods"') : page.index('<section id="rates"')]


def test_without_report_only_what_the_summary_knows_is_shown() -> None:
    page = report.render(_summary(FOUR), None, _record())
    assert _anchors(page) == ["curve", "methods", "rates", "configuration"]


@pytest.mark.parametrize(
    ("part", "anchor"),
    [
        ("comparisons", "rivals"),
        ("sequences", "asked"),
        ("trace", "decisions"),
        ("confusion", "answers"),
        ("domains", "domains"),
        ("unseen", "unseen"),
        ("experts", "experts"),
    ],
)
def test_sections_go_with_their_data(part: str, anchor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = ("curve", "near", "rivals", "asked", "domains", "roc")
    monkeypatch.setattr(plots, "draw", lambda facts: dict.fromkeys(figures, Markup("<svg></svg>")))
    found = _report(FOUR)
    found[part] = {"column": None} if part == "unseen" else type(found[part])()
    anchors = _anchors(report.render(_summary(FOUR), found, _record()))
    assert anchor not in anchors
    assert len(anchors) == 10


def test_pages_are_well_formed_and_alone_in_the_world(page: str, large: str) -> None:
    for one in (page, large):
        outline = Outline(one)
        assert outline.open == []
        assert len(outline.ids) == len(set(outline.ids))
        assert outline.tags.count("h1") == 1
        assert {target[1:] for target in outline.targets} <= set(outline.ids)
        assert outline.fetched == []
        assert not {"script", "link", "iframe", "object", "img"} & set(outline.tags)
        assert "://" not in re.sub(r"<pre>.*?</pre>", "", one, flags=re.DOTALL)
        assert "@import" not in one
        assert not re.search(r"url\((?!#)", one)
        assert "#0a0" not in one
        assert set(re.findall(r"var\((--\w+)\)", one)) <= set(re.findall(r"(--\w+):", one))
        assert len(one.encode()) < 2_000_000


def test_same_files_give_the_same_bytes(page: str) -> None:
    assert _page(FOUR) == page


def test_hostile_names_are_escaped() -> None:
    names = [HOSTILE, "$x_1$ and $y$", "b"]
    found = _report(names, answer="expert")
    found["trace"][0]["item"] = found["domains"][0]["domain"] = found["unseen"]["values"][0] = HOSTILE
    summary = _summary(names, "expert", warnings=[HOSTILE], unit=f"$ per {HOSTILE}")
    page = report.render(summary, found, _record(description=HOSTILE))
    assert not {"script", "img"} & set(Outline(page).tags)
    assert ">$x_1$ and $y$</text>" in page


def test_answers_that_are_experts_are_not_called_right(large: str) -> None:
    text = text_of(large)
    assert "reaches a mean quality of 81.0 %" in text
    assert "best response" in text
    assert "is right on 81" not in text
    assert "majority vote" not in text
    assert "Who answers what" in text


def test_many_experts_and_domains_stay_readable(large: str) -> None:
    methods = large[large.index('<section id="methods"') : large.index('<section id="rates"')]
    assert methods.count('<th scope="row">expert ') <= 3  # those on the front
    assert "best single expert: expert 40" in methods
    figure = large[large.index("<svg ") : large.index("</svg>")]
    assert figure.count(">expert ") <= 3
    text = text_of(large)
    assert "the 16 experts asked most, all are in the table" in text
    assert "of 57 domains the 8 that gain most and the 8 that gain least" in text
    assert "The 15 most frequent pairs of 41 experts are listed." in text
    assert all(f">expert {number}<" in large for number in range(41))


def test_labels_of_a_figure_do_not_overlap(page: str) -> None:
    figure = page[page.index("<svg ") : page.index("</svg>")]
    found = re.findall(
        r'font-size: 9px[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)</text>', figure.replace("\u00a0", " ")
    )
    called = {"policy: 81.0 % at $7.24", "logistic", "majority", *FOUR}
    at = [(float(x), float(y), text) for x, y, text in found if text in called]
    assert {text for _, _, text in at} == called
    for x, y, text in at:
        for left, base, other in at:
            apart = abs(y - base) >= 9 or x + 4.2 * len(text) <= left or left + 4.2 * len(other) <= x
            assert text == other or apart, (text, other)


def test_single_expert() -> None:
    page = _page(["only"])
    text = text_of(page)
    assert "Asking its only expert, the policy is right on 81.0 %" in text
    assert "Routing" not in text.partition("Worth knowing")[0]


def test_free_experts_and_prices_over_decades() -> None:
    summary = _summary(LLMS, unit="calls")
    for number, name in enumerate(LLMS):
        summary["methods"][f"single/{name}"]["cost"] = 0.0 if number == 0 else 10.0 ** (number % 5)
    page = report.render(summary, _report(LLMS), _record())
    assert "1,000" in page[page.index("<svg ") : page.index("</svg>")]


def test_rivals_that_win_somewhere_are_named() -> None:
    found = notes.notes(_facts(_summary(FOUR), _report(FOUR)))
    assert ("Input router, kNN beats the policy at $1, by up to 10.0 points (at $1).", "rivals") in found
    assert not any("FrugalML beats" in text for text, _ in found)
    rows = {row["name"]: row for row in tables.comparisons(_facts(_summary(FOUR), _report(FOUR)))}
    assert rows["frugalml"]["better"] == [(1.0, 2.0)]
    assert rows["input_knn"] | {"points": 0} == {
        "name": "input_knn",
        "points": 0,
        "better": [(3.0, 3.0)],
        "open": [(2.0, 2.0)],
        "worse": [(1.0, 1.0)],
    }


def test_notes_tell_what_spoils_the_numbers() -> None:
    found = _report(FOUR)
    found["unseen"]["experts"]["4"]["auroc"] = 0.51
    found["domains"][1]["policy"] = 0.6
    found["sequences"][1]["places"]["expert 2"] = [0.0, 0.0, 0.0, 0.0, 1.0]
    items = {"fit": 4000, "test": 3000, "left_out": 12}
    summary = _summary(FOUR, warnings=["the prices look odd"], items=items)
    summary["calibration"][1]["accuracy"] = 0.9
    texts = _notes(summary, found)
    for part in (
        "The prices look odd.",
        "Asking everyone, the best fuser (logistic regression) reaches 81.5 %: +0.5 points",
        "The rehearsal promised more than was seen: 90.0 % against 81.0 %",
        "In domain domain 1, the policy is worse than the best single expert (−10.0 points on 101 items).",
        "Hardly ever asked at this rate: expert 2.",
        "does not tell an unseen label apart here (AUROC .510; .500 is chance)",
        "12 items were left out for want of an answer.",
    ):
        assert any(part in text for text in texts), part


def test_a_policy_that_asks_one_expert_says_so() -> None:
    summary = _summary(FOUR)
    summary["methods"]["frugal_knn"]["experts"] = 1.02
    texts = _notes(summary, _report(FOUR))
    assert "At its rate the policy asks hardly more than one expert: expert 0 dominates." in texts


def test_rates_that_do_the_same_are_one_row(page: str) -> None:
    rows = tables.rates(_facts(_summary(FOUR)))
    assert [(row["first"], row["last"]) for row in rows] == [
        (0.0, 0.001),
        (0.004, 0.004),
        (0.02, 0.02),
        (0.1, 0.1),
    ]
    assert [row["main"] for row in rows] == [True, False, False, False]
    assert "0 to 0.001" in text_of(page)


def test_rates_for_round_values_are_those_of_an_artefact() -> None:
    found = tables.rates_for(_facts(_summary(FOUR)))
    for row in found["cost"]:
        assert row["cost"] <= row["wanted"]
    for row in found["accuracy"]:
        assert row["accuracy"] >= row["wanted"]
    assert {row["wanted"]: row["lambda"] for row in found["cost"]} == {
        **{1.0: 0.1, 2.0: 0.1, 3.0: 0.02, 4.0: 0.02, 5.0: 0.02},
        **{6.0: 0.004, 7.0: 0.004},
    }


def test_lambda_is_explained_with_the_numbers_of_the_run() -> None:
    said = words.rate_in_words(_facts(_summary(FOUR), _report(FOUR)))
    assert said.endswith("at λ = 0.001, an expert of $12 must save 1.2 points.")


def test_front_holds_what_nothing_beats() -> None:
    front = _facts(_summary(FOUR)).front()
    assert front == sorted(front)
    assert [y for _, y in front] == sorted({y for _, y in front})
    facts = _facts(_summary(FOUR))
    assert facts.on_front("frugal_knn")
    points = [(name, p) for name in facts.methods if name not in BOUNDS for p in facts.points(name)]
    best = pareto([Point(*p) for _, p in points])
    assert {name for (name, _), wins in zip(points, best, strict=True) if wins} == {
        name for name in facts.methods if facts.on_front(name)
    }
    assert not facts.on_front("majority")
    assert not facts.on_front("any_correct")


def test_decisions_say_why_they_stop() -> None:
    (decision,) = answers.decisions(_facts(_summary(FOUR), _report(FOUR)))
    assert [step["follows"] for step in decision["steps"]] == ["asks on", "stops"]
    assert decision["steps"][-1]["why"] == "asking on does not pay"


def test_many_labels_are_listed_by_their_worst_confusions() -> None:
    found = _report(FOUR, classes=21)
    table = answers.confusion(_facts(_summary(FOUR), found))
    assert table is not None
    assert table["rows"] == []
    assert [pair["count"] for pair in table["listed"][:2]] == [40, 40]
    assert all(pair["row"] != pair["column"] for pair in table["listed"])
    assert "<h2>Confusions</h2>" in report.render(_summary(FOUR), found, _record())


def test_published_numbers_stand_only_beside_the_recorded_outputs() -> None:
    names = [f"Expert{i}" for i in range(20)]
    text = text_of(report.render(_summary(names), _report(names, classes=20), _record()))
    for number in ("82.13 %", "84.23 %", "83.12 %", "Not comparable."):
        assert number in text
    for others, classes in ((names, 10), (names[:19], 20), ([f"model {i}" for i in range(20)], 20)):
        assert not tables.published(_facts(_summary(others), _report(others, classes=classes)))


def test_configuration_of_the_page_loads_again(page: str, tmp_path: Path) -> None:
    outline = re.search(r"<pre>(job: .*?)</pre>", page, flags=re.DOTALL)
    assert outline
    file = tmp_path / "again.yaml"
    file.write_text(Outline(outline[0]).text[0], encoding="utf-8")
    assert json.loads(json.dumps(identity(load(str(file), FoeConfig)))) == _config()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.001, "0.001"),
        (30.000999, "30"),
        (2.712, "2.71"),
        (1234.5, "1,234"),
        (1e-6, "0.000001"),
    ],
)
def test_prices_have_three_digits_and_no_exponent(value: float, shown: str) -> None:
    assert words.amount(value) == shown


@pytest.mark.parametrize(("unit", "shown"), [("calls", "1 call"), (DOLLARS, "$1"), ("joules", "1 joule")])
def test_prices_have_their_unit(unit: str, shown: str) -> None:
    assert words.pricing(unit)(1.0) == shown


def test_write_puts_the_page_into_the_run(tmp_path: Path, page: str) -> None:
    files = {"run": _record(), "summary": _summary(FOUR), "report": _report(FOUR)}
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    path = Path(report.write(str(tmp_path), None))
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == page
