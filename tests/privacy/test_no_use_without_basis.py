"""Whatever people say and do, in whatever order: nobody's data is used for a purpose that does not cover the person.

A plain model of who said what is kept beside a small workspace, and compared with every reader after each step. What is
stored is taken as it is (the door has tests of its own); what is made of it must be of the people who are covered.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from polars.testing import assert_frame_equal

from persona_cli.consent.receipts import COVERING, State, record
from persona_cli.errors import MissingInput
from persona_cli.evaluation.evaluate import evaluate
from persona_cli.events.ingest import ingest
from persona_cli.events.store import scan_events
from persona_cli.events.undo import find, undo
from persona_cli.feedback.training import train
from persona_cli.models import registry
from persona_cli.privacy.access import access
from persona_cli.privacy.erasure import forget
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.history import history, signal_events
from persona_cli.profiles.identity import raw_key
from persona_cli.profiles.people import people
from persona_cli.profiles.permitted import MEASURING
from persona_cli.profiles.sync import sync
from persona_cli.profiles.views import ask
from persona_cli.serving.recommend import recommend
from persona_cli.workspace.home import Home, create, open_home

T0 = datetime(2026, 3, 1, tzinfo=UTC)
USERS = ("ann", "bob", "cat", "dan")
DEVICES = ("phone", "tablet")
IDS = st.sampled_from(USERS + DEVICES)
ITEMS = st.integers(0, 5).map("item{}".format)
STATES = st.sampled_from(["given", "withdrawn", "objected", "paused"])
PURPOSES = st.sets(st.sampled_from(COVERING), min_size=1)
STRANGER = "nobody-ever-saw-me"


def with_bases(home: Home, bases: dict[str, str]) -> Home:
    text = home.path("persona.toml").read_text()
    for purpose, basis in bases.items():
        head, _, rest = text.partition(f"[privacy.purposes.{purpose}]")
        before, _, after = rest.partition("basis = ")
        text = f'{head}[privacy.purposes.{purpose}]{before}basis = "{basis}"\n{after.partition(chr(10))[2]}'
    home.path("persona.toml").write_text(text)
    return open_home(home.root)


class Workspace(RuleBasedStateMachine):
    """The workspace under test, and beside it what everybody said: id → (minute, purpose, state)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.home = create(self.folder / "w")
        self.said: list[tuple[int, str, str, str]] = []
        self.bases = dict.fromkeys(COVERING, "contract")
        self.clock, self.trained, self.ingested = 0, False, 0

    def teardown(self) -> None:
        with contextlib.suppress(AttributeError):
            sync(self.home)
            rows, found = history(self.home), profile_rows(self.home).sort("user_id")
            sync(self.home, rebuild=True)
            assert_frame_equal(history(self.home), rows)
            assert_frame_equal(profile_rows(self.home).sort("user_id"), found)
        shutil.rmtree(self.folder, ignore_errors=True)

    # What is there and what was said, plainly.

    def now(self) -> datetime:
        self.clock += 1
        return T0 + timedelta(minutes=self.clock)

    def stored(self) -> list[dict[str, Any]]:
        columns = ("user_id", "anon_id", "event_type", "item_id", "timestamp")
        return scan_events(self.home).select(*columns).collect().sort("timestamp").to_dicts()

    def people(self) -> dict[str, set[str]]:
        """Person → items, by the events that are stored."""
        links = self.links()
        found: dict[str, set[str]] = {}
        for event in self.stored():
            raw = event["user_id"] or event["anon_id"]
            found.setdefault(links.get(raw, raw), set()).add(event["item_id"])
        return found

    def links(self) -> dict[str, str]:
        """A device belongs to the first who was identified on it."""
        found: dict[str, str] = {}
        for event in self.stored():
            if event["event_type"] == "identify" and event["anon_id"] and event["user_id"]:
                found.setdefault(event["anon_id"], event["user_id"])
        return found

    def ids_of(self, id: str) -> set[str]:
        links = self.links()
        person = links.get(id, id)
        return {person} | {device for device, user in links.items() if user == person}

    def allows(self, id: str, purpose: str, *, pauses: bool = True) -> bool:
        ids = self.ids_of(id)
        words = [word for word in self.said if word[1] in ids and word[2] == purpose]
        words = [word for word in words if pauses or word[3] != "paused"]
        return max(words)[3] == "given" if words else self.bases[purpose] == "contract"

    def covered(self, id: str) -> bool:
        return any(self.allows(id, purpose, pauses=False) for purpose in COVERING)

    def those(self, *purposes: str) -> set[str]:
        return {person for person in self.people() if all(self.allows(person, one) for one in purposes)}

    # What happens.

    @initialize(
        bases=st.fixed_dictionaries(dict.fromkeys(COVERING, st.sampled_from(["contract", "consent"]))),
        willing=st.sets(IDS, min_size=3),
    )
    def begin(self, bases: dict[str, str], willing: set[str]) -> None:
        self.home, self.bases = with_bases(self.home, bases), bases
        for id in sorted(willing):
            self.say(id, set(COVERING), "given")
        for shift, user in enumerate(USERS):
            self.store([(user, None, "click", f"item{(shift + step) % 6}") for step in range(4)])
        sync(self.home)

    def store(self, events: list[tuple[str | None, str | None, str, str]]) -> None:
        lines = []
        for user, anon, kind, item in events:
            event = {"user_id": user, "anon_id": anon, "event_type": kind, "item_id": item}
            event["timestamp"] = self.now().isoformat()
            lines.append(json.dumps({name: value for name, value in event.items() if value}))
        self.ingested += 1
        file = self.folder / f"{self.ingested}.jsonl"
        file.write_text("\n".join(lines) + "\n")
        ingest(self.home, [str(file)])

    @rule(id=IDS, items=st.lists(ITEMS, min_size=1, max_size=3))
    def event(self, id: str, items: list[str]) -> None:
        self.store([(id, None, "click", item) if id in USERS else (None, id, "click", item) for item in items])

    @rule(device=st.sampled_from(DEVICES), user=st.sampled_from(USERS), item=ITEMS)
    def alias(self, device: str, user: str, item: str) -> None:
        self.store([(user, device, "identify", item)])

    @rule(id=IDS, purposes=PURPOSES, state=STATES)
    def say(self, id: str, purposes: set[str], state: State) -> None:
        at = self.now()
        record(self.home, [id], sorted(purposes), state, at=at, source="test")
        self.said += [(self.clock, id, purpose, state) for purpose in purposes]

    @rule(id=IDS)
    def optout(self, id: str) -> None:
        for one in sorted(self.ids_of(id)):
            self.say(one, set(COVERING), "objected")

    @rule()
    def take_back(self) -> None:
        with contextlib.suppress(MissingInput):
            undo(self.home, find(self.home, "latest"))

    @rule()
    def build(self) -> None:
        sync(self.home)

    @rule()
    def learn(self) -> None:
        people = self.people()
        who = self.those("model_training")
        try:
            report = train(self.home, ["knn"])
        except MissingInput:
            assert not who
            return
        self.trained = True
        known = set().union(*(people[person] for person in who))
        assert report.users == len(who)
        for name in ("popular", "knn", "layered"):
            assert set(registry.load_model(self.home, name).model.items) <= known
        newest = max((self.home.root / "models" / "gram").iterdir(), key=lambda path: int(path.name))
        rows = pl.concat([pl.read_parquet(file) for file in sorted((newest / "rows").glob("*.parquet"))])
        assert set(rows["user_id"]) == who

    @rule(explain=st.booleans())
    def lists(self, explain: bool) -> None:
        if not self.trained:
            self.learn()
        if not self.trained:
            return
        asked = pl.Series("user_id", [*USERS, *DEVICES, STRANGER])
        blocks = recommend(self.home, users=asked, explain=explain, include_holdout=True).blocks
        rows = {row["user_id"]: row for block in blocks for row in block.to_dicts()}
        people, links = self.people(), self.links()
        for id in (*USERS, *DEVICES):
            if self.allows(id, "personalization"):
                assert rows[id]["stage"] != "generic" and rows[id].get("consent") is None
            else:
                assert (rows[id]["stage"], rows[id]["consent"]) == ("generic", False)
                generic = {name: rows[id][name] for name in ("items", "base", "model", "holdout")}
                assert generic == {name: rows[STRANGER][name] for name in generic}
        sync(self.home)
        for row in recommend(self.home, users=asked, include_holdout=True).blocks.__next__().to_dicts():
            if self.allows(row["user_id"], "personalization"):
                had = (
                    people.get(links.get(row["user_id"], row["user_id"]), set())
                    if row["user_id"] != STRANGER
                    else set()
                )
                assert not had & {entry["item_id"] for entry in row["items"]}

    @rule(split=st.sampled_from(["leave-last", "user"]))
    def measure(self, split: str) -> None:
        with contextlib.suppress(MissingInput):
            done = evaluate(self.home, f"R{self.now():%H%M%S}", models=["popular", "knn"], split=split)
            assert set(done.per_user["user_id"]) <= self.those(*MEASURING)
            assert done.result["train_events"] <= len(self.stored())

    @precondition(lambda self: self.clock % 4 == 1)
    @rule(id=IDS)
    def hand_over(self, id: str) -> None:
        """Access is no use of the data: it stays possible, and changes nothing."""
        with contextlib.suppress(MissingInput):
            access(self.home, id, self.folder / "archive.zip")

    @precondition(lambda self: self.clock % 5 == 0)
    @rule(id=IDS)
    def erase(self, id: str) -> None:
        gone = self.ids_of(id)
        forget(self.home, [id], retrain=False)
        assert not gone & set(scan_events(self.home).select(raw_key()).collect()["user_id"])
        self.trained = registry.latest_or_none(self.home) is not None

    # What must hold.

    @invariant()
    def nobody_is_read_without_a_basis(self) -> None:
        if self.clock % 3:  # by turns, since every step is looked at
            for purpose in COVERING:
                may = self.those(purpose)
                assert set(signal_events(self.home, purpose=purpose).collect()["user_id"]) == may
                rows = history(self.home, purpose=purpose)  # of persons as they were when it was made
                assert all(self.allows(id, purpose) for id in rows["user_id"].unique())
            if (self.home.root / "profiles").is_dir():
                rows = people(self.home, purpose="analytics")
                assert all(self.allows(id, "analytics") for id in rows["user_id"])
            return
        sync(self.home)
        found = self.people()
        seen = ask(self.home, "SELECT DISTINCT coalesce(user_id, anon_id) AS id FROM events")["id"] if found else []
        assert all(self.allows(id, "analytics") for id in seen)
        assert set(profile_rows(self.home)["user_id"]) == {person for person in found if self.covered(person)}
        assert set(people(self.home, purpose="analytics")["user_id"]) == self.those("analytics")
        for purpose in COVERING:
            rows = history(self.home, purpose=purpose)
            items = {one: set(rows.filter(pl.col("user_id") == one)["item_id"]) for one in rows["user_id"].unique()}
            assert items == {one: found[one] for one in self.those(purpose)}


@pytest.fixture(autouse=True)
def apart(elsewhere: Path) -> Iterator[None]:
    yield


def played(examples: int, steps: int) -> Callable[[], None]:
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a shorter way to a failure is looked for by hand: every step writes files
        derandomize=True,
        database=None,
    )
    return lambda: run_state_machine_as_test(Workspace, settings=limits)


def test_no_use_without_a_basis() -> None:
    played(2, 10)()


@pytest.mark.slow
def test_no_use_without_a_basis_in_many_ways() -> None:
    played(60, 25)()
