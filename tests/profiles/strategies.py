"""Hypothesis strategies for events of a few users and items, crowded enough for ties, sessions and late events."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from stored import START, Event

from persona_cli.profiles.fold import LATEST

TYPES = ("click", "view", "purchase", "block", "rating", "survey", "thumbs_down", "page_view")
_VALUES = {
    "tz": ("Asia/Tokyo", "America/New_York", "Europe/Berlin"),
    "country": ("Germany", "DE", "us", "Atlantis"),
    "network": ("4g", "slow-2g", "cellular", "WiFi"),
    "page": ("/a", "https://shop.test/a", "https://www.shop.test/b"),
    "referrer": ("https://www.google.com/", "https://shop.test/x", "https://t.co/", "/a", "https://else.test"),
    "campaign": ("spring", "google/cpc/spring"),
}


def _maybe(*values: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from((None, *values))


@st.composite
def event(draw: st.DrawFn) -> Event:
    # Whole minutes on few days, so that many events tie; a few microseconds and years apart, so that not all do.
    offset = timedelta(
        days=draw(st.sampled_from((0, 0, 0, 1, 30, 800))),
        minutes=draw(st.integers(0, 100)),
        microseconds=draw(st.sampled_from((0, 0, 0, 1, 999_999))),
    )
    anonymous = draw(st.booleans())
    found: Event = {
        "user_id": None if anonymous else draw(st.sampled_from(("a", "b", "ä", "0", "user with spaces"))),
        "anon_id": draw(st.sampled_from(("a", "anon"))) if anonymous else draw(_maybe("anon")),
        "event_type": draw(st.sampled_from(TYPES)),
        "item_id": draw(_maybe("x", "y", "z")),
        "timestamp": START + offset,
        "session_id": draw(_maybe("s", "t")),
        "value": draw(st.sampled_from((None, 0.0, 2.5, 3.0, 4.0, 5.0, float("nan")))),
    }
    for name in (*LATEST, "page", "referrer", "campaign"):
        found[name] = draw(_maybe(*_VALUES.get(name, ("p", "q"))))
    return found


events = st.lists(event(), max_size=12)
