"""The page of an evaluation: what the document holds is there, what it does not hold is not; figures are its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from documents import HOSTILE, Reader, bare, full, interval, model

from persona_cli.reports.words import conclusion

SECTIONS = {
    "curve": "Metric against k",
    "segments": "By group of users",
    "calibration": "Calibration of scores",
    "comparisons": "Comparisons",
    "served_worse": "Who is served worse",
    "slices": "Slices",
    "leakage": "Leakage",
    "cuts": "Over time",
    "compat": "What other libraries would print",
    "online": "Online",
}
ALWAYS = ["Models", "Accuracy against coverage", "Notes and definitions", "Settings"]


@pytest.fixture(autouse=True, scope="module")
def _extra() -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")


def html(result: dict[str, Any], **more: Any) -> str:
    from persona_cli.reports import evaluation

    return evaluation.html(result, **more)


@pytest.fixture(scope="module")
def whole(_extra: None) -> Reader:
    return Reader(html(full(), definitions={"ndcg": "gain by place", "freshness": "share of new items"}))


def without(key: str) -> dict[str, Any]:
    result = {name: value for name, value in full().items() if name != key}
    if key == "cuts":
        del result["trend"]
    if key == "leakage":
        del result["inflation"]
    for entry in result["models"]:
        entry.pop(key, None)
    return result


def figures(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every figure of a model, comparison, group … that a reader could look for."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name == "value" and isinstance(value, float):
                yield path, value
            elif name not in ("p", "curve", "calibration"):
                yield from figures(value, f"{path}.{name}")
    elif isinstance(found, list):
        for value in found:
            yield from figures(value, path)


def test_every_section_is_there(whole: Reader) -> None:
    assert set(whole.headings) == {*ALWAYS, *SECTIONS.values()}
    assert whole.names.count("svg") == 6  # models, curve, segments, trade-off, calibration, cuts


@pytest.mark.parametrize("key", SECTIONS)
def test_a_section_is_left_out_where_its_key_is_missing(key: str) -> None:
    assert set(Reader(html(without(key))).headings) == {*ALWAYS, *SECTIONS.values()} - {SECTIONS[key]}


def test_a_document_without_optional_keys(whole: Reader) -> None:
    read = Reader(html(bare()))
    assert read.headings == ALWAYS
    assert "ease leads with NDCG@10 0.2468 (0.2343…0.2593), +150 % (+149…+151) over popular." in read.text


def test_figures_are_those_of_the_document(whole: Reader) -> None:
    wanted = {value for path, value in figures(full()) if "trend" not in path and path != ".models.segments"}
    assert wanted and wanted <= set(whole.exact)
    for shown in ("0.2468", "0.2343…0.2593", "0.0003", "12,000", "0.3456", "-0.1222", "1,234 users", "4,321"):
        assert shown in whole.text, shown


def test_it_says_what_was_asked_and_what_it_comes_to(whole: Reader) -> None:
    assert "time split: trained before 2026-03-01" in whole.text
    assert "leakage: 1 check, none found" in whole.text and "not checked: " in whole.text
    assert "a note of the run" in whole.text and "gain by place" in whole.text
    assert "share of new items" not in whole.text  # a metric that no model states
    assert "knn ≈" in whole.text and "≈ cannot be told apart from the best baseline, popular, on NDCG@10" in whole.text


def test_names_of_others_stay_text() -> None:
    page = html(full(HOSTILE))
    read, plain = Reader(page), Reader(html(full()))
    assert "script" not in read.names and "<script" not in page and "\u202e" not in page
    assert read.headings == plain.headings
    assert {name for name, _ in read.attributes} == {name for name, _ in plain.attributes}


def test_nothing_comes_from_elsewhere() -> None:
    page = html(full())
    assert set(re.findall(r"https?:[^\"' <)]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|src=|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_a_leak_cannot_be_overlooked() -> None:
    result = full()
    result["leakage"] = {
        "leaked": True,
        "checks": [{"name": "duplicates", "status": "leak", "detail": "17 events have a copy after the cut"}],
    }
    page = html(result)
    assert 'class="alarm">This run leaks: its figures are too good and cannot be trusted.' in page
    assert "duplicates: 17 events have a copy after the cut" in page


def test_the_conclusion_says_who_leads_and_what_is_noise() -> None:
    result = full()
    assert conclusion(result) == [
        "ease leads with NDCG@10 0.2468 (0.2343…0.2593), +150 % (+149…+151) over popular.",
        "It is ahead of knn beyond noise.",
        "Within noise of the baseline popular: knn.",
    ]
    result["comparisons"][0]["verdict"] = "within noise"
    assert "It cannot be told apart from knn." in conclusion(result)
    result["models"] = [model("popular", 0.3), model("ease", 0.2)]
    result["comparisons"] = []
    assert conclusion(result) == [
        "No model is ahead of the baselines: popular has the highest NDCG@10, 0.3000 (0.2875…0.3125)."
    ]
    result["models"][0]["metrics"]["ndcg@10"] = result["models"][1]["metrics"]["ndcg@10"] = None
    assert conclusion(result) == ["No model has a figure for NDCG@10."]


def test_open_intervals_and_missing_figures() -> None:
    result = bare()
    result["models"][0]["metrics"]["ndcg@10"] = {"value": 0.2222, "low": None, "high": 0.3}
    result["models"][1]["metrics"]["recall@10"] = None
    result["models"][1]["lift"]["ndcg@10"] = None
    text = Reader(html(result)).text
    assert "?…0.3000" in text and "popular has none" in text
    only = bare() | {"models": [model("theirs", 0.2, lift={})]}
    assert "theirs leads with NDCG@10 0.2000 (0.1875…0.2125)." in Reader(html(only)).text


def test_a_trend_of_too_few_cuts_is_not_stated() -> None:
    result = full()
    result["trend"] = [{"model": "ease", "metric": "ndcg@10", "slope": None}]
    assert "a cut" not in Reader(html(result)).text.split("Over time")[-1].split("figures")[0]
    result["trend"] = [{"model": "ease", "metric": "ndcg@10", "slope": interval(0.001, 0.005)}]
    assert "changes by +0.0010 (-0.0040…+0.0060) a cut, within noise" in Reader(html(result)).text
