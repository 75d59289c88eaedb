"""Groups of users: what is known of them at the cut, how each is served, and that small ones are never shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from persona_cli.errors import BadData, UsageError
from persona_cli.evaluation import exams, segments
from persona_cli.evaluation.exams import Exam
from persona_cli.events.schema import Kind, stored_schema
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, create

CUT = datetime(2026, 3, 10, tzinfo=UTC)


def exam(
    known: list[tuple[str, str | None, datetime, str | None, str | None]],
    users: list[str],
    cut: datetime | None = CUT,
    kind: str = "time",
) -> Exam:
    """An exam that asks `users`, of whom (user, item, time, device, country) are known."""
    names = ["user_id", "item_id", "timestamp", "device", "country"]
    types = [pl.String, pl.String, pl.Datetime("us", "UTC"), pl.String, pl.String]
    events = pl.DataFrame(known, schema=dict(zip(names, types, strict=True)), orient="row")
    answers = pl.DataFrame({"user_id": sorted(users), "item_id": ["x"] * len(users)})
    return Exam("", {"kind": kind, "cut": cut}, events, events, answers, CUT, answers)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create(tmp_path / "w")


def write(home: Home, kind: Kind, rows: list[dict[str, Any]]) -> None:
    table = tables.open_or_create(home, kind, stored_schema(kind))
    empty = pl.DataFrame(pl.from_arrow(stored_schema(kind).empty_table()))
    filled = {name: [row.get(name) for row in rows] for name in empty.columns}
    table.commit([table.write(pl.DataFrame(filled, schema=empty.schema))])


def before(days: float) -> datetime:
    return CUT - timedelta(days=days)


def test_attributes_are_what_the_events_and_tables_said_at_the_cut(home: Home) -> None:
    known = [
        *(("ann", f"i{n}", before(40 - n), "desktop", "DE") for n in range(20)),
        ("ann", None, before(8), "mobile", None),  # no item: no evidence, but a device
        *(("bob", f"i{n}", before(2), None, None) for n in range(5)),
        ("cy", "i1", before(400), "tv", "FR"),
        ("other", "i1", before(1), "tv", "FR"),  # not asked about
    ]
    early, late = before(100), CUT + timedelta(days=1)
    write(
        home,
        "users",
        [
            {"user_id": "ann", "role": "member", "country": "AT", "account_id": "a1", "valid_from": early},
            {"user_id": "ann", "role": "owner", "country": "CH", "account_id": "a2", "valid_from": late},
            {"user_id": "bob", "country": "NL", "signed_up": before(10), "account_id": "a2", "valid_from": early},
            {"user_id": "dee", "signed_up": before(3), "valid_from": early},
            {"user_id": "cy", "role": "admin", "ingested_at": late},  # without valid_from: known since it was ingested
        ],
    )
    write(
        home,
        "accounts",
        [
            {"account_id": "a1", "plan": "free", "industry": "retail", "size": 7, "country": "AT", "valid_from": early},
            {"account_id": "a1", "plan": "pro", "size": 8, "valid_from": CUT + timedelta(microseconds=1)},
            {"account_id": "a2", "plan": "team", "valid_from": late},
        ],
    )
    found = segments.attributes(home, exam(known, ["ann", "bob", "cy", "dee", "eve"]), home.settings)
    assert found["user_id"].to_list() == ["ann", "bob", "cy", "dee", "eve"]
    assert found["events"].to_list() == [20, 5, 1, 0, 0]
    assert found["activity"].to_list() == ["heavy", "light", "new", "new", "new"]
    assert found["device"].to_list() == ["mobile", None, "tv", None, None]
    assert found["country"].to_list() == ["DE", "NL", "FR", None, None]  # what events say comes first
    assert found["account_age_days"].to_list() == [40.0, 10.0, 400.0, 3.0, None]
    assert found["account_age"].to_list() == [
        "under 180 days",
        "under 30 days",
        "180 days and more",
        "under 7 days",
        "no history",
    ]
    assert found["cohort"].to_list() == ["2026-01", "2026-03", "2025-02", None, None]
    assert found["last_seen_days"].to_list() == [8.0, 2.0, 400.0, None, None]
    assert found["role"].to_list() == ["member", None, None, None, None]
    assert found["plan"].to_list() == ["free", None, None, None, None]
    assert found["industry"].to_list() == ["retail", None, None, None, None]
    assert found["size"].to_list() == [7, None, None, None, None]
    assert found["account_country"].to_list() == ["AT", None, None, None, None]
    assert "user_id" not in segments.columns(found) and len(segments.columns(found)) == found.width - 1


def test_what_changed_after_the_cut_changes_nothing(home: Home, canonical: Callable[..., pl.DataFrame]) -> None:
    rows = [("u", f"i{n}", float(n)) for n in range(8)] + [("v", "i0", 2.0), ("v", "i9", 9.0)]
    events = canonical(rows, device=["phone"] * 10, country=["DE"] * 10).with_columns(
        strength=pl.lit(1000), never=pl.lit(False), consumed=pl.lit(True)
    )
    first = exams.by_split(events, "time", 0.2)
    assert first.as_of is not None
    write(home, "users", [{"user_id": "v", "role": "member", "valid_from": first.as_of - timedelta(hours=1)}])
    then = segments.attributes(home, first, home.settings)
    write(home, "users", [{"user_id": "v", "role": "owner", "country": "FR", "valid_from": first.as_of + timedelta(1)}])
    later = pl.col("timestamp") >= first.as_of
    changed = events.with_columns(device=pl.when(later).then(pl.lit("tv")).otherwise("device")).reverse()
    again = segments.attributes(home, exams.by_split(changed, "time", 0.2), home.settings)
    assert again.equals(then) and then["role"].drop_nulls().to_list() == ["member"]


def test_with_cuts_of_their_own_ages_end_at_the_last_known_event(home: Home) -> None:
    known = [("u", "i1", before(300), None, None), ("u", "i2", before(290), None, None)]
    found = segments.attributes(None, exam(known, ["u", "v"], cut=None, kind="leave-last"), home.settings)
    assert found["account_age_days"].to_list() == [10.0, None]
    assert found["last_seen_days"].to_list() == [None, None]
    tested = segments.attributes(None, exam(known, ["u", "v"], cut=None, kind="test"), home.settings)
    assert tested["account_age_days"].to_list() == [300.0, None]


def test_without_a_workspace_or_any_history_there_are_no_groups(home: Home) -> None:
    users = [f"u{n:02}" for n in range(50)]
    nothing = segments.attributes(None, exam([], users), home.settings)
    assert nothing["activity"].null_count() == 50 and segments.groups(nothing) == {}
    some = segments.attributes(None, exam([("u00", "i", before(1), None, None)], users), home.settings)
    assert list(segments.groups(some)) == ["activity"]  # one user's age and month are no groups
    bare = pl.DataFrame({"user_id": ["u00"], "item_id": ["i"]})  # no times, no context
    plain = exam([], users)
    bare_exam = Exam("", {"kind": "test"}, bare, bare, plain.answers, CUT, bare)
    assert segments.attributes(None, bare_exam, home.settings)["events"].to_list() == [1] + [0] * 49


def known_of(**labels: list[str | None]) -> pl.DataFrame:
    """Attributes of u0000, u0001 and so on."""
    n = len(next(iter(labels.values())))
    names = [f"u{place:04}" for place in range(n)]
    return pl.DataFrame({"user_id": names, **labels}, schema_overrides=dict.fromkeys(labels, pl.String))


def judged(values: list[float] | np.ndarray[Any, Any], metric: str = "ndcg@20") -> pl.DataFrame:
    return pl.DataFrame({"user_id": [f"u{place:04}" for place in range(len(values))], metric: list(map(float, values))})


def sizes(attributes: pl.DataFrame) -> dict[str, list[tuple[str, int]]]:
    return {name: [(one.name, len(one.rows)) for one in found] for name, found in segments.groups(attributes).items()}


def test_small_groups_are_put_together_and_left_out_where_that_is_too_few() -> None:
    device = ["tv"] * 20 + ["desktop"] * 30 + ["car"] * 19 + ["fridge"] * 1 + [None] * 25
    together = ("others (fewer than 20 each)", 20)
    assert sizes(known_of(device=device)) == {"device": [("desktop", 30), ("tv", 20), ("unknown", 25), together]}
    assert sizes(known_of(device=device[:69])) == {"device": [("desktop", 30), ("tv", 20)]}
    assert sizes(known_of(device=["a"] * 19 + ["b"] * 19)) == {}


def test_the_ten_largest_countries_are_shown_by_name() -> None:
    country = [f"C{n:02}" for n in range(14) for _ in range(20 + n)] + ["tiny"] * 3
    found = sizes(known_of(country=list(country)))["country"]
    assert found == [(f"C{n:02}", 20 + n) for n in range(13, 3, -1)] + [("others", 20 + 21 + 22 + 23 + 3)]


def test_groups_stand_in_their_natural_order() -> None:
    activity = ["light"] * 20 + ["heavy"] * 25 + ["new"] * 30
    assert [name for name, _ in sizes(known_of(activity=list(activity)))["activity"]] == ["new", "light", "heavy"]
    age = [name for name in ("180 days and more", "under 30 days", "no history", "under 7 days") for _ in range(20)]
    assert [name for name, _ in sizes(known_of(account_age=list(age)))["account_age"]] == [
        "under 7 days",
        "under 30 days",
        "180 days and more",
        "no history",
    ]
    months = [f"{2024 + n // 12}-{n % 12 + 1:02}" for n in range(15)]
    cohort = [month for month in months for _ in range(20)] + [None] * 20
    assert sizes(known_of(cohort=cohort))["cohort"] == [
        *((month, 20) for month in months[3:]),
        ("before 2024-04", 60),
        ("no history", 20),
    ]


def test_means_of_groups_are_those_of_their_users() -> None:
    attributes = known_of(device=["tv"] * 20 + ["phone"] * 40 + ["car"] * 3, activity=["new"] * 63)
    values = [0.0] * 10 + [1.0] * 10 + [0.25] * 20 + [0.75] * 20 + [0.9] * 3
    per_user = {
        "ease": judged(values),
        "popular": judged([1.0 - value for value in values]).sample(fraction=1, shuffle=True),
    }
    found = segments.by_segment(per_user, attributes.reverse(), "ndcg@20")
    rows = {(model, row["group"]): row for model, own in found.items() for row in own["device"]}
    assert list(rows) == [("ease", "phone"), ("ease", "tv"), ("popular", "phone"), ("popular", "tv")]
    assert rows["ease", "tv"]["users"] == 20 and rows["ease", "tv"]["value"] == 0.5
    assert rows["ease", "phone"]["users"] == 40 and rows["ease", "phone"]["value"] == 0.5
    assert rows["popular", "tv"]["value"] == pytest.approx(0.5)
    for row in rows.values():
        assert row["low"] < row["value"] < row["high"]
    # 10 of 20 hits: Wilson's interval as published (Newcombe, Statistics in Medicine 1998)
    assert rows["ease", "tv"]["low"] == pytest.approx(0.2993, abs=1e-4)
    assert [row["users"] for row in found["ease"]["activity"]] == [63]


def test_the_group_served_worse_is_found_with_its_difference() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.uniform(0.3, 0.9, 200), rng.uniform(0.0, 0.4, 60), rng.uniform(0.3, 0.9, 15)])
    attributes = known_of(
        device=["phone"] * 200 + ["tv"] * 60 + ["car"] * 15, activity=["new" if n % 2 else "heavy" for n in range(275)]
    )
    by_activity, by_device = segments.served_worse({"ease": judged(values)}, attributes, "ndcg@20", "ease")
    own, rest = values[200:260], np.concatenate([values[:200], values[260:]])
    assert (by_device["segmentation"], by_device["group"], by_device["users"]) == ("device", "tv", 60)
    assert by_device["value"]["value"] == pytest.approx(own.mean())
    assert by_device["rest"] == pytest.approx(rest.mean())  # with the 15 who are not shown
    assert by_device["difference"]["value"] == pytest.approx(own.mean() - rest.mean())
    # Student's pooled test has the larger error here; with the careful degrees of freedom p is no smaller.
    pooled = stats.ttest_ind(own, rest)
    assert by_device["p"] == pytest.approx(2 * stats.t.sf(abs(pooled.statistic), 59))
    assert by_device["difference"]["high"] == pytest.approx(
        own.mean() - rest.mean() + stats.t.ppf(0.975, 59) * (own.mean() - rest.mean()) / pooled.statistic
    )
    assert by_device["worse"] and by_device["looked_at"] == 4 and by_device["p_holm"] >= by_device["p"]
    assert not by_activity["worse"] and by_activity["p_holm"] > 0.05
    (sentence,) = segments.said([by_activity, by_device], "ndcg@20")
    assert sentence.startswith("ease: ndcg@20 of 60 users with device 'tv' is 0.")
    assert "corrected for 4 groups by activity, device" in sentence


def test_a_group_with_no_hit_at_all_is_not_a_finding_where_hits_are_rare() -> None:
    # One in ten has a hit: that none of 20 has is what chance does once in eight times. Welch's test says p = 1e-5.
    values = [0.0] * 20 + [1.0 if n % 10 == 0 else 0.0 for n in range(200)]
    attributes = known_of(device=["tv"] * 20 + ["phone"] * 200)
    assert stats.ttest_ind(values[:20], values[20:], equal_var=False).pvalue < 1e-4
    (found,) = segments.served_worse({"ease": judged(values)}, attributes, "ndcg@20")
    assert found["group"] == "tv" and found["p"] > 0.1 and not found["worse"]
    assert found["difference"]["high"] > 0
    (sentence,) = segments.said([found], "ndcg@20")
    assert sentence == "ease: no group is clearly served worse on ndcg@20; looked at 2 groups by device"


def test_nobody_is_served_worse_where_all_are_served_alike() -> None:
    attributes = known_of(device=["tv"] * 20 + ["phone"] * 30)
    (found,) = segments.served_worse({"ease": judged([0.3] * 50)}, attributes, "ndcg@20")
    assert found["p"] == found["p_holm"] == 1.0 and found["difference"]["value"] == 0.0
    alone = known_of(device=["tv"] * 50)
    assert segments.served_worse({"ease": judged([0.3] * 50)}, alone, "ndcg@20") == []
    assert segments.said([], "ndcg@20") == [
        "no two groups of 20 users or more can be told apart by what is known of them"
    ]


def test_a_group_whose_rest_is_too_small_is_not_set_against_it() -> None:
    attributes = known_of(device=["tv"] * 19 + ["phone"] * 300)
    assert segments.served_worse({"ease": judged(np.linspace(0, 1, 319))}, attributes, "ndcg@20") == []


def test_false_alarms_over_many_groups_stay_under_five_per_cent() -> None:
    """Groups drawn at random: none is served worse, so every finding is false. Sparse values, small groups."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(300):
        n = 400
        values = np.where(rng.random(n) < 0.1, rng.choice([1.0, 0.63, 0.5, 0.3], n), 0.0)
        attributes = known_of(
            device=list(rng.choice(["phone", "desktop", "tv", "car"], n, p=[0.7, 0.18, 0.06, 0.06])),
            country=list(rng.choice([f"C{k}" for k in range(8)], n)),
            activity=list(rng.choice(["new", "light", "heavy"], n, p=[0.85, 0.09, 0.06])),
        )
        alarms += any(row["worse"] for row in segments.served_worse({"m": judged(values)}, attributes, "ndcg@20"))
    assert alarms <= 300 * 0.05


def test_a_slice_gives_every_metric_of_its_users() -> None:
    attributes = known_of(plan=["free"] * 20 + ["pro"] * 10 + [None] * 5).with_columns(
        events=pl.Series(range(35), dtype=pl.Int64)
    )
    frame = judged([n / 35 for n in range(35)]).with_columns(
        pl.lit(1.0).alias("recall@20"), sparse=pl.when(pl.col("ndcg@20") < 0.3).then(0.5)
    )
    found = segments.sliced({"ease": frame}, attributes, ["plan = 'free'", "events >= 10"])
    assert [(one["expression"], one["users"]) for one in found] == [("plan = 'free'", 20), ("events >= 10", 25)]
    metrics = found[0]["models"][0]["metrics"]
    assert found[0]["models"][0]["model"] == "ease" and list(metrics) == ["ndcg@20", "recall@20", "sparse"]
    assert metrics["ndcg@20"]["value"] == pytest.approx(sum(range(20)) / 20 / 35)
    assert metrics["recall@20"]["value"] == 1.0
    assert metrics["sparse"] is None  # 11 users have it
    assert segments.within(attributes, "events < 20").to_list() == [f"u{n:04}" for n in range(20)]


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        (
            "plan = 'pro'",
            "slice \"plan = 'pro'\" holds 10 of the 30 users asked about; figures are shown of 20 or more",
        ),
        ("plan = 'none'", "holds 0 of the 30 users"),
        ("plna = 'pro'", "slice \"plna = 'pro'\": there is no column 'plna'; did you mean 'plan'? (at character 1)"),
        ("user_id = 'u0001'", "there is no column 'user_id'; known: plan"),
        ("plan > 3", "plan is text and is compared with the number 3"),
    ],
)
def test_slices_that_cannot_be_shown_are_refused(expression: str, sentence: str) -> None:
    attributes = known_of(plan=["free"] * 20 + ["pro"] * 10)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        segments.sliced({"ease": judged([0.0] * 30)}, attributes, [expression])


def test_what_does_not_fit_together_is_named() -> None:
    attributes = known_of(device=["tv"] * 40)
    values = judged([0.5] * 40)
    with pytest.raises(UsageError, match="no metric 'ndgc@20' by user; did you mean 'ndcg@20'"):
        segments.by_segment({"ease": values}, attributes, "ndgc@20")
    with pytest.raises(UsageError, match="no model 'eas'; did you mean 'ease'"):
        segments.served_worse({"ease": values}, attributes, "ndcg@20", "eas")
    with pytest.raises(BadData, match="knn was judged on other users"):
        segments.by_segment({"ease": values, "knn": values.head(39)}, attributes, "ndcg@20")


LABELS = st.lists(
    st.tuples(st.none() | st.sampled_from(["a", "b", "c", "others", "unknown"]), st.integers(1, 45)), max_size=8
)


@settings(max_examples=120, deadline=None)
@given(LABELS, LABELS, st.randoms(use_true_random=False))
def test_no_figure_is_of_fewer_people_than_the_smallest_cell(
    devices: list[tuple[str | None, int]], countries: list[tuple[str | None, int]], random: Any
) -> None:
    device = [label for label, n in devices for _ in range(n)]
    country = [label and f"{label}{place}" for place, (label, n) in enumerate(countries * 2) for _ in range(n)]
    n = max(len(device), len(country), 1)
    device += [None] * (n - len(device))
    country += [None] * (n - len(country))
    random.shuffle(country)
    attributes = known_of(device=device, country=country)
    per_user = {"m": judged([random.random() for _ in range(n)])}
    found = segments.by_segment(per_user, attributes, "ndcg@20")["m"]
    for name, rows in found.items():
        assert all(row["users"] >= SMALLEST_CELL for row in rows)
        assert sum(row["users"] for row in rows) <= n
        assert n - sum(row["users"] for row in rows) < SMALLEST_CELL  # nobody else is left out
        assert len({row["group"] for row in rows} - {"others", "unknown", segments.TOO_FEW}) <= segments.LARGEST
        for group in segments.groups(attributes)[name]:
            assert len(set(group.rows.tolist())) == len(group.rows) >= SMALLEST_CELL
    for row in segments.served_worse(per_user, attributes, "ndcg@20"):
        assert row["users"] >= SMALLEST_CELL and n - row["users"] >= SMALLEST_CELL
    shuffled = attributes.sample(fraction=1.0, shuffle=True, seed=random.randrange(1000))
    assert segments.by_segment(per_user, shuffled, "ndcg@20")["m"] == found
