"""Row order and a real log of many equal times: most ratings of MovieLens 100K share a user and a second."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from persona_cli.evaluation import exams, splits
from persona_cli.evaluation.exams import Exam

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ml-100k"
pytestmark = pytest.mark.skipif(
    not (DATA / "events.parquet").exists(), reason="needs ml-100k (PERSONA_TEST_DATA=FOLDER)"
)


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """Rows of `signal_events`, in the order of the file."""
    return pl.read_parquet(DATA / "events.parquet").select(
        user_id=pl.col("user").cast(pl.String),
        item_id=pl.col("item").cast(pl.String),
        timestamp=pl.from_epoch(pl.col("timestamp"), "s").dt.replace_time_zone("UTC").dt.cast_time_unit("us"),
        strength=pl.lit(1000, dtype=pl.Int64),
        never=pl.lit(False),
        consumed=pl.lit(True),
    )


def test_most_rows_share_their_user_and_second(events: pl.DataFrame) -> None:
    shared = pl.len().over("user_id", "timestamp") > 1
    assert events.select(shared.sum()).item() == 75_772


def exams_of(kind: str, events: pl.DataFrame) -> list[Exam]:
    if kind.startswith("rolling "):
        return exams.rolling(events, kind.removeprefix("rolling "), 0.2, 3)
    return [exams.by_split(events, kind, 0.2)]


@pytest.mark.parametrize("kind", [*splits.KINDS, "rolling time", "rolling per-user"])
def test_the_order_of_rows_changes_nothing(kind: str, events: pl.DataFrame) -> None:
    found = exams_of(kind, events)
    for other in (events.reverse(), events.sample(fraction=1.0, shuffle=True, seed=4)):
        for one, two in zip(found, exams_of(kind, other), strict=True):
            assert one.answers.equals(two.answers) and one.exclude.equals(two.exclude)
            assert one.train.sort(pl.all()).equals(two.train.sort(pl.all()))
            assert (one.headline, one.split, one.as_of, one.asked_from) == (
                *(two.headline, two.split),
                *(two.as_of, two.asked_from),
            )
