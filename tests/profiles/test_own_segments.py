"""Features and segments of persona.toml: what they compute, and what is said of what is wrong in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from persona_cli import Workspace
from persona_cli.errors import BadSettings, MissingInput, PersonaError
from persona_cli.profiles import segments
from persona_cli.profiles.people import difference, people, person
from persona_cli.workspace.home import Home, open_home

Make = Callable[[str], Home]


@pytest.fixture
def make(home: Home, tmp_path: Path) -> Make:
    rows = [
        {"user_id": f"u{n:02d}", "event_type": kind, "item_id": f"i{k}", "target": "export",
         "timestamp": f"2026-03-{1 + (n + k) % 28:02d}T10:00:00Z",
         "context": {"device": "mobile" if n % 3 else "desktop"}}
        for n in range(36) for k, kind in enumerate(("view", "purchase", "feature_use")[: 1 + n % 3])
    ]  # fmt: skip
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Workspace.of(home).ingest(events)

    def made(sections: str) -> Home:
        (home.root / "persona.toml").write_text(sections)
        return open_home(home.root)

    return made


def test_own_features_may_need_one_another_in_any_order(make: Make) -> None:
    home = make(
        "[features.double]\nvalue = 'pace * 2'\n[features.pace]\nvalue = 'events / (days_since_first + 1)'\n"
        "[features.keen]\nvalue = 'double > 1 and purchases >= 1'\n"
    )
    found = people(home).row(1, named=True)
    pace = found["events"] / (found["days_since_first"] + 1)
    assert (found["double"], found["pace"]) == (pytest.approx(2 * pace), pytest.approx(pace))
    assert found["keen"] is (2 * pace > 1)


def test_sizes_and_small_ones_unsaid(make: Make) -> None:
    home = make("[segments.phones]\nwhen = \"device = 'mobile'\"\n[segments.desks]\nwhen = \"device = 'desktop'\"\n")
    shop = Workspace.of(home)
    found = shop.segments().rows()
    assert shop.members("desks").to_list() == sorted(f"u{n:02d}" for n in range(0, 36, 3))
    assert shop.members(when="user_id = 'u07'").to_list() == ["u07"]
    assert found == [
        ("phones", "device = 'mobile'", 24, round(24 / 36, 6)),
        ("desks", "device = 'desktop'", None, None),
    ]


def test_one_person_is_as_among_everybody_now_and_then(make: Make) -> None:
    home = make(
        "[features.pace]\nvalue = 'events / (days_since_first + 1)'\n[segments.buyers]\nwhen = 'purchases > 0'\n"
    )
    for as_of in (None, datetime(2026, 3, 20, tzinfo=UTC)):
        everybody = people(home, as_of)
        buyers = set(everybody.filter(everybody["purchases"] > 0)["user_id"])
        for row in everybody.iter_rows(named=True):
            alone = person(home, row["user_id"], as_of)
            assert alone["features"] == {name: row[name] for name in alone["features"]}
            assert alone["segments"] == (["buyers"] if row["user_id"] in buyers else [])


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ("[segments.x]\nwhen = 'maturty > 1'", r"persona.toml: segments.x.when: .*'maturty'; did you mean 'maturity'"),
        ("[segments.x]\nwehn = 'events > 1'", r"segments.* when and nothing else .*'wehn'; did you mean 'when'"),
        ("[segments.x]\nwhen = 'events + 1'", r"segments.x.when: .* is no condition"),
        ("[segments.x]\nwhen = 3", r'when = "an expression" in \[segments.x\]'),
        ("[segments.x]\nwhen = 'exec(1)'", r"segments.x.when"),
        ("[features.x]\nvalue = 'y + 1'\n[features.y]\nvalue = 'x * 2'", r"features.x.value needs itself: x → y → x"),
        ("[features.x]\nvalue = 'x + 1'", r"x → x"),
        ("[features.events]\nvalue = '1'", r"events is a column already"),
        ("[features.x]\nvalue = 'types + 1'", r"features.x.value: .*types"),
        ("[features.'a b']\nvalue = 'events'", r"a name of letters"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(make: Make, sections: str, said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        people(make(sections))
        segments.conditions(make(sections))


def test_a_segment_that_is_not_there(make: Make) -> None:
    home = make("[segments.phones]\nwhen = \"device = 'mobile'\"")
    with pytest.raises(MissingInput, match="'fones'; did you mean 'phones'"):
        segments.condition(home, "fones")
    with pytest.raises(PersonaError, match="one of them"):
        segments.condition(home, "phones", "events > 1")


def test_a_difference_has_own_features_and_segments_each_as_of_its_moment(make: Make) -> None:
    home = make(
        "[features.pace]\nvalue = 'events / (days_since_first + 1)'\n"
        "[segments.fresh]\nwhen = 'days_since_last <= 5'\n[segments.buyers]\nwhen = 'purchases > 0'\n"
        "[segments.all]\nwhen = 'events > 0'\n"
    )
    # u02 views on the 3rd, buys on the 4th and exports on the 5th.
    then, later = datetime(2026, 3, 4, tzinfo=UTC), datetime(2026, 3, 24, tzinfo=UTC)
    found = difference(home, "u02", then, later)
    assert found["segments"] == {"gained": ["buyers"], "lost": ["fresh"]}
    told = found["changed"]["features"]
    for name in ("pace", "purchases", "maturity"):
        assert told["before"][name] == person(home, "u02", then)["features"][name]
        assert told["after"][name] == person(home, "u02", later)["features"][name]
    assert not [name for name in told["after"] if name.startswith("days_since")]
    assert told["after"]["purchases"] == 1 and told["before"]["purchases"] == 0
    # Nothing happened afterwards, and time alone changes only what is measured by it.
    calm = difference(home, "u02", later, datetime(2026, 3, 27, tzinfo=UTC))
    assert calm["segments"] == {"gained": [], "lost": []}
    assert list(calm["changed"]) == ["features"] and list(calm["changed"]["features"]["after"]) == ["pace"]
    first = difference(home, "u02", datetime(2026, 3, 1, tzinfo=UTC), then)
    assert first["segments"]["gained"] == ["all", "fresh"]
