"""A comparison of two models for machines, for spreadsheets and for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_cli.evaluation import comparisons
from persona_cli.evaluation.document import plain
from persona_cli.evaluation.intervals import Interval
from persona_cli.evaluation.rivals import Rival, Rivalry
from persona_cli.reports import words
from persona_cli.reports.parts import Part

_SIDES = ("first", "second")
_ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))
_UNITS = ("B", "KiB", "MiB", "GiB")


def document(found: Rivalry) -> dict[str, Any]:
    """The comparison as JSON types; intervals are {"value", "low", "high"}."""
    return plain(
        {
            "metric": found.metric,
            "split": dict(found.exam),
            "users": found.comparison.users,
            **{side: _side(rival) for side, rival in zip(_SIDES, (found.first, found.second), strict=True)},
            "overlap": {name: _stated(value) for name, value in vars(found.overlap).items()},
            "comparison": comparisons.as_json(found.comparison),
            "better_for": dict(zip((*_SIDES, "alike"), found.better_for, strict=True)),
            "segments": [
                row | {"better_for": dict(zip((*_SIDES, "alike"), row["better_for"], strict=True))}
                for row in found.segments
            ],
            "conclusion": conclusion(found),
        }
    )


def records(found: Rivalry) -> list[dict[str, Any]]:
    """One flat record for all users, and one for each group of users."""
    whole = found.comparison
    everybody = {
        "segmentation": "all",
        "group": "all",
        "users": whole.users,
        "first": found.first.value.value,
        "second": found.second.value.value,
        "difference": whole.difference._asdict(),
        "p": whole.p,
        "p_holm": whole.p_holm,
        "verdict": whole.verdict,
        "better_for": found.better_for,
    }
    return [
        {
            "first_model": found.first.model,
            "second_model": found.second.model,
            "metric": found.metric,
            **{name: row[name] for name in ("segmentation", "group", "users", "first", "second")},
            **{f"difference{end}": row["difference"][key] for end, key in _ENDS},
            **{name: row[name] for name in ("p", "p_holm", "verdict")},
            **{f"better_for_{who}": n for who, n in zip((*_SIDES, "alike"), row["better_for"], strict=True)},
        }
        for row in (everybody, *found.segments)
    ]


def parts(found: Rivalry) -> list[Part]:
    """The comparison for people: both side by side, how alike their lists are, whom each serves better."""
    one, other, metric = found.first, found.second, found.metric
    named = [rival.model if rival.base is None else f"{rival.model} ({rival.base})" for rival in (one, other)]
    rows = [
        [words.metric_name(metric), *(words.interval_text(metric, rival.value._asdict()) for rival in (one, other))]
    ]
    rows += [
        [words.metric_name(key), *(words.interval_text(key, _stated(rival.figures[key])) for rival in (one, other))]
        for key in one.figures
    ]
    rows += [
        ["training, seconds", *(f"{rival.fit_seconds:.1f}" for rival in (one, other))],
        ["lists a second", *(f"{rival.users_per_second:,.0f}" for rival in (one, other))],
        ["on disk", *(size(rival.bytes) for rival in (one, other))],
        ["trained until", *(words.moment(rival.trained_until) for rival in (one, other))],
    ]
    about = [
        f"{words.metric_name(metric)} and training: {found.headline}; {found.comparison.users:,} users asked",
        f"the rest: as saved, lists made now for {found.overlap.users:,} users",
    ]
    grouped = []
    for segmentation in dict.fromkeys(row["segmentation"] for row in found.segments):
        grouped.append([segmentation.replace("_", " ")])
        grouped += [_group(row, metric) for row in found.segments if row["segmentation"] == segmentation]
    return [
        Part(about, ["", *named], rows, conclusion(found)),
        Part(
            columns=[words.metric_name(metric), "users", one.model, other.model, "difference", "p"],
            rows=grouped,
            after=[*_groups_said(found), "p corrected for looking at every group (Holm); groups of 20 users or more"]
            if grouped
            else (),
        ),
    ]


def conclusion(found: Rivalry) -> list[str]:
    """What it comes to, in sentences."""
    one, other, lists = found.first, found.second, found.overlap
    first, second, alike = found.better_for
    said = [
        words.comparison(comparisons.as_json(found.comparison)),
        f"{other.model} serves {second:,} users better, {one.model} {first:,}, both alike {alike:,}",
        f"of two lists of {lists.k} in mean {_share(lists.jaccard)} of the items are in both (Jaccard); rank-biased "
        f"overlap {lists.rbo.value:.2f}; {_share(lists.same_top)} of users get the same item first",
    ]
    for rival in (one, other):
        if rival.chosen_later:
            what = ", ".join(rival.chosen_later)
            said.append(f"{rival.model}: {what} was chosen with events from after the cut, which flatters its figure")
    return said


def size(n_bytes: int) -> str:
    """`1.4 MiB`."""
    value, unit = float(n_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:,.1f} {_UNITS[unit]}" if unit else f"{n_bytes} B"


def _groups_said(found: Rivalry) -> list[str]:
    clear = [row for row in found.segments if row["verdict"] != "within noise"]
    if not clear:
        return ["no group of users is served better by one of them beyond noise"]
    sides = (
        (found.second, [row for row in clear if row["verdict"] == "better"]),
        (found.first, [row for row in clear if row["verdict"] == "worse"]),
    )
    said = []
    for rival, rows in sides:
        if groups := [f"{row['segmentation'].replace('_', ' ')} {row['group']}" for row in rows]:
            said.append(f"{rival.model} is better for {', '.join(groups)}")
    return said


def _group(row: Mapping[str, Any], metric: str) -> list[str]:
    return [
        f"  {row['group']}",
        f"{row['users']:,}",
        *(words.value_text(metric, row[side]) for side in _SIDES),
        words.interval_text(metric, row["difference"], signed=True),
        words.p_text(row["p_holm"]),
    ]


def _side(rival: Rival) -> dict[str, Any]:
    stated = {name: _stated(value) for name, value in vars(rival).items() if name != "figures"}
    figures = {key: _stated(value) for key, value in rival.figures.items()}
    return stated | {"chosen_later": list(rival.chosen_later), "figures": figures}


def _stated(value: Any) -> Any:
    return value._asdict() if isinstance(value, Interval) else value


def _share(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} %"
