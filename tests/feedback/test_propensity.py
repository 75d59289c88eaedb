"""Chances of what users will do: on simulated users whose habits are known, and piece by piece against scikit-learn."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from shop import add
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from persona_cli.errors import MissingInput, UsageError
from persona_cli.events.schema import stored_schema
from persona_cli.feedback import propensity as feedback
from persona_cli.feedback.chances import ece, judged
from persona_cli.feedback.propensity import (
    horizon_of,
    load_propensity,
    score_propensity,
    target_of,
    train_propensity,
)
from persona_cli.models.propensity import Calibration, Logistic, logit, sigmoid
from persona_cli.profiles.snapshots import Spec, happened, names_of, snapshot, spec_of, user_events
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, create

CDNOW = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cdnow"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def customers(n: int = 300, days: int = 150, seed: int = 4) -> list[dict[str, Any]]:
    """Subscribers as of a telephone company: each has a rhythm, and some day leaves for good without a word.

    Whoever uses a lot also upgrades, about once a hundred days of use.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        rate = rng.choice([0.06, 0.25, 0.7])  # events a day
        leaves = rng.exponential(140)
        joins = rng.uniform(0, 60)
        for day in range(days):
            if not joins <= day < joins + leaves:
                continue
            for _ in range(rng.poisson(rate)):
                at = START + timedelta(days=day + float(rng.random()))
                kind = "upgrade" if rng.random() < 0.08 * (rate > 0.5) else "call"
                rows.append({"user_id": f"u{number:03d}", "event_type": kind, "timestamp": at, "value": 2.0})
    return rows


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = create(tmp_path_factory.mktemp("phone") / "w")
    add(home, customers())
    return home


@pytest.fixture(scope="module")
def churn(phone: Home) -> feedback.PropensityReport:
    return train_propensity(phone, "churn", 20 * DAY)


def small(tmp_path: Path, rows: list[tuple[str, str, float]]) -> Home:
    """(user, event type, day) of a few users."""
    home = create(tmp_path / "small")
    add(home, [{"user_id": u, "event_type": kind, "timestamp": START + day * DAY} for u, kind, day in rows])
    return home


# What is asked for


def test_who_goes_silent_is_told_from_who_stays(churn: feedback.PropensityReport) -> None:
    test = churn.test
    assert test["auc"] > 0.75
    assert test["log_loss"] < 0.9 * test["log_loss_of_base_rate"]
    assert test["ece"] < 0.1
    assert 0.6 < test["slope"] < 1.6
    assert churn.learned["positives"] >= 20


def test_everyone_has_a_chance_and_strangers_have_none(phone: Home, churn: feedback.PropensityReport) -> None:
    everyone = score_propensity(phone, churn.model)
    assert everyone["score"].is_between(0, 1, closed="none").all()
    assert everyone["user_id"].is_sorted() and everyone.height == user_events(phone)["user_id"].n_unique()
    some = pl.Series("user_id", [everyone["user_id"][3], "stranger", everyone["user_id"][0]])
    asked = score_propensity(phone, "propensity", some)
    assert asked["user_id"].to_list() == some.to_list()
    assert asked["score"].to_list() == [everyone["score"][3], None, everyone["score"][0]]


def test_who_was_just_here_is_less_likely_to_have_left(phone: Home, churn: feedback.PropensityReport) -> None:
    events = user_events(phone)
    last = events.group_by("user_id").agg(pl.col("timestamp").max()).sort("user_id")
    scored = score_propensity(phone, churn.model).join(last, on="user_id")
    end = events["timestamp"].max()
    recent = pl.col("timestamp") > end - 3 * DAY
    silent = pl.col("timestamp") < end - 60 * DAY
    assert scored.filter(recent)["score"].mean() < 0.5 < scored.filter(silent)["score"].mean()


def test_an_event_and_its_absence_add_up_to_one(phone: Home, churn: feedback.PropensityReport) -> None:
    train_propensity(phone, "upgrade", 20 * DAY)
    train_propensity(phone, "none:upgrade", 20 * DAY)
    does = score_propensity(phone, event="upgrade")["score"]
    does_not = score_propensity(phone, event="none:upgrade")["score"]
    assert (does + does_not - 1).abs().max() < 1e-4
    assert load_propensity(phone, event="churn").stated["event"] == "churn"
    with pytest.raises(MissingInput, match="no propensity model is of 'purchase'"):
        load_propensity(phone, event="purchase")


def test_the_same_events_in_another_order_make_the_same_version(tmp_path: Path) -> None:
    rows = customers(150)
    shuffled = [rows[int(at)] for at in np.random.default_rng(0).permutation(len(rows))]
    found = []
    for name, given in (("a", rows), ("b", shuffled)):
        home = create(tmp_path / name)
        add(home, given)
        report = train_propensity(home, "churn", 20 * DAY)
        assert train_propensity(home, "churn", 20 * DAY).model == report.model == "propensity/1"
        folder = home.path("models", "propensity", "1")
        found.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
        assert {path.suffix for path in folder.iterdir()} == {".npy", ".json"}
        for path in folder.glob("*.npy"):
            assert np.load(path, allow_pickle=False).dtype != object
    assert found[0] == found[1]


def test_trained_as_of_a_day_it_knows_nothing_later(phone: Home, tmp_path: Path) -> None:
    cut = START + 120 * DAY
    home = create(tmp_path / "past")
    add(home, [row for row in customers() if row["timestamp"] < cut])
    then = train_propensity(home, "churn", 15 * DAY, as_of=cut)
    now = train_propensity(phone, "churn", 15 * DAY, as_of=cut)
    assert now.test == then.test
    scored = [score_propensity(one, report.model, as_of=cut) for one, report in ((home, then), (phone, now))]
    assert scored[0].equals(scored[1])


# What is refused


def test_too_few_are_counted(phone: Home, tmp_path: Path) -> None:
    home = create(tmp_path / "few")
    extra = [{"user_id": f"u{n:03d}", "event_type": "win", "timestamp": START + (40 + n) * DAY} for n in range(7)]
    add(home, customers(100) + extra)
    with pytest.raises(MissingInput, match=r"win happened to \d users .*\(7 in all, at any time\); 20 are needed"):
        train_propensity(home, "win", 20 * DAY)


def test_the_horizon_must_fit_into_the_past_four_times(phone: Home) -> None:
    with pytest.raises(MissingInput, match=r"span 1\d\d\.\d days; --within 90d needs at least 360d"):
        train_propensity(phone, "churn", 90 * DAY)


def test_an_event_that_is_not_there_is_answered_with_the_nearest(phone: Home) -> None:
    with pytest.raises(UsageError, match="no event has the type 'upgrad'; did you mean 'upgrade'"):
        train_propensity(phone, "upgrad", 20 * DAY)


def test_churn_is_not_guessed_where_it_is_an_event(tmp_path: Path) -> None:
    home = small(tmp_path, [("a", "churn", 0.0), ("a", "call", 50.0)])
    with pytest.raises(UsageError, match="there are events of that name") as refused:
        train_propensity(home, "churn", 5 * DAY)
    assert "event:churn" in str(refused.value.hint)


def test_horizons() -> None:
    assert horizon_of("30d") == 30 * DAY
    assert horizon_of("2w") == 14 * DAY
    assert horizon_of("12h") == DAY / 2
    for wrong in ("", "soon", "-3d", "0d", "d"):
        with pytest.raises(UsageError, match="--within"):
            horizon_of(wrong)


def test_targets() -> None:
    assert target_of("churn") == ("churn", None, True)
    assert target_of("none:*")[1:] == (None, True)
    assert str(target_of("rating>=4").condition) == "rating>=4"
    assert str(target_of("event:churn").condition) == "churn" and not target_of("event:churn").absent
    assert str(target_of("none:buy").condition) == "buy" and target_of("none:buy").absent
    with pytest.raises(UsageError, match="--event"):
        target_of("a and b")


# Snapshots


def test_a_snapshot_by_hand(tmp_path: Path) -> None:
    home = small(
        tmp_path,
        [
            ("a", "call", 1.0),
            ("a", "call", 35.5),
            ("a", "buy", 36.0),
            ("b", "call", 10.0),
            ("b", "buy", 40.0),
            ("c", "call", 41.0),
        ],
    )
    events, at = user_events(home), START + 40 * DAY
    spec = Spec("buy", (7.0, 30.0), ("buy", "call"), {})
    found = snapshot(home, events, spec, at)
    assert found["user_id"].to_list() == ["a", "b"]  # what happens at the moment itself is later
    a = dict(zip(found.columns, found.row(0), strict=True))
    assert np.expm1(a["events_7d"]) == pytest.approx(2)
    assert np.expm1(a["events_all"]) == pytest.approx(3)
    assert np.expm1(a["type=call_30d"]) == pytest.approx(1)
    assert np.expm1(a["days_all"]) == pytest.approx(3)
    assert np.expm1(a["silence"]) == pytest.approx(4)
    assert np.expm1(a["target_silence"]) == pytest.approx(4)
    assert np.expm1(a["tenure"]) == pytest.approx(39)
    assert np.expm1(a["gap"]) == pytest.approx(17.5)  # 35 days between three
    b = dict(zip(found.columns, found.row(1), strict=True))
    assert np.isnan(b["target_silence"]) and np.isnan(b["gap"])
    assert found.columns == ["user_id", *names_of(spec)]


def test_a_snapshot_is_what_would_have_been_made_then(phone: Home) -> None:
    events, at = user_events(phone), START + 80 * DAY
    past = events.filter(pl.col("timestamp") < at)
    spec = spec_of(phone, events, at, 20 * DAY, "upgrade")
    assert spec == spec_of(phone, past, at, 20 * DAY, "upgrade")
    now, then = snapshot(phone, events, spec, at), snapshot(phone, past.sample(fraction=1, shuffle=True), spec, at)
    assert now.equals(then)
    assert Spec.of(spec.said()) == spec


def test_an_account_s_plan_is_that_of_the_day(tmp_path: Path) -> None:
    home = small(tmp_path, [("a", "call", 1.0), ("b", "call", 2.0), ("b", "call", 30.0)])
    for kind, rows in (
        (
            "users",
            [
                {"user_id": "a", "account_id": "x", "valid_from": START},
                {"user_id": "b", "account_id": "y", "valid_from": START},
            ],
        ),
        (
            "accounts",
            [
                {"account_id": "x", "plan": "free", "size": 3, "valid_from": START},
                {"account_id": "x", "plan": "paid", "size": 9, "valid_from": START + 20 * DAY},
                {"account_id": "y", "plan": "paid", "valid_from": START},
            ],
        ),
    ):
        schema = pl.DataFrame(pl.from_arrow(stored_schema(kind).empty_table())).schema
        table = tables.open_or_create(home, kind, stored_schema(kind))
        filled = [dict.fromkeys(schema) | {"ingested_at": START + 99 * DAY} | row for row in rows]
        table.commit([table.write(pl.DataFrame(filled, schema=schema, orient="row"))])
    events = user_events(home)
    spec = spec_of(home, events, START + 10 * DAY, 5 * DAY)
    assert spec.words == {"plan": ("free", "paid")}
    before, after = (snapshot(home, events, spec, START + day * DAY) for day in (10, 25))
    assert before.select("plan=free", "plan=paid").rows() == [(1.0, 0.0), (0.0, 1.0)]
    assert after.select("plan=free", "plan=paid").rows() == [(0.0, 1.0), (0.0, 1.0)]
    assert np.expm1(before["log_size"][0]) == pytest.approx(3) and np.isnan(before["log_size"][1])


def test_what_happened_in_a_span(tmp_path: Path) -> None:
    home = small(tmp_path, [("a", "call", 1.0), ("b", "buy", 2.0), ("b", "buy", 2.5), ("c", "call", 5.0)])
    events, rating = user_events(home), target_of("buy").condition
    assert happened(events, None, START + DAY, START + 5 * DAY).to_list() == ["a", "b"]  # from, and up to but without
    assert happened(events, rating, START, START + 9 * DAY).to_list() == ["b"]
    valued = events.with_columns(value=pl.when(pl.col("user_id") == "a").then(4.0))
    assert happened(valued, target_of("call>=4").condition, START, START + 9 * DAY).to_list() == ["a"]


# The parts, against scikit-learn


def outcomes(n: int = 4000, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw = np.round(rng.normal(-1, 1.5, n), 2)  # with ties
    return raw, rng.random(n) < sigmoid(0.7 * raw + 0.4)


def test_figures_are_scikit_learn_s() -> None:
    raw, did = outcomes()
    chances = sigmoid(raw)
    found = judged(chances, did)
    assert found["auc"] == pytest.approx(roc_auc_score(did, chances), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(did, chances), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(did, chances), abs=1e-12)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(raw[:, None], did)
    assert found["slope"] == pytest.approx(oracle.coef_[0, 0], abs=1e-5)
    assert found["intercept"] == pytest.approx(oracle.intercept_[0], abs=1e-5)
    assert found["base_rate"] == did.mean() and found["users"] == 4000
    one_sided = judged(chances, np.zeros(4000, dtype=bool))
    assert one_sided["auc"] is None and one_sided["positives"] == 0


def test_calibration_error_by_hand() -> None:
    chances = np.repeat([0.2, 0.8], 50)
    did = np.zeros(100, dtype=bool)
    did[:20] = True  # 40 % where 20 % was stated
    did[50:85] = True  # 70 % where 80 % was stated
    assert ece(chances, did) == pytest.approx((0.2 + 0.1) / 2)


def test_few_are_calibrated_by_a_line_and_many_by_steps() -> None:
    raw, did = outcomes()
    few = Calibration.learned(raw[:800], did[:800])
    assert few.kind == "platt"
    many = Calibration.learned(raw, did)
    assert many.kind == "isotonic"
    oracle = IsotonicRegression(out_of_bounds="clip").fit(raw, did).predict(raw)
    assert np.abs(many.chances(raw) - oracle).mean() < 0.02
    for one in (few, many):
        stated = one.chances(np.linspace(-50, 50, 999))
        assert (np.diff(stated) >= 0).all() and stated.min() > 0 and stated.max() < 1
        assert one.chances(raw[:800]).mean() == pytest.approx(did[:800].mean(), abs=0.03)


def test_an_order_that_is_no_better_than_chance_says_the_same_of_everybody() -> None:
    raw, did = outcomes(800)
    same = Calibration.learned(-raw, did).chances(raw)
    assert np.ptp(same) < 1e-9 and same[0] == pytest.approx(did.mean(), abs=0.01)


def test_the_line_is_scikit_learn_s_and_missing_values_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(1500, 3)) * [1, 5, 0.1] + [0, 3, 0]
    did = rng.random(1500) < sigmoid(rows[:, 0] - 0.2 * rows[:, 1])
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(rows, did)
    assert np.abs(Logistic.learned(rows, did, 1).raw(rows) - oracle.decision_function(rows)).max() < 2e-3
    holes = rows.copy()
    holes[did & (rng.random(1500) < 0.8), 2] = np.nan
    told = sigmoid(Logistic.learned(holes, did, 1).raw(holes))
    assert told[np.isnan(holes[:, 2])].min() > did.mean()


def test_trees_are_taken_only_where_they_are_clearly_better() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(3000, 2))
    users = pl.Series([f"u{one:04d}" for one in range(3000)])
    crossed = rng.random(3000) < sigmoid(3 * np.sign(rows[:, 0] * rows[:, 1]))
    straight = rng.random(3000) < sigmoid(rows[:, 0] + rows[:, 1])
    assert feedback._algorithm(feedback._Examples(users, rows, crossed), 1)[0] == "trees"
    assert feedback._algorithm(feedback._Examples(users, rows, straight), 1)[0] == "logistic"


def test_trees_are_kept_as_arrays_too(tmp_path: Path) -> None:
    from persona_cli.models.propensity import Propensity, boosted

    rng = np.random.default_rng(3)
    rows = rng.normal(size=(1000, 2))
    did = rng.random(1000) < sigmoid(3 * np.sign(rows[:, 0] * rows[:, 1]))
    model = Propensity(boosted(rows, did, 1), Calibration.learned(logit(np.where(did, 0.9, 0.1)), did), {"event": "x"})
    model.save(tmp_path)
    loaded = Propensity.load(tmp_path, dict(model.settings()))
    assert np.array_equal(loaded.chances(rows), model.chances(rows))
    assert loaded.settings() == model.settings() and loaded.algorithm == "trees"


@pytest.mark.slow
@pytest.mark.skipif(not CDNOW.exists(), reason="needs cdnow (PERSONA_TEST_DATA=FOLDER)")
def test_customers_of_a_real_shop_who_do_not_come_back(tmp_path: Path) -> None:
    bought = pl.read_parquet(CDNOW / "transactions.parquet")
    noon = pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") + pl.duration(hours=12)
    told = bought.select(
        user_id=pl.col("user").cast(pl.String), event_type=pl.lit("purchase"), timestamp=noon, value="dollars"
    )
    home = create(tmp_path / "w")
    add(home, told.with_row_index("event_id").with_columns(pl.col("event_id").cast(pl.String)).to_dicts())
    test = train_propensity(home, "churn", 90 * DAY).test
    assert test["users"] == 23_570
    assert test["auc"] > 0.82 and test["ece"] < 0.04 and 0.85 < test["slope"] < 1.2
    assert test["log_loss"] < 0.8 * test["log_loss_of_base_rate"]
