from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from histories import matrix
from scipy import sparse

from persona_cli.models.base import Histories, Training
from persona_cli.models.gram import empty
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import popularity

DAY = date(2026, 3, 1)


Row = tuple[str, date, str | None, str | None, int]


def counts(*rows: Row, as_of: datetime | None = None, people: int = 20) -> Training:
    """n events of each of so many people, who are others in every row."""
    return trained(
        *(
            (f"u{number}-{who}", *row[:4])
            for number, row in enumerate(rows)
            for who in range(people)
            for _ in range(row[4])
        ),
        as_of=as_of,
    )


def trained(
    *rows: tuple[str, str, date, str | None, str | None], as_of: datetime | None = None, **given: pl.Expr
) -> Training:
    """Events, one a row: user, item, day, device, country."""
    schema = {
        "user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "device": pl.String,
        "country": pl.String,
    }  # fmt: skip
    at = [(*row[:2], datetime(row[2].year, row[2].month, row[2].day, 12, tzinfo=UTC), *row[3:]) for row in rows]
    events = pl.DataFrame(at, schema=schema, orient="row").with_columns(
        **{"strength": pl.lit(1000), "never": pl.lit(False), **given}
    )
    moment = as_of or datetime(2026, 3, 2, tzinfo=UTC)
    return Training(matrix([]), empty(), popularity(events), moment, events=events)


def users(*contexts: tuple[str | None, str | None]) -> Histories:
    context = pl.DataFrame(list(contexts), schema={"device": pl.String, "country": pl.String}, orient="row")
    n = len(contexts)
    return Histories(sparse.csr_array((n, 2), dtype=np.float32), np.zeros(n, dtype=np.int64), context)


def test_shares_of_all_events() -> None:
    model = Popular().fit(counts(("b", DAY, None, None, 1), ("a", DAY, "mobile", "DE", 3)))
    assert model.items.to_list() == ["a", "b"]
    assert np.allclose(model.scores(users((None, None))), [[0.75, 0.25]])


def test_events_fade_from_the_moment_of_training() -> None:
    # as_of is exclusive, so the day before it counts in full; 30 days earlier counts half.
    training = counts(("a", date(2026, 1, 30), None, None, 4), ("b", DAY, None, None, 2))
    assert np.allclose(Popular(30).fit(training).scores(users((None, None))), [[0.5, 0.5]])
    assert np.allclose(Popular(0).fit(training).scores(users((None, None))), [[2 / 3, 1 / 3]])


def test_during_a_day_that_day_counts_in_full() -> None:
    training = counts(
        ("a", date(2026, 1, 30), None, None, 4), ("b", DAY, None, None, 2), as_of=datetime(2026, 3, 1, 15, tzinfo=UTC)
    )
    assert np.allclose(Popular(30).fit(training).scores(users((None, None))), [[0.5, 0.5]])


def test_a_context_weighs_by_its_events() -> None:
    # 100 of 200 events on mobile, all of them of a: w = 100 / (100 + 300) = 1/4; overall a 3/4, b 1/4.
    training = counts(("a", DAY, "mobile", None, 4), ("a", DAY, "tv", None, 2), ("b", DAY, "tv", None, 2), people=25)
    model = Popular(0, context_weight=300).fit(training)
    assert np.allclose(model.scores(users(("mobile", None))), [[0.25 + 0.75 * 0.75, 0.75 * 0.25]])
    assert np.allclose(Popular(0, context_weight=0).fit(training).scores(users(("mobile", None))), [[1, 0]])


def test_the_most_specific_known_cell_is_used() -> None:
    rows = [("a", DAY, "mobile", "DE", 1), ("b", DAY, "mobile", "FR", 1), ("c", DAY, "tv", "FR", 1)]
    model = Popular(0, context_weight=0).fit(counts(*rows))
    third, half = 1 / 3, 1 / 2
    wanted = {
        ("mobile", "DE"): [1, 0, 0],
        (None, "FR"): [0, half, half],
        ("mobile", None): [half, half, 0],
        ("tv", "DE"): [1, 0, 0],  # never seen together: the country
        ("tv", "XX"): [0, 0, 1],  # an unknown country: the device
        ("watch", "XX"): [third, third, third],
        (None, None): [third, third, third],
    }
    scores = model.scores(users(*wanted))
    assert scores.dtype == np.float32
    assert np.allclose(scores, list(wanted.values()))


def test_events_without_a_device_still_count_for_the_country() -> None:
    model = Popular(0, context_weight=0).fit(counts(("a", DAY, None, "DE", 3), ("b", DAY, "tv", "DE", 1)))
    assert np.allclose(model.scores(users((None, "DE"), ("tv", "DE"))), [[0.75, 0.25], [0, 1]])


def test_contexts_survive_saving(tmp_path: Path) -> None:
    rows = [("a", DAY, "mobile", "DE", 1), ("b", DAY, "mobile", None, 4), ("c", DAY, "tv", "FR", 1)]
    model = Popular(10, context_weight=2).fit(counts(*rows))
    model.save(tmp_path)
    who = users(("mobile", "DE"), ("tv", None), (None, None))
    assert np.array_equal(Popular.load(tmp_path, model.settings()).scores(who), model.scores(who))


def test_what_fewer_than_twenty_people_did_is_in_no_list_of_a_context() -> None:
    def seen_by(n: int, *more: tuple[str, str, date, str | None, str | None]) -> Popular:
        of_de = [(f"u{who}", "a", DAY, "mobile", "DE") for who in range(n)]
        others = [(f"v{who}", "b", DAY, "mobile", "FR") for who in range(30)]
        return Popular(0, context_weight=0).fit(trained(*of_de, *others, *more))

    twenty = seen_by(20)
    cells = {("mobile", "DE"), ("mobile", "FR"), ("mobile", None), (None, "DE"), (None, "FR")}
    assert set(twenty.cells_.rows()) == cells
    assert np.allclose(twenty.scores(users(("mobile", "DE"), (None, "DE"))), [[1, 0], [1, 0]])
    # One fewer, and what they did is told of the device alone, where 49 are counted; a second event makes no person.
    for model in (seen_by(19), seen_by(19, ("u0", "a", DAY, "mobile", "DE"), ("u0", "b", DAY, "mobile", "DE"))):
        assert set(model.cells_.rows()) == cells - {("mobile", "DE"), (None, "DE")}
        scores = model.scores(users(("mobile", "DE"), (None, "DE"), ("tv", "DE")))
        assert np.allclose(scores[0], model.scores(users(("mobile", None)))[0])
        assert np.allclose(scores[1:], model.overall_), "their country is none of the lists either"


def test_people_of_a_cell_are_those_whose_events_count() -> None:
    rows = [(f"u{who}", "a", DAY, "tv", None) for who in range(25)]
    first = pl.col("user_id").is_in([f"u{who}" for who in range(6)])
    for more in ({"strength": pl.when(first).then(-5).otherwise(1000)}, {"never": first}):
        assert not Popular(0).fit(trained(*rows, **more)).cells_.height
    assert Popular(0).fit(trained(*rows)).cells_.rows() == [("tv", None)]


def test_who_did_nothing_for_long_is_not_hidden_among() -> None:
    old = [(f"u{who}", "a", date(2025, 12, 1), "tv", None) for who in range(40)]
    recent = [(f"v{who}", "b", DAY, "tv", None) for who in range(5)]
    assert Popular(30).fit(trained(*old, *recent)).cells_.rows() == [("tv", None)], "three half-lives: 90 days"
    assert not Popular(29).fit(trained(*old, *recent)).cells_.height
    assert Popular(0).fit(trained(*old, *recent)).cells_.rows() == [("tv", None)]


def test_a_person_less_is_as_if_never_seen_and_the_order_of_events_does_not_matter() -> None:
    rows = [(f"u{who}", "ab"[who % 2], DAY, "tv", "DE") for who in range(20)]
    rows += [(f"v{who}", "a", DAY, "tv", "FR") for who in range(20)]
    gone, mixed = trained(*rows[1:]), trained(*rows[1:][::-1])
    model = Popular().fit(gone)
    assert set(model.cells_.rows()) == {("tv", "FR"), ("tv", None), (None, "FR")}
    whole = trained(*rows)
    assert whole.events is not None
    again = Popular().fit(trained(*rows)).fit(replace(gone, events=whole.events.filter(pl.col("user_id") != "u0")))
    for other in (Popular().fit(mixed), again):
        assert other.cells_.equals(model.cells_) and np.array_equal(other.overall_, model.overall_)
        assert (other.shares_ != model.shares_).nnz == 0


def test_without_single_events_there_are_no_contexts() -> None:
    bare = replace(counts(("a", DAY, "tv", "DE", 3)), events=None)
    assert not Popular().fit(bare).cells_.height


def test_nothing_to_count(tmp_path: Path) -> None:
    model = Popular().fit(counts())
    model.save(tmp_path)
    assert Popular.load(tmp_path, model.settings()).scores(users(("mobile", "DE"))).shape == (1, 0)
