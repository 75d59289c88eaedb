"""Local time, parts of the day, networks and referrers of events, by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import frame

from persona_cli.profiles import fold as folding
from persona_cli.profiles.context import (
    DAYPARTS,
    WEEKDAYS,
    Codes,
    daypart_of,
    hour_of,
    local_time,
    network_class,
    referrer_class,
    weekday_of,
    zone_of,
)
from persona_cli.profiles.folds.part import MINUTE, FoldRules

EPOCH = datetime(1970, 1, 1)


def codes(texts: list[str | None]) -> Codes:
    values = pl.Series(sorted({text for text in texts if text is not None}), dtype=pl.String)
    place = {text: number for number, text in enumerate(values)}
    return Codes(np.array([-1 if text is None else place[text] for text in texts], dtype=np.int64), values)


def local(moment: str, tz: str | None = None, country: str | None = None) -> str:
    time = np.array([int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) * 1_000_000])
    found = local_time(time, codes([tz]), codes([country]))
    return datetime.fromtimestamp(found[0] / 1e6, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("moment", "tz", "expected"),
    [
        # Clocks go forward at 01:00 UTC in Europe: 01:59 is followed by 03:00.
        ("2026-03-29 00:59", "Europe/Berlin", "2026-03-29 01:59"),
        ("2026-03-29 01:00", "Europe/Berlin", "2026-03-29 03:00"),
        # And back: 02:59 comes twice.
        ("2026-10-25 00:59", "Europe/Berlin", "2026-10-25 02:59"),
        ("2026-10-25 01:00", "Europe/Berlin", "2026-10-25 02:00"),
        ("2026-03-08 06:59", "America/New_York", "2026-03-08 01:59"),
        ("2026-03-08 07:00", "America/New_York", "2026-03-08 03:00"),
        ("2026-11-01 06:00", "America/New_York", "2026-11-01 01:00"),
        # Half hours, the date line, a zone that moved across it, times before 1970 in the calendar of today.
        ("2026-01-01 00:00", "Asia/Kathmandu", "2026-01-01 05:45"),
        ("2026-01-01 00:00", "Pacific/Kiritimati", "2026-01-01 14:00"),
        ("2026-04-04 14:59", "Australia/Lord_Howe", "2026-04-05 01:59"),
        ("2026-04-04 15:00", "Australia/Lord_Howe", "2026-04-05 01:30"),
        ("2026-01-01 00:00", "+05:30", "2026-01-01 05:30"),
        ("2026-01-01 00:00", "UTC-8", "2025-12-31 16:00"),
    ],
)
def test_local_time_at_the_edges(moment: str, tz: str, expected: str) -> None:
    assert local(moment, tz) == expected


def test_the_zone_is_that_of_tz_then_of_the_country_then_utc() -> None:
    noon = "2026-07-01 12:00"
    assert local(noon, "Asia/Tokyo", "DE") == "2026-07-01 21:00"
    assert local(noon, "Mars/Olympus", "DE") == "2026-07-01 14:00"
    assert local(noon, None, "Germany") == "2026-07-01 14:00"
    assert local(noon, None, "US") == "2026-07-01 08:00"
    assert local(noon, "Mars/Olympus", "Atlantis") == "2026-07-01 12:00"
    assert local(noon) == "2026-07-01 12:00"


ZONES = (None, "Europe/London", "America/Sao_Paulo", "Asia/Kolkata", "Africa/Casablanca", "nowhere")
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1))


@given(st.lists(st.tuples(MOMENTS, st.sampled_from(ZONES)), max_size=20))
@settings(max_examples=30, deadline=None)
def test_local_time_is_that_of_the_standard_library(rows: list[tuple[datetime, str | None]]) -> None:
    from zoneinfo import ZoneInfo

    micro = np.array([round((moment - EPOCH).total_seconds()) * 1_000_000 for moment, _ in rows], dtype=np.int64)
    found = local_time(micro, codes([zone for _, zone in rows]), codes([None] * len(rows)))
    for number, (moment, zone) in enumerate(rows):
        known = ZoneInfo(zone if zone and zone != "nowhere" else "UTC")
        there = datetime.fromtimestamp(round((moment - EPOCH).total_seconds()), known)
        value = found[number : number + 1]
        assert hour_of(value)[0] == there.hour
        assert weekday_of(value)[0] == there.weekday()
        assert DAYPARTS[daypart_of(value)[0]] == DAYPARTS[there.hour // 6]


def test_days_before_1970_have_weekdays_too() -> None:
    assert WEEKDAYS[weekday_of(np.array([-1]))[0]] == "Wednesday"


def test_offsets_that_are_none() -> None:
    assert [zone_of(text) for text in ("+15:00", "+01:75", "", "CEST!", "UTC")] == [None, None, None, None, "UTC"]


@pytest.mark.parametrize(
    ("network", "speed"),
    [("slow-2g", "slow"), ("2g", "slow"), ("3G", "slow"), ("EDGE", "slow"), ("save-data", "slow"), ("Dialup", "slow"),
     ("4g", "fast"), ("5G", "fast"), ("LTE", "fast"), ("Wi-Fi", "fast"), ("ethernet", "fast"), ("Cable/DSL", "fast"),
     ("cellular", None), ("unknown", None), ("4g-ish", None)],
)  # fmt: skip
def test_networks(network: str, speed: str | None) -> None:
    assert network_class(network) == speed


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (("page_view", "/a", None, None), "direct"),
        (("click", "/a", None, None), None),
        (("click", "/a", "https://www.google.fr/", None), "search"),
        (("page_view", "https://www.shop.co.uk/a", "https://m.shop.co.uk/b", None), "internal"),
        (("page_view", "https://shop.co.uk/a", "https://other.co.uk/b", None), "other"),
        (("page_view", "/a", "/b", None), "internal"),
        (("page_view", "https://www.google.com/maps", "https://google.com/", None), "internal"),
        (("page_view", "/a", "https://www.google.com/", "google/cpc/spring"), "ads"),
        (("page_view", "/a", "https://t.co/", "newsletter/email/"), "mail"),
        (("page_view", "/a", "https://t.co/", "spring"), "social"),
        (("click", None, None, "x/email/"), "mail"),
        (("page_view", None, "http://ip-address/x", None), "other"),
        (("page_view", None, "unreadable text", None), "other"),
    ],
)
def test_referrers(event: tuple[str, str | None, str | None, str | None], kind: str | None) -> None:
    assert referrer_class(*event) == kind


def folded(*events: dict[str, Any]) -> dict[str, Any]:
    rows = frame(list(events)).select(folding.NEEDED)
    return folding.fold_users(rows, FoldRules(30 * MINUTE)).row(0, named=True)


def test_a_profile_counts_its_situations() -> None:
    sunday = datetime(2026, 3, 29, 1, tzinfo=UTC)
    row = folded(
        {"timestamp": sunday, "country": "Germany", "network": "4g", "event_type": "page_view", "page": "/a"},
        {"timestamp": sunday, "country": "de", "network": "wifi", "referrer": "https://t.co/x"},
        {"timestamp": sunday, "tz": "America/New_York", "network": "cellular", "country": "US"},
    )
    assert row["country"] == "US"  # of one instant the value that sorts last
    assert row["countries"] == [{"country": "DE", "n": 2}, {"country": "US", "n": 1}]
    assert row["networks"] == [{"network": "fast", "n": 2}]
    assert row["referrers"] == [{"referrer": "direct", "n": 1}, {"referrer": "social", "n": 1}]
    assert row["dayparts"] == [{"daypart": "evening", "n": 1}, {"daypart": "night", "n": 2}]
    assert {hour: n for hour, n in enumerate(row["hours"]) if n} == {3: 2, 21: 1}
    assert row["weekdays"] == [0, 0, 0, 0, 0, 1, 2]
