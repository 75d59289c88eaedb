"""Each reader by itself: who refused one purpose is not in what is made for it, and stays in everything else."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import clicks, shop, user

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.receipts import State, record
from persona_cli.errors import BadSettings, Refused
from persona_cli.evaluation.evaluate import evaluate
from persona_cli.feedback.training import train
from persona_cli.models import gram_store
from persona_cli.profiles.fitting import event_counts
from persona_cli.profiles.permitted import ANALYTICS, PERSONALIZATION, TRAINING, allowed
from persona_cli.profiles.preferences import spoken
from persona_cli.profiles.snapshots import user_events
from persona_cli.profiles.views import navigation_of
from persona_cli.serving.recommend import recommend
from persona_cli.serving.similar import score
from persona_cli.serving.writing import write_csv, write_lines
from persona_cli.workspace.home import Home, open_home

OUT, OTHER, STRANGER = user(3), user(5), "never-seen"
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = shop(tmp_path_factory.mktemp("readers") / "w")
    train(home, ["knn"])
    return home.root


@pytest.fixture
def home(made: Path, elsewhere: Path) -> Home:
    import shutil

    shutil.copytree(made, elsewhere / "w")
    return open_home(elsewhere / "w")


def say(home: Home, purpose: str, state: State = "withdrawn") -> None:
    record(home, [OUT], [purpose], state, at=AT, source="test")


def lines(home: Home, *users: str, **asked: object) -> dict[str, dict[str, object]]:
    stream = io.BytesIO()
    write_lines(recommend(home, users=pl.Series("user_id", users), include_holdout=True, **asked).blocks, stream)  # type: ignore[arg-type]
    return {line["user_id"]: line for line in map(json.loads, stream.getvalue().splitlines())}


@pytest.mark.parametrize("state", ["withdrawn", "objected", "paused"])
def test_without_personalization_one_gets_what_a_stranger_gets(home: Home, state: State) -> None:
    before = lines(home, OUT, OTHER, STRANGER)
    say(home, PERSONALIZATION, state)
    found = lines(home, OUT, OTHER, STRANGER)
    assert found[OTHER] == before[OTHER] and found[STRANGER] == before[STRANGER]
    assert found[OUT] == {**before[STRANGER], "user_id": OUT, "stage": "generic", "consent": False}
    assert found[OUT]["items"] != before[OUT]["items"]
    assert any(entry["item_id"] in clicks(3) for entry in found[OUT]["items"]), "not even what was had is known"  # type: ignore[attr-defined]
    in_context = lines(home, OUT, STRANGER, context={"device": "mobile"})
    assert in_context[OUT]["items"] == in_context[STRANGER]["items"]
    stream = io.BytesIO()
    write_csv(recommend(home, users=pl.Series("user_id", [OUT])).blocks, stream)
    assert pl.read_csv(stream.getvalue())["stage"].unique().to_list() == ["generic"]
    pairs = pl.DataFrame({"user_id": [OUT, STRANGER] * 3, "item_id": ["a00", "a00", "b00", "b00", "b07", "b07"]})
    scored = score(home, pairs, include_holdout=True)
    assert scored.filter(user_id=OUT)["score"].to_list() == scored.filter(user_id=STRANGER)["score"].to_list()


def test_what_one_said_earlier_is_not_read_either(home: Home) -> None:
    say(home, PERSONALIZATION)
    assert OUT not in spoken(home, purpose=PERSONALIZATION)["user_id"]
    told = lines(home, OUT, STRANGER, explain=True)
    assert told[OUT]["items"] == told[STRANGER]["items"], "with the same reasons"


def test_everybody_is_still_served_by_default(home: Home) -> None:
    say(home, PERSONALIZATION)
    blocks = pl.concat(recommend(home).blocks)
    assert blocks.height == 80 and blocks.filter(stage="generic")["user_id"].to_list() == [OUT]


def test_without_training_ones_rows_are_taken_out_of_the_item_sums(home: Home) -> None:
    before = gram_store.stored_digest(home)
    say(home, TRAINING)
    report = train(home, ["knn"])
    assert report.users == 79
    subtracted = gram_store.stored_digest(home)
    assert subtracted != before
    gram_store.keep_newest(home, 0)
    train(home, ["knn"])
    assert gram_store.stored_digest(home) == subtracted, "as if they had never been added"
    assert lines(home, OUT)[OUT]["stage"] == "cohort", "their own list is another purpose"
    record(home, [OUT], [TRAINING], "given", at=AT.replace(day=2), source="test")
    train(home, ["knn"])
    assert gram_store.stored_digest(home) == before


def test_training_reads_events_of_none_who_refused_it(home: Home) -> None:
    counted = event_counts(home, purpose=TRAINING)["click"]
    say(home, TRAINING)
    assert event_counts(home, purpose=TRAINING)["click"] == counted - len(clicks(3))
    assert OUT not in user_events(home, purpose=TRAINING)["user_id"]
    assert OUT in user_events(home, purpose=PERSONALIZATION)["user_id"]


@pytest.mark.parametrize("purpose", [ANALYTICS, TRAINING])
def test_nobody_is_measured_who_refused_it(home: Home, purpose: str) -> None:
    judged = evaluate(home, "R1", models=["popular"], split="leave-last").per_user["user_id"]
    assert OUT in judged
    say(home, purpose)
    found = evaluate(home, "R2", models=["popular"], split="leave-last").per_user["user_id"]
    assert set(judged) - set(found) == {OUT}


def test_a_test_file_asks_for_nobody_who_refused(home: Home) -> None:
    pl.DataFrame({"user_id": [OUT, OTHER], "item_id": ["a00", "a01"]}).write_csv("test.csv")
    assert set(evaluate(home, "R1", models=["popular"], test="test.csv").per_user["user_id"]) == {OUT, OTHER}
    say(home, ANALYTICS)
    assert set(evaluate(home, "R2", models=["popular"], test="test.csv").per_user["user_id"]) == {OTHER}


def test_figures_and_tables_are_without_those_who_refused_analytics(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    say(home, ANALYTICS)
    shown = Workspace.of(home)
    assert OUT not in shown.profiles().collect()["user_id"] and OTHER in shown.profiles().collect()["user_id"]
    assert OUT not in shown.profiles(as_of="2026-02-20").collect()["user_id"]
    assert OUT not in shown.history()["user_id"] and OUT not in shown.history(as_of="2026-02-20")["user_id"]
    assert OUT not in shown.events().collect()["user_id"]
    assert OUT not in shown.members(when="events > 0")
    for table in ("events", "history", "profiles"):
        users = shown.sql(f"SELECT DISTINCT user_id FROM {table}")["user_id"]
        assert OUT not in users and OTHER in users and len(users) == 79
    assert run(["profile", "list", "-w", "w", "--limit", "100", "--json"]) == 0
    assert f'"{OUT}"' not in capsys.readouterr().out
    assert run(["profile", "export", "-w", "w", "all.parquet"]) == 0
    assert OUT not in pl.read_parquet("all.parquet")["user_id"]
    with pytest.raises(Refused, match="not covered for analytics"):
        navigation_of(home, OUT)


def test_a_person_without_any_purpose_is_told_of_in_one_sentence(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    for purpose in (ANALYTICS, TRAINING, PERSONALIZATION):
        say(home, purpose, "objected")
    assert run(["profile", "show", OUT, "-w", "w"]) == 77
    said = capsys.readouterr().err
    assert said.splitlines()[0] == (
        f"persona: the profile of '{OUT}' may not be read; no purpose covers this person: consent was not given, or "
        "the use of the data was refused"
    )
    assert run(["profile", "show", OTHER, "-w", "w"]) == 0


def test_a_purpose_without_a_basis_is_an_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    text = home.path("persona.toml").read_text()
    head, _, rest = text.partition("[privacy.purposes.model_training]")
    before, _, after = rest.partition("basis = ")
    changed = f'{head}[privacy.purposes.model_training]{before}basis = ""\n{after.partition(chr(10))[2]}'
    home.path("persona.toml").write_text(changed)
    home = open_home(home.root)
    with pytest.raises(BadSettings, match="model_training has no lawful basis"):
        train(home, ["knn"])
    assert lines(home, OUT)[OUT]["stage"] == "cohort"


def test_where_nobody_refuses_nothing_changes(home: Home) -> None:
    before = lines(home, OUT, STRANGER)
    say(home, PERSONALIZATION, "given")
    assert lines(home, OUT, STRANGER) == before
    assert all(allowed(home, purpose).everybody for purpose in (ANALYTICS, TRAINING, PERSONALIZATION))
