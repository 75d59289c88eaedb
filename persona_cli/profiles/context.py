"""The situation of an event in words: local time and part of the day, speed of the network, where the visit came from.

Local time is that of the event's `tz`, else of the zone in which most people of its `country` live, else UTC. Offsets
are those in force at that moment, so a day in spring has 23 hours and one in autumn 25.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl

from persona_cli.events.countries import country_zone
from persona_cli.events.referrers import CLASSES, class_of_campaign, class_of_host, host_of, site_of
from persona_cli.profiles.coding import Ints

DAYPARTS = ("night", "morning", "afternoon", "evening")
"""Local hours 0–5, 6–11, 12–17, 18–23."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NETWORKS = ("fast", "slow")
HOUR = 3_600_000_000
DAY = 24 * HOUR
_SECOND = 1_000_000
_SINCE, _UNTIL = 631_152_000 * _SECOND, 4_102_444_800 * _SECOND  # 1990 and 2100
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d\d))?")
_SLOW = frozenset(
    {
        *("slow2g", "2g", "3g", "edge", "gprs", "cdma", "1xrtt", "umts", "wcdma", "hspa", "hsdpa", "hsupa", "evdo"),
        *("evdo0", "evdoa", "slow", "dialup", "modem", "satellite", "savedata"),
    }
)
_FAST = frozenset(
    {
        *("4g", "5g", "5gnsa", "lte", "lteca", "ltea", "nr", "wifi", "wlan", "wimax", "ethernet", "lan", "wired"),
        *("cable", "dsl", "cabledsl", "fiber", "fibre", "ftth", "broadband", "corporate", "fast"),
    }
)


class Codes(NamedTuple):
    """A text column of events: for each row (n,) the place among `values` (-1: null); None: null in every row."""

    codes: Ints | None
    values: pl.Series

    def translated(self, of: dict[str, int]) -> Ints | None:
        """A number for each row (n,): of its text, -1 where it has none."""
        if self.codes is None:
            return None
        numbers = np.array([*(of.get(text, -1) for text in self.values), -1], dtype=np.int64)
        return numbers[self.codes]

    def present(self) -> list[str]:
        """The texts that occur, sorted."""
        if self.codes is None:
            return []
        found = _distinct(self.codes[self.codes >= 0])
        return self.values.gather(found).to_list()


def network_class(network: str) -> str | None:
    """slow (up to 3G, dial-up, or asked to save data) or fast; None for what says neither, such as `cellular`.

    Knows the effective types of the Network Information API and the names that apps and analytics use.
    """
    word = re.sub(r"[^a-z0-9]", "", network.casefold())
    return "slow" if word in _SLOW else "fast" if word in _FAST else None


@lru_cache(maxsize=100_000)
def zone_of(tz: str) -> str | int | None:
    """An IANA name that polars knows, or an offset such as `+02:00` in microseconds; None for any other text."""
    if (found := _OFFSET.fullmatch(tz.strip())) is not None:
        hours, minutes = int(found[2]), int(found[3] or 0)
        size = hours * HOUR + minutes * HOUR // 60
        return (size if found[1] == "+" else -size) if hours <= 14 and minutes < 60 else None
    if not tz.strip():  # polars takes it for no zone at all
        return None
    try:
        pl.select(pl.lit(0).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(tz))
    except pl.exceptions.PolarsError:
        return None
    return tz


def local_time(time: Ints, tz: Codes, country: Codes) -> Ints:
    """Microseconds since 1970 (n,) by the clock on the wall where each event happened; `time` is UTC."""
    zones: list[str | int] = []
    by_tz = _numbered({text: zone_of(text) for text in tz.present()}, zones)
    by_country = _numbered({text: country_zone(text) for text in country.present()}, zones)
    zone = np.full(len(time), -1, dtype=np.int64)
    for numbers in (country.translated(by_country), tz.translated(by_tz)):
        if numbers is not None:
            zone = np.where(numbers >= 0, numbers, zone)
    local = time.copy()
    for number in _distinct(zone[zone >= 0]).tolist():
        there = np.flatnonzero(zone == number)
        name = zones[number]
        local[there] += name if isinstance(name, int) else _offset_at(time[there], name)
    return local


def _offset_at(time: Ints, zone: str) -> Ints:
    """What a zone was ahead of UTC at each moment (n,), in microseconds."""
    first, last = int(time.min()), int(time.max())
    if first < _SINCE or last >= _UNTIL:
        return _asked(time, zone)
    changes, offsets = _changes(zone)
    begin, end = np.searchsorted(changes, [first, last], "right").tolist()
    steps: Ints = offsets[begin : end + 1]
    return steps[np.searchsorted(changes[begin:end], time, "right")] if end > begin else steps[:1]


@lru_cache(maxsize=1_000)
def _changes(zone: str) -> tuple[Ints, Ints]:
    """The moments (k,) at which a zone's clocks changed between 1990 and 2100, and the offsets (k + 1,) around them.

    Days on which the offset differs from the day before are halved until the second is found.
    """
    days = np.arange(_SINCE, _UNTIL, DAY, dtype=np.int64)
    offsets = _asked(days, zone)
    at = np.flatnonzero(np.diff(offsets))
    before, after, old = days[at].copy(), days[at + 1].copy(), offsets[at]
    while len(at) and (after - before).max() > _SECOND:
        middle = (before + after) // (2 * _SECOND) * _SECOND
        changed = _asked(middle, zone) != old
        after, before = np.where(changed, middle, after), np.where(changed, before, middle)
    return after, np.append(offsets[:1], offsets[at + 1])


def _asked(time: Ints, zone: str) -> Ints:
    moments = pl.Series(time).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
    local: Ints = moments.dt.replace_time_zone(None).to_physical().to_numpy()
    return local - time


def _distinct(numbers: Ints) -> Ints:
    """The small whole numbers that occur, sorted."""
    return np.flatnonzero(np.bincount(numbers)) if len(numbers) else np.zeros(0, dtype=np.int64)


def _numbered(found: Mapping[str, str | int | None], zones: list[str | int]) -> dict[str, int]:
    """Text → place of its zone in `zones`, which grows."""
    numbers = {}
    for text, zone in found.items():
        if zone is not None:
            if zone not in zones:
                zones.append(zone)
            numbers[text] = zones.index(zone)
    return numbers


def hour_of(local: Ints) -> Ints:
    """0 to 23 (n,)."""
    return local // HOUR % 24


def daypart_of(local: Ints) -> Ints:
    """Place in DAYPARTS (n,)."""
    return local // (6 * HOUR) % 4


def weekday_of(local: Ints) -> Ints:
    """0 Monday to 6 Sunday (n,); 1970 began on a Thursday."""
    return (local // DAY + 3) % 7


def referrer_class(event_type: str, page: str | None, referrer: str | None, campaign: str | None) -> str | None:
    """search, social, mail, ads, technical, direct, internal or other; None where the event says nothing about it.

    What the campaign's medium says comes first. A referrer on the page's own site, or that is a path, is internal.
    direct: a page_view without referrer; other events without one say nothing, since not each of them loads a page.
    """
    if campaign is not None and (told := class_of_campaign(campaign)) is not None:
        return told
    if referrer is None:
        return "direct" if event_type == "page_view" else None
    host = host_of(referrer)
    if host is None:
        return "internal" if referrer.startswith("/") else "other"
    return "internal" if page is not None and site_of_url(page) == site_of(host) else class_of_host(host)


@lru_cache(maxsize=200_000)
def site_of_url(url: str) -> str | None:
    """The site that a URL lies on; None for a path."""
    host = host_of(url)
    return None if host is None else site_of(host)


def referrer_classes(event_type: Codes, page: Codes, referrer: Codes, campaign: Codes) -> Ints:
    """`referrer_class` of the events (n,) as places in CLASSES, -1 for None; asked once for each combination.

    Of pages only the site matters, and only where there is a referrer.
    """
    kinds = event_type.translated({"page_view": 1})
    assert kinds is not None, "every event has a type"
    n = len(kinds)
    if referrer.codes is None and campaign.codes is None:
        return np.where(kinds == 1, CLASSES.index("direct"), -1)
    nothing = np.full(n, -1, dtype=np.int64)
    came = nothing if referrer.codes is None else referrer.codes
    sent = nothing if campaign.codes is None else campaign.codes
    asked = np.flatnonzero((came >= 0) | (sent >= 0) | (kinds == 1))
    sites: list[str] = []
    at_site = np.full(len(asked), -1, dtype=np.int64)
    if page.codes is not None and referrer.codes is not None:
        seen = Codes(np.where(came[asked] >= 0, page.codes[asked], -1), page.values)
        found = {url: site for url in seen.present() if (site := site_of_url(url)) is not None}
        sites = sorted(set(found.values()))
        places = {site: number for number, site in enumerate(sites)}
        told = seen.translated({url: places[site] for url, site in found.items()})
        at_site = at_site if told is None else told
    rows = pl.DataFrame({"kind": kinds[asked], "came": came[asked], "sent": sent[asked], "site": at_site})
    combinations = rows.unique()
    answers = (
        referrer_class(
            "page_view" if kind == 1 else "",
            f"//{sites[site]}" if site >= 0 else None,
            referrer.values[came_from] if came_from >= 0 else None,
            campaign.values[sent_by] if sent_by >= 0 else None,
        )
        for kind, came_from, sent_by, site in combinations.iter_rows()
    )
    numbers = [-1 if answer is None else CLASSES.index(answer) for answer in answers]
    known = combinations.with_columns(pl.Series("answer", numbers, dtype=pl.Int64))
    classes = np.full(n, -1, dtype=np.int64)
    classes[asked] = rows.join(known, on=rows.columns, how="left", maintain_order="left")["answer"].to_numpy()
    return classes
