"""Charts as static inline SVG from plain records: forest, lines, dots, scatter and histogram.

Every chart is drawn to stand in a page of either colour scheme: the background is transparent, and text and lines take
the colour of the text around them (`currentColor`). A series has a colour and a shape or dash of its own, so that no
colour needs to be told apart: the palette is that of Okabe & Ito (Color Universal Design, 2008) in an order that keeps
neighbours far apart; muted series, such as baselines, are grey. `looks` gives them, once for all charts of a page.

altair and vl-convert are the extra `[report]`: Unavailable where they are missing.
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from persona_cli.errors import Unavailable
from persona_cli.reports.words import visible

Records = Sequence[Mapping[str, Any]]


class Look(NamedTuple):
    """How one series is drawn in every chart of a page."""

    color: str
    shape: str
    dash: list[int]


Looks = Mapping[str, Look]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#8A8A8A"
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])
WIDTH = 440
_TALL = 300
_ROW = 24
_INK = "#010203"  # stands for the colour of the text around the chart until the SVG is there
_LONGEST_LABEL = 150  # pixels


def looks(names: Iterable[str], muted: Collection[str] = ()) -> dict[str, Look]:
    """Looks for series, in the order given; those in `muted` are grey."""
    bright = itertools.cycle(PALETTE)
    ways = zip(dict.fromkeys(names), itertools.cycle(SHAPES), itertools.cycle(DASHES), strict=False)
    return {name: Look(GREY if name in muted else next(bright), shape, dash) for name, shape, dash in ways}


def check() -> None:
    """Unavailable where charts cannot be drawn; to be asked before long work."""
    _module("altair"), _module("vl_convert")


def forest(records: Records, *, axis: str, label: str, looks: Looks | None = None) -> str:
    """A dot and its interval for each record, one under another: {"name", "value", "low", "high"}.

    `axis` is the name of the figure, `label` says for those who cannot see it what the chart shows; bounds may be None.
    The order is that of the records.
    """
    alt = _module("altair")
    rows = _rows(records, "name", ("value",))
    if not rows:
        return ""
    names = list(dict.fromkeys(row["name"] for row in rows))
    y = alt.Y("name:N", sort=names, title=None)
    color = _scale(alt, "Color", "color", names, looks, field="name")
    x = alt.X("value:Q", title=visible(axis), scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=6))
    dots = alt.Chart(_data(alt, rows)).mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=color)
    layers = [dots]
    if spans := _spans(rows):
        bars = alt.Chart(_data(alt, spans)).mark_rule(strokeWidth=2)
        layers.insert(0, bars.encode(x=alt.X("low:Q", title=visible(axis)), x2="high:Q", y=y, color=color))
    return _drawn(alt.layer(*layers), _ROW * len(names) + 50, label)


def dots(records: Records, *, axis: str, label: str, looks: Looks | None = None) -> str:
    """Dots and intervals by group, in each group one a series: {"group", "series", "value", "low", "high"}."""
    alt = _module("altair")
    rows = _rows(records, "series", ("value",))
    if not rows:
        return ""
    rows = [row | {"group": visible(str(row["group"]))} for row in rows]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    names = list(dict.fromkeys(row["series"] for row in rows))
    shared = {
        "y": alt.Y("group:N", sort=groups, title=None, axis=alt.Axis(grid=True)),
        "yOffset": alt.YOffset("series:N", sort=names, scale=alt.Scale(paddingOuter=0.4)),
        "color": _scale(alt, "Color", "color", names, looks, legend=True),
    }
    x = alt.X("value:Q", title=visible(axis), scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=6))
    layers = [
        alt.Chart(_data(alt, rows))
        .mark_point(filled=True, size=50, opacity=1)
        .encode(x=x, shape=_scale(alt, "Shape", "shape", names, looks, legend=True), **shared)
    ]
    if spans := _spans(rows):
        bars = alt.Chart(_data(alt, spans)).mark_rule(strokeWidth=1.5)
        layers.insert(0, bars.encode(x=alt.X("low:Q", title=visible(axis)), x2="high:Q", **shared))
    height = len(groups) * max(_ROW, 11 * len(names) + 8) + 80
    return _drawn(alt.layer(*layers), height, label)


def lines(
    records: Records,
    *,
    x: str,
    y: str,
    label: str,
    looks: Looks | None = None,
    log: bool = False,
    ordered: bool = False,
    zero: bool = False,
) -> str:
    """A line through the points of each series: {"series", "x", "y"}, with "low" and "high" also whiskers.

    x is a number, on a logarithmic axis with `log`; with `ordered` it is a name, in the order of the records. With
    `zero` the y axis begins at 0.
    """
    alt = _module("altair")
    rows = _rows(records, "series", ("x", "y"))
    if not rows:
        return ""
    names = list(dict.fromkeys(row["series"] for row in rows))
    if ordered:
        rows = [row | {"x": visible(str(row["x"]))} for row in rows]
        places = list(dict.fromkeys(row["x"] for row in rows))
        across = alt.X("x:O", title=visible(x), sort=places, axis=alt.Axis(labelAngle=0, labelLimit=90))
    else:
        scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
        ticks = _ticks([row["x"] for row in rows]) if log else alt.Undefined
        across = alt.X("x:Q", title=visible(x), scale=scale, axis=alt.Axis(values=ticks, format="~g", grid=False))
    color = _scale(alt, "Color", "color", names, looks, legend=True)
    up = alt.Y("y:Q", title=visible(y), scale=alt.Scale(zero=zero))
    base = alt.Chart(_data(alt, rows))
    dash = _scale(alt, "StrokeDash", "dash", names, looks)
    # Beside each other, so that whiskers at one place can be told apart.
    beside = {"xOffset": alt.XOffset("series:N", sort=names, scale=alt.Scale(paddingOuter=1))} if ordered else {}
    layers = [
        base.mark_line(strokeWidth=1.8).encode(x=across, y=up, color=color, strokeDash=dash, **beside),
        base.mark_point(filled=True, size=36, opacity=1).encode(
            x=across, y=up, color=color, shape=_scale(alt, "Shape", "shape", names, looks, legend=True), **beside
        ),
    ]
    if spans := _spans(rows):
        bars = alt.Chart(_data(alt, spans)).mark_rule(strokeWidth=1.2, opacity=0.7)
        layers.insert(0, bars.encode(x=across, y=alt.Y("low:Q", title=visible(y)), y2="high:Q", color=color, **beside))
    return _drawn(alt.layer(*layers), _TALL, label)


def histogram(bars: Records, curves: Records, *, x: str, y: str, label: str, looks: Looks | None = None) -> str:
    """Grey bars {"low", "high", "y"} under curves {"series", "x", "y"}; x, above 0, is on a logarithmic axis."""
    alt = _module("altair")
    rows = _rows(curves, "series", ("x", "y"))
    if not bars or not rows:
        return ""
    names = list(dict.fromkeys(row["series"] for row in rows))
    ends = [bar["low"] for bar in bars] + [bar["high"] for bar in bars]
    scale = alt.Scale(type="log", nice=False, domain=[min(ends), max(ends)])
    ticks = [10.0**power for power in range(-3, 6) if min(ends) <= 10.0**power <= max(ends)]
    axis = alt.Axis(values=ticks, format="~g", grid=False)
    up = alt.Y("y:Q", title=visible(y), scale=alt.Scale(zero=True), axis=alt.Axis(format="~s"))
    filled = alt.Chart(_data(alt, [{**bar, "base": 0} for bar in bars])).mark_rect(color=GREY, opacity=0.45)
    lines = alt.Chart(_data(alt, rows)).mark_line(strokeWidth=1.8)
    return _drawn(
        alt.layer(
            filled.encode(x=alt.X("low:Q", title=visible(x), scale=scale, axis=axis), x2="high:Q", y=up, y2="base:Q"),
            lines.encode(
                x=alt.X("x:Q", title=visible(x), scale=scale, axis=axis),
                y=up,
                color=_scale(alt, "Color", "color", names, looks, legend=True).legend(
                    title=None, orient="bottom", symbolType="stroke", symbolStrokeWidth=2
                ),
                strokeDash=_scale(alt, "StrokeDash", "dash", names, looks),
            ),
        ),
        _TALL,
        label,
    )


def scatter(records: Records, *, x: str, y: str, label: str, looks: Looks | None = None) -> str:
    """A dot for each record with its name beside it: {"name", "x", "y"}, with "low" and "high" also whiskers in y."""
    alt = _module("altair")
    rows = _rows(records, "name", ("x", "y"))
    if not rows:
        return ""
    names = [row["name"] for row in rows]
    color = _scale(alt, "Color", "color", list(dict.fromkeys(names)), looks, field="name")
    ends = [row[end] for row in rows for end in ("y", "low", "high") if row.get(end) is not None]
    wide, tall = _room([row["x"] for row in rows], 0.18), _room(ends, 0.08)
    across = alt.X("x:Q", title=visible(x), scale=alt.Scale(domain=wide, nice=False), axis=alt.Axis(tickCount=5))
    up = alt.Y("y:Q", title=visible(y), scale=alt.Scale(domain=tall, nice=False), axis=alt.Axis(tickCount=6))
    points = alt.Chart(_data(alt, rows)).mark_point(filled=True, size=70, opacity=1)
    layers = [points.encode(x=across, y=up, color=color)]
    if spans := _spans(rows):
        bars = alt.Chart(_data(alt, spans)).mark_rule(strokeWidth=1.2, opacity=0.7)
        layers.insert(0, bars.encode(x=across, y=alt.Y("low:Q", title=visible(y)), y2="high:Q", color=color))
    text = alt.Chart(_data(alt, _named(rows, wide, tall))).mark_text(color=_INK, limit=_LONGEST_LABEL, fontSize=12)
    beside = {"x": alt.X("at_x:Q", title=visible(x)), "y": alt.Y("at_y:Q", title=visible(y))}
    layers.append(text.encode(text="name:N", **beside))
    return _drawn(alt.layer(*layers), _TALL, label)


def _room(values: Sequence[float], share: float) -> list[float]:
    """From the least to the largest value, and a share of that more on either side."""
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * share
    return [low - room, high + room]


def _named(rows: list[dict[str, Any]], wide: Sequence[float], tall: Sequence[float]) -> list[dict[str, Any]]:
    """Where each dot's name goes, in units of the axes: the nearest place over no dot, no other name and no edge.

    Places are tried in pixels of about the size at which the chart is drawn.
    """
    across, up = 380 / (wide[1] - wide[0]), 240 / (tall[1] - tall[0])
    dots = [(row["x"] * across, row["y"] * up) for row in rows]
    edges = (wide[0] * across, tall[0] * up, wide[1] * across, tall[1] * up)
    taken: list[tuple[float, float, float, float]] = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    named = []
    for row, (x, y) in zip(rows, dots, strict=True):
        half = min(3.4 * len(row["name"]), _LONGEST_LABEL / 2)
        places = [
            (x + side * (half + 8), y + step)
            for step in (0, 9, -9, 18, -18, 32, -32)
            for side in ((1, -1) if abs(step) < 32 else (1, -1, 0))
        ]

        def crossed(place: tuple[float, float], half: float = half) -> int:
            left, low, right, high = place[0] - half, place[1] - 7, place[0] + half, place[1] + 7
            outside = left < edges[0] or low < edges[1] or right > edges[2] or high > edges[3]
            return 9 * outside + sum(left < d and a < right and low < e and b < high for a, b, d, e in taken)

        at = min(places, key=crossed)
        taken.append((at[0] - half, at[1] - 7, at[0] + half, at[1] + 7))
        named.append(row | {"at_x": at[0] / across, "at_y": at[1] / up})
    return named


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(
            f"charts need the Python package {name.replace('_', '-')}, which is not installed",
            "pip install 'persona-cli[report]'",
        ) from error


def _rows(records: Records, name: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Records that have every figure needed, with names that can be read."""
    return [
        dict(record) | {name: visible(str(record[name]))}
        for record in records
        if all(record.get(field) is not None for field in needed)
    ]


def _spans(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose interval has both ends."""
    return [row for row in rows if row.get("low") is not None and row.get("high") is not None]


def _data(alt: Any, rows: list[dict[str, Any]]) -> Any:
    return alt.InlineData(values=rows)


def _scale(
    alt: Any, channel: str, of: str, names: list[str], given: Looks | None, legend: bool = False, field: str = "series"
) -> Any:
    """One channel of the looks of the series there are. Channels with a legend share one."""
    readable = {visible(name): look for name, look in (given or {}).items()}
    readable = looks(names) | readable
    return getattr(alt, channel)(
        f"{field}:N",
        sort=names,
        scale=alt.Scale(domain=names, range=[getattr(readable[name], of) for name in names]),
        legend=_legend(alt) if legend else None,
    )


def _legend(alt: Any) -> Any:
    return alt.Legend(
        title=None, orient="bottom", columns=3, labelLimit=_LONGEST_LABEL, symbolOpacity=1, symbolStrokeWidth=0
    )


def _ticks(places: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, 20, 50 … within what is there, and the last place."""
    steps = [step * 10**power for power in range(-2, 7) for step in (1, 2, 5)]
    last = max(places)
    # A tick just below the last one would run into it.
    return [step for step in steps if min(places) <= step <= last / 1.4] + [last]


def _drawn(chart: Any, height: int, label: str) -> str:
    """The chart as an SVG element that takes its width and colours from the page around it."""
    alt = _module("altair")
    quiet = {
        "labelColor": _INK,
        "titleColor": _INK,
        "domainColor": _INK,
        "tickColor": _INK,
        "gridColor": _INK,
        "gridOpacity": 0.12,
        "domainOpacity": 0.4,
        "tickOpacity": 0.4,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelLimit": _LONGEST_LABEL,
    }
    spec = (
        chart.properties(width=WIDTH, height=height, background="transparent")
        .properties(autosize=alt.AutoSizeParams(type="fit", contains="padding"))
        .configure(font="Arial, Helvetica, Liberation Sans, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(**quiet)
        .configure_legend(labelColor=_INK, labelFontSize=12, symbolSize=60)
        .to_dict()
    )
    return _inline(_module("vl_convert").vegalite_to_svg(spec, allowed_base_urls=[]), label)


def _inline(svg: str, label: str) -> str:
    """Made fit for a page: no ids that could meet others', colours of the page, a label, no links."""
    svg = re.sub(r' xmlns:xlink="[^"]*"', "", svg)
    mark = f"c{abs(_fold(svg)):x}"
    svg = re.sub(r'\bid="(\w+)"', rf'id="{mark}-\1"', svg)
    svg = re.sub(r"url\(#(\w+)\)", rf"url(#{mark}-\1)", svg)
    svg = svg.replace(_INK, "currentColor")
    named = f'role="img" aria-label="{escape(visible(label), quote=True)}"'
    return svg.replace("<svg ", f"<svg {named} ", 1)


def _fold(text: str) -> int:
    """A number of a text, the same in every process."""
    from zlib import crc32

    return crc32(text.encode())
