"""`kind = "message"`: whether, by which channel and when; limits that nothing is ever traded for."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from deciding import NOW, Row, decided, sides, workspace
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from shop import add, add_items

from persona_cli.consent.receipts import record
from persona_cli.errors import BadSettings
from persona_cli.feedback.deciding import decide
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces import message_learning as learning
from persona_cli.serving.surfaces import message_timing as timing
from persona_cli.workspace import runs
from persona_cli.workspace.home import SETTINGS_FILE, Home, open_home
from persona_cli.workspace.surface_declarations import CHANNELS, MESSAGE

SETTINGS = """
[surface.mail]
kind = "message"
cohort = "none"
channels = ["email", "push"]
"""
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "+05:30")
OPTIONS = {name: default for name, (default, _) in MESSAGE.items()}


def mailing(root: Path, more: str = "", basis: str = 'basis = "contract"') -> Home:
    """A workspace in which messages rest on a contract, unless the basis says otherwise."""
    home = workspace(root, SETTINGS + more, [])
    path = home.root / SETTINGS_FILE
    head, tail = path.read_text().split("[privacy.purposes.messaging]")
    path.write_text(head + "[privacy.purposes.messaging]" + tail.replace('basis = "consent"', basis, 1))
    return open_home(home.root)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return mailing(tmp_path / "w")


def filled(home: Home, events: list[Row]) -> Home:
    add(home, events)
    sync(home)
    return open_home(home.root)


def messages(
    user: str, channel: str, hour: int, days: range, opened: bool = True, moment: str | None = None, tz: str = "UTC"
) -> list[Row]:
    """A message a day at that hour of UTC, so many days before `NOW`, opened ten minutes later."""
    found = []
    for day in days:
        at = (NOW - day * DAY).replace(hour=hour)
        one = {"user_id": user, "event_type": "message_sent", "target": channel, "timestamp": at, "tz": tz}
        found.append(one | ({"props": f'{{"moment": "{moment}"}}'} if moment else {}))
        if opened:
            found.append(one | {"event_type": "message_open", "timestamp": at + timedelta(minutes=10)})
    return found


def people(home: Home) -> list[str]:
    return sides(home)[0]


def test_rates_are_drawn_towards_the_wider_one_by_hand() -> None:
    rows = [("a", 0, 9, 1.0, True)] * 6 + [("a", 0, 9, 1.0, False)] * 4 + [("b", 0, 20, 1.0, False)] * 10
    sent = pl.DataFrame(rows, schema=["user_id", "channel", "hour", "n", "opened"], orient="row").with_columns(
        moment=pl.lit(-1, pl.Int64)
    )
    options = OPTIONS | {"prior_sends": 10.0, "open_rate": 0.1, "unsubscribe_rate": 0.01}
    groups = np.array([1] * 10 + [2] * 10)
    rates = learning.rates(sent, groups, 3, np.array([2, 0, 0, 0]), options)
    overall = (6 + 10 * 0.1) / (20 + 10)
    at_nine = (6 + 10 * overall) / (10 + 10)
    assert rates.overall == pytest.approx([overall, 0.1, 0.1, 0.1])
    assert rates.by_hour[0, 0, 9] == pytest.approx(at_nine)
    assert rates.by_hour[0, 0, 3] == pytest.approx(overall)
    assert rates.by_hour[1, 0, 9] == pytest.approx((6 + 10 * at_nine) / 20)
    assert rates.by_hour[2, 0, 9] == pytest.approx(at_nine)  # the other cohort was sent nothing at nine
    assert rates.unsubscribe == pytest.approx([(2 + 10 * 0.01) / 30, 0.01, 0.01, 0.01])
    opened, count = learning.counts(sent, np.array([0] * 10 + [1] * 10), 2, 0.1)
    cohort = rates.by_hour[np.array([1, 2])]
    own = learning.own(opened, count, cohort, rates.overall, 10.0, 0.0)
    m = 10 * overall
    more = (6 + m) / (10 * cohort[0, 0, 9] + m)
    assert own[0, 0, 9] == pytest.approx((6 + 10 * min(more * cohort[0, 0, 9], 1)) / 20)
    # A message an hour away counts exp(-1/2) of one.
    near = learning.own(opened, count, cohort, rates.overall, 10.0, 1.0)
    e = math.exp(-0.5)
    assert near[0, 0, 10] == pytest.approx((6 * e + 10 * more * cohort[0, 0, 10]) / (10 * e + 10))
    assert learning.own(0 * opened, 0 * count, cohort, rates.overall, 10.0, 1.0) == pytest.approx(cohort)


def test_opens_without_a_known_message_tell_hours_and_no_rate() -> None:
    sent = pl.DataFrame({"channel": [0] * 5, "hour": [7] * 5, "n": [None] * 5, "opened": [True] * 5},
                        schema_overrides={"n": pl.Float64})  # fmt: skip
    opened, count = learning.counts(sent, np.zeros(5, dtype=np.int64), 1, 0.1)
    assert (opened[0, 0, 7], opened.sum()) == (5, 5)
    assert count[0, 0] == pytest.approx(np.full(24, 5 / 0.1 / 24))
    assert opened.sum() / count.sum() == pytest.approx(0.1)


@given(st.sampled_from(ZONES), st.integers(0, 3 * 366 * 24 * 60), st.integers(1, 72))
def test_moments_ahead_are_the_beginnings_of_local_hours(zone: str, minutes: int, window: int) -> None:
    now = datetime(2025, 1, 1, 0, 0, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    spots = timing.slots(pl.Series([zone]), round(now.timestamp() * 1e6), window)
    there = spots.there[0]
    at = [datetime.fromtimestamp(int(one) / 1e6, UTC) for one in spots.at[0][there]]
    where = ZoneInfo(zone) if zone != "+05:30" else ZoneInfo("Asia/Kolkata")
    walls = [one.astimezone(where) for one in at]
    assert at[0] == now
    assert all(now <= one < now + window * HOUR for one in at)
    assert all(one.minute == one.second == 0 for one in walls[1:])
    assert [one.hour for one in walls] == spots.hour[0][there].tolist()
    assert [(one.date() - walls[0].date()).days for one in walls] == spots.day[0][there].tolist()
    # None is left out: an hour lasts an hour, but where clocks change.
    steps = [(after - before) / HOUR for before, after in pairwise(at[1:])]
    assert all(step in (0.5, 1.0, 1.5, 2.0) for step in steps)
    assert sum(step != 1.0 for step in steps) <= 2


@given(st.integers(0, 23), st.integers(0, 24))
def test_quiet_hours_may_span_midnight(start: int, end: int) -> None:
    if start == end % 24:
        return
    inside, hour = set(), start
    while hour != end % 24:
        inside.add(hour)
        hour = (hour + 1) % 24
    found = timing.quiet(np.arange(24), (start, end))
    assert set(np.flatnonzero(found).tolist()) == inside


@given(st.lists(st.integers(-9, 6), max_size=12), st.integers(0, 3), st.integers(1, 3), st.integers(1, 5))
def test_one_more_message_keeps_the_caps_of_every_week(days: list[int], ahead: int, daily: int, weekly: int) -> None:
    table = timing.by_day(np.zeros(len(days), dtype=np.int64), np.array(days, dtype=np.int64), 1)
    fits = timing.room(table, np.array([[ahead]]), np.array([daily]), np.array([weekly]))[0, 0]
    with_it = [*days, ahead]
    weeks = [sum(first <= day < first + 7 for day in with_it) for first in range(ahead - 6, ahead + 1)]
    assert fits == (with_it.count(ahead) <= daily and max(weeks) <= weekly)


def test_a_message_that_was_decided_and_sent_counts_once() -> None:
    def frame(*rows: tuple[int, int, int]) -> pl.DataFrame:
        return pl.DataFrame(list(rows), schema={"row": pl.Int64, "channel": pl.Int64, "at": pl.Int64}, orient="row")

    minute = 60_000_000
    sent = frame((0, 0, 100 * minute), (1, 0, 100 * minute))
    decided_ = frame((0, 0, 95 * minute), (0, 0, 99 * minute), (0, 1, 100 * minute), (1, 0, 300 * minute))
    found = timing.messages(sent, decided_).sort("row", "at")
    # Two decisions near one message: one of them is it; other channels and other hours are messages of their own.
    assert found["row"].to_list() == [0, 0, 0, 1, 1]


def test_the_hour_ahead_that_is_opened_most_is_taken_and_told_in_both_clocks(home: Home) -> None:
    ann, bob, eve, *_ = people(home)
    home = filled(
        home,
        messages(ann, "email", 8, range(8, 60), tz="Asia/Kolkata")  # 8:00 UTC is 13:30 there
        + messages(ann, "email", 11, range(8, 60, 3), opened=False, tz="Asia/Kolkata")
        + messages(bob, "push", 18, range(8, 60)),
    )
    lines = decided(home, "mail", [ann, bob, eve], explain=True)
    line = lines[ann]["choice"]
    assert (line["send"], line["because"], line["channel"], line["local_hour"]) == (True, None, "email", 13)
    assert (line["send_at"], line["local_time"]) == ("2026-03-03T07:30:00Z", "2026-03-03T13:00:00")
    assert line["cadence"] == "at_once"
    assert lines[bob]["choice"]["send_at"] == "2026-03-02T18:00:00Z"
    assert lines[bob]["choice"]["channel"] == "push"
    assert (lines[ann]["policy"], lines[ann]["propensity"], lines[ann]["rules"]) == ("learned", 1.0, [])
    assert lines[ann]["reasons"][0].endswith("of messages by email at 13:00 are expected to be opened")
    # Of Eve nothing is known: the first channel now, by what settings say of everybody.
    unknown = lines[eve]["choice"]
    assert (unknown["channel"], unknown["send_at"]) == ("email", "2026-03-02T12:00:00Z")
    assert (unknown["expected_open"], unknown["expected_value"]) == (0.1, pytest.approx(0.1 - 20 * 0.002))
    assert unknown["cadence"] == "digest"


def test_in_the_evening_the_best_hour_of_tomorrow_is_taken(home: Home) -> None:
    ann = people(home)[0]
    home = filled(home, messages(ann, "email", 22, range(8, 40)) + messages(ann, "email", 9, range(9, 40, 2)))
    late = NOW.replace(hour=22)
    line = decided(home, "mail", [ann], at=late)[ann]
    assert line["choice"]["send_at"] == "2026-03-03T09:00:00Z"
    assert line["rules"] == ["quiet_hours"]  # 22:00 would be better
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text() + "window_hours = 3\n")
    line = decided(open_home(home.root), "mail", [ann], at=late)[ann]
    assert (line["choice"]["send"], line["choice"]["because"]) == (False, "quiet hours")
    # Somewhere it is noon: who says where they are is asked there.
    line = decided(open_home(home.root), "mail", [ann], at=late, context={"tz": "Pacific/Auckland"})[ann]
    assert line["choice"]["local_hour"] == 11
    told = decided(open_home(home.root), "mail", [ann], at=late, context={"hour": "11"})[ann]
    assert told["choice"]["local_time"] == "2026-03-02T11:00:00"  # the zone is -11:00


def test_if_one_message_a_day_is_left_it_goes_at_the_best_hour_ahead(home: Home) -> None:
    ann = people(home)[0]
    home = filled(home, messages(ann, "email", 18, range(8, 60)))
    first = decided(home, "mail", [ann])[ann]["choice"]
    assert first["send_at"] == "2026-03-02T18:00:00Z"
    line = decided(home, "mail", [ann], at=NOW + HOUR, served=[(ann, NOW, first)])[ann]
    assert line["choice"]["local_time"].startswith("2026-03-03")  # today's is decided
    assert (
        line["choice"]["local_hour"] == 8
    )  # 18:00 of tomorrow is not ahead yet, and of equal hours the first is taken
    assert line["rules"] == ["cap"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu"])
@given(data=st.data())
@settings(max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
def test_whatever_runs_before_no_limit_is_broken(crowd: tuple[Home, list[str]], zone: str, data: st.DataObject) -> None:
    home, users = crowd
    at = datetime(2026, 3, 24, 12, tzinfo=UTC)  # clocks change on the 29th
    served: list[tuple[str, datetime, Row | None]] = []
    steps = data.draw(st.lists(st.integers(1, 40), min_size=6, max_size=12))
    for step in steps:
        at += step * HOUR
        lines = decided(home, "mail", users, at=at, served=served, context={"tz": zone})
        served += [(user, at, line["choice"]) for user, line in lines.items()]
    for user in users:
        where = ZoneInfo("UTC" if user == users[3] else zone)  # nothing is told of the held out
        sent = [choice for who, _, choice in served if who == user and choice is not None and choice["send"]]
        walls = [datetime.fromisoformat(one["send_at"]).astimezone(where) for one in sent]
        assert all(8 <= one.hour < 21 for one in walls)
        assert [one.hour for one in walls] == [one["local_hour"] for one in sent]
        days = sorted(one.date() for one in walls)
        assert len(set(days)) == len(days)
        assert all((days[place + 3] - days[place]).days >= 7 for place in range(len(days) - 3))
        assert user != users[1] or all(one["channel"] == "push" for one in sent)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[str]]:
    """Some users; the second has unsubscribed from email."""
    home = mailing(tmp_path_factory.mktemp("crowd") / "w")
    users = people(home)[:3] + sides(home)[1][:1]
    out = {"user_id": users[1], "event_type": "unsubscribe", "target": "email", "timestamp": NOW - 9 * DAY}
    return filled(home, [out, *messages(users[0], "email", 7, range(40, 60))]), users


def test_who_unsubscribed_gets_nothing_there_until_subscribing_again(home: Home) -> None:
    ann, bob, eve, kim, *_ = people(home)
    out = {"event_type": "unsubscribe", "timestamp": NOW - 9 * DAY}
    back = {"event_type": "message_subscribe", "target": "email", "timestamp": NOW - 8 * DAY}
    home = filled(
        home,
        [
            out | {"user_id": ann, "target": "email"},
            out | {"user_id": bob},  # names no channel: all of them
            out | {"user_id": eve, "target": "email"},
            back | {"user_id": eve},
            out | {"user_id": kim, "target": "email"},
            back | {"user_id": kim, "timestamp": out["timestamp"]},  # of equal moments the refusal counts
        ],
    )
    lines = decided(home, "mail", [ann, bob, eve, kim])
    assert [lines[user]["choice"]["channel"] for user in (ann, bob, eve, kim)] == ["push", None, "email", "push"]
    assert lines[bob]["choice"]["because"] == "unsubscribed"
    assert lines[bob]["rules"] == ["unsubscribed"]


def test_without_consent_nothing_is_sent(tmp_path: Path) -> None:
    home = mailing(tmp_path / "w", basis='basis = "consent"')
    ann, bob, eve, *_ = people(home)
    home = filled(home, messages(ann, "email", 9, range(8, 12)))
    lines = decided(home, "mail", [ann, bob])
    assert {line["choice"]["because"] for line in lines.values()} == {"consent"}
    record(home, [ann], ["messaging.push"], "given")
    record(home, [bob], ["messaging"], "given")
    record(home, [bob], ["messaging.email"], "withdrawn")
    record(home, [eve], ["messaging"], "given")
    lines = decided(home, "mail", [ann, bob, eve])
    assert [lines[user]["choice"]["channel"] for user in (ann, bob, eve)] == ["push", "push", "email"]
    # Whose decisions may not be kept gets none: nobody would know how many there were.
    lines = decided(home, "mail", [eve], kept=lambda ids: pl.Series([False] * len(ids)))
    assert lines[eve]["choice"]["because"] == "consent"
    record(home, [eve], ["personalization"], "objected")
    line = decided(home, "mail", [eve])[eve]
    assert (line["choice"]["send"], line["choice"]["because"], line["consent"]) == (False, "consent", False)


def test_a_channel_needs_to_reach_the_person_and_to_be_worth_it(tmp_path: Path) -> None:
    home = mailing(tmp_path / "w", "reach.push = \"device = 'mobile'\"\nreach.email = \"device = 'desktop'\"\n")
    ann, bob, *_ = people(home)
    when = {"timestamp": NOW - 9 * DAY, "event_type": "click", "target": "home"}
    home = filled(home, [when | {"user_id": ann, "device": "mobile"}, when | {"user_id": bob, "device": "tv"}])
    lines = decided(home, "mail", [ann, bob])
    assert lines[ann]["choice"]["channel"] == "push"
    assert (lines[bob]["choice"]["because"], lines[bob]["rules"]) == ("no channel", ["no_channel"])
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text() + "unsubscribe_cost = 51\n")  # 51 x .002 opens > .1
    line = decided(open_home(home.root), "mail", [ann])[ann]
    assert (line["choice"]["because"], line["rules"]) == ("low response", ["low_response"])


def test_who_opens_less_than_before_is_written_to_less(home: Home) -> None:
    ann, bob, *_ = people(home)
    past = [one for user in (ann, bob) for one in messages(user, "email", 9, range(15, 60))]
    now = messages(ann, "email", 9, range(5, 14), opened=False) + messages(bob, "email", 9, range(5, 14))
    home = filled(home, past + now)
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text() + "per_week = 4\n")
    home = open_home(home.root)
    lines = decided(home, "mail", [ann, bob])
    # Five days ago and six: two messages of this week; four are allowed, of Ann's fewer.
    assert lines[bob]["choice"]["send"]
    assert lines[bob]["choice"]["cadence"] == "at_once"
    assert (lines[ann]["choice"]["because"], lines[ann]["rules"]) == ("fatigue", ["fatigue"])


def test_the_moment_in_the_product_follows_what_was_answered(tmp_path: Path) -> None:
    home = mailing(tmp_path / "w")
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text().replace('["email", "push"]', '["in_app"]'))
    home = open_home(home.root)
    ann, bob, *_ = people(home)
    home = filled(
        home,
        messages(ann, "in_app", 9, range(8, 40), moment="idle")
        + messages(ann, "in_app", 15, range(8, 40), opened=False, moment="session_start"),
    )
    lines = decided(home, "mail", [ann, bob])
    assert [lines[user]["choice"]["moment"] for user in (ann, bob)] == ["idle", "session_start"]


def test_the_held_out_get_the_same_for_all_under_the_same_limits(home: Home) -> None:
    held, other = sides(home)[1][:2]
    home = filled(home, messages(held, "push", 18, range(8, 60)) + messages(other, "push", 18, range(1, 4)))
    lines = decided(home, "mail", [held, other], context={"tz": "Asia/Tokyo"})
    line = lines[held]
    assert (line["policy"], line["holdout"], line["choice"]["channel"]) == ("default", True, "email")
    assert (line["choice"]["local_time"], line["choice"]["expected_open"]) == ("2026-03-02T12:00:00", 0.1)
    assert lines[other]["choice"]["because"] == "cap"


def test_cohorts_of_twenty_have_an_hour_of_their_own_and_fewer_do_not(tmp_path: Path) -> None:
    home = mailing(tmp_path / "w")
    path = home.root / SETTINGS_FILE
    path.write_text(path.read_text().replace('cohort = "none"', 'cohort = "device"'))
    users = people(open_home(home.root))
    crowd, (late, early, none) = users[:63], users[63:66]
    sent = []
    for number, user in enumerate(crowd):
        device, hour = (("mobile", 19), ("desktop", 9), ("tv", 14))[0 if number < 40 else 1 if number < 60 else 2]
        for offset in (0, 12):
            on = messages(user, "email", (hour + offset) % 24, range(8, 20), opened=not offset)
            sent += [one | {"device": device} for one in on]
    home = filled(open_home(home.root), sent)
    for user, device, hour in ((late, "mobile", 19), (early, "desktop", 9), (none, "tv", 19)):
        line = decided(home, "mail", [user], context={"device": device})[user]["choice"]
        assert line["local_hour"] == hour, device


def test_a_digest_holds_what_would_be_recommended_but_nothing_sensitive(tmp_path: Path) -> None:
    home = mailing(tmp_path / "w", 'content = "list"\n[surface.list]\nkind = "content"\nmodel = "popular"\ntop = 3\n')
    path = home.root / SETTINGS_FILE
    text = path.read_text()
    assert "sensitive = []" in text
    path.write_text(text.replace("sensitive = []", 'sensitive = ["health"]'))
    home = open_home(home.root)
    ann, bob, *_ = people(home)
    add_items(home, [{"item_id": "a", "category": "health"}, {"item_id": "b"}, {"item_id": "c"}])
    clicks = [
        {"user_id": f"c{user}", "item_id": item, "timestamp": NOW - 9 * DAY}
        for item, n in (("a", 9), ("b", 6), ("c", 3))
        for user in range(n)
    ]
    out = {"user_id": bob, "event_type": "unsubscribe", "timestamp": NOW - 9 * DAY}
    home = filled(home, [*clicks, out])
    from persona_cli.feedback.training import train

    train(home, ["popular"])
    lines = decided(home, "mail", [ann, bob])
    assert (lines[ann]["choice"]["items"], lines[ann]["rules"]) == (["b", "c"], ["sensitive"])
    assert lines[bob]["choice"]["items"] is None


def test_caps_are_on_a_person_whatever_the_surface_and_the_id(tmp_path: Path) -> None:
    home = mailing(tmp_path / "w", 'per_week = 1\n[surface.other]\nkind = "message"\nper_week = 1\n')
    ann = people(home)[0]
    linked = {"event_type": "identify", "user_id": ann, "anon_id": "device-7", "timestamp": NOW - 9 * DAY}
    home = filled(home, [linked])
    asked = pl.Series("user_id", [ann, "device-7"])

    def run(surface: str) -> list[bool]:
        with runs.recording(home, ["decide", surface]) as one:
            rows = decide(home, surface, one, users=asked).rows
        return rows["choice"].struct.field("send").to_list()

    assert sum(run("mail")) == 1
    assert sum(run("mail")) == 0  # what was decided before is the message of the week
    assert sum(run("other")) == 0


def test_the_same_twice_and_the_order_and_number_of_users_change_nothing(crowd: tuple[Home, list[str]]) -> None:
    home, users = crowd
    first = decided(home, "mail", users)
    assert first == decided(home, "mail", users[::-1])
    assert all(first[user] == decided(home, "mail", [user])[user] for user in users)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("quiet_hours = [9, 9]", r"\[9, 9\] would cover the whole day.* for quiet_hours in \[surface.x\]"),
        ("quiet_hours = [0, 24]", "would cover the whole day"),
        ("quiet_hours = [22]", "from and until which it is quiet"),
        ("per_day = 0", r"1 or more messages \(with 0 nothing could ever be sent.* for per_day in \[surface.x\]"),
        ("per_week = 0", "for per_week"),
        ('channels = ["emial"]', "'emial' is none; did you mean 'email'"),
        ("channels = []", "one or more different channels"),
        ('channels = ["email", "email"]', "one or more different channels"),
        ('reach.pager = "items > 2"', "of which 'pager' is none"),
        ('moments = ["idle"]', "keys of the kind message"),
        ("open_rate = 1", "a number from 0.001 to 0.999"),
    ],
)
def test_settings_that_are_wrong_are_named(tmp_path: Path, wrong: str, said: str) -> None:
    home = mailing(tmp_path / "w")
    path = home.root / SETTINGS_FILE
    path.write_text(f'{path.read_text()}\n[surface.x]\nkind = "message"\n{wrong}\n')
    with pytest.raises(BadSettings, match=said) as error:
        open_home(home.root)
    assert "\n" not in str(error.value)


def test_what_only_the_decision_finds_wrong_is_named(tmp_path: Path) -> None:
    home = mailing(tmp_path / "w", 'content = "mail"\n')
    with pytest.raises(BadSettings, match='content = "mail" is of kind message; expected one of kind content'):
        decided(home, "mail", ["u"])
    home = mailing(tmp_path / "v", "reach.push = \"devise = 'mobile'\"\n")
    with pytest.raises(BadSettings, match=r"surface.mail.reach.push: .*devise"):
        decided(home, "mail", ["u"])
    home = mailing(tmp_path / "u", basis='basis = ""')
    with pytest.raises(BadSettings, match="messaging has no lawful basis"):
        decided(home, "mail", ["u"])


def test_learned_hours_beat_everybodys_best_hour() -> None:
    """Users with a habit each; expected opens a message of the hour that each policy takes."""
    rng = np.random.default_rng(7)
    n, sends = 2_000, 60
    habit = rng.choice([8, 12, 18, 19, 20], n)
    apart = np.abs(np.arange(24)[None, :] - habit[:, None])
    truth = 0.04 + 0.3 * np.exp(-0.5 * (np.minimum(apart, 24 - apart) / 1.5) ** 2)  # (n, 24)
    hour = rng.integers(8, 21, (n, sends))
    opened = rng.random((n, sends)) < np.take_along_axis(truth, hour, axis=1)
    sent = pl.DataFrame(
        {
            "channel": np.zeros(n * sends, dtype=np.int64),
            "hour": hour.ravel(),
            "moment": np.full(n * sends, -1),
            "n": np.ones(n * sends),
            "opened": opened.ravel(),
        }
    )
    user = np.repeat(np.arange(n), sends)
    rates = learning.rates(sent, np.zeros(n * sends, dtype=np.int64), 1, np.zeros(len(CHANNELS), np.int64), OPTIONS)
    counted = learning.counts(sent, user, n, 0.1)
    cohort = np.broadcast_to(rates.by_hour[0], (n, len(CHANNELS), 24))
    own = learning.own(*counted, cohort, rates.overall, OPTIONS["prior_sends"], OPTIONS["spread_hours"])[:, 0, 8:21]
    open_hours = truth[:, 8:21]
    ours = open_hours[np.arange(n), own.argmax(axis=1)].mean()
    everybody = open_hours[:, rates.by_hour[0, 0, 8:21].argmax()].mean()
    raw = (counted[0] / np.maximum(counted[1], 1))[:, 0, 8:21]
    assert ours > 1.15 * everybody
    assert ours > open_hours[np.arange(n), raw.argmax(axis=1)].mean()
    assert ours < open_hours.max(axis=1).mean()
