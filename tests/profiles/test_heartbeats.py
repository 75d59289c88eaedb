"""Heartbeats are pieces of active time: they add up, and no tab that was left open is among them."""

from __future__ import annotations

import random as randoms

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from stored import Event, add, at, frame

from persona_cli.profiles.coding import coded
from persona_cli.profiles.dwell import DwellFit
from persona_cli.profiles.fitting import dwell_seconds
from persona_cli.profiles.folds import attention as folding
from persona_cli.profiles.folds.part import MINUTE, FoldRules, part_of
from persona_cli.profiles.mixture import Mixture
from persona_cli.profiles.signal_fit import TARGETS, SignalFit, attention, publish
from persona_cli.profiles.views import navigation_of
from persona_cli.workspace import home as homes
from persona_cli.workspace.home import Home

RULES = FoldRules(30 * MINUTE)
# Half of the looks are reading, half are idle tabs; ten seconds could be either.
EITHER = DwellFit(
    Mixture(np.array([0.5, 0.5]), np.log([5.0, 300.0]), np.array([1.0, 1.0])),
    ("engaged", "idle"), 1.0, np.inf, (0.5, 0.5), (3.0, 1.0, 2.0), 1000, 0.5, ((0.5, 1000.5, 1000),),
)  # fmt: skip


def beats(n: int = 12, user: str = "u") -> list[Event]:
    return [
        {"user_id": user, "event_type": "heartbeat", "value": 10.0, "target": "/a", "timestamp": at(seconds=10 * k)}
        for k in range(1, n + 1)
    ]


def folded(events: list[Event]) -> pl.DataFrame:
    rows = frame(events).select("user_id", "timestamp", *folding.NEEDED)
    part = part_of(coded(rows, ("user_id", *folding.TEXTS)))
    assert part is not None
    names = ["user_id", *(field.name for field in folding.FIELDS)]
    return pl.DataFrame({"user_id": part.users, **folding.fold(part, RULES)}).select(names)


def test_two_minutes_in_pieces_are_two_minutes_of_reading(home: Home) -> None:
    dwell: Event = {"event_type": "dwell", "value": 40.0}
    row = folded([*beats(), dwell]).row(0, named=True)
    assert (row["dwells"], row["dwell_ms"]) == (1, 160_000)
    assert row["_dwell"][0] == {"step": folding.ACTIVE, "n": 12, "ms": 120_000}
    profiles = folded([*beats(user="beats"), *beats(user="both"), dwell | {"user_id": "both"}, {"user_id": "none"}])
    nothing = {"engaged_ms": None, "bounce_ms": None, "idle_ms": None}
    active = {"engaged_ms": 120_000, "bounce_ms": 0, "idle_ms": 0}
    assert attention(profiles["_dwell"], home.settings).rows(named=True) == [active, nothing, nothing]
    publish(home, SignalFit(EITHER, "dwell", {}, pl.DataFrame(schema=TARGETS)))
    beaten, both, none = attention(profiles["_dwell"], homes.open_home(home.root).settings).rows(named=True)
    assert beaten == active and none == active | {"engaged_ms": 0}
    assert sum(both.values()) == 160_000
    assert both["engaged_ms"] > 120_000 and both["idle_ms"] > 0


def test_they_are_no_looks_no_steps_and_no_interest(home: Home) -> None:
    seen: list[Event] = [
        {"event_type": "page_view", "page": "/a", "timestamp": at()},
        {"event_type": "page_view", "page": "/b", "timestamp": at(seconds=300)},
    ]
    add(home, [*seen, *(beat | {"page": "/a"} for beat in beats())])
    assert dwell_seconds(home, "gaps")["seconds"].to_list() == [300.0]
    assert dwell_seconds(home, "dwell").height == 0
    assert navigation_of(home, "u").rows() == [("/a", "/b", 1)]
    assert home.settings.table("signals.strengths")["heartbeat"] == 0


@given(st.lists(st.integers(0, 2), min_size=1, max_size=24), st.randoms(use_true_random=False))
def test_however_they_are_divided(places: list[int], random: randoms.Random) -> None:
    events = [
        beat | {"event_type": random.choice(("heartbeat", "heartbeat", "dwell")), "user_id": random.choice("ab")}
        for beat in beats(len(places))
    ]
    parts = [[event for event, at_ in zip(events, places, strict=True) if at_ == place] for place in range(3)]
    partial = [folded(part) for part in parts if part]
    random.shuffle(partial)
    assert folding.merge(pl.concat(partial), RULES).equals(folded(events))
