from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from persona_cli.errors import BadSettings
from persona_cli.workspace.declarations import BY_KEY, SETTINGS
from persona_cli.workspace.settings import Settings, is_setting, load, render_default, variable_name


def from_text(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "persona.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {})


def refusal(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(BadSettings) as caught:
        from_text(tmp_path, text, environ)
    assert caught.value.exit_code == 78
    return caught.value.message


def test_the_rendered_file_holds_every_setting_at_its_default_under_a_comment(tmp_path: Path) -> None:
    text = render_default()
    loaded = from_text(tmp_path, text)
    assert loaded.values == load(None, {}).values
    assert {loaded.origin(key) for key in BY_KEY} == {"persona.toml"}
    lines = text.splitlines()
    for setting in SETTINGS:
        section = setting.key if setting.is_table else setting.section
        first = lines.index(f"[{section}]")
        starts = f"[{setting.key}]" if setting.is_table else f"{setting.name} = "
        line = next(i for i in range(first, len(lines)) if lines[i].startswith(starts))
        assert lines[line - 1].startswith("# ")


def test_defaults_are_accepted_by_their_own_rules() -> None:
    assert load(None, {}).origins == dict.fromkeys(BY_KEY, "default")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ingest]\nassum_tz = 'UTC'", ["ingest.assum_tz", "did you mean 'ingest.assume_tz'"]),
        ("[ingst]\nassume_tz = 'UTC'", ["ingst", "did you mean 'ingest'"]),
        ("[model.eese]\nlambda = 1", ["model.eese", "did you mean 'model.ease'"]),
        ("ingest = 3", ["ingest is a section", "is 3"]),
        ("[ingest]\nmax_rejected = 2", ["ingest.max_rejected is 2", "a number from 0 to 1"]),
        ("[ingest]\nmax_rejected = '1%'", ["a number from 0 to 1"]),
        ("[ingest]\nmax_rejected = nan", ["a number from 0 to 1"]),
        ("[ingest]\nmax_rejected = true", ["is true", "a number from 0 to 1"]),
        ("[ingest]\nmax_line_mb = 1.5", ["a whole number from 1 to 1024"]),
        ("[ingest]\non_duplicate = 'first'", ["one of keep-first, keep-last, error"]),
        ("[ingest]\nassume_tz = 'Mars/Olympus'", ["Mars/Olympus", "time zone"]),
        ("[ingest]\nassume_tz = '../../etc/passwd'", ["time zone"]),
        ("[holdout]\nshare = 0.2", ["0.05 to 0.1"]),
        ("[recommend]\nconsumed_by = 'click'", ["a list"]),
        ("[recommend]\nconsumed_by = [1]", ["a list of texts"]),
        ("[evaluate]\nk = [0]", ["at least 1"]),
        ("[evaluate]\nk = []", ["a list of whole numbers"]),
        ("[train]\ntime_limit = 'soon'", ["a duration such as 90s"]),
        ("[model.ease]\nlambda = 'big'", ['of at least 0 or "auto"']),
        ("[signals.strengths]\nclick = 'often'", ["'click'", '"never"']),
        ("[signals.strengths]\n'rating>>4' = 1", ["rating>>4"]),
        ("[signals]\nstrengths = 3", ["a table"]),
        ("[ingest]\ntop = ?\n", ["not valid TOML", "line 2"]),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(tmp_path: Path, text: str, words: list[str]) -> None:
    message = refusal(tmp_path, text)
    assert "persona.toml" in message
    for word in words:
        assert word in message


def test_bytes_that_are_not_utf8_are_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "persona.toml"
    path.write_bytes(b"\xef\xbb\xbf[recommend]\r\ntop = 7\r\n")
    assert load(path, {}).whole("recommend.top") == 7
    path.write_bytes(b"# \xff\n")
    with pytest.raises(BadSettings, match="not valid TOML"):
        load(path, {})


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = "[ingest]\nmax_rejected = 0.2\nmax_line_mb = 8\nassume_tz = 'Europe/Berlin'"
    environ = {"PERSONA_INGEST_MAX_REJECTED": "0.3", "PERSONA_INGEST_ASSUME_TZ": "Asia/Tokyo"}
    settings = from_text(tmp_path, text, environ).with_flags({"ingest.max_rejected": "0.4"})
    seen = {
        key: (settings.values[key], settings.origin(key))
        for key in ("ingest.max_rejected", "ingest.assume_tz", "ingest.max_line_mb", "ingest.on_duplicate")
    }
    assert seen == {
        "ingest.max_rejected": (0.4, "flag"),
        "ingest.assume_tz": ("Asia/Tokyo", "environment"),
        "ingest.max_line_mb": (8, "persona.toml"),
        "ingest.on_duplicate": ("keep-first", "default"),
    }


def test_every_setting_has_a_variable_of_its_own() -> None:
    assert len({variable_name(key) for key in BY_KEY}) == len(BY_KEY)


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("PERSONA_EVALUATE_K", "5, 10", "evaluate.k", (5, 10)),
        ("PERSONA_EVALUATE_K", "[5]", "evaluate.k", (5,)),
        ("PERSONA_RECOMMEND_CONSUMED_BY", '["click", "purchase"]', "recommend.consumed_by", ("click", "purchase")),
        ("PERSONA_RECOMMEND_CONSUMED_BY", "click, purchase", "recommend.consumed_by", ("click", "purchase")),
        ("PERSONA_MODEL_EASE_LAMBDA", "auto", "model.ease.lambda", "auto"),
        ("PERSONA_MODEL_EASE_LAMBDA", "250", "model.ease.lambda", 250.0),
        ("PERSONA_SIGNALS_STRENGTHS", "{click = 2}", "signals.strengths", {"click": 2.0}),
    ],
)
def test_variables_are_read_in_the_settings_own_type(name: str, text: str, key: str, value: object) -> None:
    assert load(None, {name: text}).values[key] == value


def test_a_misspelt_variable_of_a_section_is_refused_and_others_are_not_ours() -> None:
    with pytest.raises(BadSettings, match="did you mean 'PERSONA_INGEST_ASSUME_TZ'"):
        load(None, {"PERSONA_INGEST_ASSUM_TZ": "UTC"})
    load(None, {"PERSONA_WORKSPACE": "x", "PERSONA_NO_PROGRESS": "1", "PERSONA_OF_INTEREST": "y"})


def test_a_wrong_variable_and_a_wrong_flag_are_named(tmp_path: Path) -> None:
    assert "PERSONA_RECOMMEND_TOP is 0" in refusal(tmp_path, "", {"PERSONA_RECOMMEND_TOP": "0"})
    with pytest.raises(BadSettings, match=r"--set recommend\.top is \"many\"; expected a whole number"):
        load(None, {}).with_flags({"recommend.top": "many"})
    with pytest.raises(BadSettings, match=r"did you mean 'recommend\.top'"):
        load(None, {}).with_flags({"recommend.topp": 3})


def test_a_table_in_the_file_stands_as_written_and_a_flag_changes_one_entry(tmp_path: Path) -> None:
    settings = from_text(tmp_path, "[signals.strengths]\n'rating>=4' = 2\nclick = 1\nblock = 'never'")
    assert list(settings.table("signals.strengths").items()) == [("rating>=4", 2.0), ("click", 1.0), ("block", "never")]
    changed = settings.with_flags({"signals.strengths.click": "5", "signals.strengths.rating>=4": 1})
    assert changed.table("signals.strengths") == {"rating>=4": 1.0, "click": 5.0, "block": "never"}
    assert settings.table("signals.strengths")["click"] == 1.0
    with pytest.raises(BadSettings, match="--set"):
        settings.with_flags({"signals.strengths.click>x": 1})


@pytest.mark.parametrize(
    ("key", "value", "section"),
    [
        ("survey.taste", "yes", "[survey.taste]"),
        ("survey.taste.text", "Which?", "[survey.taste]"),
        ("dialects.shop", "3", "[dialects.shop]"),
    ],
)
def test_a_part_of_a_section_is_no_flag_and_whole_sections_are(key: str, value: str, section: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load(None, {}).with_flags({key: value})
    assert caught.value.message == f"--set {key}: {section} is a section, which is written whole, into persona.toml"
    whole = load(None, {}).with_flags({"survey.taste": 'answers = { a = { tags = ["x"] } }'.join("{}")})
    asked = {"text": "taste", "answers": {"a": {"categories": [], "tags": ["x"]}}}
    assert whole.values["survey"] == {"taste": asked}


def test_a_flag_for_an_entry_is_judged_as_an_entry() -> None:
    assert load(None, {}).with_flags({"signals.minimum.click": "7"}).table("signals.minimum")["click"] == 7
    with pytest.raises(BadSettings, match="is \"x\"; expected a whole number from 0 on for 'click'"):
        load(None, {}).with_flags({"signals.minimum.click": "x"})
    assert is_setting("survey.taste") and is_setting("signals.strengths.click") and not is_setting("survey_taste")


@pytest.mark.parametrize("key", [key for key in BY_KEY if key.endswith(".seed")])
def test_a_seed_is_one_that_numpy_takes(key: str) -> None:
    largest = 2**32 - 1
    assert load(None, {}).with_flags({key: largest}).whole(key) == largest
    with pytest.raises(BadSettings, match=f"{key} is {largest + 1}; expected a whole number from 0 to"):
        load(None, {}).with_flags({key: largest + 1})


def test_typed_reading() -> None:
    settings = load(None, {})
    assert settings.text("ingest.assume_tz") == "UTC"
    assert settings.number("ingest.max_rejected") == 0.01
    assert settings.number("recommend.top") == 20.0
    assert settings.whole("recommend.top") == 20
    assert settings.texts("recommend.consumed_by") == ("*",)
    assert settings.wholes("evaluate.k") == (10, 20)
    assert settings.number_or_word("model.ease.lambda") == "auto"
    assert settings.number_or_word("model.gram.cap") == 1.0
    assert settings.seconds("train.time_limit") == 240.0
    with pytest.raises(TypeError):
        settings.whole("ingest.max_rejected")
    with pytest.raises(TypeError):
        settings.number("model.ease.lambda")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("45", 45), ("0.5h", 1800)])
def test_durations(text: str, seconds: float) -> None:
    assert load(None, {}).with_flags({"train.time_limit": text}).seconds("train.time_limit") == seconds


def test_digest_follows_the_values_of_the_keys_asked_for_and_nothing_else(tmp_path: Path) -> None:
    base = load(None, {})
    same = from_text(tmp_path, render_default())
    assert base.digest(["signals", "profiles"]) == same.digest(["signals", "profiles"])
    other = base.with_flags({"recommend.top": 5})
    assert base.digest(["signals"]) == other.digest(["signals"])
    assert base.digest() != other.digest()
    changed = base.with_flags({"signals.strengths.click": 2})
    assert base.digest(["signals"]) != changed.digest(["signals"])


def test_digest_sees_the_order_of_conditions_since_the_first_that_holds_counts(tmp_path: Path) -> None:
    one = from_text(tmp_path, "[signals.strengths]\n'rating>=4' = 3\n'rating>=3' = 1")
    two = from_text(tmp_path, "[signals.strengths]\n'rating>=3' = 1\n'rating>=4' = 3")
    assert one.digest(["signals"]) != two.digest(["signals"])


def test_the_rendered_file_is_what_a_toml_parser_reads() -> None:
    parsed = tomllib.loads(render_default())
    assert parsed["signals"]["strengths"]["rating>=4"] == 3
    assert parsed["evaluate"]["k"] == [10, 20]
