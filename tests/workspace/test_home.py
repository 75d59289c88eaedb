from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from persona_cli.errors import BadData, BadSettings, CannotWrite, MissingInput
from persona_cli.workspace import home
from persona_cli.workspace.settings import render_default


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PERSONA_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_new_workspace_has_settings_an_identity_and_is_for_its_owner_only(tmp_path: Path) -> None:
    made = home.create(tmp_path / "deep" / "w")
    assert made.path("persona.toml").read_text() == render_default()
    identity = json.loads(made.path("workspace.json").read_text())
    assert identity["format"] == 1 and len(identity["holdout_salt"]) == 32
    assert made.salt == bytes.fromhex(identity["holdout_salt"])
    assert stat.S_IMODE(made.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.path("workspace.json").stat().st_mode) == 0o600
    assert sorted(path.name for path in made.root.iterdir()) == ["persona.toml", "workspace.json"]


def test_creating_again_changes_nothing(tmp_path: Path) -> None:
    first = home.create(tmp_path / "w")
    first.path("persona.toml").write_text("[recommend]\ntop = 3\n")
    second = home.create(tmp_path / "w")
    assert second.salt == first.salt
    assert second.settings.whole("recommend.top") == 3


def test_a_creation_that_was_killed_half_way_is_completed_with_the_same_salt(tmp_path: Path) -> None:
    first = home.create(tmp_path / "w")
    first.path("persona.toml").unlink()
    with pytest.raises(MissingInput):
        home.open_home(first.root)
    assert home.create(first.root).salt == first.salt


def test_a_named_workspace_that_is_not_there_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for locate in (home.locate, home.find_or_create):
        with pytest.raises(MissingInput) as caught:
            locate(tmp_path / "nope")
        assert caught.value.hint == f"persona init {tmp_path / 'nope'}"
    monkeypatch.setenv("PERSONA_WORKSPACE", str(tmp_path / "gone"))
    with pytest.raises(MissingInput, match="gone"):
        home.find_or_create(None)
    assert not (tmp_path / "gone").exists() and not (tmp_path / "persona-workspace").exists()


def test_flag_then_variable_then_the_nearest_folder_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flagged, in_variable, above = (home.create(tmp_path / name) for name in ("a", "b", "above"))
    inside = above.path("one", "two")
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert home.locate().root == above.root
    monkeypatch.setenv("PERSONA_WORKSPACE", str(in_variable.root))
    assert home.locate().root == in_variable.root
    assert home.locate(flagged.root).root == flagged.root


def test_without_any_one_is_made_here_with_a_notice_and_found_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingInput) as caught:
        home.locate()
    assert caught.value.hint == "persona init persona-workspace"
    with caplog.at_level(logging.INFO, "persona"):
        made = home.find_or_create()
    assert made.root == tmp_path / "persona-workspace"
    assert str(made.root) in caplog.text
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    assert home.find_or_create().salt == made.salt == home.locate().salt


def test_settings_of_a_workspace_follow_its_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = home.create(tmp_path / "w")
    monkeypatch.setenv("PERSONA_RECOMMEND_TOP", "9")
    assert home.locate(made.root).settings.whole("recommend.top") == 9
    made.path("persona.toml").write_text("[recomend]\n")
    with pytest.raises(BadSettings, match="did you mean 'recommend'"):
        home.locate(made.root)


def test_the_salt_is_never_replaced_quietly(tmp_path: Path) -> None:
    made = home.create(tmp_path / "w")
    made.path("events").mkdir()
    made.path("workspace.json").unlink()
    for attempt in (home.create, home.open_home):
        with pytest.raises(MissingInput) as caught:
            attempt(made.root)
        assert caught.value.hint is not None and "backup" in caught.value.hint
    made.path("workspace.json").write_text("{}")
    with pytest.raises(BadData, match="damaged"):
        home.locate(made.root)


def test_a_workspace_of_a_later_format_is_refused(tmp_path: Path) -> None:
    made = home.create(tmp_path / "w")
    identity = json.loads(made.path("workspace.json").read_text()) | {"format": 2}
    made.path("workspace.json").write_text(json.dumps(identity))
    with pytest.raises(BadData, match="format 2"):
        home.locate(made.root)


def test_a_file_is_not_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(CannotWrite):
        home.create(tmp_path / "f")
    with pytest.raises(MissingInput):
        home.locate(tmp_path / "f")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = home.create(tmp_path / "w")
    assert home.locate("~/w").root == made.root
    assert os.environ["HOME"] == str(tmp_path)
