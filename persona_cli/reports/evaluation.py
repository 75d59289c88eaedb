"""One evaluation as a page for people: what was asked, what it comes to, and every figure behind that.

Made from the result document alone (result.json of an evaluation). Every part of the document beyond the models is
optional, and a section is there where the document holds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from persona_cli.reports import charts, evaluation_plots, pages, words
from persona_cli.reports.pages import Html, Section
from persona_cli.reports.shown import Shown, interval, lift_cell
from persona_cli.reports.words import metric_name

_HEADED = ("recall", "ndcg", "map", "hit_rate")
_READING = (
    ("interval", "95 % over users: in 95 of 100 evaluations like this one it would hold the figure of all such users"),
    ("lift", "the figure divided by that of popular, minus 1, resampled by pairs: the same users for both"),
    ("within noise", "the paired comparison does not tell the two apart; it does not say that they are equal"),
    ("p", "how often a difference this large would come from chance alone; corrected for several comparisons (Holm)"),
    ("users needed", "about how many users would tell the two apart if the difference is what it was here"),
)

Entry = Mapping[str, Any]


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
        Section("Metric against k", evaluation_plots.curves(shown)),
        Section("Comparisons", _comparisons(result)),
        Section("By group of users", evaluation_plots.segments(shown)),
        Section("Who is served worse", _served_worse(result)),
        Section("Accuracy against coverage", evaluation_plots.trade_off(shown)),
        Section("Calibration of scores", evaluation_plots.calibration(shown)),
        Section("Over time", evaluation_plots.cuts(shown)),
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
        evaluation_plots.ladder(shown),
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
