"""Experiments in force: who gets which list, what is logged of it, and what holds when ids are merged or erased."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from shop import START, add, shop, user

from persona_cli import Workspace
from persona_cli.cli.main import run
from persona_cli.consent.receipts import record
from persona_cli.errors import BadSettings, MissingInput, PersonaError, UsageError
from persona_cli.experiments.allocation import Arms, shares
from persona_cli.experiments.applied import assigned, members
from persona_cli.experiments.assignment import Part
from persona_cli.experiments.running import Experiment, change, load, names, running, start, stop
from persona_cli.experiments.standing import arms, crossovers, people, reallocate, rewards, state
from persona_cli.experiments.variants import Variant, parse_variant, settings_with, surface_with
from persona_cli.feedback.decisions import TYPES, log, read
from persona_cli.feedback.training import train
from persona_cli.profiles.permitted import in_holdout
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces import surface_of
from persona_cli.workspace.home import SETTINGS_FILE, Home, open_home

SURFACES = """
[surface.home]
kind = "content"
top = 5
[surface.navigation]
kind = "ui"
entries = ["a", "b", "c"]
"""
EVERYBODY = pl.Series("user_id", [user(n) for n in range(80)])


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = shop(tmp_path_factory.mktemp("trying") / "w")
    with (home.root / SETTINGS_FILE).open("a") as file:
        file.write(SURFACES)
    sync(home)
    train(home, ["knn", "ease"])
    return home.root


@pytest.fixture
def home(made_once: Path, elsewhere: Path) -> Home:
    shutil.copytree(made_once, elsewhere / "persona-workspace")
    return open_home(elsewhere / "persona-workspace")


def lines(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run([*words]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def by_user(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, object]]:
    return {str(line["user_id"]): line for line in lines(capsys, *words)}


def test_what_is_written_is_what_is_read(home: Home) -> None:
    at = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
    made = start(
        home, "x", ["a=latest", "b=ease", "c=model=knn,rules.strength=0.5"], shares=[0.5, 0.3, 0.2], ramp=0.1, size=0.4,
        planned_units=1000, at=at,
    )  # fmt: skip
    change(home, "x", ramp=0.5, drop=["c"], at=at + timedelta(days=1))
    found = load(home, "x")
    assert found.variants == (
        Variant("a", {}), Variant("b", {"model": "ease"}), Variant("c", {"model": "knn", "rules.strength": "0.5"})
    )  # fmt: skip
    assert (found.started, found.part, found.layer) == (at, Part(0, 0.4), "recommend")
    assert [(one.ramp, one.dropped) for one in found.allocations] == [(0.1, ()), (0.5, ("c",))]
    assert made.salt == found.salt and len(found.salt) == 32
    assert stop(home, "x").stopped is not None
    assert names(home) == ["x"] and running(home) == []


def test_a_list_is_what_the_variants_model_gives(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    alone = {name: by_user(capsys, "recommend", "--model", name) for name in ("knn", "ease")}
    start(home, "x", ["a=knn", "b=ease"])
    found = by_user(capsys, "recommend")
    held = set(EVERYBODY.filter(in_holdout(home, EVERYBODY)).to_list())
    plain = by_user(capsys, "recommend", "--no-experiments")
    seen = set()
    assert list(found) == EVERYBODY.to_list()
    for one, line in found.items():
        if one in held:
            assert line == plain[one] and "variant" not in line
            continue
        model = {"x:a": "knn", "x:b": "ease"}[str(line["variant"])]
        seen.add(model)
        assert line["items"] == alone[model][one]["items"] and line["share"] == 0.5
        assert str(line["model"]).startswith(model)
    assert seen == {"knn", "ease"}
    told = members(home, "x", EVERYBODY)
    assert dict(told.select("user_id", "variant").iter_rows()) == {
        one: str(line["variant"])[2:] if "variant" in line else None for one, line in found.items()
    }


def test_two_equal_variants_change_nothing_but_what_is_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    record(home, [user(5)], ["analytics"], "withdrawn", at=START, source="test")
    record(home, [user(6)], ["personalization"], "withdrawn", at=START, source="test")
    asked = (["recommend", "--explain"], ["recommend", "--top", "3"], ["decide", "home"], ["decide", "navigation"])
    before = [lines(capsys, *words, *(["--dry-run"] if words[0] == "decide" else [])) for words in asked]
    for surface in ("recommend", "home", "navigation"):
        start(home, f"x-{surface}", ["a=latest", "b="], surface=surface)
    for words, plain in zip(asked, before, strict=True):
        found = lines(capsys, *words, *(["--dry-run"] if words[0] == "decide" else []))
        tried = {str(line["user_id"]) for line in found if "variant" in line}
        for line in found:
            line.pop("share", None)
            if line.pop("variant", None) is not None and words[0] == "decide":
                assert line["propensity"] == 0.5
                line["propensity"] = 1.0
        assert found == plain
        assert tried and not tried & {user(5), user(6), *EVERYBODY.filter(in_holdout(home, EVERYBODY))}


def test_without_a_running_experiment_bytes_stay(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def out(*words: str) -> str:
        capsys.readouterr()
        assert run([*words]) == 0
        return capsys.readouterr().out

    asked = (["recommend"], ["recommend", "--format", "csv"], ["decide", "home", "--dry-run"])
    before = [out(*words) for words in asked]
    start(home, "x", ["a=knn", "b=ease"])
    start(home, "y", ["a=top=2", "b=top=3"], surface="home")
    assert [out(*words, "--no-experiments") for words in asked] == before != [out(*words) for words in asked]
    stop(home, "x"), stop(home, "y")
    assert [out(*words) for words in asked] == before


def test_what_is_served_is_logged_with_its_variant_and_chance(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    start(home, "x", ["a=knn", "b=ease"], shares=[0.8, 0.2])
    start(home, "y", ["a=latest", "b=recommend.top=7"], layer="other")
    start(home, "n", ["a=latest", "b=density=compact"], surface="navigation")
    served = {str(line["decision_id"]): line for line in lines(capsys, "recommend", "--log")}
    served |= {str(line["decision_id"]): line for line in lines(capsys, "decide", "navigation")}
    rows = read(home).collect()
    assert set(rows["decision_id"]) == set(served)
    for row in rows.iter_rows(named=True):
        line = served[row["decision_id"]]
        assert row["variant"] == line.get("variant")
        assert row["propensity"] == pytest.approx(line.get("share", line.get("propensity", 1.0)))
        if row["surface"] == "recommend" and row["variant"]:
            first, second = row["variant"].split(",")
            assert len(row["items"]) == (7 if second == "y:b" else len(row["items"]))
            assert first[:2] == "x:" and second[:2] == "y:"
            assert row["propensity"] == pytest.approx({"a": 0.8, "b": 0.2}[first[2]] * 0.5)
        if row["surface"] == "navigation":
            density = json.loads(row["choice"])["density"]
            assert density == "compact" or row["variant"] != "n:b"
    shown = state(home, load(home, "x"))
    assert shown["people"] == rows.filter(pl.col("variant").str.starts_with("x:"))["user_id"].n_unique()
    assert shown["crossovers"] == 0


def test_experiments_of_a_layer_share_out_the_people(home: Home) -> None:
    for name in ("x", "y"):
        start(home, name, ["a=knn", "b=ease"], size=0.5)
    found = assigned(home, running(home), EVERYBODY)
    texts = found["variant"].drop_nulls()
    assert not texts.str.contains(",").any() and set(texts.str.head(1)) == {"x", "y"}
    assert found["variant"].is_null().to_list() == in_holdout(home, EVERYBODY).to_list()
    with pytest.raises(UsageError, match="the layer 'recommend' has no part left: x, y have all of it"):
        start(home, "z", ["a=knn", "b=ease"])
    with pytest.raises(UsageError, match="z and x both set model"):
        start(home, "z", ["a=knn", "b=ease"], layer="other")
    stop(home, "x")
    assert start(home, "z", ["a=knn", "b=ease"]).part == Part(0, 0.5)


def test_a_ramp_grows_and_a_dropped_variant_goes_to_the_control(home: Home) -> None:
    start(home, "x", ["a=knn", "b=ease", "c=latest"], ramp=0.3)
    few = members(home, "x", EVERYBODY)
    change(home, "x", ramp=1.0)
    many = members(home, "x", EVERYBODY)
    there = few["variant"].is_not_null()
    assert 0 < there.sum() < many["variant"].count()
    assert few.filter(there).equals(many.filter(there))
    with pytest.raises(UsageError, match="a ramp only grows"):
        change(home, "x", ramp=0.5)
    change(home, "x", drop=["b"])
    after = members(home, "x", EVERYBODY)
    moved = many["variant"] == "b"
    assert set(after.filter(moved)["variant"]) == {"a"}
    assert after.filter(~moved)["variant"].equals(many.filter(~moved)["variant"])
    assert after.filter(pl.col("variant") == "a")["share"].to_list() == pytest.approx(
        [2 / 3] * after.filter(pl.col("variant") == "a").height
    )
    with pytest.raises(UsageError, match="every variant of x would be dropped"):
        change(home, "x", drop=["a", "c"])
    with pytest.raises(UsageError, match="a is the control that every variant of x is held against"):
        change(home, "x", drop=["a"])
    with pytest.raises(UsageError, match="only the control of x would be left"):
        change(home, "x", drop=["c"])
    assert load(home, "x").dropped == ("b",)


def test_ids_that_become_one_person_keep_the_first_variant(home: Home) -> None:
    start(home, "x", ["a=knn", "b=ease"])
    visitors = pl.Series("user_id", [f"anon{n}" for n in range(40)])
    known = pl.Series("user_id", [f"known{n}" for n in range(40)])
    when = START + timedelta(days=300)
    add(home, [{"anon_id": one, "item_id": "a00", "timestamp": when} for one in visitors])
    sync(home)
    before = members(home, "x", visitors)["variant"]
    new = members(home, "x", known)["variant"]
    add(home, [
        {"anon_id": one, "user_id": other, "event_type": "identify", "timestamp": when + timedelta(days=1)}
        for one, other in zip(visitors, known, strict=True)
    ])  # fmt: skip
    sync(home)
    assert before.to_list() != new.to_list()
    assert members(home, "x", visitors)["variant"].to_list() == before.to_list()
    outside = in_holdout(home, visitors)
    assert members(home, "x", known)["variant"].to_list() == before.to_list() and outside.sum() == before.null_count()


def test_a_person_seen_in_two_variants_is_a_crossover(home: Home) -> None:
    began = datetime(2026, 9, 1, tzinfo=UTC)
    start(home, "x", ["a=knn", "b=ease", "c=latest"], at=began)

    def served(one: str, variant: str, hour: int) -> None:
        frame = pl.DataFrame({"user_id": [one], "surface": ["recommend"], "variant": [variant]})
        log(home, frame, at=began + timedelta(hours=hour))

    served("u01", "x:a", 1), served("u01", "w:b,x:b", 3), served("u01", "x:b,xx:c", 2)
    served("u02", "x:a", 1), served("u03", "x:c", 1), served("u03", "x:a", 2), served("u04", "xx:b", 1)
    change(home, "x", drop=["c"], at=began + timedelta(hours=1))
    found = crossovers(home, "x").to_dicts()
    second = began + timedelta(hours=2)
    assert [list(one.values()) for one in found] == [
        ["u01", ["a", "b"], second, 3, False],
        ["u03", ["c", "a"], second, 2, True],
    ]
    told = state(home, load(home, "x"))
    assert (told["people"], told["crossovers"], told["moved_by_drop"]) == (3, 1, 1)
    assert [one["people"] for one in told["variants"]] == [None, 0, None]
    assert Workspace(home.root).experiments.crossovers("x").height == 2


def test_a_bandit_gives_new_people_new_shares_and_keeps_the_others(home: Home) -> None:
    began = datetime(2026, 9, 1, tzinfo=UTC)
    start(home, "x", ["a=knn", "b=ease"], kind="bandit", floor=0.1, at=began)
    ids = EVERYBODY.filter(~in_holdout(home, EVERYBODY)).head(60)
    variant = pl.Series(["a", "b"] * 30)
    items = pl.Series([[{"item_id": "a00", "position": 1, "propensity": 1.0}]] * 60, dtype=TYPES["items"])
    frame = pl.DataFrame({"user_id": ids, "surface": "recommend", "variant": "x:" + variant, "items": items})
    decisions = log(home, frame, at=began + timedelta(hours=1))
    # 12 of a click in time, 3 of b; one of a too late to count.
    wins = [*range(0, 24, 2), *range(1, 7, 2)]
    when = {n: began + timedelta(hours=2) for n in wins} | {40: began + timedelta(days=3)}
    add(home, [
        {"user_id": ids[n], "item_id": "a00", "decision_id": decisions[n], "timestamp": at} for n, at in when.items()
    ])  # fmt: skip
    sync(home)
    experiment = load(home, "x")
    assert rewards(home, experiment, began + timedelta(days=1), days=2).height == 0
    with pytest.raises(UsageError, match="a window of 0 days, in which nobody can do anything"):
        rewards(home, experiment, began + timedelta(days=1), days=0)
    rewarded = rewards(home, experiment, began + timedelta(days=4), days=2)
    sums = arms(experiment, rewarded)
    assert [one.tolist() for one in sums] == [[30, 30], [12, 3], [12, 3]]
    made, _ = reallocate(home, "x", days=2, at=began + timedelta(days=4))
    assert made.current == pytest.approx(shares(sums, floor=0.1).tolist()) and made.current[0] > 0.85
    assert load(home, "x").allocations[-1].at == began + timedelta(days=4)
    kept = members(home, "x", ids)
    assert kept["variant"].to_list() == variant.to_list() and set(kept["share"]) == {0.5}
    others = members(home, "x", pl.Series([f"new{n}" for n in range(2000)])).drop_nulls()
    share = (others["variant"] == "a").mean()
    assert share == pytest.approx(made.current[0], abs=0.03)
    assert set(others["share"].round(6)) == {round(one, 6) for one in made.current}
    assert people(home, experiment).height == 60


def test_a_bandit_is_paid_by_its_metric(made_once: Path, elsewhere: Path) -> None:
    shutil.copytree(made_once, elsewhere / "w")
    with (elsewhere / "w" / SETTINGS_FILE).open("a") as file:
        file.write('[metric.few]\nevent = "click"\nvalue = "count"\nwindow_days = 14\ndirection = "down"\n')
        file.write('[metric.none]\nevent = "click"\nvalue = "any"\nwindow_days = 14\ndirection = "down"\n')
    home = open_home(elsewhere / "w")
    began = START + timedelta(weeks=8, minutes=-1)
    for name, metric, policy, tried in (
        ("x", "few", "thompson", "model=ease"), ("y", "none", "ucb1", "recommend.top=7"),
        ("z", "few", "ucb1", "rules.strength=0.5"),
    ):  # fmt: skip
        variants = ["a=latest", f"b={tried}"]
        start(home, name, variants, kind="bandit", metric=metric, policy=policy, layer=name, at=began)
    ids = EVERYBODY.filter(~in_holdout(home, EVERYBODY)).head(40)
    variant = pl.Series(["a", "b"] * 20)
    text = "x:" + variant + ",y:" + variant + ",z:" + variant
    log(home, pl.DataFrame({"user_id": ids, "surface": "recommend", "variant": text}), at=began)
    # Two clicks of everybody in the fourteen days, one a week.
    later = began + timedelta(days=15)
    assert rewards(home, load(home, "x"), began + timedelta(days=13)).height == 0
    assert rewards(home, load(home, "x"), later)["reward"].to_list() == [-2.0] * 40
    assert rewards(home, load(home, "x"), later, days=7)["reward"].to_list() == [-1.0] * 40
    assert rewards(home, load(home, "y"), later)["reward"].to_list() == [0.0] * 40
    assert reallocate(home, "x", at=later)[0].current == pytest.approx([0.5, 0.5])
    assert sum(reallocate(home, "y", at=later)[0].current) == pytest.approx(1)
    with pytest.raises(UsageError, match="ucb1 allocates by rewards from 0 to 1"):
        reallocate(home, "z", at=later)


def test_a_batch_that_is_older_counts_less(home: Home) -> None:
    began = datetime(2026, 9, 1, tzinfo=UTC)
    start(home, "x", ["a=knn", "b=ease"], kind="bandit", discount=0.5, at=began)
    made = change(home, "x", shares=[0.3, 0.7], at=began + timedelta(days=1))
    made = change(home, "x", shares=[0.3, 0.7], at=began + timedelta(days=2))
    rows = pl.DataFrame({
        "variant": ["a", "b", "a", "b"], "reward": [1.0, 0.0, 1.0, 1.0],
        "at": [began, began + timedelta(hours=30), began + timedelta(hours=31), began + timedelta(days=3)],
    })  # fmt: skip
    assert isinstance(sums := arms(made, rows), Arms)
    assert [one.tolist() for one in sums] == [[0.75, 1.5], [0.75, 1.0], [0.75, 1.0]]


def test_merged_lists_say_whose_entry_it_is(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    alone = {name: by_user(capsys, "recommend", "--model", name) for name in ("knn", "ease")}
    start(home, "x", ["a=knn", "b=ease"], kind="interleave", ramp=0.7)
    plain = by_user(capsys, "recommend")
    found = by_user(capsys, "recommend", "--interleave", "x", "--log")
    logged = {row["user_id"]: row for row in read(home).collect().to_dicts()}
    inside = {one for one in found if "variant" in found[one]}
    assert inside == set(members(home, "x", EVERYBODY).drop_nulls("variant")["user_id"]) and 20 < len(inside) < 80
    for one, line in found.items():
        items = line["items"]
        assert isinstance(items, list) and "variant" not in plain[one]
        if one not in inside:
            assert items == plain[one]["items"] and logged[one]["choice"] is None
            continue
        assert line["variant"] == "x:interleaved" and logged[one]["variant"] == "x:interleaved"
        assert json.loads(logged[one]["choice"]) == {"teams": [item.get("team") for item in items]}
        assert [entry["item_id"] for entry in logged[one]["items"]] == [item["item_id"] for item in items]
        for team, model in (("a", "knn"), ("b", "ease")):
            scores = {item["item_id"]: item["score"] for item in alone[model][one]["items"]}  # type: ignore[attr-defined]
            assert all(scores[item["item_id"]] == item["score"] for item in items if item.get("team") == team)
        both = [[item["item_id"] for item in alone[model][one]["items"]] for model in ("knn", "ease")]  # type: ignore[attr-defined]
        assert ({item.get("team") for item in items} >= {"a", "b"}) == (both[0] != both[1])
    assert by_user(capsys, "recommend", "--interleave", "x") == {
        one: {key: value for key, value in line.items() if key != "decision_id"} for one, line in found.items()
    }
    flat = Workspace(home.root).recommend(interleave="x")
    assert flat.filter(pl.col("team") == "a").height > 0


@pytest.mark.parametrize("method", ["probabilistic", "optimised", "balanced", "competitive-pairs"])
def test_methods_keep_what_their_credit_needs(home: Home, capsys: pytest.CaptureFixture[str], method: str) -> None:
    start(home, "x", ["a=knn", "b=ease"], kind="interleave", method=method)
    found = [line for line in lines(capsys, "recommend", "--interleave", "x", "--log") if "variant" in line]
    needed = {"probabilistic": {"credit"}, "optimised": {"credit"}, "balanced": {"rank_a", "rank_b"}}.get(method, set())
    for row in read(home).filter(pl.col("variant").is_not_null()).collect().to_dicts():
        choice = json.loads(row["choice"])
        assert set(choice) == {"teams", *needed} and {len(one) for one in choice.values()} == {len(row["items"])}
    assert found


def test_variants_as_written() -> None:
    assert parse_variant("a=") == parse_variant("a=latest") == Variant("a", {})
    assert parse_variant("b=ease/3") == Variant("b", {"model": "ease/3"})
    assert parse_variant('c=entries=["x","y, z"], items.t.when = "a = 1"') == Variant(
        "c", {"entries": '["x","y, z"]', "items.t.when": '"a = 1"'}
    )
    wrong = {
        "a": "is no variant", "=x": "is no variant", "a:b=x": "no name", "a=b=1,c": "KEY=VALUE", "a=b=1,b=2": "twice",
    }  # fmt: skip
    for text, said in wrong.items():
        with pytest.raises(UsageError, match=said):
            parse_variant(text)


def test_what_a_variant_may_change(home: Home) -> None:
    assert settings_with(home.settings, {"model": "ease", "recommend.top": "3"}).whole("recommend.top") == 3
    content = surface_with(surface_of(home, "home"), {"top": "7", "rules.max_per_category": "2", "model": "ease"})
    assert (content.options["top"], content.options["model"]) == (7, "ease")
    assert content.options["rules"] == {"rules.max_per_category": 2}
    for overrides, said in (
        ({"train.models": "x"}, "changes nothing about lists"), ({"rules.nothing": "1"}, "is not a setting"),
        ({"rules.max_per_category": "many"}, "rules.max_per_category"),
    ):  # fmt: skip
        with pytest.raises(PersonaError, match=said):
            settings_with(home.settings, overrides)
    for overrides, said in (
        ({"density": "large"}, "density=large"), ({"nothing": "1"}, "has no key 'nothing'"),
        ({"density.x": "1"}, "expected"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            surface_with(surface_of(home, "navigation"), overrides)


def test_what_cannot_be_an_experiment_is_said_and_nothing_is_there(home: Home) -> None:
    ab = ["a=latest", "b=ease"]
    for error, said, given, how in (
        (UsageError, "no name of an experiment", ab, {"name": "a:b"}),
        (UsageError, "no kind 'abc'", ab, {"kind": "abc"}),
        (UsageError, "1 variants; expected 2", ["a=latest"], {}),
        (UsageError, "'a' is there twice", ["a=latest", "a=ease"], {}),
        (UsageError, "add up to 0.9", ab, {"shares": [0.5, 0.4]}),
        (UsageError, "2 shares for 3", [*ab, "c=knn"], {"shares": [0.5, 0.5]}),
        (
            UsageError,
            "3 variants, and optimised merges two",
            [*ab, "c=knn"],
            {"kind": "interleave", "method": "optimised"},
        ),
        (UsageError, "lists of recommend", ab, {"kind": "interleave", "surface": "home"}),
        (UsageError, "more than everything", ab, {"kind": "bandit", "floor": 0.6}),
        (UsageError, "a ramp of 0", ab, {"ramp": 0.0}),
        (UsageError, "no metric is named 'wins'", ab, {"metric": "wins"}),
        (UsageError, "no metric is named 'wins'", ab, {"guardrails": ["wins"]}),
        (UsageError, "no method 'draft'", ab, {"method": "draft"}),
        (MissingInput, "no surface is named 'nav'", ab, {"surface": "nav"}),
        (MissingInput, "no als model", ["a=latest", "b=als"], {}),
        (MissingInput, "no model ease/9|no model", ["a=latest", "b=ease/9"], {}),
        (UsageError, "eese", ["a=latest", "b=eese"], {}),
        (BadSettings, "rules.x is not a setting", ["a=latest", "b=rules.x=1"], {}),
    ):
        with pytest.raises(error, match=said):
            start(home, how.pop("name", "x"), given, **how)  # type: ignore[arg-type]
    assert names(home) == [] and not (home.root / "experiments").exists()
    start(home, "x", ab)
    stop(home, "x")
    with pytest.raises(UsageError, match="'x' is there already"):
        start(home, "x", ab)
    with pytest.raises(UsageError, match="nothing changes any more"):
        change(home, "x", ramp=1.0)
    with pytest.raises(UsageError, match="was stopped at"):
        stop(home, "x")
    with pytest.raises(MissingInput, match="no experiment is named 'y'"):
        load(home, "y")


def test_nobody_is_left_in_an_experiment_after_an_erasure(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    start(home, "x", ["a=knn", "b=ease"])
    lines(capsys, "recommend", "--log")
    assert run(["privacy", "forget", user(7), "--yes"]) == 0
    assert run(["privacy", "verify-erasure", user(7)]) == 0
    assert user(7) not in people(home, load(home, "x"))["user_id"]
    assert members(home, "x", [user(7)])["variant"].to_list() == [None]


def test_an_experiment_without_a_use(home: Home) -> None:
    made = start(home, "x", ["a=latest", "b=ease"])
    assert isinstance(made, Experiment)
    told = state(home, made)
    assert told["people"] == 0 and told["srm_p"] is None and crossovers(home, "x").height == 0
