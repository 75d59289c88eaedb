"""What arms have earned follows from the decisions that are there: whenever, however often and in whatever order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.errors import BadData, BadSettings, MissingInput
from persona_cli.feedback.bandit_state import refit, update
from persona_cli.feedback.decisions import log, read
from persona_cli.models import bandits
from persona_cli.models.bandits import ONE
from persona_cli.privacy.erasure import forget
from persona_cli.profiles.permitted import in_holdout
from persona_cli.workspace.home import SETTINGS_FILE, Home

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SETTINGS = """
[surface.nav]
kind = "ui"
entries = ["home", "search"]
arms.plain = {}
arms.dense = { density = "compact" }
bandit = { features = ["device"], window_hours = 24, warm_start = ["look"] }
"""
Row = dict[str, Any]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "w")
    with made.home.path(SETTINGS_FILE).open("a") as file:
        file.write(SETTINGS)
    return Workspace(made.home.root)


def ingest(shop: Workspace, events: list[Row]) -> None:
    file = shop.home.root.parent / f"events{len(list(shop.home.root.parent.glob('events*')))}.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in events))
    shop.ingest(file)


def event(user: str, kind: str, at: datetime, decision: str | None = None) -> Row:
    more = {} if decision is None else {"decision_id": decision}
    return {"user_id": user, "event_type": kind, "item_id": "i1", "timestamp": at.isoformat(), **more}


def served(home: Home, rows: Sequence[tuple[str, str | None, str | None]], at: datetime) -> list[str]:
    """Log decisions for (user, variant, device); answers their ids."""
    frame = pl.DataFrame(rows, schema=["user_id", "variant", "device"], orient="row").with_columns(
        surface=pl.lit("nav"),
        policy=pl.lit("thompson"),
        propensity=pl.lit(0.5),
        context=pl.concat_str(pl.lit('{"device":"'), "device", pl.lit('"}')),
        holdout=in_holdout(home, pl.Series("user_id", [row[0] for row in rows])),
    )
    return log(home, frame.drop("device"), at=at).to_list()


def people(home: Home, n: int) -> list[str]:
    names = pl.Series("user_id", [f"u{number}" for number in range(2 * n)])
    return names.filter(~in_holdout(home, names)).to_list()[:n]


def known(home: Home) -> bandits.Learned:
    found = bandits.learned_of(home, "nav")
    assert found is not None
    return found


def test_rewards_are_learned_once_when_their_window_is_over(shop: Workspace) -> None:
    ann, bob, cat, dan = people(shop.home, 4)
    arms = [(ann, "bandit/dense", "mobile"), (bob, "bandit/plain", "desktop"), (cat, "bandit/dense", None)]
    ids = served(shop.home, arms, NOW)
    late = served(shop.home, [(dan, "bandit/dense", "mobile")], NOW + timedelta(hours=20))
    ingest(shop, [event(ann, "click", NOW + timedelta(hours=2), ids[0])])
    (first,) = update(shop.home)
    assert (first.learned.sums.n.tolist(), first.learned.waiting) == ([0, 0], 4)

    # A day and an hour later: of dan's decision nobody can tell yet, clicked or not.
    ingest(
        shop, [event(dan, "click", NOW + timedelta(hours=25), late[0]), event(cat, "view", NOW + timedelta(hours=25))]
    )
    (second,) = update(shop.home)
    assert second.learned.arms == ("dense", "plain")
    assert (second.learned.sums.n.tolist(), second.learned.waiting, second.new) == ([2, 1], 1, 3)
    # Constant, mobile, tablet, desktop: ann clicked on a phone, cat did not, of unknown device.
    assert (second.learned.sums.b[0] / ONE**2).tolist() == [1, 1, 0, 0]
    assert (second.learned.sums.a[0] / ONE**2).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert second.learned.sums.b[1].tolist() == [0, 0, 0, 0]
    (again,) = update(shop.home, "nav")
    assert (again.changed, again.new) == (False, 0)

    ingest(shop, [event(bob, "view", NOW + timedelta(hours=60))])
    (third,) = update(shop.home)
    assert (third.learned.sums.n.tolist(), third.learned.waiting, third.new) == ([3, 1], 0, 1)
    assert (third.learned.sums.b[0] / ONE**2).tolist() == [2, 2, 0, 0]


def test_a_reward_after_the_window_and_one_of_somebody_else_is_none(shop: Workspace) -> None:
    ann, bob = people(shop.home, 2)
    ids = served(shop.home, [(ann, "bandit/dense", "mobile"), (bob, "bandit/dense", "mobile")], NOW)
    ingest(shop, [event(ann, "click", NOW + timedelta(hours=25), ids[0]), event(bob, "view", NOW + timedelta(days=3))])
    (found,) = update(shop.home)
    assert (found.learned.sums.n.tolist(), found.learned.sums.b[0].any()) == ([2, 0], False)


def test_only_decisions_that_were_seen_count_where_impressions_are_sent(shop: Workspace) -> None:
    ann, bob, cat = people(shop.home, 3)
    ids = served(shop.home, [(one, "bandit/dense", "mobile") for one in (ann, bob, cat)], NOW)
    later = NOW + timedelta(hours=1)
    ingest(
        shop,
        [
            event(ann, "impression", later, ids[0]),
            event(bob, "click", later, ids[1]),
            event(cat, "view", NOW + timedelta(days=3)),
        ],
    )
    (found,) = update(shop.home)
    assert (found.learned.sums.n.tolist(), found.learned.sums.b[0, 0] / ONE**2) == ([2, 0], 1)


def test_who_is_held_out_or_had_no_arm_teaches_nothing_and_experiments_do(shop: Workspace) -> None:
    names = pl.Series("user_id", [f"u{number}" for number in range(200)])
    held = names.filter(in_holdout(shop.home, names)).to_list()[0]
    ann, bob, cat = people(shop.home, 3)
    rows = [
        (held, "bandit/dense", "mobile"),
        (ann, None, "mobile"),
        (bob, "look:plain,other:dense", "mobile"),
        (cat, "other:b,bandit/dense", "mobile"),
    ]
    served(shop.home, rows, NOW)
    ingest(shop, [event(cat, "view", NOW + timedelta(days=3))])
    (found,) = update(shop.home)
    assert found.learned.sums.n.tolist() == [1, 1]
    assert found.learned.people == (1, 1)


def test_the_reward_may_be_that_nothing_bad_happened(shop: Workspace) -> None:
    path = shop.home.path(SETTINGS_FILE)
    path.write_text(path.read_text().replace("bandit = {", 'bandit = { reward = "no_negative",'))
    shop = Workspace(shop.home.root)
    ann, bob = people(shop.home, 2)
    ids = served(shop.home, [(ann, "bandit/dense", "mobile"), (bob, "bandit/dense", "mobile")], NOW)
    later = NOW + timedelta(hours=1)
    ingest(shop, [event(ann, "thumbs_down", later, ids[0]), event(bob, "view", NOW + timedelta(days=3))])
    (found,) = update(shop.home)
    assert (found.learned.sums.n.tolist(), found.learned.sums.b[0, 0] / ONE**2) == ([2, 0], 1)


def filled(shop: Workspace, users: list[str]) -> None:
    """Three decisions a user, some clicked."""
    rng = np.random.default_rng(3)
    for day in range(3):
        at = NOW + timedelta(days=day)
        choices = [
            (user, f"bandit/{('dense', 'plain')[(place + day) % 2]}", ("mobile", "desktop")[place % 2])
            for place, user in enumerate(users)
        ]
        ids = served(shop.home, choices, at)
        clicked = rng.random(len(users)) < 0.4
        ingest(
            shop,
            [
                event(user, "click" if clicked[place] else "impression", at + timedelta(hours=1), ids[place])
                for place, user in enumerate(users)
            ],
        )


def state(home: Home) -> tuple[Any, ...]:
    found = known(home)
    return (found.arms, *(part.tolist() for part in found.sums), found.people, found.waiting)


def test_forgotten_is_never_seen_and_rebuilt_is_incremental(shop: Workspace) -> None:
    users = people(shop.home, 30)
    filled(shop, users[:20])
    update(shop.home)
    ingest(shop, [event(users[29], "view", NOW + timedelta(days=10))])
    update(shop.home)
    before = state(shop.home)
    assert sum(before[1]) == 60
    # Never seen: the same without the decisions and events of five of them.
    gone = users[:5]
    forget(Workspace(shop.home.root).home, gone)
    after = state(shop.home)
    left = users[5:20]
    rows = read(shop.home).collect()
    assert set(rows["user_id"]) == set(left)
    assert sum(after[1]) == 45
    for user in gone:
        assert user not in shop.home.path("derived", "bandits", "nav.json").read_text()
    # Incremental is rebuilt: from scratch the same bytes.
    path = shop.home.path("derived", "bandits", "nav.json")
    bytes_ = path.read_bytes()
    path.unlink()
    update(shop.home)
    assert path.read_bytes() == bytes_
    # What the forgotten had put in is exactly what left.
    surface_sums = bandits.Sums(*(np.array(part) for part in before[1:5]))
    kept_sums = bandits.Sums(*(np.array(part) for part in after[1:5]))
    theirs = surface_sums.minus(kept_sums)
    assert theirs.n.sum() == 15
    # Nobody is left: nothing is known.
    forget(Workspace(shop.home.root).home, left)
    assert not known(shop.home).sums.n.any()


def test_forgetting_gives_what_a_workspace_has_that_never_saw_them(shop: Workspace, tmp_path: Path) -> None:
    users = people(shop.home, 12)
    twin = tmp_path / "twin" / "w"
    twin.parent.mkdir()
    shutil.copytree(shop.home.root, twin)
    other = Workspace(twin)
    for one, who in ((shop, users), (other, users[3:])):
        ids = served(one.home, [(user, "bandit/dense", "mobile") for user in users if user in who], NOW)
        events = [
            event(user, "click", NOW + timedelta(hours=1), ids[place])
            for place, user in enumerate(user for user in users if user in who)
            if int(user[1:]) % 2
        ]
        ingest(one, [*events, event(users[-1], "view", NOW + timedelta(days=5))])
        update(one.home)
    forget(shop.home, users[:3])
    assert state(shop.home) == state(other.home)


def test_an_arm_that_is_served_is_learned_from(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    root, users = str(shop.home.root), people(shop.home, 60)
    long_ago = datetime.now(UTC) - timedelta(days=30)
    ingest(shop, [{**event(user, "view", long_ago), "device": "mobile"} for user in users])
    assert run(["decide", "nav", "-w", root]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    arms = {line["decision_id"]: line["arm"] for line in lines if line["arm"]}
    assert len(arms) == 60
    rows = read(shop.home).collect()
    logged = dict(rows.select("decision_id", "variant").iter_rows())
    assert all(logged[one] == f"bandit/{arm}" for one, arm in arms.items())
    assert set(rows.filter(pl.col("decision_id").is_in(list(arms)))["propensity"]) == {0.5}
    assert run(["bandit", "update", "nav", "-w", root, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["learned"], told["waiting"]) == (0, 60)
    # With a window that is nothing, and one event after it, all is learned.
    path = shop.home.path(SETTINGS_FILE)
    path.write_text(path.read_text().replace("window_hours = 24", "window_hours = 0.01"))
    soon = datetime.now(UTC) + timedelta(minutes=2)
    ingest(shop, [event(users[0], "view", soon)])
    assert run(["bandit", "update", "-w", root, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["learned"] in (0, 60)  # events of the future do not make it later than it is
    assert run(["bandit", "show", "nav", "-w", root, "--feature", "device=mobile", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["arm"] for one in shown] == ["dense", "plain"]
    assert sum(one["chance"] for one in shown) == pytest.approx(1, abs=1e-5)


def test_rates_of_fewer_than_twenty_people_are_not_shown(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    users = people(shop.home, 40)
    rows = [(user, "bandit/dense" if place < 30 else "bandit/plain", "mobile") for place, user in enumerate(users)]
    ids = served(shop.home, rows, NOW)
    clicks = [event(user, "click", NOW + timedelta(hours=1), ids[place]) for place, user in enumerate(users[:15])]
    ingest(shop, [*clicks, event(users[0], "view", NOW + timedelta(days=3))])
    assert run(["bandit", "update", "-w", str(shop.home.root)]) == 0
    capsys.readouterr()
    assert run(["bandit", "show", "nav", "-w", str(shop.home.root), "--json"]) == 0
    dense, plain = json.loads(capsys.readouterr().out)
    assert (dense["learned"], dense["rate"]) == (30, 0.5)
    assert (plain["learned"], plain["rate"]) == (10, None)


def test_what_cannot_be_learned_is_said(shop: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingInput, match="nva"):
        update(shop.home, "nva")
    path = shop.home.path("derived", "bandits", "nav.json")
    update(shop.home)
    path.write_text('{"arms": ["dense"]}')
    with pytest.raises(BadData, match=r"nav\.json is damaged"):
        bandits.learned_of(shop.home, "nav")
    assert refit(shop.home) == ["nav"]
    assert run(["bandit", "show", "nav", "-w", str(shop.home.root), "--feature", "devise=mobile"]) == 2
    assert "device" in capsys.readouterr().err
    settings = shop.home.path(SETTINGS_FILE)
    settings.write_text(settings.read_text().split("[surface.nav]")[0])
    bare = Workspace(shop.home.root).home
    with pytest.raises(BadSettings, match=r"no surface of persona\.toml has arms"):
        update(bare)
    assert refit(bare) == ["nav"]
    assert not path.exists()
