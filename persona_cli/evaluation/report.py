"""An evaluation in words: tables for people, flat records for CSV and Parquet, and what the markers mean."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 100
_WITH_INTERVALS = ("recall", "ndcg", "precision", "map")
_VALUES = ("mrr", "hit_rate", "coverage", "novelty", "tie_share")
_LEADING = "ndcg"
_NAMES = {"hit_rate": "hit rate", "tie_share": "tie share", "ndcg": "NDCG", "map": "MAP", "mrr": "MRR"}


def page(result: Mapping[str, Any]) -> list[str]:
    """Lines for people, at most 100 wide as long as names are short: what was asked, then two tables for each k."""
    lines = prose(result["split"]["headline"])
    lines.append(
        f"{result['users']:,} users asked, {result['test_pairs']:,} right answers, "
        f"{result['items']:,} items, {result['train_events']:,} events to learn from"
    )
    lines += [line for note in result["notes"] for line in prose(note)]
    models = result["models"]
    names = [_title(entry) for entry in models]
    for k in result["k"]:
        rows = [[f"@{k}", *(_NAMES.get(name, name) for name in _WITH_INTERVALS), f"lift of {_NAMES[_LEADING]}"]]
        for name, entry in zip(names, models, strict=True):
            cells = [_plus_minus(entry["metrics"].get(f"{metric}@{k}")) for metric in _WITH_INTERVALS]
            rows.append([name, *cells, lift_text(entry["lift"].get(f"{_LEADING}@{k}"), entry["model"] == "popular")])
        lines += ["", *aligned(rows)]
        rows = [["", *(_NAMES.get(name, name) for name in _VALUES)]]
        for name, entry in zip(names, models, strict=True):
            rows.append([name, *(_value(metric, entry["metrics"].get(f"{metric}@{k}")) for metric in _VALUES)])
        lines += ["", *aligned(rows)]
    lines += ["", "± half the 95 % interval over users; lift: over popular, paired by user; novelty in bits"]
    if later := [entry for entry in models if entry["chosen_with_later_data"]]:
        what = dict.fromkeys(setting for entry in later for setting in entry["chosen"])
        lines += prose(
            f"* chosen with data from after the cut: {', '.join(what)}. What that choice gained is in its figures"
        )
    if result.get("online"):
        lines += ["", *_online(result["online"])]
    return lines


def prose(text: str) -> list[str]:
    """A sentence in lines of at most 100."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def records(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One flat record a model and metric: model, metric, k, value, low, high, lift, lift_low, lift_high."""
    found = []
    for entry in result["models"]:
        for key, interval in entry["metrics"].items():
            metric, _, k = key.partition("@")
            measured, lift = interval or {}, entry["lift"].get(key) or {}
            found.append(
                {
                    "model": entry["model"],
                    "metric": metric,
                    "k": int(k),
                    **{bound: measured.get(bound) for bound in ("value", "low", "high")},
                    "lift": lift.get("value"),
                    "lift_low": lift.get("low"),
                    "lift_high": lift.get("high"),
                }
            )
    return found


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    return [
        "  ".join(
            text.rjust(width) if c else text.ljust(width)
            for c, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def lift_text(lift: Mapping[str, Any] | None, is_baseline: bool = False) -> str:
    """`+123 % (+110…+140)`; an open end is `?`."""
    if is_baseline:
        return "-"
    if lift is None:
        return "popular has none"
    low, high = (_percent(lift[bound]) for bound in ("low", "high"))
    return f"{_percent(lift['value'])} % ({low}…{high})"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:+.1f}" if abs(share) < 0.1 else f"{100 * share:+.0f}"


def _title(entry: Mapping[str, Any]) -> str:
    base = f" ({entry['base']})" if entry.get("base") else ""
    return f"{entry['model']}{base}{' *' if entry['chosen_with_later_data'] else ''}"


def _plus_minus(interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return "-"
    if interval["low"] is None or interval["high"] is None:
        return f"{interval['value']:.4f}"
    return f"{interval['value']:.4f} ±{(interval['high'] - interval['low']) / 2:.4f}"


def _value(metric: str, interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return "-"
    return f"{interval['value']:.2f}" if metric == "novelty" else f"{interval['value']:.4f}"


def _online(section: Mapping[str, Any]) -> list[str]:
    users = section["users"]
    lines = [f"online: {users['personalised']:,} personalised users, {users['holdout']:,} in the permanent holdout"]
    lines += prose(section["why"])
    if not section["compared"]:
        return lines
    lines += prose(section["note"])
    rows = [["a user", "personalised", "holdout", "difference"]]
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
    return [*lines, "", *aligned(rows), f"value events: {named}"]
