"""The gate: the last word counts, refusals win ties, linked ids share it, bases decide what silence means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import COVERING, PURPOSES, append_words, basis, receipts, record
from persona_cli.consent.subjects import lift, subject, subjects, suppress, suppressed
from persona_cli.errors import BadSettings, UsageError
from persona_cli.workspace.home import Home, create, open_home

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def workspace(folder: Path, **bases: str) -> Home:
    """A workspace whose purposes rest on these bases."""
    home = create(folder)
    lines = home.path("persona.toml").read_text()
    for purpose, name in bases.items():
        head, _, rest = lines.partition(f"[privacy.purposes.{purpose}]")
        before, _, after = rest.partition("basis = ")
        lines = f'{head}[privacy.purposes.{purpose}]{before}basis = "{name}"\n{after.partition(chr(10))[2]}'
    home.path("persona.toml").write_text(lines)
    return open_home(folder)


def say(home: Home, user: str, purpose: str, state: str, minutes: float) -> None:
    record(home, [user], [purpose], state, at=T0 + timedelta(minutes=minutes), source="test")  # type: ignore[arg-type]


def ids(*names: str | None) -> pl.Series:
    return pl.Series("id", names, dtype=pl.String)


def test_a_fresh_workspace_keeps_nobody_out(elsewhere: Path) -> None:
    gate = Gate.of(workspace(Path("w")))
    assert gate.trivial
    assert gate.permits("analytics", ids("a", "b")).to_list() == [True, True]
    assert gate.permits("messaging.email", ids("a")).to_list() == [False]
    assert gate.collects(ids("a", None), ids(None, "d")).to_list() == [True, True]


def test_with_consent_silence_is_no_and_the_last_word_counts(elsewhere: Path) -> None:
    home = workspace(Path("w"), personalization="consent")
    assert not Gate.of(home).trivial
    for user, words in {"a": ["given"], "b": ["given", "withdrawn"], "c": ["withdrawn", "given"], "d": []}.items():
        for minute, state in enumerate(words):
            say(home, user, "personalization", state, minute)
    assert Gate.of(home).permits("personalization", ids("a", "b", "c", "d")).to_list() == [True, False, True, False]
    assert Gate.of(home).permits("analytics", ids("a", "b", "c", "d")).to_list() == [True] * 4
    earlier = Gate.of(home, T0)
    assert earlier.permits("personalization", ids("a", "b", "c", "d")).to_list() == [True, True, False, False]


@pytest.mark.parametrize("state", ["withdrawn", "objected", "paused"])
def test_on_any_other_basis_one_may_refuse(elsewhere: Path, state: str) -> None:
    home = workspace(Path("w"))
    say(home, "a", "personalization", state, 0)
    gate = Gate.of(home)
    assert not gate.trivial
    assert gate.permits("personalization", ids("a", "b")).to_list() == [False, True]
    assert gate.collects(ids("a"), ids(None)).to_list() == [True], "the other purposes still cover the person"


def test_a_word_taken_back_is_as_if_nothing_had_been_said(elsewhere: Path) -> None:
    home = workspace(Path("w"), personalization="consent")
    record(home, ["a"], COVERING, "objected", at=T0)
    record(home, ["a"], COVERING, "cleared", at=T0 + timedelta(minutes=1))
    gate = Gate.of(home)
    assert [gate.permits(purpose, ids("a")).item() for purpose in COVERING] == [False, True, True]
    assert gate.collects(ids("a"), ids(None)).item()
    assert not Gate.of(home, T0).collects(ids("a"), ids(None)).item()
    assert Gate.of(workspace(Path("v"))).trivial


def test_what_was_said_earlier_does_not_count_however_late_it_comes(elsewhere: Path) -> None:
    home = workspace(Path("w"))
    say(home, "a", "analytics", "withdrawn", 5)
    say(home, "a", "analytics", "given", 1)
    assert Gate.of(home).permits("analytics", ids("a")).to_list() == [False]


def test_of_equal_words_the_refusal_wins_in_any_order(elsewhere: Path) -> None:
    for number, states in enumerate((["given", "objected"], ["objected", "given"])):
        home = workspace(Path(f"w{number}"), analytics="consent")
        rows = [
            {"subject": subject(home, "a"), "purpose": "analytics", "state": state, "at": T0, "notice": None,
             "notice_sha256": None, "source": None, "proof": None}
            for state in states
        ]  # fmt: skip
        schema = {"notice": pl.String, "notice_sha256": pl.String, "source": pl.String, "proof": pl.String}
        append_words(home, pl.DataFrame(rows, schema_overrides=schema), T0)
        assert Gate.of(home).permits("analytics", ids("a")).to_list() == [False]


def test_the_last_word_of_any_id_of_a_person_counts_for_all(elsewhere: Path) -> None:
    home = workspace(Path("w"), model_training="consent")
    say(home, "phone", "model_training", "given", 0)
    say(home, "anna", "model_training", "withdrawn", 1)
    say(home, "laptop", "model_training", "given", 2)
    say(home, "bert", "model_training", "given", 0)
    who = ids("phone", "laptop", "tablet", "tv", None)
    people = ids("anna", "anna", "anna", "bert", None)
    assert Gate.of(home).permits("model_training", who, people).to_list() == [True, True, True, True, False]
    say(home, "anna", "model_training", "withdrawn", 3)
    assert Gate.of(home).permits("model_training", who, people).to_list() == [False, False, False, True, False]


def test_opted_out_is_not_collected_and_a_pause_is(elsewhere: Path) -> None:
    home = workspace(Path("w"), analytics="consent", model_training="", personalization="consent")
    say(home, "out", "personalization", "given", 0)
    record(home, ["out"], PURPOSES, "objected", at=T0 + timedelta(minutes=1))
    say(home, "paused", "personalization", "given", 0)
    say(home, "paused", "personalization", "paused", 1)
    say(home, "no", "personalization", "withdrawn", 0)
    say(home, "no", "personalization", "paused", 1)
    gate = Gate.of(home)
    assert gate.collects(ids("out", "paused", "no", "new"), ids("x", "x", "x", "x")).to_list() == [
        False, True, False, False,
    ]  # fmt: skip
    assert gate.opted_out(ids("out", "paused", "new")).to_list() == [True, False, False]
    assert gate.permits("personalization", ids("paused")).to_list() == [False]


def test_a_channel_follows_messaging_and_its_own_words(elsewhere: Path) -> None:
    home = workspace(Path("w"))
    say(home, "a", "messaging.email", "given", 0)
    assert Gate.of(home).permits("messaging.email", ids("a")).to_list() == [True]
    assert Gate.of(home).permits("messaging.sms", ids("a")).to_list() == [False]
    record(home, ["a"], PURPOSES, "objected", at=T0 + timedelta(minutes=1))
    assert Gate.of(home).permits("messaging.email", ids("a")).to_list() == [False]


def test_a_purpose_without_a_basis_is_an_error(elsewhere: Path) -> None:
    home = workspace(Path("w"), analytics="")
    gate = Gate.of(home)
    assert not gate.trivial
    with pytest.raises(BadSettings, match="analytics has no lawful basis"):
        gate.permits("analytics", ids("a"))
    assert gate.collects(ids("a"), ids(None)).to_list() == [True]
    nothing = workspace(Path("none"), **dict.fromkeys(COVERING, ""))
    assert Gate.of(nothing).collects(ids("a"), ids(None)).to_list() == [False]


def test_a_legitimate_interest_needs_an_assessment_that_is_there(elsewhere: Path) -> None:
    home = workspace(Path("w"), analytics="legitimate_interest")
    for _ in range(2):
        with pytest.raises(BadSettings, match="assessment"):
            basis(home, "analytics")
        text = home.path("persona.toml").read_text()
        head, _, rest = text.partition("[privacy.purposes.analytics]")
        rest = rest.replace('assessment = ""', 'assessment = "balance.md"', 1)
        home.path("persona.toml").write_text(f"{head}[privacy.purposes.analytics]{rest}")
        home = open_home(home.root)
    home.path("balance.md").write_text("their interests weigh less because …")
    assert basis(home, "analytics") == "legitimate_interest"
    assert Gate.of(home).trivial


def test_unknown_purposes_are_named(elsewhere: Path) -> None:
    home = workspace(Path("w"))
    with pytest.raises(UsageError, match="did you mean 'analytics'"):
        basis(home, "analytcs")
    with pytest.raises(UsageError, match="no purpose"):
        record(home, ["a"], ["messaging.E Mail"], "given")
    with pytest.raises(UsageError, match="has not come yet"):
        record(home, ["a"], ["analytics"], "given", at=datetime.now(UTC) + timedelta(days=1))


def test_the_same_word_twice_is_one_receipt(elsewhere: Path) -> None:
    home = workspace(Path("w"))
    first = record(home, ["a", "b", "a"], ["analytics"], "given", at=T0, source="form")
    assert [len(first), len(record(home, ["a"], ["analytics"], "given", at=T0, source="form"))] == [2, 0]
    assert [one.receipt_id for one in receipts(home, ["a"])] == [
        one.receipt_id for one in first if one.subject == subject(home, "a")
    ]


def test_digests_only_on_disk(elsewhere: Path, own_salts: None) -> None:
    home = workspace(Path("w"))
    name = "annabel.fontana@example.org"
    record(home, [name], PURPOSES, "given", source="form", proof="F-17")
    suppress(home, [name], "R-000000000001")
    for path in home.root.rglob("*"):
        if path.is_file():
            assert name.encode() not in path.read_bytes(), path
            if path.suffix == ".parquet":
                assert name not in str(pl.read_parquet(path).to_dicts())
    other = workspace(Path("v"))
    assert subject(other, name) != subject(home, name)
    assert subjects(home, ids(name, None, name)).to_list() == [subject(home, name), None, subject(home, name)]


def test_suppressed_until_lifted(elsewhere: Path) -> None:
    home = workspace(Path("w"))
    assert suppressed(home, ids("a", None)).to_list() == [False, False]
    suppress(home, ["a", "b"], "R-1")
    suppress(home, ["a"], "R-2")
    assert suppressed(home, ids("a", "b", "c", None)).to_list() == [True, True, False, False]
    assert lift(home, ["a", "c"]) == 1
    assert suppressed(home, ids("a", "b")).to_list() == [False, True]
    assert lift(home, ["b"]) == 1
    assert suppressed(home, ids("a", "b")).to_list() == [False, False]
