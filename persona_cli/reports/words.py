"""Figures and findings in words: one way to write a share, an interval, a lift, a comparison, wherever it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Entry = Mapping[str, Any]

ALPHA = 0.05
NAMES = {
    "ndcg": "NDCG",
    "map": "MAP",
    "mrr": "MRR",
    "rbp": "RBP",
    "ndcg_ties": "NDCG, ties averaged",
    "recall_capped": "capped recall",
    "tie_share": "ties",
    "gini": "Gini",
}
# C0 and C1 controls, and the marks that reorder or hide what is read.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def visible(text: str) -> str:
    """Text in which control and direction characters are written out, so that nothing reads as what it is not."""
    return _UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def metric_name(key: str) -> str:
    """`NDCG@20` for `ndcg@20`, `hit rate` for `hit_rate`."""
    metric, at, k = key.partition("@")
    return f"{NAMES.get(metric, metric.replace('_', ' '))}{at}{k}"


def leading(result: Entry) -> str:
    """The metric that models are ordered by: what the result says, else NDCG at the largest k."""
    return str(result.get("leading") or f"ndcg@{max(result['k'])}")


def is_baseline(entry: Entry) -> bool:
    return bool(entry.get("baseline", entry["model"] == "popular"))


def models_first(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Models and baselines apart, both in the order given."""
    return [e for e in entries if not is_baseline(e)], [e for e in entries if is_baseline(e)]


def title(entry: Entry) -> str:
    """`layered (ease)`, then `*` if something was chosen with later data and `≈` if within noise of a baseline."""
    base = f" ({entry['base']})" if entry.get("base") else ""
    marks = ("*" if entry.get("chosen_with_later_data") else "") + ("≈" if entry.get("within_noise_of") else "")
    return f"{entry['model']}{base}{marks and ' ' + marks}"


def chosen_later(result: Entry) -> str | None:
    """What `*` means in this result; None where nothing is marked."""
    later = [entry for entry in result["models"] if entry.get("chosen_with_later_data")]
    if not later:
        return None
    what = dict.fromkeys(setting for entry in later for setting in entry["chosen"])
    return f"* chosen with data from after the cut: {', '.join(what)}. What that choice gained is in its figures"


def within_noise(result: Entry) -> str | None:
    """What `≈` means in this result; None where nothing is marked."""
    best = dict.fromkeys(entry["within_noise_of"] for entry in result["models"] if entry.get("within_noise_of"))
    if not best:
        return None
    return f"≈ cannot be told apart from the best baseline, {' or '.join(best)}, on {metric_name(leading(result))}"


def percent(share: float | None) -> str:
    """`+4.1`, `+123`; an open end is `?`."""
    return "?" if share is None else f"{100 * share:+.1f}" if abs(share) < 0.1 else f"{100 * share:+.0f}"


def lift_text(lift: Entry | None, is_baseline: bool = False) -> str:
    """`+123 % (+110…+140)`; an open end is `?`."""
    if is_baseline:
        return "-"
    if lift is None:
        return "popular has none"
    return f"{percent(lift['value'])} % ({lift_span(lift)})"


def lift_span(lift: Entry) -> str:
    """`+110…+140`; an open end is `?`."""
    return "…".join(percent(lift[bound]) for bound in ("low", "high"))


def value_text(metric: str, value: float | None, signed: bool = False) -> str:
    """Four decimals; novelty, in bits, two; what is 10 or more, four digits; `-` where nothing is stated."""
    if value is None:
        return "-"
    sign = "+" if signed else ""
    if metric.partition("@")[0] == "novelty":
        return f"{value:{sign}.2f}"
    return f"{value:{sign}.4f}" if abs(value) < 10 else f"{value:{sign}.4g}"


def plus_minus(metric: str, interval: Entry | None, signed: bool = False) -> str:
    """`0.2444±0.0186`: the value and half its interval."""
    if interval is None:
        return "-"
    shown = value_text(metric, interval["value"], signed)
    if interval["low"] is None or interval["high"] is None:
        return shown
    return f"{shown}±{value_text(metric, (interval['high'] - interval['low']) / 2)}"


def interval_text(metric: str, interval: Entry | None, signed: bool = False) -> str:
    """`0.2444 (0.2258…0.2630)`; an open end is `?`."""
    if interval is None:
        return "-"
    span = span_text(metric, interval, signed)
    return f"{value_text(metric, interval['value'], signed)}{span and f' ({span})'}"


def span_text(metric: str, interval: Entry, signed: bool = False) -> str:
    """`0.2258…0.2630`; an open end is `?`, and nothing is said where both are open."""
    ends = [interval["low"], interval["high"]]
    if ends == [None, None]:
        return ""
    return "…".join("?" if end is None else value_text(metric, end, signed) for end in ends)


def p_text(p: float | None) -> str:
    """`0.0003`; `< 0.0001`; three decimals from 0.001 on."""
    if p is None:
        return "-"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.001 else f"{p:.3f}"


def p_phrase(p: float | None) -> str:
    return "" if p is None else f", p {p_text(p)}"


def comparison(found: Entry) -> str:
    """One comparison of two models as a sentence: what was found, how much, and how sure that is."""
    metric = metric_name(found["metric"])
    if (lift := found.get("lift")) is not None:
        amount = f"{metric} {lift_text(lift)}"
    else:
        amount = f"{metric} {interval_text(found['metric'], found['difference'], signed=True)}"
    amount += p_phrase(found.get("p_holm"))
    model, against = found["model"], found["against"]
    if found["verdict"] != "within noise":
        return f"{model} is {found['verdict']} than {against}: {amount}"
    said = f"{model} and {against} cannot be told apart: {amount}"
    if found.get("no_worse") and found.get("margin") is not None:
        said += f"; {model} is no more than {100 * found['margin']:g} % worse"
    if found.get("users_needed") is not None:
        said += f"; about {rounded(found['users_needed'])} users would be needed"
    return said


def moment(text: str) -> str:
    """A time of a result, `2026-10-12T14:14:45.123456Z`, as `2026-10-12 14:14:45`; any other text as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)?", text)
    return f"{found[1]} {found[2]}" if found else text


def stated_trends(result: Entry) -> list[Entry]:
    """Trends over cuts with a slope; fewer than three cuts give none."""
    return [one for one in result.get("trend") or () if one.get("slope") is not None]


def trend(found: Entry) -> str:
    """How a figure changes from cut to cut, and whether that is beyond noise."""
    metric, slope = found["metric"], found["slope"]
    low, high = slope["low"], slope["high"]
    beyond = (low is not None and low > 0) or (high is not None and high < 0)
    changes = interval_text(metric, slope, signed=True)
    return f"{found['model']}: {metric_name(metric)} changes by {changes} a cut{'' if beyond else ', within noise'}"


class Figures(NamedTuple):
    """One metric of one model as persona and as others print it."""

    metric: str
    model: str
    ours: float | None
    theirs: dict[str, float | None]


def side_by_side(compat: Sequence[Entry]) -> tuple[list[str], list[Figures]]:
    """The libraries, such as `rectools 0.19`, and a row for each metric and model, all in the order given."""
    libraries: dict[str, None] = {}
    rows: dict[tuple[str, str], Figures] = {}
    for one in compat:
        library = f"{one['library']} {one['version']}" if one.get("version") else str(one["library"])
        libraries[library] = None
        metric = str(one["metric"]) if "@" in one["metric"] else f"{one['metric']}@{one['k']}"
        row = rows.setdefault((metric, one["model"]), Figures(metric, one["model"], one["ours"], {}))
        row.theirs[library] = one["value"]
    return list(libraries), list(rows.values())


def reasons(compat: Sequence[Entry]) -> list[str]:
    """Why other libraries print other figures, each reason once."""
    said = (
        f"{one['library']} {metric_name(one['metric'].partition('@')[0])}: {one['why']}"
        for one in compat
        if one.get("why")
    )
    return list(dict.fromkeys(said))


def rounded(count: float) -> str:
    """A count with two digits that matter: `12,000`."""
    return f"{int(float(f'{count:.2g}')):,}"


def counts(result: Entry) -> str:
    return (
        f"{result['users']:,} users asked, {result['test_pairs']:,} right answers, "
        f"{result['items']:,} items, {result['train_events']:,} events to learn from"
    )


def leak_lines(result: Entry) -> list[str]:
    """`leakage: 7 checks, none found`, or every leak with its reason; then what a random split would have shown."""
    lines = []
    if leakage := result.get("leakage"):
        ran = [check for check in leakage["checks"] if check["status"] != "skipped"]
        leaks = [check for check in ran if check["status"] == "leak"]
        left_out: dict[str, list[str]] = {}
        for check in leakage["checks"]:
            if check["status"] == "skipped":
                left_out.setdefault(check["detail"], []).append(check["name"])
        if leaks or leakage["leaked"]:
            lines.append(f"LEAKAGE: {len(leaks)} of {len(ran)} checks found a leak; do not trust these figures")
            lines += [f"{check['name']}: {check['detail']}" for check in leaks]
        else:
            lines.append(f"leakage: {len(ran)} check{'s' * (len(ran) != 1)}, none found")
        lines += [f"not checked: {', '.join(names)} ({why})" for why, names in left_out.items()]
    if found := result.get("inflation"):
        gained = "" if found["inflation"] is None else f" ({percent(found['inflation'])} %)"
        lines.append(
            f"a random split would have shown {metric_name(found['metric'])} "
            f"{value_text(found['metric'], found['random'])} for {found['model']} instead of "
            f"{value_text(found['metric'], found['time'])}{gained}"
        )
    return lines


def conclusion(result: Entry) -> list[str]:
    """What the result comes to, in sentences: who leads, by how much, and what is within noise."""
    key = leading(result)
    stated = [entry for entry in result["models"] if entry["metrics"].get(key) is not None]
    said = []
    if (result.get("leakage") or {}).get("leaked"):
        said.append("This run leaks: its figures are too good and cannot be trusted.")
    if not stated:
        return [*said, f"No model has a figure for {metric_name(key)}."]
    best = min(stated, key=lambda entry: (-entry["metrics"][key]["value"], entry["model"]))
    name, figure = best["model"], interval_text(key, best["metrics"][key])
    if is_baseline(best):
        said.append(f"No model is ahead of the baselines: {name} has the highest {metric_name(key)}, {figure}.")
    else:
        lift = best["lift"].get(key)
        over = "" if lift is None else f", {lift_text(lift)} over popular"
        said.append(f"{name} leads with {metric_name(key)} {figure}{over}.")
    compared = [one for one in result.get("comparisons") or () if one["metric"] == key]
    about = [one for one in compared if name in (one["model"], one["against"])]
    others = {id(one): one["against"] if one["model"] == name else one["model"] for one in about}
    apart = [others[id(one)] for one in about if one["verdict"] != "within noise"]
    alike = [others[id(one)] for one in about if one["verdict"] == "within noise"]
    if apart:
        said.append(f"It is ahead of {_listed(apart)} beyond noise.")
    if alike:
        said.append(f"It cannot be told apart from {_listed(alike)}.")
    noisy: dict[str, list[str]] = {}
    for entry in models_first(result["models"])[0]:
        if (of := entry.get("within_noise_of")) and of != name and not (entry is best and of in alike):
            noisy.setdefault(of, []).append(entry["model"])
    said += [f"Within noise of the baseline {of}: {_listed(names)}." for of, names in noisy.items()]
    return said


def significant(row: Entry) -> bool:
    """Whether a group is served worse beyond noise: as stated, else by its corrected p, else by its interval."""
    if row.get("worse") is not None:
        return bool(row["worse"])
    if row.get("p_holm") is not None:
        return bool(row["p_holm"] < ALPHA)
    high = row["difference"]["high"]
    return high is not None and high < 0


def _listed(names: Sequence[str]) -> str:
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last
