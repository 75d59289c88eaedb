"""What `decide` and `recommend` say where nothing can be decided: one sentence each, its exit code, and no line."""

from __future__ import annotations

from pathlib import Path

import pytest
from deciding import workspace
from shop import add_items, user

from persona_cli.cli.main import run
from persona_cli.errors import BadSettings, CheckFailed, MissingInput, UsageError
from persona_cli.workspace.home import SETTINGS_FILE, Home, open_home

CONTENT = '\n[surface.home]\nkind = "content"\n'
UI = '\n[surface.navigation]\nkind = "ui"\nentries = ["sales", "support"]\n'


def ruled(home: Home, text: str) -> Home:
    path = home.root / SETTINGS_FILE
    path.write_text(f"{path.read_text().split('[rules]')[0]}\n{text}")
    return open_home(home.root)


def said(capsys: pytest.CaptureFixture[str], home: Home, *words: str, code: int) -> str:
    """The first sentence on stderr; nothing is on stdout, and no traceback."""
    assert run([*words, "-w", str(home.root)]) == code
    told = capsys.readouterr()
    assert told.out == "" and "Traceback" not in told.err
    return told.err.splitlines()[0].removeprefix("persona: ")


def test_an_unknown_surface_names_the_nearest(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    text = said(capsys, ruled(home, CONTENT + UI), "decide", "navigaton", code=MissingInput.exit_code)
    assert text == "no surface is named 'navigaton'; did you mean 'navigation'?"


def test_a_workspace_without_surfaces_says_so(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    text = said(capsys, home, "decide", "home", code=MissingInput.exit_code)
    assert text == "no surface is named 'home'; persona.toml defines none"


def test_impossible_rules_are_named_beforehand(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    add_items(home, [{"item_id": f"{side}{n:02d}", "category": side} for side in "ab" for n in range(20)])
    path = ruled(home, CONTENT + "top = 3\n[surface.home.rules]\nmin_categories = 3\n").root
    assert run(["rules", "check", "-w", str(path)]) == CheckFailed.exit_code
    told = capsys.readouterr()
    assert told.out == "surface.home: rules.min_categories is 3 and the catalogue has 2 categories\n"
    assert told.err.startswith("persona: 1 contradiction in the rules")
    # What cannot be met gives way, and the line says so.
    assert run(["decide", "home", "--user", "x", "--dry-run", "-w", str(path)]) == 0
    assert '"rules":["min_categories gave way"]' in capsys.readouterr().out.replace(": ", ":")


def test_a_condition_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    text = CONTENT + "[surface.home.rules.exclude.old]\nwhen = \"item_categry = 'a'\"\n"
    told = said(capsys, ruled(home, text), "decide", "home", "--dry-run", code=BadSettings.exit_code)
    assert "rules.exclude.old.when" in told and "item_categry" in told


def test_an_empty_catalogue_is_said(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    text = CONTENT + "[surface.home.rules]\nmax_per_category = 2\n"
    told = said(capsys, ruled(home, text), "decide", "home", "--dry-run", code=MissingInput.exit_code)
    assert told == "rules.max_per_category is set, and there is no catalogue of items to apply it to"


def test_no_eligible_item_is_said_of_every_user(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    home = ruled(home, CONTENT + "[surface.home.rules.exclude.all]\nwhen = \"item_id >= ''\"\ncompliance = true\n")
    assert run(["decide", "home", "--user", "x", "--user", user(1), "--dry-run", "-w", str(home.root)]) == 0
    told = capsys.readouterr()
    assert told.out.count('"items":[]') == 2 or told.out.count('"items": []') == 2
    assert "no item is left to show for 2 of 2 users" in told.err


def test_a_surface_without_variants_is_refused(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    home.path(SETTINGS_FILE).write_text(home.path(SETTINGS_FILE).read_text() + UI.replace('"sales", "support"', ""))
    told = said(capsys, home, "decide", "navigation", code=BadSettings.exit_code)
    assert "entries in [surface.navigation]" in told and "1 to 50 different names" in told


def test_no_model_and_nobody_known(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    home = workspace(tmp_path / "bare", CONTENT + UI, [])
    assert said(capsys, home, "decide", "home", code=MissingInput.exit_code) == "no user is known"
    told = said(capsys, home, "decide", "home", "--user", "x", code=MissingInput.exit_code)
    assert told == "no model has been trained yet"


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    told = said(capsys, ruled(home, CONTENT + 'model = "ease/99"\n'), "decide", "home", code=MissingInput.exit_code)
    assert told.startswith("there is no model ease/99; there are ")


def test_a_file_without_users_decides_nothing_and_says_so(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    home = ruled(home, CONTENT + UI)
    empty = home.root.parent / "users.txt"
    empty.write_text("\n")
    for name in ("home", "navigation"):
        assert run(["decide", name, "--users", str(empty), "-w", str(home.root)]) == 0
        told = capsys.readouterr()
        assert told.out == "" and f"{empty} names no user" in told.err
    told_of = said(capsys, home, "decide", "home", "--users", "nowhere.txt", code=MissingInput.exit_code)
    assert told_of == "nowhere.txt: no such file; expected a file of ids, one a line, or - for standard input"


def test_an_unknown_context_names_the_nearest(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    home = ruled(home, CONTENT + UI)
    told = said(capsys, home, "decide", "navigation", "--context", "devise=tv", code=UsageError.exit_code)
    assert told == "--context devise: nothing of that name is told of a visit; did you mean 'device'?"
    told = said(capsys, home, "decide", "navigation", "--context", "hour=25", code=UsageError.exit_code)
    assert told == "--context hour=25: expected the visitor's local hour, 0 to 23"
