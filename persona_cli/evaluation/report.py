"""An evaluation for people to read from top to bottom, and as flat records for CSV and Parquet.

What was asked; whether it leaks; for each k one table of models and baselines; for the largest k also what the lists
are like beyond accuracy; then what the figures come to: comparisons, who is served worse, the trend over cuts, slices,
other libraries' figures, the online section. A section is there where the result holds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from persona_cli.reports import words
from persona_cli.reports.parts import WIDTH, Part, as_lines
from persona_cli.reports.words import metric_name

_WITH_INTERVALS = ("recall", "ndcg", "map", "hit_rate")
_BEYOND = (
    "precision",
    "mrr",
    "coverage",
    "gini",
    "novelty",
    "popularity_lift",
    "diversity",
    "category_diversity",
    "serendipity",
    "freshness",
    "category_calibration",
    "score_calibration",
    "tie_share",
)
_LEADING = "ndcg"

Result = Mapping[str, Any]


def page(result: Result) -> list[str]:
    """Lines for people, at most 100 wide as long as names are short."""
    return as_lines(parts(result), WIDTH)


def parts(result: Result) -> list[Part]:
    """The page as parts, for plain text and for terminals alike."""
    found = [Part([result["split"]["headline"], words.counts(result), *words.leak_lines(result), *result["notes"]])]
    found += [_accuracy(result["models"], k) for k in result["k"]]
    found.append(_beyond(result["models"], max(result["k"])))
    marks = (words.within_noise(result), words.chosen_later(result))
    explained = "± half the 95 % interval over users; lift: over popular, paired by user; novelty in bits"
    found.append(Part([explained, *(mark for mark in marks if mark)]))
    for section in (_comparisons, _served_worse, _cuts, _slices, _compat):
        found += section(result)
    if result.get("online"):
        found.append(_online(result["online"]))
    return [part for part in found if part.prose or part.columns]


def records(result: Result) -> list[dict[str, Any]]:
    """One flat record a model and metric: model, baseline, metric, k, value, low, high, lift, lift_low, lift_high."""
    found = []
    for entry in result["models"]:
        for key, interval in entry["metrics"].items():
            metric, _, k = key.partition("@")
            measured, lift = interval or {}, entry["lift"].get(key) or {}
            found.append(
                {
                    "model": entry["model"],
                    "baseline": words.is_baseline(entry),
                    "metric": metric,
                    "k": int(k),
                    **{bound: measured.get(bound) for bound in ("value", "low", "high")},
                    "lift": lift.get("value"),
                    "lift_low": lift.get("low"),
                    "lift_high": lift.get("high"),
                }
            )
    return found


def _accuracy(models: Sequence[Result], k: int) -> Part:
    """The table of one k: a row a model, then the baselines."""

    def row(entry: Result) -> list[str]:
        cells = [words.plus_minus(metric, entry["metrics"].get(f"{metric}@{k}")) for metric in _WITH_INTERVALS]
        lift = words.lift_text(entry["lift"].get(f"{_LEADING}@{k}"), entry["model"] == "popular")
        return [words.title(entry), *cells, lift if entry["lift"] else "-"]

    columns = [f"@{k}", *(metric_name(name) for name in _WITH_INTERVALS), f"lift of {metric_name(_LEADING)}"]
    return Part(columns=columns, rows=_grouped(models, row))


def _beyond(models: Sequence[Result], k: int) -> Part:
    """The table of the other metrics at one k, with the columns in which something is stated."""
    shown = list(_BEYOND)
    if any((entry["metrics"].get(f"tie_share@{k}") or {"value": 0})["value"] > 0 for entry in models):
        shown.append("ndcg_ties")
    shown = [name for name in shown if any(entry["metrics"].get(f"{name}@{k}") for entry in models)]

    def row(entry: Result) -> list[str]:
        measured = [entry["metrics"].get(f"{name}@{k}") or {} for name in shown]
        return [
            words.title(entry),
            *(words.value_text(name, one.get("value")) for name, one in zip(shown, measured, strict=True)),
        ]

    return Part(columns=[f"@{k}", *map(metric_name, shown)], rows=_grouped(models, row)) if shown else Part()


def _grouped(models: Sequence[Result], row: Any) -> list[list[str]]:
    """Rows of the models, then of the baselines under a heading, which one baseline alone does not need."""
    own, baselines = words.models_first(models)
    heading = [["baselines"]] if own and len(baselines) > 1 else []
    return [*map(row, own), *heading, *map(row, baselines)]


def _comparisons(result: Result) -> Iterator[Part]:
    if found := result.get("comparisons"):
        lines = [words.comparison(one) for one in found]
        several = "; p corrected for making several comparisons (Holm)" if len(found) > 1 else ""
        yield Part([*lines, f"paired by user; 95 % intervals{several}"])


def _served_worse(result: Result) -> Iterator[Part]:
    """The groups served worse than the rest beyond noise, or that there is none."""
    found = result.get("served_worse")
    if not found:
        return
    metric = words.leading(result)
    looked_at = ", ".join(dict.fromkeys(one["segmentation"].replace("_", " ") for one in found))
    rows = [
        [
            one["model"],
            f"{one['segmentation'].replace('_', ' ')}: {one['group']}",
            f"{one['users']:,}",
            words.value_text(metric, one["value"]["value"]),
            words.value_text(metric, one["rest"]),
            words.plus_minus(metric, one["difference"], signed=True),
            words.p_text(one.get("p_holm")),
        ]
        for one in found
        if words.significant(one)
    ]
    if not rows:
        yield Part([f"served worse: no group beyond noise (looked at: {looked_at})"])
        return
    columns = ["served worse by", "group", "users", metric_name(metric), "the rest", "difference", "p"]
    yield Part(columns=columns, rows=rows, after=[f"the worst group of each is looked at: {looked_at}"])


def _cuts(result: Result) -> Iterator[Part]:
    """The leading metric at each cut, a column a model, and the trend over the cuts."""
    metric = words.leading(result)
    cuts = result.get("cuts") or ()
    trend = [words.trend(one) for one in words.stated_trends(result)]
    if not cuts:
        if trend:
            yield Part(trend)
        return
    names = list(dict.fromkeys(entry["model"] for cut in cuts for entry in cut["models"]))
    rows = []
    for cut in cuts:
        at = {entry["model"]: entry["metrics"].get(metric) for entry in cut["models"]}
        shown = [words.plus_minus(metric, at.get(name)) for name in names]
        rows.append([words.moment(cut["cut"]), f"{cut['users']:,}", *shown])
    yield Part(columns=[f"cut, {metric_name(metric)}", "users", *names], rows=rows, after=trend)


def _slices(result: Result) -> Iterator[Part]:
    k = max(result["k"])
    for one in result.get("slices") or ():
        rows = [
            [
                entry["model"],
                *(words.plus_minus(name, entry["metrics"].get(f"{name}@{k}")) for name in _WITH_INTERVALS),
            ]
            for entry in one["models"]
        ]
        columns = [f"@{k}", *map(metric_name, _WITH_INTERVALS)]
        yield Part([f"only {one['expression']}: {one['users']:,} users"], columns, rows)


def _compat(result: Result) -> Iterator[Part]:
    """What other libraries would print beside our figures, then why, once for each library and metric."""
    found = result.get("compat")
    if not found:
        return
    libraries, figures = words.side_by_side(found)
    rows = [
        [
            f"{metric_name(one.metric)} {one.model}",
            words.value_text(one.metric, one.ours),
            *(words.value_text(one.metric, one.theirs.get(name)) for name in libraries),
        ]
        for one in figures
    ]
    yield Part(["the same lists as other libraries print them"], ["", "here", *libraries], rows, words.reasons(found))


def _online(section: Result) -> Part:
    users = section["users"]
    said = [
        f"online: {users['personalised']:,} personalised users, {users['holdout']:,} in the permanent holdout",
        section["why"],
    ]
    if not section["compared"]:
        return Part(said)
    rows = []
    for name, measure in section["measures"].items():
        difference = measure["difference"]
        rows.append(
            [
                name.replace("_", " "),
                f"{measure['personalised']:.4g}",
                f"{measure['holdout']:.4g}",
                f"{difference['value']:+.4g} ({difference['low']:+.4g} to {difference['high']:+.4g})",
            ]
        )
    named = ", ".join(section["value_events"]) or "none"
    columns = ["a user", "personalised", "holdout", "difference"]
    return Part([*said, section["note"]], columns, rows, [f"value events: {named}"])
