"""A workspace after forget is the one that never was given the people."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import polars as pl
import pytest
from forgetting import DEVICE, GONE, assert_same_models, assert_same_tables, lines, workspace

from persona_cli.cli.main import run
from persona_cli.errors import Unavailable
from persona_cli.events.ingest import ingest
from persona_cli.feedback.training import train
from persona_cli.models import kinds, registry
from persona_cli.privacy import erasure
from persona_cli.privacy.erasure import forget, planned, verify
from persona_cli.privacy.pseudonyms import pseudonym
from persona_cli.privacy.recipients import new_key, register, subkey
from persona_cli.privacy.requests import requests
from persona_cli.profiles.fitting import fit_signals
from persona_cli.profiles.signal_fit import load
from persona_cli.profiles.sync import behind
from persona_cli.workspace import artifacts, tables
from persona_cli.workspace.home import Home, open_home

_QUICK = ("ease",)
_SETTINGS = {
    "blend": {"model.blend.of": ["knn", "spectral:0.5"]},
    "layered": {"model.layered.cohort_evidence": 5.0},
}


@pytest.fixture(scope="module")
def whole_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("forget") / "whole").root


@pytest.fixture(scope="module")
def never_once(whole_once: Path) -> Path:
    return workspace(whole_once.parent / "never", open_home(whole_once), GONE).root


@pytest.fixture
def whole(whole_once: Path, elsewhere: Path) -> Home:
    return open_home(Path(shutil.copytree(whole_once, elsewhere / "whole")))


@pytest.fixture
def never(never_once: Path, elsewhere: Path) -> Home:
    return open_home(Path(shutil.copytree(never_once, elsewhere / "never")))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _QUICK else [pytest.mark.slow]) for name in kinds.MODELS]
)
def test_forgotten_is_never_seen(whole: Home, never: Home, name: str) -> None:
    try:
        for home in (whole, never):
            train(home, [name], _SETTINGS.get(name))
    except Unavailable as missing:
        pytest.skip(missing.message)
    done = forget(whole, GONE)
    assert done.ids == len(GONE) + 1 and not any(done.after.values())
    assert_same_tables(whole, never)
    assert_same_models(whole, never)
    assert verify(whole, [*GONE, DEVICE]) == []


@pytest.mark.slow
def test_what_was_compared_and_chosen_stands(whole: Home) -> None:
    train(whole, time_limit=5)
    before = registry.load_model(whole)
    forget(whole, GONE)
    after = registry.load_model(whole)
    assert after.manifest["recipe"] == before.manifest["recipe"]
    assert after.manifest["chosen"] == before.manifest["chosen"] and after.manifest["choice"] is None
    assert [name.partition("/")[0] for name in after.parts.values()] == [
        name.partition("/")[0] for name in before.parts.values()
    ]
    assert after.reference != before.reference
    assert not whole.path("models", before.reference).exists()


@pytest.mark.slow
def test_everybody(whole: Home) -> None:
    train(whole, ["ease"])
    everybody = sorted({str(event["user_id"]) for event in lines() if "user_id" in event})
    done = forget(whole, everybody)
    assert done.models == () and registry.latest(whole) is None
    assert verify(whole, everybody) == []
    assert run(["recommend", "-w", str(whole.root)]) == 66


@pytest.mark.slow
def test_without_training_again_what_is_served_stays_and_says_so(
    whole: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    train(whole, ["knn"])
    served = registry.latest(whole)
    done = forget(whole, GONE[:1], retrain=False)
    assert done.stale == (served,) and registry.latest(whole) == served
    where = ["-w", str(whole.root)]
    assert run(["recommend", *where, "--user", "u05"]) == 0
    assert "persona train" in capsys.readouterr().err
    assert run(["status", *where]) == 0 and "trained again" in capsys.readouterr().out
    assert run(["doctor", *where]) == 0 and "erased since" in capsys.readouterr().out
    assert run(["train", "--model", "knn", *where]) == 0
    capsys.readouterr()
    assert run(["recommend", *where, "--user", "u05"]) == 0 and "erased" not in capsys.readouterr().err


def test_what_is_kept_names_nobody(whole: Home) -> None:
    done = forget(whole, GONE)
    assert done.certificate is not None and done.request is not None
    said = json.loads(done.certificate.read_text())
    assert said["places"]["events"] == {"before": 3 * 12 + 4, "after": 0}
    assert said["places"]["quarantine"] == {"before": 2, "after": 0}
    assert said["not_reached"] and len(said["subjects"]) == done.ids
    one = requests(whole)[-1]
    assert (one.id, one.kind, one.outcome) == (done.request, "erasure", "erased") and one.closed
    assert not list(whole.path("privacy", "pending").iterdir())
    assert verify(whole, request=done.request) == []
    assert verify(whole, GONE) == []


def test_recipients_get_what_they_know_outside_the_workspace(whole: Home, elsewhere: Path) -> None:
    key = new_key(elsewhere / "key")
    register(whole, "Mail house", "profiles", "ab", ids="user_ids")
    register(whole, "Lab", "events", "cd", key.id, "lab", "pseudonyms")
    register(whole, "Board", "totals", "ef", ids=None)
    out = elsewhere / "send"
    done = forget(whole, GONE[:1], recipients_out=out, key=key)
    said = {json.loads(path.read_text())["recipient"]: json.loads(path.read_text())["erase"] for path in done.notified}
    assert said == {
        "Mail house": {"user_ids": sorted([DEVICE, GONE[0]])},
        "Lab": {"lab": sorted(pseudonym(subkey(key, "lab"), "person", id) for id in (DEVICE, GONE[0]))},
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in done.notified)
    again = forget(whole, GONE[1:2])
    assert sum("no file was asked for" in one for one in again.not_reached) == 2
    other = forget(whole, GONE[2:3], recipients_out=out)
    assert any(f"{key.id} was not given" in one for one in other.not_reached)


def test_files_for_recipients_do_not_go_into_a_workspace(whole: Home, capsys: pytest.CaptureFixture[str]) -> None:
    register(whole, "Mail house", "profiles", ids="user_ids")
    inside = str(whole.root / "send")
    words = ["privacy", "forget", GONE[0], "--yes", "-w", str(whole.root), "--recipients-out", inside]
    assert run(words) == 77
    assert not whole.path("privacy", "pending").exists() or not list(whole.path("privacy", "pending").iterdir())
    table = tables.open_table(whole, "events")
    assert table is not None and table.scan().collect()["user_id"].is_in([GONE[0]]).any()


def test_what_is_yours_to_clear_is_told(whole: Home, capsys: pytest.CaptureFixture[str]) -> None:
    who = "customer-4711"
    with whole.path("persona.toml").open("a") as settings:
        settings.write(f'# testers: "{who}"\n')
    whole.path("export.csv").write_text(f"user_id\n{who}\n")
    assert run(["privacy", "forget", who, "--yes", "--json", "-w", str(whole.root)]) == 10
    shown = capsys.readouterr()
    said = json.loads(shown.out)
    assert [one["path"] for one in said["left"]] == ["export.csv", "persona.toml"]
    assert "persona.toml" in shown.err and json.loads(Path(said["certificate"]).read_text())["left"] == [
        "export.csv: text",
        "persona.toml: text",
    ]


def test_what_signals_mean_is_learned_again(whole: Home, never: Home) -> None:
    for home in (whole, never):
        fit_signals(home)
    whole = open_home(whole.root)
    assert whole.settings.fitted is not None
    first = whole.settings.fitted.folder
    forget(whole, GONE)
    fitted = [open_home(home.root).settings.fitted for home in (whole, never)]
    assert fitted[0] is not None and fitted[1] is not None and fitted[0].folder != first
    assert load(fitted[0]).counts == load(fitted[1]).counts
    assert [path.name for path in first.parent.iterdir() if path.is_dir()] == [fitted[0].folder.name]


def test_others_are_not_named_any_more(whole: Home, elsewhere: Path) -> None:
    who = "customer-4711"
    rows = [
        {"user_id": "u05", "props": {"friend": who, "n": 1}, "page": f"/of/{who}", "event_id": "x1"},
        {"user_id": who, "props": {}, "page": "/", "event_id": "x2"},
    ]
    more = {"event_type": "view", "item_id": "a01", "timestamp": "2026-02-01T00:00:00Z"}
    path = elsewhere / "named.jsonl"
    path.write_text("".join(json.dumps({**row, **more}) + "\n" for row in rows))
    ingest(whole, [str(path)])
    assert forget(whole, [who]).left == ()
    table = tables.open_table(whole, "events")
    assert table is not None
    found = table.scan().filter(pl.col("event_id").is_in(["x1", "x2"])).collect()
    assert found["page"].to_list() == ["/of/[erased]"]
    assert "[erased]" in found["props"][0] and "friend" in found["props"][0]
    assert behind(whole) is None


def test_a_plan_changes_nothing_and_nobody_is_forgotten_unasked(
    whole: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[str, str]:
        paths = [path for path in whole.root.rglob("*.parquet") if path.is_file()]
        return {str(path): artifacts.file_digest(path) for path in paths}

    before = files()
    where = ["-w", str(whole.root)]
    assert run(["privacy", "forget", GONE[0], "--dry-run", "--json", *where]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["request"] is None and said["places"]["events"]["before"] == 12 + 1 + 2 + 1
    assert planned(whole, GONE).persons == 3
    assert run(["privacy", "forget", GONE[0], *where]) == 2
    assert run(["privacy", "forget", *where]) == 2
    assert files() == before and requests(whole) == []


@pytest.mark.slow
def test_a_file_of_users_and_no_name_in_any_manifest(whole: Home, elsewhere: Path) -> None:
    (elsewhere / "left.txt").write_text("user_id\n" + "\n".join(GONE) + "\n")
    where = ["-w", str(whole.root)]
    assert run(["privacy", "verify-erasure", GONE[0], *where]) == 10
    assert run(["privacy", "forget", "--file", "left.txt", "--yes", *where]) == 0
    assert run(["privacy", "verify-erasure", "--file", "left.txt", *where]) == 0
    assert run(["privacy", "forget", GONE[0], "--yes", *where]) == 0
    assert not any(who in path.read_text() for path in whole.path("runs").glob("*.json") for who in GONE)


def test_an_old_file_does_not_bring_anybody_back(whole: Home, never: Home, elsewhere: Path) -> None:
    forget(whole, GONE)
    old = elsewhere / "old.jsonl"
    old.write_text("".join(json.dumps(event) + "\n" for event in lines()))
    assert run(["ingest", str(old), "-w", str(whole.root)]) == 0
    assert run(["ingest", "--kind", "users", "-w", str(whole.root), str(_users(elsewhere))]) == 0
    for home in (whole, never):
        assert run(["profile", "build", "-w", str(home.root)]) == 0
    old.unlink()
    assert_same_tables(whole, never)
    assert verify(whole, [*GONE, DEVICE]) == []


def _users(folder: Path) -> Path:
    path = folder / "people.jsonl"
    path.write_text("".join(json.dumps({"user_id": who, "role": "b"}) + "\n" for who in GONE))
    return path


def test_digests_of_an_unknown_request(whole: Home) -> None:
    with pytest.raises(Exception, match="no erasure"):
        erasure.needles_of(whole, "R-000000000000")
