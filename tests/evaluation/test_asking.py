"""Users of an exam as models see them: histories by user, the latest context, and what may not be shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from persona_cli.evaluation import exams
from persona_cli.evaluation.judging import asked
from persona_cli.models.interactions import contexts, interactions
from persona_cli.profiles.history import fold_history, signal_events
from persona_cli.workspace.home import Home

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_contexts_are_of_the_latest_event_that_has_one() -> None:
    rows = [("u", 0, "phone", "DE"), ("u", 2, "tablet", None), ("u", 2, "laptop", None), ("u", 3, None, None)]
    events = pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "timestamp": [START + timedelta(hours=row[1]) for row in rows],
            "device": [row[2] for row in rows],
            "country": pl.Series([row[3] for row in rows], dtype=pl.String),
        }
    )
    found = contexts(events.sample(fraction=1.0, shuffle=True, seed=1), pl.Series(["nobody", "u"]))
    assert found.rows() == [(None, None), ("tablet", "DE")]


def test_users_without_history_have_an_empty_row(ingest: Callable[..., Home]) -> None:
    home = ingest([("a", "x", 0.0), ("a", "y", 1.0), ("c", "x", 2.0), ("c", "z", 3.0)])
    events = signal_events(home).collect()
    pairs = pl.DataFrame({"user_id": ["a", "b", "c"], "item_id": ["z", "x", "y"]})
    exam = exams.by_pairs(events, pairs, "pairs")
    roster = asked(exam, interactions(fold_history(events), home.settings))
    assert roster.users.to_list() == ["a", "b", "c"]
    vocabulary = pl.Series("item_id", ["w", "x", "z"])
    histories = roster.histories(vocabulary, home.settings)
    assert histories.rows.toarray().tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 1]]
    assert histories.events.tolist() == [2, 0, 2]
    assert np.array_equal(roster.excluded(vocabulary).toarray(), histories.rows.toarray() > 0)
