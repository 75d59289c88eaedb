from __future__ import annotations

import numpy as np
import polars as pl
from histories import DEFAULTS, Entry, entries, history, matrix
from hypothesis import given

from persona_cli.models.interactions import interactions, rows_for, seen_for

NO_FADING = DEFAULTS.with_flags({"signals.half_life_days": 0})


def test_strengths_fade_from_the_users_own_last_day() -> None:
    # u0: i0 90 days before i1, half-life 180; u1's day is long before: nothing fades for a single day.
    made = matrix([(0, 0, 0, 2000, False), (0, 1, 90, 1000, False), (1, 0, 0, 2000, False)])
    assert made.users.to_list() == ["u0", "u1"]
    assert made.items.to_list() == ["i0", "i1"]
    assert made.strengths.dtype == np.float32
    assert np.allclose(made.strengths.toarray(), [[2 * 0.5**0.5, 1], [2, 0]])
    assert made.events.tolist() == [2, 1]


def test_days_add_up_before_the_sign_decides() -> None:
    made = matrix([(0, 0, 0, 3000, False), (0, 0, 0, -1000, False), (0, 1, 0, -1000, False)], NO_FADING)
    assert made.strengths.toarray().tolist() == [[2, 0]]
    assert made.strengths.nnz == 1
    # The disliked item was still consumed, and both are events.
    assert made.seen.toarray().tolist() == [[True, True]]
    assert made.events.tolist() == [3]


def test_never_hides_an_item_and_takes_its_strength() -> None:
    made = matrix([(0, 0, 0, 5000, False), (0, 0, 1, 0, True), (0, 1, 0, 1000, False)])
    assert made.strengths.toarray()[0, 0] == 0
    assert made.seen.toarray().tolist() == [[True, True]]


def test_what_is_not_consumed_is_not_seen() -> None:
    rows = history([(0, 0, 0, 1000, False), (0, 1, 0, 0, True)]).with_columns(consumed=pl.lit(0, pl.Int32))
    made = interactions(rows, DEFAULTS)
    assert made.seen.toarray().tolist() == [[False, True]]
    assert seen_for(made, pl.Series(["i1", "other"])).toarray().tolist() == [[True, False]]


def test_a_given_vocabulary_drops_other_items_but_counts_their_events() -> None:
    made = interactions(
        history([(0, 0, 0, 1000, False), (0, 5, 0, 1000, False)]), DEFAULTS, items=pl.Series(["i5", "a"])
    )
    assert made.items.to_list() == ["a", "i5"]
    assert made.strengths.toarray().tolist() == [[0, 1]]
    assert made.events.tolist() == [2]


def test_rows_for_a_model_are_clipped_and_re_indexed() -> None:
    made = matrix([(0, 0, 0, 5000, False), (0, 1, 0, 300, False), (1, 2, 0, 1000, False)])
    rows = rows_for(made, pl.Series(["a", "i0", "i1", "z"]), DEFAULTS)
    assert np.allclose(rows.toarray(), [[0, 1, 0.3, 0], [0, 0, 0, 0]])
    assert rows.dtype == np.float32


def test_nobody() -> None:
    made = matrix([])
    assert made.strengths.shape == made.seen.shape == (0, 0)
    assert rows_for(made, pl.Series(["a"]), DEFAULTS).shape == (0, 1)


@given(entries())
def test_a_users_row_depends_on_that_user_alone(rows: list[Entry]) -> None:
    whole = matrix(rows)
    for user in {row[0] for row in rows}:
        alone = interactions(history([row for row in rows if row[0] == user]), DEFAULTS, items=whole.items)
        place = whole.users.to_list().index(f"u{user}")
        assert (whole.strengths[[place]].toarray() == alone.strengths.toarray()).all()
        assert (whole.seen[[place]].toarray() == alone.seen.toarray()).all()
        assert whole.events[place] == alone.events[0]
