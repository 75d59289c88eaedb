"""After an expiry nothing is older than its period, and the workspace is that of one given only the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

sys.path.insert(0, str(Path(__file__).parents[1] / "events"))

from ingesting import event, write

from persona_cli.api import Workspace
from persona_cli.errors import Busy, MissingInput
from persona_cli.evaluation.kept import read
from persona_cli.events.catalogue import current
from persona_cli.events.store import scan_events
from persona_cli.models import gram_store
from persona_cli.models.interactions import interactions_of
from persona_cli.privacy.retention import NOTE, cut_of, months_before, overdue, plan, schedule
from persona_cli.privacy.settling import expire, remove_before
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.history import history, signal_events
from persona_cli.profiles.identity import persons
from persona_cli.profiles.sync import behind
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.home import Home, create, open_home

NOW = datetime(2028, 3, 15, 13, 30, tzinfo=UTC)
CUT = datetime(2026, 2, 15, tzinfo=UTC)


def at(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def set_to(home: Home, **values: int) -> Home:
    """With these settings in [privacy.retention] alone."""
    lines = ["[privacy.retention]", *(f"{name} = {n}" for name, n in values.items())]
    (home.root / "persona.toml").write_text("\n".join(lines) + "\n")
    return open_home(home.root)


def given_to(root: Path, parts: Sequence[Sequence[dict[str, Any]]], users: Sequence[dict[str, Any]] = ()) -> Home:
    """A workspace that was given these events, a file a part, and users; with item sums."""
    home = create(root)
    for number, part in enumerate(parts):
        if part:
            Workspace.of(home).ingest(write(root.parent / f"{root.name}-{number}.jsonl", part))
    if users:
        Workspace.of(home).ingest(write(root.parent / f"{root.name}-users.jsonl", users), kind="users")
    if tables.exists(home, "events"):
        sums(home)
    return home


def sums(home: Home) -> None:
    gram_store.update(home, interactions_of(signal_events(home).collect(), home.settings), home.settings)


def same(home: Home, other: Home) -> None:
    """Every table row for row, but for what says when and from where rows came in; item sums by sha256."""
    assert behind(home) is None
    bookkeeping = ("source", "ingested_at")
    ours, theirs = (scan_events(one).drop(bookkeeping).collect().sort("event_id") for one in (home, other))
    assert_frame_equal(ours, theirs)
    assert_frame_equal(history(home), history(other))
    assert_frame_equal(profile_rows(home).sort("user_id"), profile_rows(other).sort("user_id"))
    a, b = persons(home), persons(other)
    assert (a.ids.to_list(), a.persons.to_list()) == (b.ids.to_list(), b.persons.to_list())
    assert gram_store.stored_digest(home) == gram_store.stored_digest(other)
    by_id = [tables.open_table(one, "identities") for one in (home, other)]
    ids = [sorted(t.scan().collect()["id"]) if t is not None else [] for t in by_id]
    assert ids[0] == ids[1]


def oldest(home: Home) -> datetime | None:
    """The oldest moment of anything that happened, in any Parquet file that lies anywhere."""
    found = []
    for path in home.root.rglob("*.parquet"):
        rows = pl.read_parquet(path)
        names = [n for n in ("timestamp", "first_seen", "last_seen", "at", "rejected_at") if n in rows.columns]
        found += [moment for name in names if (moment := rows[name].min()) is not None]
    return min(found) if found else None  # type: ignore[type-var]


def test_months_by_the_calendar() -> None:
    day = datetime(2026, 3, 31, tzinfo=UTC)
    found = [months_before(day, months) for months in (1, 13, 25, 3, 0)]
    assert [f"{one:%Y-%m-%d}" for one in found] == [
        "2026-02-28", "2025-02-28", "2024-02-29", "2025-12-31", "2026-03-31",
    ]  # fmt: skip


def test_periods_in_force(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    cuts = {period.what: period.before for period in schedule(home, NOW)}
    assert cuts["events"] == cuts["users"] == CUT
    assert cuts["decisions"] == datetime(2027, 2, 15, tzinfo=UTC)
    assert cuts["quarantine"] == datetime(2028, 2, 14, tzinfo=UTC)
    home = set_to(home, events_months=0, evaluations_days=0)
    assert {p.what: p.kept for p in schedule(home, NOW)}["events"] == "without end"
    assert cut_of(home, "evaluations", NOW) is None


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "u3", "u4"]),
        st.sampled_from([None, "a1", "a2"]),
        st.sampled_from(["click", "purchase", "identify", "thumbs_down"]),
        st.sampled_from(["i1", "i2", "i3", None]),
        # Days around the cut, among them the days on both sides of it, and hours at their ends.
        st.integers(-120, 60),
        st.sampled_from([0, 1, 86_399]),
    ),
    max_size=30,
)


SLOWLY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}


@given(EVENTS, st.integers(0, 30))
@settings(max_examples=4, derandomize=True, **SLOWLY)  # type: ignore[arg-type]
def test_equals_a_workspace_given_only_the_rest(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], split: int
) -> None:
    equals_the_rest(tmp_path_factory.mktemp("expiry"), drawn, split)


@pytest.mark.slow
@given(EVENTS, st.integers(0, 30), st.integers(1, 50))
@settings(max_examples=60, **SLOWLY)  # type: ignore[arg-type]
def test_equals_a_workspace_given_only_the_rest_often(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], split: int, later: int
) -> None:
    equals_the_rest(tmp_path_factory.mktemp("expiry"), drawn, split, later)


def equals_the_rest(folder: Path, drawn: list[Any], split: int, later: int = 0) -> None:
    told = [
        (CUT + timedelta(days=days, seconds=seconds), user, anon, kind, item)
        for user, anon, kind, item, days, seconds in drawn
    ]
    records = [
        event(user, at(moment), kind, event_id=f"e{number}", **{
            key: value for key, value in (("anon_id", anon), ("item_id", item)) if value
        })
        for number, (moment, user, anon, kind, item) in enumerate(told)
    ]  # fmt: skip
    rest = [record for record, (moment, *_) in zip(records, told, strict=True) if moment >= CUT]
    home = given_to(folder / "all", [records[:split], records[split:]])
    other = given_to(folder / "rest", [rest])
    due = plan(home, NOW)
    done = expire(home, NOW)
    gone = len(records) - len(rest)
    assert sum(one.rows for one in due.due) == done.removed.get("events", 0) == gone
    if not rest:
        return
    same(home, other)
    assert (first := oldest(home)) is None or first >= CUT
    assert not tables.orphans(home) or not gone
    before = files(home)
    assert expire(home, NOW).plan.nothing
    assert files(home) == before
    if not later:
        return
    moved = NOW + timedelta(days=later)
    day = cut_of(home, "events", moved)
    assert day is not None
    expire(home, moved)
    left = [record for record, (moment, *_) in zip(records, told, strict=True) if moment >= day]
    if left:
        same(home, given_to(folder / "later", [left]))


def files(home: Home) -> dict[Path, int]:
    """All files but locks, with when they were written."""
    found = (path for path in home.root.rglob("*") if path.is_file() and path.parent.name != ".locks")
    return {path: path.stat().st_mtime_ns for path in found}


def of_months() -> list[dict[str, Any]]:
    """Two events a month from January 2025 to March 2026; u1 until December, u2 from June on."""
    made = []
    for month in range(15):
        start = datetime(2025 + month // 12, month % 12 + 1, 10, tzinfo=UTC)
        for day, user in ((0, "u1" if month < 12 else "u3"), (10, "u2" if month > 5 else "u3")):
            moment = start + timedelta(days=day)
            made.append(event(user, at(moment), item_id=f"i{month % 4}"))
    return made


def test_the_plan_is_what_is_carried_out(tmp_path: Path) -> None:
    home = given_to(tmp_path / "w", [of_months()])
    due = plan(home, NOW)
    # February 2026 has an event on the 10th, which is due, and one on the 20th, which is not.
    assert [(one.part, one.rows, one.whole) for one in due.due] == [
        *((f"2025-{month:02d}", 2, True) for month in range(1, 13)),
        ("2026-01", 2, True),
        ("2026-02", 1, False),
    ]
    assert due.persons == 1
    before = tables.open_table(home, "events").version  # type: ignore[union-attr]
    done = expire(home, NOW)
    assert (done.plan.due, done.plan.persons) == (due.due, due.persons)
    assert done.removed == {"events": 27}
    assert tables.open_table(home, "events").version == before + 1  # type: ignore[union-attr]
    assert plan(home, NOW).nothing
    assert sorted(profile_rows(home)["user_id"]) == ["u2", "u3"]


def everything_in(root: Path) -> str:
    """The bytes of all files, and what the Parquet files among them say when they are read."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        found.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            found.append(str(pl.read_parquet(path).to_dicts()))
    return "\n".join(found)


def test_who_vanishes_is_in_no_file(tmp_path: Path) -> None:
    gone = [
        event("person-vanishing", at(CUT - timedelta(days=n)), "identify" if n == 3 else "click",
              item_id="item-of-theirs-alone", anon_id="device-vanishing", event_id=f"event-vanishing-{n}")
        for n in (3, 40)
    ]  # fmt: skip
    users = [{"user_id": "person-vanishing", "role": "role-vanishing", "valid_from": "2025-01-01T00:00:00Z"}]
    home = given_to(tmp_path / "w", [of_months() + gone], users)
    assert everything_in(home.root).count("vanishing") > 8
    expire(home, NOW)
    held = everything_in(home.root)
    assert "vanishing" not in held and "item-of-theirs-alone" not in held
    assert "u2" in held


def test_months_that_are_due_as_a_whole_are_not_opened(tmp_path: Path) -> None:
    home = given_to(tmp_path / "w", [of_months()])
    due = [path for path in home.path("events").rglob("*.parquet") if "month=2026-0" not in str(path)]
    assert len(due) == 12
    for path in due:
        path.write_bytes(b"not a Parquet file at all")
    assert sum(one.rows for one in plan(home, NOW).due) == 27
    expire(home, NOW)
    assert not any(path.exists() for path in due)
    assert behind(home) is None
    assert scan_events(home).select(pl.len()).collect().item() == 3


def test_users_without_events_and_what_was_true_before_the_window(tmp_path: Path) -> None:
    users = [
        {"user_id": "u1", "role": "left long ago", "valid_from": "2025-01-01T00:00:00Z"},
        {"user_id": "u2", "role": "guest", "valid_from": "2025-01-01T00:00:00Z"},
        {"user_id": "u2", "role": "member", "valid_from": "2025-06-01T00:00:00Z"},
        {"user_id": "u2", "role": "owner", "valid_from": "2027-06-01T00:00:00Z"},
        {"user_id": "u8", "role": "never came, told of lately", "valid_from": "2027-01-01T00:00:00Z"},
        {"user_id": "u9", "role": "never came", "valid_from": "2025-01-01T00:00:00Z"},
    ]
    home = given_to(tmp_path / "w", [of_months()], users)
    assert [(one.what, one.rows) for one in plan(home, NOW).due][-1] == ("users", 3)
    assert expire(home, NOW).removed["users"] == 3
    rows = tables.scan(home, "users", tables.open_table(home, "users").schema).collect()  # type: ignore[union-attr]
    assert sorted(rows["role"]) == ["member", "never came, told of lately", "owner"]
    # What was true at the window's first day still is.
    assert current(home, "users", CUT).filter(pl.col("user_id") == "u2")["role"].to_list() == ["member"]
    held = b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    assert b"left long ago" not in held


def test_rejected_lines_evaluations_and_runs(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    Workspace.of(home).ingest(write(tmp_path / "a.jsonl", [event(), "not json"]))
    soon = datetime.now(UTC) + timedelta(days=40)
    folder = home.path("evaluations", "20250101T000000-abc123")
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    pl.DataFrame({"user_id": ["u1"], "ndcg@20": [0.5]}).write_parquet(folder / "users.parquet")
    artifacts.write_manifest(folder, {"kind": "evaluation"})
    old_run = home.path("runs", "20200101T000000-abc123.json")
    old_run.write_text("{}")
    due = plan(home, soon)
    assert [(one.what, one.rows) for one in due.due] == [("quarantine", 1)]
    assert (due.evaluations, due.runs) == ((folder.name,), (old_run.stem,))
    assert expire(home, soon).removed == {"quarantine": 1, "evaluations": 1, "runs": 1}
    assert artifacts.verify(folder)["expired"] == ["users.parquet"]
    with pytest.raises(MissingInput, match="have expired"):
        read(home, folder.name)
    assert not old_run.exists()
    assert not Workspace.of(home).rejected().height
    assert scan_events(home).select(pl.len()).collect().item() == 1
    assert plan(home, soon).nothing


def test_decisions_go_by_their_own_period(tmp_path: Path) -> None:
    home = create(tmp_path / "w")
    times = [NOW - timedelta(days=30 * months) for months in (1, 12, 14, 30)]
    rows = pl.DataFrame({"user_id": ["u1"] * 4, "timestamp": times}, schema_overrides={
        "timestamp": pl.Datetime("us", "UTC")})  # fmt: skip
    table = tables.open_or_create(home, "decisions", rows.to_arrow().cast(_schema(rows)).schema)
    table.commit([table.write(rows)])
    assert expire(home, NOW).removed == {"decisions": 2}
    left = tables.open_table(home, "decisions").scan().collect()  # type: ignore[union-attr]
    assert sorted(left["timestamp"]) == sorted(times[:2])
    assert remove_before(home, "decisions", cut_of(home, "decisions", NOW)) == 0


def _schema(rows: pl.DataFrame) -> Any:
    import pyarrow as pa

    return pa.schema([pa.field("user_id", pa.string()), pa.field("timestamp", pa.timestamp("us", tz="UTC"))])


def test_superseded_files_go_by_their_own_period_and_with_every_expiry(tmp_path: Path) -> None:
    home = given_to(tmp_path / "w", [[event("u1", "2026-01-05T10:00:00Z"), event("u2", "2026-01-05T10:00:00Z")]])
    path = write(tmp_path / "w-0.jsonl", [event("u2", "2026-01-05T10:00:00Z")])
    assert Workspace.of(home).ingest(path, replace=True).withdrawn == 1
    assert tables.orphans(home)
    today = datetime.now(UTC)
    assert expire(set_to(home, events_months=600), today).plan.nothing
    later = today + timedelta(days=32)
    assert plan(home, later).superseded > 0
    expire(set_to(home, events_months=600), later)
    assert not tables.orphans(home)
    assert scan_events(home).collect()["user_id"].to_list() == ["u2"]


def test_nothing_is_due_without_end(tmp_path: Path) -> None:
    home = given_to(tmp_path / "w", [of_months()])
    assert overdue(home, NOW) == "events are older than 25 months (privacy.retention.events_months)"
    home = set_to(home, events_months=0, runs_months=0)
    assert overdue(home, NOW) is None
    later = datetime.now(UTC) + timedelta(days=10)
    assert expire(home, later).plan.nothing


def test_an_expiry_waits_for_nobody_by_itself(tmp_path: Path) -> None:
    home = given_to(tmp_path / "w", [of_months()])
    import threading

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.hold(home, "tables", "ingest"):
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    try:
        with pytest.raises(Busy):
            expire(home, NOW)
    finally:
        done.set()
        thread.join()
    assert not home.path(*NOTE).exists()
    assert expire(home, NOW).removed == {"events": 27}


def test_an_expiry_that_was_interrupted_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = given_to(tmp_path / "w", [of_months()])
    other = given_to(tmp_path / "rest", [[one for one in of_months() if one["timestamp"] >= at(CUT)]])
    from persona_cli.privacy import settling

    def killed(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(settling, "sync", killed)
        with pytest.raises(KeyboardInterrupt):
            expire(home, NOW)
    assert plan(home, NOW).due == ()
    assert overdue(home, NOW) == "an expiry is under way or was interrupted"
    assert json.loads(home.path(*NOTE).read_text())["at"] == NOW.isoformat()
    done = expire(home, NOW)
    assert done.completed and done.settled is not None
    same(home, other)
    assert not tables.orphans(home)
    assert not home.path(*NOTE).exists()


def test_people_who_refused_everything_leave_after_their_days(tmp_path: Path) -> None:
    from persona_cli.consent.receipts import COVERING, record

    today = datetime.now(UTC)
    start = today - timedelta(days=60)
    lines = [
        event(user, at(start + timedelta(days=n)), item_id=f"i{n}", event_id=f"{user}/{n}")
        for user in ("u1", "u2", "u3", "u4")
        for n in range(3)
    ]
    link = [
        event("u1", at(start), "identify", anon_id="a1", event_id="link"),
        {"anon_id": "a1", "event_type": "click", "item_id": "i9", "timestamp": at(start), "event_id": "anon"},
        # Of somebody else, on a device that was theirs.
        event("u4", at(start), "click", anon_id="a1", item_id="i8", event_id="shared"),
    ]
    users = [{"user_id": user, "role": "member", "valid_from": at(start)} for user in ("u1", "u2")]
    home = given_to(tmp_path / "w", [lines + link], users)
    long_ago, lately = today - timedelta(days=40), today - timedelta(days=5)
    record(home, ["u1"], COVERING, "objected", at=long_ago)
    record(home, ["u2"], COVERING, "objected", at=lately)
    record(home, ["u3"], COVERING, "objected", at=long_ago)
    record(home, ["u3"], COVERING, "given", at=lately)
    due = plan(home)
    # Three events of u1, the link, the one under the anonymous id, and the row of users.
    assert [(one.what, one.rows) for one in due.due] == [("withdrawn", 6)]
    done = expire(home)
    assert done.removed == {"events": 5, "users": 1}
    left = scan_events(home).collect()
    assert sorted(set(left["user_id"].drop_nulls())) == ["u2", "u3", "u4"]
    shared = left.filter(pl.col("event_id") == "shared")
    assert (shared["user_id"].to_list(), shared["anon_id"].to_list()) == (["u4"], [None])
    assert not tables.orphans(home)
    assert plan(home).nothing
    later = today + timedelta(days=26)
    assert [(one.what, one.rows) for one in plan(home, later).due if one.what == "withdrawn"] == [("withdrawn", 4)]


@pytest.mark.parametrize("name", ["ease", *(pytest.param(name, marks=pytest.mark.slow) for name in ("knn", "als"))])
def test_models_are_those_of_a_workspace_given_only_the_rest(tmp_path: Path, name: str) -> None:
    made = [
        event(f"u{user:02d}", at(CUT + timedelta(days=days, minutes=user)), item_id=f"i{(user + days) % 9}{user % 2}")
        for user in range(40)
        for days in range(-20, 20, 2)
        if user > 4 or days < 0
    ]
    rest = [one for one in made if one["timestamp"] >= at(CUT)]
    home, other = given_to(tmp_path / "w", [made]), given_to(tmp_path / "rest", [rest])
    for one in (home, other):
        Workspace.of(one).train(name)
    due = plan(home, NOW)
    assert f"{name}/1" in due.models and due.persons == 5
    expire(home, NOW)
    same(home, other)
    users = [f"u{user:02d}" for user in range(40)]
    lists = [
        Workspace.of(one).recommend(users, include_holdout=True).select("user_id", "rank", "item_id", "score", "stage")
        for one in (home, other)
    ]
    assert_frame_equal(*lists)
    arrays = [
        {path.name: artifacts.file_digest(path) for path in one.root.glob(f"models/{name}/*/*.np[yz]")}
        for one in (home, other)
    ]
    assert arrays[0] == arrays[1] and arrays[0]
    assert len(list(home.path("models", name).iterdir())) == 1
