"""A profile as a page for a terminal: bars, an hour strip, the stage and why, recent history. What is unknown is left
out, never shown as 0."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from persona_cli.cli.output import plain, printable

NARROWEST = 40
_LABEL = 10
_BAR = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"
_PLAIN_HEIGHTS = "123456789"
_LATEST = ("device", "browser", "os", "country", "network", "locale", "consent")


def page(found: Mapping[str, Any], width: int = 80, unicode: bool = True) -> Iterator[str]:
    """The lines of a profile as `profiles.people.person` answers it, none wider than `width` but for single words."""
    width = max(width, NARROWEST)
    for title, facts in (
        ("", _who(found)),
        ("Stage", _stage(found)),
        ("Use", _use(found)),
        ("What they told", _told(found["told"])),
    ):
        lines = [line for name, text in facts if text for line in _fact(name, text, width)]
        if lines:
            yield from (["", title] if title else [])
            yield from lines
    if any(found["hours"]):
        yield from ["", f"Hours of the day, {_clock(found)}"]
        yield from _strip(found["hours"], unicode)
    for title, key, records in (
        ("Categories", "category", found["categories"]),
        ("Tags", "tag", found["tags"]),
        ("Items", "item_id", found["top_items"]),
    ):
        if records:
            yield from ["", f"{title}, by strength"]
            yield from _bars(key, records, width, unicode)
    shown = [(name, _feature(name, found)) for name in found["features"] if not _belongs(name)]
    shown = [(name, text) for name, text in [("preferred_category", _preferred(found)), *shown] if text is not None]
    if shown:
        yield from ["", "Features"]
        indent = max(len(name) for name, _ in shown) + 2
        for name, text in shown:
            yield from _fact(name, str(text), width, indent)
    if found["recent"]:
        yield from ["", "Recent history"]
        yield from (_shortened(line, width) for line in _history(found["recent"]))


def _who(found: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield "user", found["user_id"]
    others = [one for one in found["ids"] if one != found["user_id"]]
    yield "also", ", ".join(others)
    yield "account", found["account_id"]
    yield "seen", f"{_minute(found['first_seen'])} to {_minute(found['last_seen'])} UTC"
    yield "latest", ", ".join(f"{name} {found[name]}" for name in _LATEST if found[name] is not None)
    yield "segments", ", ".join(found["segments"])


def _stage(found: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield "stage", found["stage"]
    items, after = found["items"], found["next"]
    events = f"{items:,} event{'' if items == 1 else 's'} with an item"
    if after is None:
        yield "why", f"{events}: enough to be served individually"
    else:
        yield "why", f"{events} of the {items + after['items']:,} that {after['stage']} takes"
    if (layers := found.get("layers")) is not None:
        by = f" ({layers['model']})" if layers["model"] else ""
        weights = ", ".join(f"{name} {share:.0%}" for name, share in layers["weights"].items() if share)
        yield "layers", f"{weights}{by}" + (f": {layers['why']}" if layers["why"] else "")
        yield "next", "; ".join(map(_needs, layers["next"]))
    if found["holdout"]:
        yield "holdout", "held out: gets the popular list"
    yield "never", ", ".join(found["never"]) + (" (not shown again)" if found["never"] else "")


def _needs(layer: Mapping[str, Any]) -> str:
    """As `cohort from 5 events: 2 more (half of the weight from 8)`."""
    half = "no such part is served" if layer["half"] is None else f"half of the weight from {layer['half']:,}"
    return f"{layer['layer']} from {layer['from']:,} events: {layer['items']:,} more ({half})"


def _use(found: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield "events", f"{found['events']:,}: {_counts(found['types'])}"
    seconds = found["session_seconds"] / found["sessions"]
    each = f", {_span(seconds)} each on average" if seconds else ""
    yield "sessions", f"{found['sessions']:,}{each}"
    spent = found["attention"]
    if spent["engaged_ms"] is not None and found["dwells"]:
        parts = [("reading", "engaged_ms"), ("glances", "bounce_ms"), ("idle", "idle_ms")]
        yield "attention", ", ".join(f"{_span(spent[key] / 1000)} {name}" for name, key in parts if spent[key])
    elif found["dwells"]:
        yield (
            "dwell",
            f"{_span(found['dwell_ms'] / 1000)} in {found['dwells']:,} (reading and idle apart after: "
            + ("persona signals fit)"),
        )
    yield "devices", _counts(found["devices"])
    for name, column, key in (
        ("features", "features_used", "feature"),
        ("searches", "queries", "query"),
        ("channels", "channels", "channel"),
    ):
        yield name, _counts(dict(list({one[key]: one["n"] for one in _most(found[column], key)}.items())[:5]))


def _told(told: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    blocked = [f"{kind} {', '.join(names)}" for kind, names in told["blocked"].items() if names]
    yield "blocked", "; ".join(blocked)
    yield "less of", ", ".join(f"{key} ({left:.0%} left)" for key, left in told["show_less"].items())
    yield "saved", ", ".join(told["saved"])
    if told["ratings"] is not None:
        yield "ratings", f"{told['ratings']['n']:,}, {told['ratings']['mean']:g} on average"
    thumbs = [f"{told[name]:,} {word}" for name, word in (("thumbs_up", "up"), ("thumbs_down", "down")) if told[name]]
    yield "thumbs", ", ".join(thumbs)
    yield "prefers", ", ".join(f"{key} = {value}" for key, value in told["preferences"].items())
    yield "answers", "; ".join(f"{key}: {', '.join(given)}" for key, given in told["answers"].items())


def _clock(found: Mapping[str, Any]) -> str:
    """Whose clock the hours are by."""
    if found["tz"] is not None:
        return f"local time (latest zone {printable(found['tz'])})"
    return f"local time of {printable(found['country'])}" if found["country"] is not None else "UTC"


def busiest(hours: list[int]) -> str:
    """The three busiest hours of the day, by the clock of the user where it is known."""
    ordered = sorted((hour for hour in range(24) if hours[hour]), key=lambda hour: (-hours[hour], hour))
    return ", ".join(f"{hour:02d}:00 ({hours[hour]:,})" for hour in ordered[:3])


def _strip(hours: list[int], unicode: bool) -> list[str]:
    most, heights = max(hours), _HEIGHTS if unicode else _PLAIN_HEIGHTS
    nothing = "·" if unicode else "."
    top = len(heights)
    cells = [heights[-(-n * top // most) - 1] if n else nothing for n in hours]
    named = busiest(hours)
    return [f"{'':<{_LABEL}}{''.join(cells)}  busiest {named}", f"{'':<{_LABEL}}0     6     12    18   23"]


def _bars(key: str, records: Iterable[Mapping[str, Any]], width: int, unicode: bool) -> Iterator[str]:
    records = list(records)
    most = max((record["strength"] for record in records), default=0.0)
    for record in records:
        bar = _bar(record["strength"] / most if most > 0 else 0.0, unicode)
        more = [record[name] for name in ("title", "category") if name != key and record.get(name)]
        names = printable((" · " if unicode else ", ").join([record[key], *more]))
        yield _shortened(f"{record['strength']:>8.2f} {bar} {names}", width)


def _bar(share: float, unicode: bool) -> str:
    if not unicode:
        return f"{'#' * round(max(share, 0) * _BAR):<{_BAR}}"
    eighths = round(max(share, 0) * _BAR * 8)
    return f"{'█' * (eighths // 8) + _EIGHTHS[eighths % 8].strip():<{_BAR}}"


def _belongs(name: str) -> bool:
    """Whether a feature is shown beside the one it belongs to."""
    return name in ("usual_hour_concentration", "usual_channel_certainty", "features")


def _preferred(found: Mapping[str, Any]) -> str | None:
    if found["preferred_category"] is None:
        return None
    share, sure = found["preferred_category_share"], found["preferred_category_certainty"]
    return f"{found['preferred_category']} ({share:.0%} of the interest, {_sure(sure)} sure that it leads the next)"


def _feature(name: str, found: Mapping[str, Any]) -> str | None:
    features = found["features"]
    value = features[name]
    if value is None or (name in ("purchases", "feature_breadth") and not value):
        return None
    if name == "active_days":
        return f"{value} of the last 28"
    if name == "usual_hour":
        return f"{value:02d}:00 (concentration {features['usual_hour_concentration']:.2f} of 1)"
    if name == "usual_channel":
        return f"{value} ({_sure(features['usual_channel_certainty'])} sure)"
    if name == "feature_breadth":
        return f"{value:.0%} of all features ({features['features']:,} used)"
    if name.startswith("days_since_"):
        return f"{value:,.1f}"
    return f"{value:.3f}" if isinstance(value, float) else str(plain(value))


def _sure(chance: float) -> str:
    return f"{min(chance, 0.99):.0%}" if chance < 0.99 else "over 99%"


def _history(recent: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    recent = list(recent)
    longest = max(len(printable(one["event_type"])) for one in recent)
    for one in recent:
        about = one["title"] or one["item_id"] or one["target"] or ""
        value = "" if one["value"] is None else f" ({one['value']:g})"
        line = f"{_minute(one['at'])}  {printable(one['event_type']):<{longest}}  {printable(about)}{value}"
        yield line.rstrip()


def _fact(name: str, text: str, width: int, indent: int = _LABEL) -> list[str]:
    return textwrap.wrap(
        printable(text),
        width,
        initial_indent=f"{printable(name):<{indent}}",
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _most(entries: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    return sorted(entries, key=lambda one: (-one["n"], one[key]))


def _counts(counted: Mapping[str, int]) -> str:
    ordered = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{n:,} {name}" for name, n in ordered)


def _shortened(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _minute(moment: Any) -> str:
    return str(plain(moment))[:16].replace("T", " ")


def _span(seconds: float) -> str:
    from persona_cli.workspace.locks import age_text

    return age_text(seconds)
