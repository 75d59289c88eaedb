"""Ratings as declared steps, and as distances from the user's own mean.

    python benchmarks/ratings.py

The last 20 % of each user's ratings of ml-latest-small and ml-100k are asked for; right are ratings of 3 and more that
are new to the user, for every row alike. A user's mean is that of the ratings before the cut. Models are at their
settings by rule. Prints a table for each set in Markdown: NDCG@20 with its 95 % interval. The sets are looked for as
convert.py does.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
from convert import source

from persona_cli.evaluation import exams
from persona_cli.evaluation.contenders import recipes
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import mean_interval
from persona_cli.evaluation.metrics import per_user
from persona_cli.evaluation.sitting import sit
from persona_cli.profiles.signals import with_signals
from persona_cli.workspace.home import create

MODELS, K = ("knn", "ease", "spectral"), 20
Strength = Callable[[pl.Expr, pl.Expr], pl.Expr | None]
ROWS: dict[str, Strength] = {
    "steps, as declared": lambda value, mean: None,
    "2 (rating - mean)": lambda value, mean: 2 * (value - mean),
    "1 + rating - mean": lambda value, mean: 1 + value - mean,
    "every rating 1": lambda value, mean: pl.lit(1.0),
}


def ratings(name: str) -> pl.LazyFrame:
    raw = pl.scan_parquet(source() / name / "events.parquet")
    nothing = {column: pl.lit(None, dtype=pl.String) for column in ("device", "country", "query")}
    return raw.select(
        pl.col("user").cast(pl.String).alias("user_id"),
        pl.col("item").cast(pl.String).alias("item_id"),
        pl.from_epoch("timestamp", "s").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        pl.lit("rating").alias("event_type"),
        pl.col("rating").cast(pl.Float64).alias("value"),
        position=pl.lit(None, dtype=pl.Int64),
        **nothing,
    )


def felt(exam: Exam, strength: Strength) -> Exam:
    """The exam with other strengths in what is learned from and known."""
    value, mean = pl.col("value"), pl.col("value").mean().over("user_id")
    made = strength(value, mean)
    if made is None:
        return exam
    train = exam.train.with_columns(strength=(made * 1000).round().cast(pl.Int64))
    return dataclasses.replace(exam, train=train, known=train)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = create(Path(folder) / "w")
        for name in ("ml-latest-small", "ml-100k"):
            events = with_signals(ratings(name), home.settings).collect()
            exam = exams.by_split(events, "per-user", 0.2)
            assert exam.train.equals(exam.known)
            print(f"\n{name}\n\n| strength | {' | '.join(MODELS)} |\n|---|{'---|' * len(MODELS)}")
            for row, strength in ROWS.items():
                taken = sit(home, recipes(home, MODELS), felt(exam, strength), K, baselines=False)
                cells = []
                for model in MODELS:
                    found = mean_interval(per_user(taken.lists[model], exam.answers, [K])[f"ndcg@{K}"])
                    cells.append(f"{found.value:.4f} ({found.low:.4f}–{found.high:.4f})")
                print(f"| {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
