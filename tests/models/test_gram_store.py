from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from histories import DEFAULTS, Entry, entries, liked, matrix
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona_cli.models import gram_store
from persona_cli.models.gram import Gram, build_gram
from persona_cli.models.gram_store import Current, update
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home, create
from persona_cli.workspace.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create(tmp_path / "workspace")


def versions(home: Home) -> list[str]:
    folder = home.path("models", "gram")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def after(home: Home, rows: list[Entry], chosen: Settings = DEFAULTS) -> Current:
    """The state after an update to these rows, checked against a Gram from scratch."""
    made = matrix(rows, chosen)
    current = update(home, made, chosen)
    assert current.gram.digest() == build_gram(made, chosen).digest()
    return current


MANY = liked([(user, item) for user in range(20) for item in range(8) if (user * 7 + item * 3) % 5 < 2])


def test_the_first_time_all_users_are_summed(home: Home) -> None:
    current = after(home, MANY)
    assert (current.mode, current.changed_users, current.version) == ("rebuilt", 20, 1)
    manifest = artifacts.verify(home.path("models", "gram", "1"))
    assert manifest["update"] == {"changed_users": 20, "mode": "rebuilt"}
    assert manifest["digest"] == current.gram.digest()
    assert manifest["weights_digest"] == gram_store.weights_digest(DEFAULTS)


def test_the_same_rows_make_no_new_version(home: Home) -> None:
    after(home, MANY)
    again = after(home, MANY)
    assert (again.mode, again.changed_users, again.version) == ("unchanged", 0, 1)
    assert versions(home) == ["1"]


def test_a_changed_user_is_subtracted_and_added_anew(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    after(home, MANY)
    summed: list[int] = []
    whole = gram_store.gram_of_rows

    def counting(rows, items: pl.Series) -> Gram:  # type: ignore[no-untyped-def]
        summed.append(rows.shape[0])
        return whole(rows, items)

    monkeypatch.setattr(gram_store, "gram_of_rows", counting)
    current = after(home, [*MANY, *liked([(3, 7), (21, 9)])])
    assert (current.mode, current.changed_users, current.version) == ("updated", 2, 2)
    # The old and new rows of two users, not the twenty others.
    assert summed == [2, 2]


def test_a_user_who_is_gone_is_gone_from_the_sums_and_the_rows(home: Home) -> None:
    after(home, [*MANY, *liked([(21, 9)])])
    current = after(home, MANY)
    assert (current.mode, current.changed_users) == ("updated", 1)
    assert "i9" not in current.gram.items
    kept = pl.concat([pl.read_parquet(path) for path in home.path("models", "gram", "2", "rows").glob("*.parquet")])
    assert "u21" not in kept["user_id"].to_list()


def test_more_of_the_same_does_not_change_a_row_at_its_cap(home: Home) -> None:
    after(home, MANY)
    user, item, *_ = MANY[0]
    assert after(home, [*MANY, (user, item, 0, 1000, False)]).mode == "unchanged"


def test_when_most_users_changed_it_starts_anew(home: Home) -> None:
    after(home, MANY)
    assert after(home, [(user, 9 - item, *rest) for user, item, *rest in MANY]).mode == "rebuilt"


@pytest.mark.parametrize(
    "changes", [{"signals.half_life_days": 30}, {"model.gram.cap": 0.5}, {"signals.strengths.click": 2}]
)
def test_other_weights_rebuild_and_say_so(
    home: Home, changes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    after(home, MANY)
    with caplog.at_level("INFO", "persona"):
        current = after(home, MANY, DEFAULTS.with_flags(changes))
    assert (current.mode, current.version) == ("rebuilt", 2)
    assert "the settings behind the item sums have changed" in caplog.text


def test_settings_that_rows_do_not_depend_on_change_nothing(home: Home) -> None:
    after(home, MANY)
    assert after(home, MANY, DEFAULTS.with_flags({"model.knn.neighbours": 5, "compute.threads": 1})).mode == "unchanged"


@pytest.mark.parametrize("file", ["cells.data.npy", "rows", "manifest.json", "items.parquet"])
def test_a_damaged_version_is_not_built_upon(home: Home, file: str, caplog: pytest.LogCaptureFixture) -> None:
    after(home, MANY)
    damaged = home.path("models", "gram", "1", file)
    if damaged.is_dir():
        damaged = min(damaged.iterdir())
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    current = after(home, MANY)
    assert (current.mode, current.version) == ("rebuilt", 2)
    assert "cannot be used" in caplog.text


def test_two_versions_are_kept(home: Home) -> None:
    for item in range(4):
        after(home, [*MANY, *liked([(30, item)])])
    assert versions(home) == ["3", "4"]


def test_nothing_is_left_of_an_update_that_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    after(home, MANY)
    monkeypatch.setattr(gram_store, "_write_rows", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        update(home, matrix([*MANY, *liked([(30, 0)])]), DEFAULTS)
    assert versions(home) == ["1"]


def test_rows_hold_what_each_user_put_in(home: Home) -> None:
    after(home, liked([(0, 1), (0, 2), (1, 2)]))
    folder = home.path("models", "gram", "1")
    rows = pl.concat([pl.read_parquet(path) for path in (folder / "rows").glob("*.parquet")]).sort("user_id")
    half = int(65536 / 2**0.5)
    assert rows.rows() == [("u0", [0, 1], [half, half]), ("u1", [1], [65536])]
    assert len(json.loads((folder / "manifest.json").read_text())["files"]) == 5 + len(
        list((folder / "rows").iterdir())
    )


def test_nobody_at_all(home: Home) -> None:
    assert after(home, []).version == 1
    assert after(home, MANY).version == 2
    assert after(home, []).version == 3


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries(max_users=12), min_size=1, max_size=4))
def test_any_sequence_of_updates_equals_scratch(tmp_path: Path, states: list[list[Entry]]) -> None:
    home = create(tmp_path / f"w{len(list(tmp_path.iterdir()))}")
    for rows in states:
        after(home, rows)
