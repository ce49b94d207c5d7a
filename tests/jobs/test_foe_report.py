"""The report of a fusion of experts: complete, true of its numbers, escaped, the same every time."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from configs.load import load
from configs.schema.base import identity
from configs.schema.foe import FoeConfig
from fusion.routing.evaluation import Point, pareto
from jobs import report
from jobs.report.routing import answers, notes, plots, tables, words
from jobs.report.routing.facts import BOUNDS
from tests import routed
from tests.pages import Outline, text_of

HOSTILE = '<script>alert("x")</script> & <img src=x onerror=alert(1)> {{ 7 * 7 }}'


@pytest.fixture(scope="module")
def page() -> str:
    return routed.page(routed.FOUR)


@pytest.fixture(scope="module")
def large() -> str:
    found = routed.report(routed.LLMS, domains=57, answer="expert")
    return report.render(routed.summary(routed.LLMS, "expert"), found, routed.record(answer="expert"))


def _outcome(summary: dict[str, Any]) -> str:
    return words.outcome(routed.facts(summary)).replace("\u00a0", " ")


def _notes(summary: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [text.replace("\u00a0", " ") for text, _ in notes.notes(routed.facts(summary, found))]


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
    summary = routed.summary(routed.FOUR)
    summary["methods"]["frugal_knn"] |= routed.score(0.715 + difference, cost, 2.0, difference)
    verdict = _outcome(summary)
    assert says in verdict
    assert ("Routing pays" in verdict) == (difference > 0.02)


def test_what_the_price_of_the_best_single_expert_buys_is_said_where_the_policy_costs_more() -> None:
    summary = routed.summary(routed.FOUR)
    summary["methods"]["best_single"]["cost"] = 7.0
    assert "it already reaches 80.3 % (79.3–81.3), at $5.43." in _outcome(summary)
    summary["methods"]["best_single"]["cost"] = 0.1
    assert "already" not in _outcome(summary)


def test_without_intervals_there_is_no_verdict() -> None:
    summary = routed.summary(routed.FOUR)
    for method in summary["methods"].values():
        method.pop("ci95", None)
        method.pop("against_best_single", None)
    for point in summary["frugal"]:
        point.pop("ci95")
    page = report.render(summary, None, routed.record())
    assert "Routing" not in text_of(page).partition("Worth knowing")[0].replace("routing", "")
    assert "interval" not in page[page.index('<section id="methods"') : page.index('<section id="rates"')]


def test_without_report_only_what_the_summary_knows_is_shown() -> None:
    page = report.render(routed.summary(routed.FOUR), None, routed.record())
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
    found = routed.report(routed.FOUR)
    found[part] = {"column": None} if part == "unseen" else type(found[part])()
    anchors = _anchors(report.render(routed.summary(routed.FOUR), found, routed.record()))
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
    assert routed.page(routed.FOUR) == page


def test_hostile_names_are_escaped() -> None:
    names = [HOSTILE, "$x_1$ and $y$", "b"]
    found = routed.report(names, answer="expert")
    found["trace"][0]["item"] = found["domains"][0]["domain"] = found["unseen"]["values"][0] = HOSTILE
    summary = routed.summary(names, "expert", warnings=[HOSTILE], unit=f"$ per {HOSTILE}")
    page = report.render(summary, found, routed.record(description=HOSTILE))
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
    called = {"policy: 81.0 % at $7.24", "logistic", "majority", *routed.FOUR}
    at = [(float(x), float(y), text) for x, y, text in found if text in called]
    assert {text for _, _, text in at} == called
    for x, y, text in at:
        for left, base, other in at:
            apart = abs(y - base) >= 9 or x + 4.2 * len(text) <= left or left + 4.2 * len(other) <= x
            assert text == other or apart, (text, other)


def test_single_expert() -> None:
    page = routed.page(["only"])
    text = text_of(page)
    assert "Asking its only expert, the policy is right on 81.0 %" in text
    assert "Routing" not in text.partition("Worth knowing")[0]


def test_free_experts_and_prices_over_decades() -> None:
    summary = routed.summary(routed.LLMS, unit="calls")
    for number, name in enumerate(routed.LLMS):
        summary["methods"][f"single/{name}"]["cost"] = 0.0 if number == 0 else 10.0 ** (number % 5)
    page = report.render(summary, routed.report(routed.LLMS), routed.record())
    assert "1,000" in page[page.index("<svg ") : page.index("</svg>")]


def test_rivals_that_win_somewhere_are_named() -> None:
    found = notes.notes(routed.facts(routed.summary(routed.FOUR), routed.report(routed.FOUR)))
    assert ("Input router, kNN beats the policy at $1, by up to 10.0 points (at $1).", "rivals") in found
    assert not any("FrugalML beats" in text for text, _ in found)
    rows = {
        row["name"]: row
        for row in tables.comparisons(routed.facts(routed.summary(routed.FOUR), routed.report(routed.FOUR)))
    }
    assert rows["frugalml"]["better"] == [(1.0, 2.0)]
    assert rows["input_knn"] | {"points": 0} == {
        "name": "input_knn",
        "points": 0,
        "better": [(3.0, 3.0)],
        "open": [(2.0, 2.0)],
        "worse": [(1.0, 1.0)],
    }


def test_notes_tell_what_spoils_the_numbers() -> None:
    found = routed.report(routed.FOUR)
    found["unseen"]["experts"]["4"]["auroc"] = 0.51
    found["domains"][1]["policy"] = 0.6
    found["sequences"][1]["places"]["expert 2"] = [0.0, 0.0, 0.0, 0.0, 1.0]
    items = {"fit": 4000, "test": 3000, "left_out": 12}
    summary = routed.summary(routed.FOUR, warnings=["the prices look odd"], items=items)
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
    summary = routed.summary(routed.FOUR)
    summary["methods"]["frugal_knn"]["experts"] = 1.02
    texts = _notes(summary, routed.report(routed.FOUR))
    assert "At its rate the policy asks hardly more than one expert: expert 0 dominates." in texts


def test_rates_that_do_the_same_are_one_row(page: str) -> None:
    rows = tables.rates(routed.facts(routed.summary(routed.FOUR)))
    assert [(row["first"], row["last"]) for row in rows] == [
        (0.0, 0.001),
        (0.004, 0.004),
        (0.02, 0.02),
        (0.1, 0.1),
    ]
    assert [row["main"] for row in rows] == [True, False, False, False]
    assert "0 to 0.001" in text_of(page)


def test_rates_for_round_values_are_those_of_an_artefact() -> None:
    found = tables.rates_for(routed.facts(routed.summary(routed.FOUR)))
    for row in found["cost"]:
        assert row["cost"] <= row["wanted"]
    for row in found["accuracy"]:
        assert row["accuracy"] >= row["wanted"]
    assert {row["wanted"]: row["lambda"] for row in found["cost"]} == {
        **{1.0: 0.1, 2.0: 0.1, 3.0: 0.02, 4.0: 0.02, 5.0: 0.02},
        **{6.0: 0.004, 7.0: 0.004},
    }


def test_lambda_is_explained_with_the_numbers_of_the_run() -> None:
    said = words.rate_in_words(routed.facts(routed.summary(routed.FOUR), routed.report(routed.FOUR)))
    assert said.endswith("at λ = 0.001, an expert of $12 must save 1.2 points.")


def test_front_holds_what_nothing_beats() -> None:
    front = routed.facts(routed.summary(routed.FOUR)).front()
    assert front == sorted(front)
    assert [y for _, y in front] == sorted({y for _, y in front})
    facts = routed.facts(routed.summary(routed.FOUR))
    assert facts.on_front("frugal_knn")
    points = [(name, p) for name in facts.methods if name not in BOUNDS for p in facts.points(name)]
    best = pareto([Point(*p) for _, p in points])
    assert {name for (name, _), wins in zip(points, best, strict=True) if wins} == {
        name for name in facts.methods if facts.on_front(name)
    }
    assert not facts.on_front("majority")
    assert not facts.on_front("any_correct")


def test_decisions_say_why_they_stop() -> None:
    (decision,) = answers.decisions(routed.facts(routed.summary(routed.FOUR), routed.report(routed.FOUR)))
    assert [step["follows"] for step in decision["steps"]] == ["asks on", "stops"]
    assert decision["steps"][-1]["why"] == "asking on does not pay"


def test_many_labels_are_listed_by_their_worst_confusions() -> None:
    found = routed.report(routed.FOUR, classes=21)
    table = answers.confusion(routed.facts(routed.summary(routed.FOUR), found))
    assert table is not None
    assert table["rows"] == []
    assert [pair["count"] for pair in table["listed"][:2]] == [40, 40]
    assert all(pair["row"] != pair["column"] for pair in table["listed"])
    assert "<h2>Confusions</h2>" in report.render(routed.summary(routed.FOUR), found, routed.record())


def test_published_numbers_stand_only_beside_the_recorded_outputs() -> None:
    names = [f"Expert{i}" for i in range(20)]
    text = text_of(report.render(routed.summary(names), routed.report(names, classes=20), routed.record()))
    for number in ("82.13 %", "84.23 %", "83.12 %", "Not comparable."):
        assert number in text
    for others, classes in ((names, 10), (names[:19], 20), ([f"model {i}" for i in range(20)], 20)):
        assert not tables.published(
            routed.facts(routed.summary(others), routed.report(others, classes=classes))
        )


def test_configuration_of_the_page_loads_again(page: str, tmp_path: Path) -> None:
    outline = re.search(r"<pre>(job: .*?)</pre>", page, flags=re.DOTALL)
    assert outline
    file = tmp_path / "again.yaml"
    file.write_text(Outline(outline[0]).text[0], encoding="utf-8")
    assert json.loads(json.dumps(identity(load(str(file), FoeConfig)))) == routed.config()


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


@pytest.mark.parametrize(
    ("unit", "shown"), [("calls", "1 call"), (routed.DOLLARS, "$1"), ("joules", "1 joule")]
)
def test_prices_have_their_unit(unit: str, shown: str) -> None:
    assert words.pricing(unit)(1.0) == shown


def test_write_puts_the_page_into_the_run(tmp_path: Path, page: str) -> None:
    files = {
        "run": routed.record(),
        "summary": routed.summary(routed.FOUR),
        "report": routed.report(routed.FOUR),
    }
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    path = Path(report.write(str(tmp_path), None))
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == page
