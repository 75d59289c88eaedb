from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
from histories import matrix
from scipy import sparse

from persona_cli.models.base import Histories, Training
from persona_cli.models.gram import empty
from persona_cli.models.popular import Popular

DAY = date(2026, 3, 1)


def counts(*rows: tuple[str, date, str | None, str | None, int], as_of: datetime | None = None) -> Training:
    schema = {"item_id": pl.String, "day": pl.Date, "device": pl.String, "country": pl.String, "n": pl.Int64}
    frame = pl.DataFrame(list(rows), schema=schema, orient="row")
    return Training(matrix([]), empty(), frame, as_of or datetime(2026, 3, 2, tzinfo=UTC))


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
    training = counts(("a", DAY, "mobile", None, 100), ("a", DAY, "tv", None, 50), ("b", DAY, "tv", None, 50))
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


def test_nothing_to_count(tmp_path: Path) -> None:
    model = Popular().fit(counts())
    model.save(tmp_path)
    assert Popular.load(tmp_path, model.settings()).scores(users(("mobile", "DE"))).shape == (1, 0)
