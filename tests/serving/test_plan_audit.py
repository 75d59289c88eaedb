"""The audit of plan advice: what is unfair is found, and advice from use alone passes."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deciding import NOW, workspace
from shop import START, add
from sklearn.metrics import mutual_info_score
from test_plan_surface import SETTINGS, say

from persona_cli.cli.main import run
from persona_cli.errors import BadData, UsageError
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces import surface_of
from persona_cli.serving.surfaces.plan_audit import _information, audit, audit_surface, read_attributes
from persona_cli.workspace.home import Home, open_home

PRICES = {"basic": 9.0, "pro": 29.0}


def people(n: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Use differs by age, which is fair to follow; income goes with the device and not with use."""
    rng = np.random.default_rng(seed)
    senior = rng.random(n) < 0.3
    use = rng.poisson(np.where(senior, 6, 12))
    rich = rng.random(n) < 0.4
    device = np.where(rng.random(n) < np.where(rich, 0.85, 0.2), "dear", "cheap")
    return pl.DataFrame({"use": use, "senior": senior, "rich": rich, "device": device})


def with_price(plan: Any) -> pl.DataFrame:
    names = pl.Series("plan", list(plan), dtype=pl.String)
    return pl.DataFrame({"plan": names, "price": names.replace_strict(PRICES, return_dtype=pl.Float64)})


def by_use(rows: pl.DataFrame) -> pl.DataFrame:
    return with_price(np.where(rows["use"].to_numpy() > 10, "pro", "basic"))


def by_device(rows: pl.DataFrame) -> pl.DataFrame:
    return with_price(np.where((rows["use"].to_numpy() > 10) | (rows["device"] == "dear").to_numpy(), "pro", "basic"))


def judged(
    policy: Any, rows: pl.DataFrame, attributes: tuple[str, ...] = ("device", "senior", "rich")
) -> dict[str, Any]:
    use = rows["use"].to_numpy().astype(float)
    return audit(
        policy,
        rows,
        use[:, None],
        attributes=attributes,
        audit_only=("senior", "rich"),
        prices=PRICES,
        supported=np.where(use > 10, 29.0, 9.0),
    )


def test_advice_by_use_passes_though_use_goes_with_an_attribute() -> None:
    found = judged(by_use, people())
    assert found["findings"] == []
    assert [one["changed"] for one in found["swap"]] == [0, 0, 0, 0]
    assert found["swap"][0]["exchanged"] > 500
    senior, rich = found["proxy"]
    assert senior["bits"] > 0.1 and senior["p"] == 0.001  # told, and explained by use
    assert senior["p_beyond_use"] > 0.05 and rich["p"] > 0.05


def test_advice_by_a_proxy_of_income_is_caught_by_every_test() -> None:
    found = judged(by_device, people(seed=1))
    device, senior, rich, together = found["swap"]
    assert device["changed"] == together["changed"] > 300 and senior["changed"] == rich["changed"] == 0
    assert found["same_use"]["differ"] > 0
    assert found["prices"]["dearer_than_use"] > 300 and found["prices"]["off_the_list"] == 0
    assert {one["attribute"]: one["finding"] for one in found["proxy"]} == {"senior": False, "rich": True}
    assert len(found["findings"]) == 4


def test_a_proxy_that_the_audit_does_not_know_of_is_caught_by_what_it_tells() -> None:
    found = judged(by_device, people(), attributes=("senior", "rich"))
    assert [one["changed"] for one in found["swap"]] == [0, 0, 0]
    assert any("advice tells rich beyond what use does" in one for one in found["findings"])


def test_people_of_one_use_on_other_plans_are_no_twins() -> None:
    rows = people().with_columns(plan=pl.Series(["pro", None] * (people().height // 2)))

    def keeps(given: pl.DataFrame) -> pl.DataFrame:
        return with_price(given["plan"].fill_null("basic").to_numpy())

    use = np.ones((rows.height, 1))
    told = {"attributes": ["device"], "prices": PRICES, "supported": np.full(rows.height, 29.0)}
    assert audit(keeps, rows, use, same=["plan"], **told)["same_use"] == {"groups": 2, "differ": 0}
    assert audit(keeps, rows, use, **told)["same_use"] == {"groups": 1, "differ": 1}


def test_prices_of_single_people_are_caught() -> None:
    def priced(rows: pl.DataFrame) -> pl.DataFrame:
        dearer = pl.col("price") + pl.when(rows["device"] == "dear").then(1.0).otherwise(0.0)
        return by_use(rows).with_columns(price=dearer)

    found = judged(priced, people())
    assert found["prices"]["off_the_list"] > 500 and found["swap"][0]["changed"] > 500


@pytest.mark.slow
def test_fair_advice_rarely_has_a_finding() -> None:
    found = [one["p_beyond_use"] for seed in range(12) for one in judged(by_use, people(600, seed))["proxy"]]
    assert sum(p <= 0.01 for p in found) <= 1 and np.mean(found) > 0.3


def test_the_information_is_that_of_another_library() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, 400)
    advice = (values + rng.integers(0, 2, 400)) % 3
    bits, p = _information(values, advice, 0)
    assert bits == pytest.approx(mutual_info_score(values, advice) / np.log(2), abs=1e-6)
    assert p == 0.001 and _information(values, rng.integers(0, 3, 400), 0)[1] > 0.01


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """160 people on three plans who use what they use, a dearer device going with nothing."""
    home = workspace(tmp_path_factory.mktemp("audit") / "w", SETTINGS, [])
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for k in range(160):
        who = {"user_id": f"u{k:03d}", "device": ("mobile", "desktop")[k % 2], "country": ("DE", "FR")[k // 2 % 2]}
        heavy, editing = rng.random(2) < 0.5
        rows.append(who | {"event_type": "page_view", "timestamp": NOW - timedelta(days=91)})
        rows.append(who | {"event_type": "page_view", "timestamp": NOW})
        for month in range(3):
            at = NOW - timedelta(days=30 * month + 4)
            rows += [who | {"event_type": "api_call", "timestamp": at}] * (int(rng.poisson(150)) if heavy else 3)
            rows += [who | {"event_type": "feature_use", "target": "editor", "timestamp": at}] * (4 * int(editing))
    add(home, rows)
    sync(home)
    said = [{"user_id": f"u{k:03d}", "account_id": f"a{k}", "role": ("admin", "dev")[k % 2]} for k in range(160)]
    say(home, "users", [row | {"props": json.dumps({"age": 20 + k % 50})} for k, row in enumerate(said)])
    plans = ("basic", "team", "api", "all")
    say(home, "accounts", [{"account_id": f"a{k}", "plan": plans[k % 4], "industry": "xyz"[k % 3]} for k in range(160)])
    return open_home(home.root)


def test_our_advice_passes_its_audit(served: Home) -> None:
    home = served
    told = pl.DataFrame({"user_id": [f"u{k:03d}" for k in range(160)], "gender": ["f", "m", "x"] * 53 + ["f"]})
    surface = surface_of(home, "plans")
    object.__setattr__(surface, "options", {**surface.options, "audit_only": ("age",)})
    found = audit_surface(home, surface, at=NOW, attributes=told)
    assert found["findings"] == [] and found["advised"] > 100
    assert {name for one in found["swap"] for name in one["attributes"]} >= {
        "device", "country", "industry", "size", "role", "gender", "age",
    }  # fmt: skip
    assert {one["changed"] for one in found["swap"]} == {0}
    assert {one["attribute"] for one in found["proxy"]} == {"gender", "age"}


def test_the_command_writes_the_report_and_fails_on_a_finding(
    served: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("user_id,wealth\n" + "".join(f"u{k:03d},{'ab'[k % 2]}\n" for k in range(160)))
    words = ["decide", "plans", "--audit", "--attributes", str(file), "--workspace", str(served.root)]
    assert run(words) == 0
    assert "Nothing was found." in capsys.readouterr().out
    (folder,) = served.path("reports").iterdir()
    assert json.loads((folder / "audit.json").read_text())["findings"] == []
    page = (folder / "index.html").read_text()
    assert "Exchanged attributes" in page and "wealth" in page and "u001" not in page

    from persona_cli.serving.surfaces import plan_audit

    right = plan_audit.decide

    def wrong(home: Home, surface: Any, asked: Any, explain: bool = False) -> pl.DataFrame:
        made = right(home, surface, asked, explain)
        dear = asked.rows["device"] == "mobile"
        led = pl.when(dear).then(pl.col("choice").struct.with_fields(plan=pl.lit("all"), price=pl.lit(99.0)))
        return made.with_columns(choice=led.otherwise("choice"))

    monkeypatch.setattr(plan_audit, "decide", wrong)
    assert run(words) == 10
    said = " ".join(capsys.readouterr().err.split())
    assert "the advice of plans is not fair" in said and "decisions change when device is exchanged" in said
    assert "dearer plan than their use supports" in said
    assert len(list(served.path("reports").iterdir())) == 2


def test_mistakes_are_named(served: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(served.root)]
    assert run(["decide", "plans", "--attributes", "x.csv", *where]) == 2
    assert run(["decide", "plans", "--audit", "--dry-run", *where]) == 2
    assert run(["decide", "plans", "--audit", "--attributes", str(tmp_path / "none.csv"), *where]) == 66
    capsys.readouterr()
    file = tmp_path / "bad.csv"
    file.write_text("id,age\n1,2\n")
    with pytest.raises(BadData, match="has id, age; expected user_id and the attributes"):
        read_attributes(file)
    home = workspace(tmp_path / "w", '[surface.x]\nkind = "content"\n', [{"user_id": "u", "timestamp": START}])
    with pytest.raises(UsageError, match="x is of kind content"):
        audit_surface(home, surface_of(home, "x"), at=NOW)
