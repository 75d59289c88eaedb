from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ingesting import files, versions, write

from persona_cli.events.catalogue import current
from persona_cli.events.ingest import ingest
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home


def item(id: str, title: str | None = None, since: str | None = None, **more: Any) -> dict[str, Any]:
    return {"item_id": id, "title": title, "valid_from": since} | more


def titles(home: Home, as_of: datetime | None = None) -> dict[str, str]:
    return dict(current(home, "items", as_of).select("item_id", "title").iter_rows())


def test_a_catalogue_that_was_never_begun_is_empty(home: Home) -> None:
    rows = current(home, "items")
    assert rows.height == 0
    assert {"item_id", "title", "tags", "props", "valid_from"} <= set(rows.columns)


@pytest.mark.parametrize(("kind", "key"), [("items", "item_id"), ("users", "user_id"), ("accounts", "account_id")])
def test_one_row_an_id_sorted(home: Home, tmp_path: Path, kind: Any, key: str) -> None:
    report = ingest(home, [write(tmp_path / "a", [{key: "b"}, {key: "a", "country": "DE"}, {key: "b"}])], kind=kind)
    assert (report.read, report.accepted, report.duplicates) == (3, 2, 1)
    assert (report.users, report.items) == (2 * (kind == "users"), 2 * (kind == "items"))
    rows = current(home, kind)
    assert rows[key].to_list() == ["a", "b"]


def test_the_same_file_again_adds_nothing(home: Home, tmp_path: Path) -> None:
    records = [
        item("a", "A", tags=["x", None, "y"], price=1.5, note={"k": [1]}),
        item("b", "old", "2026-01-01"),
        item("b", "new", "2026-02-01"),
        item("c", "first"),
        item("c", "last"),
    ]
    name = write(tmp_path / "a", records)
    assert ingest(home, [name], kind="items").accepted == 4
    before = versions(home), files(home)
    again = ingest(home, [name], kind="items")
    assert (again.read, again.accepted, again.duplicates, again.version) == (5, 0, 5, None)
    assert (versions(home), files(home)) == before
    assert titles(home) == {"a": "A", "b": "new", "c": "last"}


def test_a_change_is_one_more_row_and_the_past_stays(home: Home, tmp_path: Path) -> None:
    ingest(home, [write(tmp_path / "a", [item("a", "one"), item("b", "same")])], kind="items")
    between = datetime.now(UTC)
    report = ingest(home, [write(tmp_path / "b", [item("a", "two"), item("b", "same")])], kind="items")
    assert (report.accepted, report.duplicates) == (1, 1)
    assert titles(home) == {"a": "two", "b": "same"}
    assert titles(home, between) == {"a": "one", "b": "same"}
    assert titles(home, between - timedelta(days=1)) == {}
    assert ingest(home, [str(tmp_path / "a")], kind="items").accepted == 1, "back to what it was is a change too"
    assert titles(home) == {"a": "one", "b": "same"}


def test_valid_from_decides_not_the_order_of_arrival(home: Home, tmp_path: Path) -> None:
    records = [item("a", "march", "2026-03-01"), item("a", "january", "2026-01-01"), item("a", "later", "2126-01-01")]
    ingest(home, [write(tmp_path / "a", records)], kind="items")
    assert titles(home) == {"a": "march"}
    assert titles(home, datetime(2026, 3, 1, tzinfo=UTC)) == {"a": "march"}
    assert titles(home, datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)) == {"a": "january"}
    assert titles(home, datetime(2025, 12, 31, tzinfo=UTC)) == {}
    ingest(home, [write(tmp_path / "b", [item("a", "january, corrected", "2026-01-01")])], kind="items")
    assert titles(home) == {"a": "march"}
    assert titles(home, datetime(2026, 2, 1, tzinfo=UTC)) == {"a": "january, corrected"}


def test_every_difference_counts(home: Home, tmp_path: Path) -> None:
    base = item("a", "A", tags=["x"], price=1.0, note="n")
    ingest(home, [write(tmp_path / "a", [base])], kind="items")
    for change in ({"tags": ["x", "y"]}, {"price": None}, {"note": "m"}, {"available": True}):
        assert ingest(home, [write(tmp_path / "b", [base | change])], kind="items").accepted == 1, change
        assert ingest(home, [write(tmp_path / "b", [base])], kind="items").accepted == 1


def test_rejected_rows_of_a_catalogue_are_kept(home: Home, tmp_path: Path) -> None:
    report = ingest(
        home, [write(tmp_path / "a", [item("a", price="dear"), item("b"), {"title": "no id"}])], kind="items"
    )
    assert (report.accepted, report.rejected) == (1, 2)
    rows = tables.open_table(home, "quarantine").scan().collect()  # type: ignore[union-attr]
    assert rows["kind"].to_list() == ["items", "items"]
