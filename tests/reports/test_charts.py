"""Charts: every record is drawn, names stay text, and what is drawn depends on nothing around it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from documents import HOSTILE

from persona_cli.errors import Unavailable
from persona_cli.reports import charts


def forest(names: list[str]) -> str:
    rows = [
        {"name": name, "value": n / 10, "low": n / 10 - 0.05, "high": n / 10 + 0.05} for n, name in enumerate(names)
    ]
    return charts.forest(rows, axis="NDCG@10", label="models")


def dots(names: list[str]) -> str:
    rows = [
        {"group": group, "series": name, "value": n / 10, "low": n / 10 - 0.05, "high": n / 10 + 0.05}
        for n, name in enumerate(names)
        for group in ("new", "heavy")
    ]
    return charts.dots(rows, axis="NDCG@10", label="groups")


def lines(names: list[str]) -> str:
    rows = [{"series": name, "x": k, "y": (n + 1) / k} for n, name in enumerate(names) for k in (1, 5, 10)]
    return charts.lines(rows, x="k", y="recall", label="by k", log=True)


def scatter(names: list[str]) -> str:
    rows = [{"name": name, "x": n / 10, "y": n / 20} for n, name in enumerate(names)]
    return charts.scatter(rows, x="coverage", y="NDCG", label="trade-off")


Draw = Callable[[list[str]], str]
every = pytest.mark.parametrize("draw", [forest, dots, lines, scatter])


def needs_altair() -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")


def marks(svg: str, kind: str) -> list[ET.Element]:
    """The marks of one kind: circles, squares and so on of `symbol`, lines of `rule`, labels of `text`."""
    found = []
    for group in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        if f"mark-{kind} " in group.get("class", "") and "role-mark" in group.get("class", ""):
            found += list(group)
    return found


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@every
def test_every_name_is_there_and_readable(draw: Draw) -> None:
    needs_altair()
    svg = draw(["ease", HOSTILE, '"<b>\u202e&'])
    assert {"ease", '"<b>\\u202e&'} <= set(texts(svg))
    assert any(text.startswith("<script>alert('") for text in texts(svg))  # long names are cut
    assert not re.search("<script|<b>|\u202e", svg)


@every
def test_a_chart_fits_any_page(draw: Draw) -> None:
    needs_altair()
    svg = draw(["ease", "knn"])
    assert set(re.findall(r"https?://[^\"' <)]*", svg)) == {"http://www.w3.org/2000/svg"}
    assert "currentColor" in svg and charts._INK not in svg
    assert ET.fromstring(svg).get("role") == "img" and ET.fromstring(svg).get("aria-label")
    assert draw(["ease", "knn"]) == svg  # the same records, the same bytes


def test_whiskers_are_drawn_where_there_is_an_interval() -> None:
    needs_altair()
    rows = [
        {"name": "a", "value": 1.0, "low": 0.5, "high": 1.5},
        {"name": "b", "value": 2.0, "low": 1.0, "high": None},
        {"name": "c", "value": None, "low": None, "high": None},
    ]
    svg = charts.forest(rows, axis="x", label="x")
    assert (len(marks(svg, "symbol")), len(marks(svg, "rule"))) == (2, 1)
    assert "a" in texts(svg) and "b" in texts(svg) and "c" not in texts(svg)


def test_dots_of_a_forest_stand_in_proportion_and_in_the_order_given() -> None:
    needs_altair()
    rows = [{"name": name, "value": value} for name, value in (("z", 0.1), ("a", 0.4), ("m", 0.2))]
    places = [
        tuple(map(float, re.findall(r"translate\(([\d.]+),([\d.]+)\)", mark.get("transform", ""))[0]))
        for mark in marks(charts.forest(rows, axis="x", label="x"), "symbol")
    ]
    (x1, y1), (x2, y2), (x3, y3) = places
    assert (x3 - x1) / (x2 - x1) == pytest.approx(1 / 3, abs=0.01)
    assert y1 < y2 < y3


def test_looks_are_given_once_and_followed() -> None:
    found = charts.looks(["a", "popular", "b"], muted=["popular"])
    assert [look.color for look in found.values()] == [charts.PALETTE[0], charts.GREY, charts.PALETTE[1]]
    assert len({look.shape for look in found.values()}) == 3
    assert set(charts.looks([str(n) for n in range(20)])) == {str(n) for n in range(20)}
    needs_altair()
    svg = charts.forest([{"name": "b", "value": 1.0}], axis="x", label="x", looks=found)
    assert [mark.get("fill") for mark in marks(svg, "symbol")] == [charts.PALETTE[1]]


def test_names_of_dots_at_one_place_do_not_cover_each_other() -> None:
    needs_altair()
    names = ["layered", "knn", "ease", "spectral"]
    svg = charts.scatter([{"name": name, "x": 0.9, "y": 0.2} for name in names], x="x", y="y", label="x")
    places = [
        tuple(map(float, re.findall(r"translate\(([\d.-]+),([\d.-]+)\)", mark.get("transform", ""))[0]))
        for mark in marks(svg, "text")
    ]
    assert len(places) == 4
    for n, (x1, y1) in enumerate(places):
        for x2, y2 in places[n + 1 :]:
            assert abs(y1 - y2) >= 8 or abs(x1 - x2) > 30


def test_nothing_to_draw_is_no_chart() -> None:
    needs_altair()
    assert [draw([]) for draw in (forest, dots, lines, scatter)] == [""] * 4


def test_what_to_install_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for missing in ("altair", "vl_convert"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(Unavailable, match=missing.replace("_", "-")) as caught:
                charts.check()
            assert caught.value.hint == "pip install 'persona-cli[report]'" and caught.value.exit_code == 69
