"""The sections of an evaluation's page that are drawn; the figures behind each chart stand under it."""

from __future__ import annotations

from persona_cli.reports import charts, pages, words
from persona_cli.reports.pages import Html
from persona_cli.reports.shown import Shown, interval
from persona_cli.reports.words import metric_name


def ladder(shown: Shown) -> Html:
    """The leading metric of each model, best first."""
    named = metric_name(shown.metric)
    drawn = charts.forest(
        [{"name": entry["model"], **entry["metrics"][shown.metric]} for entry in shown.stating()],
        axis=named,
        label=f"{named} of each model with its 95 % interval",
        looks=shown.looks,
    )
    return pages.figure(drawn, f"{named}: dots are figures, lines 95 % intervals over users")


def curves(shown: Shown) -> list[Html]:
    names = dict.fromkeys(name for entry in shown.all for name in entry.get("curve") or {})
    figures = []
    for name in names:
        points = [
            {"series": entry["model"], "x": k, "y": value}
            for entry in shown.all
            for k, value in (entry.get("curve") or {}).get(name, ())
        ]
        named = metric_name(name)
        drawn = charts.lines(points, x="k", y=named, label=f"{named} against k", looks=shown.looks, log=True, zero=True)
        figures.append(pages.figure(drawn, f"{named} of the first k of each list"))
    return [pages.side_by_side(figures)]


def segments(shown: Shown) -> list[Html]:
    """A chart for each segmentation; of the baselines only the best, so that groups can still be read."""
    best = [entry for entry in shown.stating() if entry in shown.baselines][:1]
    compared = [*shown.models, *best] if shown.models else shown.baselines
    names = dict.fromkeys(name for entry in compared for name in entry.get("segments") or {})
    figures, tables = [], []
    for name in names:
        rows = [
            {"series": entry["model"], **group}
            for entry in compared
            for group in (entry.get("segments") or {}).get(name, ())
        ]
        told = name.replace("_", " ")
        label = f"{metric_name(shown.metric)} by {told}"
        drawn = charts.dots(rows, axis=metric_name(shown.metric), label=label, looks=shown.looks)
        figures.append(pages.figure(drawn, f"by {told}"))
        cells: list[list[object]] = [
            [row["group"], row["series"], pages.number(row["users"], f"{row['users']:,}"), interval(shown.metric, row)]
            for row in rows
        ]
        tables.append(pages.table([told, "model", "users", metric_name(shown.metric)], cells, label, words=2))
    return [pages.side_by_side(figures), pages.details("figures", tables)]


def trade_off(shown: Shown) -> list[Html]:
    coverage = f"coverage@{shown.metric.partition('@')[2]}"
    points = [
        {"name": entry["model"], "x": held["value"], "y": one["value"], "low": one["low"], "high": one["high"]}
        for entry in shown.stating()
        for one, held in [(entry["metrics"][shown.metric], entry["metrics"].get(coverage))]
        if held is not None
    ]
    if len(points) < 2:
        return []
    x, y = metric_name(coverage), metric_name(shown.metric)
    drawn = charts.scatter(points, x=x, y=y, label=f"{y} against {x}, a dot a model", looks=shown.looks)
    return [pages.figure(drawn, "up: better lists; to the right: more of the catalogue is shown to somebody")]


def calibration(shown: Shown) -> list[Html]:
    """Hit rate by score: scores of different models have different scales, so bins are numbered from the lowest."""
    binned = [entry for entry in shown.all if entry.get("calibration")]
    points = [
        {"series": entry["model"], "x": n, "y": one["hit_rate"], "low": one["hit_low"], "high": one["hit_high"]}
        for entry in binned
        for n, one in enumerate(entry["calibration"], 1)
    ]
    label = "share of hits by score of each model"
    drawn = charts.lines(
        points, x="scores, low to high", y="share of hits", label=label, looks=shown.looks, ordered=True, zero=True
    )
    rows: list[list[object]] = [
        [
            entry["model"],
            f"{one['low']:.4g} to {one['high']:.4g}",
            pages.number(one["entries"], f"{one['entries']:,}"),
            interval("hits", {"value": one["hit_rate"], "low": one["hit_low"], "high": one["hit_high"]}),
        ]
        for entry in binned
        for one in entry["calibration"]
    ]
    told = (
        "each model's scores in bins from the lowest to the highest: scores that mean something have more hits the "
        "higher they are; a flat line says that scores tell nothing"
    )
    table = pages.table(["model", "score", "entries", "share of hits"], rows, label, words=2)
    return [pages.figure(drawn, told), pages.details("figures", [table])]


def cuts(shown: Shown) -> list[Html]:
    """The leading metric at each cut, as a chart and a table, and the trend over the cuts."""
    found = shown.result.get("cuts") or ()
    named = metric_name(shown.metric)
    stated = [
        (words.moment(cut["cut"]), cut["users"], entry["model"], entry["metrics"][shown.metric])
        for cut in found
        for entry in cut["models"]
        if entry["metrics"].get(shown.metric) is not None
    ]
    whole_days = len({cut[:10] for cut, *_ in stated}) == len({cut for cut, *_ in stated})
    points = [
        {"series": model, "x": cut[:10] if whole_days else cut, "y": one["value"], **one}
        for cut, _, model, one in stated
    ]
    label = f"{named} at each cut"
    drawn = charts.lines(points, x="cut", y=named, label=label, looks=shown.looks, ordered=True)
    rows: list[list[object]] = [
        [cut, model, pages.number(users, f"{users:,}"), interval(shown.metric, one)]
        for cut, users, model, one in stated
    ]
    return [
        pages.figure(drawn, "each cut trains on what happened before it and is tested on what followed"),
        pages.listing(words.trend(one) for one in words.stated_trends(shown.result)),
        pages.details("figures", [pages.table(["cut", "model", "users", named], rows, label, words=2)]),
    ]
