"""`kind = "plan"`: the cheapest plan that holds the use, from use alone, at the published price."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deciding import NOW, Row, decided, sides, workspace
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from shop import START, add

from persona_cli.errors import BadSettings
from persona_cli.events.schema import stored_schema
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces.plan import Advice
from persona_cli.serving.surfaces.plan_usage import Use, forecast
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, open_home
from persona_cli.workspace.plan_declarations import refused

SETTINGS = """
[surface.plans]
kind = "plan"
plans.basic = { price = 9, limits = { api_call = 100 }, features = ["editor"] }
plans.team = { price = 29, limits = { api_call = 1000 }, features = ["editor"] }
plans.api = { price = 19, limits = { api_call = 5000 } }
plans.all = { price = 99, features = ["editor", "sso"] }
"""
LAST = NOW - timedelta(hours=1)


def months(user: str, counts: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    """Uses by month of 30 days, the latest first, and a visit that begins the first of these months."""
    n = max(map(len, counts.values()))
    first = LAST - timedelta(days=30 * n) + timedelta(microseconds=1)
    rows = [{"user_id": user, "event_type": "page_view", "timestamp": first}]
    for name, each in counts.items():
        kind = {"event_type": "api_call"} if name == "api_call" else {"event_type": "feature_use", "target": name}
        for month, count in enumerate(each):
            at = LAST - timedelta(days=30 * month + 3)
            rows += [{"user_id": user, "timestamp": at + timedelta(seconds=k), **kind} for k in range(count)]
    return [*rows, {"user_id": user, "event_type": "page_view", "timestamp": LAST}]


def say(home: Home, kind: Any, rows: list[dict[str, Any]]) -> None:
    schema = stored_schema(kind)
    table = tables.open_or_create(home, kind, schema)
    empty = pl.DataFrame(pl.from_arrow(schema.empty_table())).schema
    filled = [dict.fromkeys(empty) | {"ingested_at": START} | row for row in rows]
    table.commit([table.write(pl.DataFrame(filled, schema=empty, orient="row"))])


def accounts(home: Home, plans: Mapping[str, str | None], roles: Mapping[str, str] | None = None, **more: Any) -> None:
    say(home, "users", [{"user_id": u, "account_id": f"of-{u}", "role": (roles or {}).get(u)} for u in plans])
    say(home, "accounts", [{"account_id": f"of-{u}", "plan": plan, **more} for u, plan in plans.items()])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return workspace(tmp_path / "w", SETTINGS, [])


def filled(home: Home, uses: Mapping[str, Mapping[str, list[int]]]) -> Home:
    add(home, [row for user, counts in uses.items() for row in months(user, counts)])
    sync(home)
    return open_home(home.root)


def choices(lines: Mapping[str, Row]) -> dict[str, Any]:
    return {user: line["choice"]["plan"] for user, line in lines.items()}


def test_use_by_feature_leads_to_the_cheapest_plan_that_holds_it(home: Home) -> None:
    (maker, coder, both, little, new, *_), _ = sides(home)
    uses = {
        maker: {"editor": [30, 30, 30, 30]},
        coder: {"api_call": [400, 420, 390, 410]},  # heavy on the interface and no editor
        both: {"api_call": [400, 420, 390, 410], "editor": [9, 9, 9, 9]},
        little: {"api_call": [3, 4, 3, 5]},
    }
    add(home, [{"user_id": new, "event_type": "api_call", "timestamp": LAST} for _ in range(300)])
    home = filled(home, uses)
    accounts(home, {maker: "basic", coder: "team", both: "basic", little: "all", new: "team"})
    lines = decided(home, "plans", [*uses, new], explain=True)
    assert choices(lines) == {maker: "basic", coder: "api", both: "team", little: "basic", new: "team"}
    api, team = lines[coder]["choice"], lines[both]["choice"]
    assert (api["current"], api["price"], api["currency"], api["saves"]) == ("team", 19.0, "EUR", 10.0)
    assert (api["gains"], api["loses"]) == (["api_call: 5,000 instead of 1,000"], ["editor"])
    assert api["certainty"] >= 0.9 and "api" in api["fits"] and "basic" not in api["fits"]
    assert (team["gains"], team["saves"]) == (["api_call: 1,000 instead of 100"], -20.0)  # what the dearer one gives
    assert lines[coder]["reasons"][0].startswith("api_call: about 40")
    assert "editor: used 36 times in 6 months" in lines[both]["reasons"]
    assert {lines[user]["policy"] for user in uses} == {"cheapest_fit"}
    assert (lines[new]["policy"], lines[new]["rules"], lines[new]["choice"]["certainty"]) == (
        "current",
        ["use_unknown"],
        None,
    )


def test_nobody_is_led_up_by_one_month_or_by_a_guess(home: Home) -> None:
    (near, once, young, *_), _ = sides(home)
    uses = {
        near: {"api_call": [90, 96, 70, 99]},  # stays within 100, though not surely
        once: {"api_call": [40, 45, 160, 42, 44, 41]},  # broke the limit once
        young: {"api_call": [400]},
    }
    home = filled(home, uses)
    accounts(home, {near: "basic", once: "basic", young: "basic"})
    lines = decided(home, "plans", list(uses))
    assert choices(lines) == {near: "basic", once: "basic", young: "api"}
    assert lines[near]["policy"] in ("current", "cheapest_fit")
    assert lines[near]["choice"]["saves"] == 0.0


def test_the_generic_answer_for_those_who_are_held_out_or_unknown(home: Home) -> None:
    (ann, stranger, *_), (held, *_) = sides(home)
    home = filled(home, {ann: {"editor": [5, 5]}, held: {"editor": [5, 5]}})
    accounts(home, {ann: None, held: "team"})
    lines = decided(home, "plans", [ann, held, stranger])
    nothing = dict.fromkeys(("plan", "current", "price", "currency", "certainty", "saves")) | {
        "fits": [],
        "gains": [],
        "loses": [],
    }
    assert lines[held]["choice"] == nothing and lines[held]["holdout"] is True
    assert lines[stranger]["choice"] == nothing
    assert (lines[held]["policy"], lines[stranger]["rules"]) == ("default", ["use_unknown"])
    assert lines[ann]["choice"]["plan"] == "basic"  # no current plan is known: the cheapest that holds


def test_the_use_of_an_account_is_that_of_all_its_people(home: Home) -> None:
    (ann, bob, eve, *_), _ = sides(home)
    home = filled(home, {ann: {"api_call": [90, 90, 90]}, bob: {"api_call": [80, 80, 80]}, eve: {"editor": [9, 9, 9]}})
    say(home, "users", [{"user_id": user, "account_id": "acme"} for user in (ann, bob, eve)])
    lines = decided(home, "plans", [ann, bob, eve])
    assert choices(lines) == dict.fromkeys((ann, bob, eve), "team")  # 170 calls and the editor


def test_nothing_is_advised_where_part_of_the_use_may_not_be_read(home: Home) -> None:
    from persona_cli.consent.receipts import record

    (ann, bob, *_), _ = sides(home)
    home = filled(home, {ann: {"api_call": [9, 9, 9]}, bob: {"api_call": [800, 800, 800]}})
    say(home, "users", [{"user_id": user, "account_id": "acme"} for user in (ann, bob)])
    say(home, "accounts", [{"account_id": "acme", "plan": "team"}])
    record(home, [bob], ["personalization"], "withdrawn", at=NOW, source="test")
    lines = decided(home, "plans", [ann, bob])
    assert (lines[ann]["choice"]["plan"], lines[ann]["policy"]) == ("team", "current")  # not the cheaper one
    assert lines[ann]["rules"] == ["use_not_whole"]
    assert (lines[bob]["choice"]["plan"], lines[bob]["policy"], lines[bob]["consent"]) == (None, "default", False)


def test_size_counts_against_its_limit_and_roles_say_who_is_told(tmp_path: Path) -> None:
    text = (
        '[surface.plans]\nkind = "plan"\nroles = ["admin"]\nuses.seats = { count = "size" }\n'
        "plans.small = { price = 5, limits = { seats = 3 } }\nplans.large = { price = 50, limits = { seats = 30 } }\n"
    )
    home = workspace(tmp_path / "w", text, [])
    (ann, bob, eve, *_), _ = sides(home)
    home = filled(home, {user: {"editor": [1, 1]} for user in (ann, bob, eve)})
    say(home, "users", [{"user_id": u, "account_id": f"of-{u}", "role": r} for u, r in ((ann, "admin"), (bob, "dev"))])
    say(home, "users", [{"user_id": eve, "account_id": "silent", "role": "admin"}])
    say(home, "accounts", [{"account_id": f"of-{u}", "plan": "small", "size": 9} for u in (ann, bob)])
    lines = decided(home, "plans", [ann, bob, eve])
    assert lines[ann]["choice"]["plan"] == "large" and lines[ann]["choice"]["certainty"] == 1.0
    assert (lines[bob]["choice"]["plan"], lines[bob]["rules"]) == (None, ["roles"])
    assert (lines[eve]["choice"]["plan"], lines[eve]["rules"]) == (None, ["use_unknown"])


def of_counts(counts: np.ndarray) -> Use:
    n, M = counts.shape
    units = pl.Series([f"{k:05d}" for k in range(n)])
    told, fixed = np.zeros(1, dtype=bool), np.full((n, 1), np.nan)
    return Use(units, ["calls"], counts[:, None, :], np.full(n, M), counts.sum(axis=1)[:, None], fixed, told)


def test_the_forecast_of_a_few_accounts_by_hand() -> None:
    counts = np.array([[10.0, 20.0, 15.0]])
    found = forecast(of_counts(counts))
    x = np.log1p(counts[0])
    rate = counts.mean()
    spread = (4 * (0.25 + rate / (1 + rate) ** 2) + ((x - x.mean()) ** 2).sum()) / 6
    scale = np.sqrt(spread * (1 + 1 / 3))
    assert found.mean[0, 0] == pytest.approx(x.mean())
    assert found.scale[0, 0] == pytest.approx(scale)
    by_scipy = stats.t.cdf((np.log(30.5 + 1) - x.mean()) / scale, 6)
    assert found.below(np.array([30.0]))[0, 0] == pytest.approx(by_scipy, abs=1e-9)
    assert found.below(np.array([np.inf]))[0, 0] == 1.0


@pytest.mark.parametrize("M", [1, 3, 6])
@pytest.mark.parametrize("shape", [2.0, 20.0, 1e9])
def test_what_is_promised_comes_true(M: int, shape: float) -> None:
    """Accounts whose rates differ, months that vary as Poisson or more: the chance told is the share that stays below,
    and 80 in 100 next months lie in the interval."""
    rng = np.random.default_rng(0)
    n = 4000
    rate = np.exp(rng.normal(3.0, 1.0, n))
    y = rng.poisson(rate[:, None] * rng.gamma(shape, 1 / shape, (n, M + 1))).astype(float)
    found = forecast(of_counts(y[:, 1:]))
    sure = found.below(np.array([40.0]))[:, 0]
    below = y[:, 0] <= 40
    told = sure >= 0.9
    assert below[told].mean() >= 0.9
    assert sure.mean() == pytest.approx(below.mean(), abs=0.03)
    _, low, high = (side[:, 0] for side in found.interval())
    inside = (y[:, 0] >= np.floor(low)) & (y[:, 0] <= np.ceil(high))
    assert 0.75 <= inside.mean() <= (0.95 if M > 1 else 1.0)  # of one month each nobody knows how months vary: wide


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_nobody_is_advised_a_dearer_plan_than_use_supports(data: st.DataObject) -> None:
    P, n = data.draw(st.integers(1, 4)), 6
    draw = lambda low, high, size: np.array(data.draw(st.lists(st.integers(low, high), min_size=size, max_size=size)))  # noqa: E731
    prices = np.sort(draw(0, 3, P)).astype(float)
    certainty = draw(0, 10, n * P).reshape(n, P) / 10
    held = draw(0, 1, n * P).reshape(n, P).astype(bool)
    advice = Advice([f"p{k}" for k in range(P)], prices, certainty, held, draw(0, 1, n).astype(bool))
    current = draw(-1, P - 1, n)
    plan, _ = advice.chosen(current, 0.9)
    for row, (chosen, now) in enumerate(zip(plan, current, strict=True)):
        if chosen < 0:
            continue
        assert certainty[row, chosen] >= 0.9
        fits = prices[certainty[row] >= 0.9]
        assert prices[chosen] == fits.min()  # nothing cheaper holds as surely
        if now < 0 or prices[chosen] > prices[now]:
            for other in np.flatnonzero(prices < prices[chosen]):
                assert not held[row, other] and certainty[row, other] < 0.5
            assert prices[chosen] <= advice.supported(current)[row]
    again, _ = Advice(advice.plans, prices, certainty[::-1], held[::-1], advice.known[::-1]).chosen(current[::-1], 0.9)
    assert (again[::-1] == plan).all()  # the same use, the same advice, wherever it stands


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("gender", "gender"),
        ("SeniorCitizen", "age"),
        ("user_age", "age"),
        ("home_postcode", "place of living"),
        ("devicePrice", "device"),
        ("first_name", "name"),
        ("household_income", "family"),
        ("stores", None),
        ("storage", None),
    ],
)
def test_protected_attributes_and_proxies_are_known_by_name(name: str, group: str | None) -> None:
    assert refused(name) == group


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('uses.api_call = { property = "postcode" }', "'postcode' tells of place of living"),
        ('uses.api_call = { property = "owner_income" }', "'owner_income' tells of wealth"),
        ('uses.api_call = { target = "gender" }', "'gender' tells of gender"),
        (
            'uses.api_call = { property = "branch_kind" }\naudit_only = ["branch_kind"]',
            "tells of what audit_only names",
        ),
        ("plans.x = { price = { young = 5, old = 9 } }", "one number for everybody .prices of single people or groups"),
        ('plans.x = { price = 5, price_by = "device" }', "a price is the same for everybody"),
        (
            'plans.x = { price = 5, limits = { api_call = 100 }, features = ["editor"] }',
            "one price for one offer, and basic and x",
        ),
        ("plans.x = { price = -1 }", "one number for everybody"),
        ('currency = "EURO"', r"three letters \(ISO 4217\) such as \"EUR\" instead of 'EURO'"),
        ('uses.api_cal = { events = ["call"] }', "none does 'api_cal'; did you mean 'api_call'"),
        ("uses.api_call = { cuont = 1 }", "did you mean 'count'"),
    ],
)
def test_what_must_not_be_declared_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        workspace(tmp_path / "w", SETTINGS + line + "\n", [])


def test_a_surface_without_plans_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"plans in .surface.plans., which has none"):
        workspace(tmp_path / "w", '[surface.plans]\nkind = "plan"\n', [])


def test_limits_that_nothing_counts_and_lists_that_hold_nobody_are_named(tmp_path: Path) -> None:
    text = '[surface.plans]\nkind = "plan"\nplans.a = { price = 1, limits = { api_cals = 5 } }\n'
    home = workspace(tmp_path / "w", text, [])
    names = [f"u{n:03d}" for n in range(25)]
    home = filled(home, {name: {"api_call": [9, 9]} for name in names})
    with pytest.raises(BadSettings, match="plans limit 'api_cals', and no event of 25 accounts counts towards it"):
        decided(home, "plans", names)
    path = home.root / "persona.toml"
    path.write_text(path.read_text().replace("api_cals", "api_call"))
    with pytest.raises(BadSettings, match="no plan holds what any of 25 accounts uses"):
        decided(open_home(home.root), "plans", names)
