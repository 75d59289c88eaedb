"""One evaluation as a page for people: what was asked, what it comes to, and every figure behind that.

Made from the result document alone (result.json of an evaluation). Every part of the document beyond the models is
optional, and a section is there where the document holds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from persona_cli.reports import charts, pages, words
from persona_cli.reports.pages import Html, Section
from persona_cli.reports.words import metric_name

Entry = Mapping[str, Any]


class Shown:
    """Models and baselines apart, the metric that leads, the largest k."""

    def __init__(self, result: Entry) -> None:
        self.result = result
        self.models, self.baselines = words.models_first(result["models"])
        self.all = [*self.models, *self.baselines]
        muted = [entry["model"] for entry in self.baselines] if self.models else []
        self.looks = charts.looks([entry["model"] for entry in self.all], muted)
        self.metric = words.leading(result)
        self.k = max(result["k"])

    def keys(self, k: int) -> list[str]:
        """Metrics at k that some model states, in the order of the document."""
        found = dict.fromkeys(key for entry in self.all for key, one in entry["metrics"].items() if one is not None)
        return [key for key in found if key.partition("@")[2] == str(k)]

    def grouped(self, row: Callable[[Entry], list[object]]) -> list[list[object]]:
        heading: list[list[object]] = [["baselines"]] if self.models and self.baselines else []
        return [*map(row, self.models), *heading, *map(row, self.baselines)]

    def stating(self) -> list[Entry]:
        """Models with a leading figure, best first."""
        stated = [entry for entry in self.all if entry["metrics"].get(self.metric) is not None]
        return sorted(stated, key=lambda entry: (-entry["metrics"][self.metric]["value"], entry["model"]))


def interval(metric: str, found: Entry | None, signed: bool = False) -> Html:
    """A figure with its interval under it, as one cell."""
    if found is None:
        return pages.escaped("-")
    shown = pages.number(found["value"], words.value_text(metric, found["value"], signed))
    span = words.span_text(metric, found, signed)
    return pages.joined(shown, pages.small(span)) if span else shown


def lift_cell(lift: Entry | None, is_baseline: bool = False) -> Html:
    """A lift with its interval under it, as one cell."""
    if lift is None or is_baseline:
        return pages.escaped(words.lift_text(lift, is_baseline))
    shown = f"{words.percent(lift['value'])} %"
    return pages.joined(pages.number(lift["value"], shown), pages.small(words.lift_span(lift)))


_HEADED = ("recall", "ndcg", "map", "hit_rate")
_READING = (
    ("interval", "95 % over users: in 95 of 100 evaluations like this one it would hold the figure of all such users"),
    ("lift", "the figure divided by that of popular, minus 1, resampled by pairs: the same users for both"),
    ("within noise", "the paired comparison does not tell the two apart; it does not say that they are equal"),
    ("p", "how often a difference this large would come from chance alone; corrected for several comparisons (Holm)"),
    ("users needed", "about how many users would tell the two apart if the difference is what it was here"),
)


def html(result: Entry, definitions: Mapping[str, str] | None = None) -> str:
    """The page. `definitions` says of each metric what it is: {"ndcg": "…"}; Unavailable without the extra `report`."""
    charts.check()
    shown = Shown(result)
    leaked = bool((result.get("leakage") or {}).get("leaked"))
    leaks = words.leak_lines(result)
    top = [
        pages.paragraph(result["split"]["headline"]),
        pages.paragraph(
            f"{words.counts(result)}; lists of {' and '.join(map(str, result['k']))}; "
            "every user with a right answer counts, a missing list scores 0",
            "note",
        ),
        pages.paragraph(" ".join(words.conclusion(result)), "alarm" if leaked else "lead"),
        *(pages.paragraph(line, "note") for line in leaks[:1] if not leaked),
    ]
    sections = [
        Section("Models", _models(shown)),
        Section("Metric against k", curves(shown)),
        Section("Comparisons", _comparisons(result)),
        Section("By group of users", segments(shown)),
        Section("Who is served worse", _served_worse(result)),
        Section("Accuracy against coverage", trade_off(shown)),
        Section("Calibration of scores", calibration(shown)),
        Section("Over time", cuts(shown)),
        Section("Slices", _slices(shown)),
        Section("Leakage", _leakage(result, leaks)),
        Section("What other libraries would print", _compat(result)),
        Section("Online", _online(result.get("online"))),
        Section("Notes and definitions", _notes(shown, definitions or {})),
        Section("Settings", _settings(shown)),
    ]
    refit = "trained again on what happened before the cut" if result.get("refit", True) else "scored as trained"
    known = f", as of {words.moment(result['as_of'])} UTC" if result.get("as_of") else ""
    return pages.page("Evaluation", top, sections, f"run {result.get('run', '?')}: models {refit}{known}")


def _models(shown: Shown) -> list[Html]:
    def headed(k: int) -> Html:
        def row(entry: Entry) -> list[object]:
            lift = entry["lift"].get(f"ndcg@{k}")
            return [
                words.title(entry),
                *(interval(f"{name}@{k}", entry["metrics"].get(f"{name}@{k}")) for name in _HEADED),
                lift_cell(lift, entry["model"] == "popular" or not entry["lift"]),
            ]

        columns = [f"@{k}", *map(metric_name, _HEADED), "lift of NDCG over popular"]
        return pages.table(columns, shown.grouped(row), f"lists of {k}, with 95 % intervals over users")

    def everything(k: int) -> Html:
        keys = shown.keys(k)
        if not keys:
            return Html("")
        rows = [[metric_name(key), *(interval(key, entry["metrics"].get(key)) for entry in shown.all)] for key in keys]
        return pages.details(
            f"every metric at {k}", [pages.table(["", *(words.title(entry) for entry in shown.all)], rows)]
        )

    marks = [mark for mark in (words.within_noise(shown.result), words.chosen_later(shown.result)) if mark]
    return [
        *(headed(k) for k in shown.result["k"]),
        *(pages.paragraph(mark, "note") for mark in marks),
        ladder(shown),
        *(everything(k) for k in shown.result["k"]),
    ]


def _comparisons(result: Entry) -> list[Html]:
    found = result.get("comparisons") or ()
    rows: list[list[object]] = [
        [
            f"{one['model']} against {one['against']}",
            metric_name(one["metric"]),
            pages.joined(one["verdict"], _no_worse(one)),
            interval(one["metric"], one["difference"], signed=True),
            lift_cell(one.get("lift"), one.get("lift") is None),
            pages.number(one["p_holm"], words.p_text(one["p_holm"])),
            "-" if one.get("users_needed") is None else words.rounded(one["users_needed"]),
        ]
        for one in found
    ]
    columns = ["", "metric", "verdict", "difference", "relative", "p (Holm)", "users needed"]
    return [pages.table(columns, rows, "paired by user, 95 % intervals", words=3)]


def _no_worse(found: Entry) -> Html:
    """What equivalence within the margin comes to, where the two cannot be told apart."""
    if found["verdict"] != "within noise" or not found.get("no_worse") or found.get("margin") is None:
        return Html("")
    return pages.small(f"no more than {100 * found['margin']:g} % worse")


def _served_worse(result: Entry) -> list[Html]:
    found = result.get("served_worse") or ()
    metric = words.leading(result)
    rows: list[list[object]] = [
        [
            one["model"],
            f"{one['segmentation'].replace('_', ' ')}: {one['group']}",
            "yes" if words.significant(one) else "within noise",
            f"{one['users']:,}",
            interval(metric, one["value"]),
            pages.number(one["rest"], words.value_text(metric, one["rest"])),
            interval(metric, one["difference"], signed=True),
            words.p_text(one.get("p_holm")),
        ]
        for one in found
    ]
    columns = ["model", "worst group", "worse", "users", metric_name(metric), "the rest", "difference", "p (Holm)"]
    return [pages.table(columns, rows, "of each way to group users, the group served worst", words=3)]


def _slices(shown: Shown) -> list[Html]:
    tables = []
    for one in shown.result.get("slices") or ():
        rows: list[list[object]] = [
            [
                entry["model"],
                *(interval(key, entry["metrics"].get(key)) for key in (f"{name}@{shown.k}" for name in _HEADED)),
            ]
            for entry in one["models"]
        ]
        columns = [f"@{shown.k}", *map(metric_name, _HEADED)]
        tables.append(pages.table(columns, rows, f"only {one['expression']}: {one['users']:,} users"))
    return tables


def _leakage(result: Entry, lines: list[str]) -> list[Html]:
    """What was found in words, then every check."""
    checks = (result.get("leakage") or {}).get("checks") or ()
    rows: list[list[object]] = [[check["name"], check["status"], check["detail"]] for check in checks]
    told = [pages.paragraph(line) for line in lines]
    return [*told, pages.table(["check", "outcome", "detail"], rows, words=3)]


def _compat(result: Entry) -> list[Html]:
    found = result.get("compat") or ()
    libraries, figures = words.side_by_side(found)
    rows: list[list[object]] = [
        [
            metric_name(one.metric),
            one.model,
            *(
                pages.number(value, words.value_text(one.metric, value))
                for value in (one.ours, *(one.theirs.get(name) for name in libraries))
            ),
        ]
        for one in figures
    ]
    table = pages.table(["metric", "model", "here", *libraries], rows, "the same lists, as each defines it", words=2)
    return [table, pages.listing(words.reasons(found))]


def _online(section: Entry | None) -> list[Html]:
    if not section:
        return []
    users = section["users"]
    told = f"{users['personalised']:,} personalised users, {users['holdout']:,} in the permanent holdout"
    found = [pages.paragraph(told), pages.paragraph(section["why"])]
    if not section["compared"]:
        return found
    rows: list[list[object]] = []
    for name, measure in section["measures"].items():
        difference = measure["difference"]
        shown = f"{difference['value']:+.4g} ({difference['low']:+.4g} to {difference['high']:+.4g})"
        sides = [pages.number(measure[side], f"{measure[side]:.4g}") for side in ("personalised", "holdout")]
        rows.append([name.replace("_", " "), *sides, pages.number(difference["value"], shown)])
    table = pages.table(["a user", "personalised", "holdout", "difference"], rows)
    named = ", ".join(section["value_events"]) or "none"
    return [*found, pages.paragraph(section["note"], "note"), table, pages.paragraph(f"value events: {named}", "note")]


def _notes(shown: Shown, definitions: Mapping[str, str]) -> list[Html]:
    """Notes of the run, how to read the figures, and the definitions of the metrics that are there."""
    used = dict.fromkeys(key.partition("@")[0] for k in shown.result["k"] for key in shown.keys(k))
    told = [(metric_name(name), definitions[name]) for name in used if name in definitions]
    return [pages.listing(shown.result.get("notes") or ()), pages.definitions([*_READING, *told])]


def _settings(shown: Shown) -> list[Html]:
    found = []
    for entry in shown.all:
        if not entry.get("settings"):
            continue
        chosen = set(entry.get("chosen") or ())
        rows: list[list[object]] = [
            [name, json.dumps(value, ensure_ascii=False), "chosen by comparison" if name in chosen else ""]
            for name, value in entry["settings"].items()
        ]
        version = f" as saved in {entry['version']}" if entry.get("version") else ""
        found.append(
            pages.details(f"{entry['model']}{version}", [pages.table(["setting", "value", ""], rows, words=3)])
        )
    return found


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
