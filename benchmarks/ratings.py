"""Ratings as declared steps, and as distances from the user's own mean (signals.center_ratings).

    python benchmarks/ratings.py [--sets ml-100k,ml-latest-small] [--split time]

What follows a cut in time is asked for (last fifth of all events; where too few users go on after it, of each user's);
right are ratings of 3 and more that are new to the user, for every row alike. Overall mean, spread and weight are
fitted to what was before the cut. Models are at their settings by rule. Prints a table for each set in Markdown:
NDCG@20 with its 95 % interval, and the paired difference from the steps with its own. The sets are looked for as
convert.py does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import polars as pl
from convert import source

from persona_cli.evaluation import exams
from persona_cli.evaluation.contenders import recipes, sit
from persona_cli.evaluation.intervals import mean_interval, paired_difference
from persona_cli.evaluation.metrics import per_user
from persona_cli.profiles.signal_fit import ALONE, TARGETS, Centring, SignalFit, estimated, publish
from persona_cli.profiles.signals import with_signals
from persona_cli.workspace.home import Home, create, open_home

MODELS, K = ("popular", "knn", "ease"), 20


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


def workspace(folder: str, name: str, centred: bool, how: Centring | None = None) -> Home:
    home = create(Path(folder) / name)
    settings = home.root / "persona.toml"
    settings.write_text(f"signals.center_ratings = {str(centred).lower()}\n")
    if how is not None:
        publish(home, SignalFit(None, "dwell", {}, pl.DataFrame(schema=TARGETS), how._asdict()))
    return open_home(home.root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="ml-100k,ml-latest-small")
    parser.add_argument("--split", default="time", choices=["time", "per-user"])
    options = parser.parse_args()
    for name in options.sets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            plain = workspace(folder, "steps", centred=False)
            events = with_signals(ratings(name), plain.settings).collect()
            exam = exams.by_split(events, options.split, 0.2)
            sums = {"n": pl.len(), "total": pl.col("value").sum(), "squares": (pl.col("value") ** 2).sum()}
            how = estimated(exam.train.group_by("user_id").agg(**sums).sort("user_id")) or ALONE
            rows = {
                "steps, as declared": plain,
                "centred on the user's mean": workspace(folder, "alone", centred=True),
                "the same, as fitted": workspace(folder, "fitted", centred=True, how=how),
            }
            said = f"mean {how.mean:.2f}, spread {how.unit:.2f}, weight {how.weight:.1f} ratings"
            print(f"\n{name}: {exam.headline}; {len(exam.users):,} users asked; {said}\n")
            print(f"| strength | {' | '.join(MODELS)} |\n|---|{'---|' * len(MODELS)}")
            steps: dict[str, pl.Series] = {}
            for row, home in rows.items():
                own = exams.by_split(with_signals(ratings(name), home.settings).collect(), options.split, 0.2)
                assert own.answers.equals(exam.answers)
                taken = sit(home, recipes(home, MODELS), own, K, baselines=False)
                cells = []
                for model in MODELS:
                    values = per_user(taken.lists[model], exam.answers, [K])[f"ndcg@{K}"]
                    found = mean_interval(values)
                    cells.append(f"{found.value:.4f} ({found.low:.4f}–{found.high:.4f})")
                    if model in steps:
                        change = paired_difference(values.to_numpy(), steps[model].to_numpy())
                        cells[-1] += f"; {change[0]:+.4f} ({change[1]:+.4f} to {change[2]:+.4f})"
                    steps.setdefault(model, values)
                print(f"| {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
