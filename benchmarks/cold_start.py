"""How good lists of new users are after few events: each layer alone, and layered with and without its cohort part.

    python benchmarks/cold_start.py [--sets ml-1m,beauty-bert4rec] [--models spectral,ease,knn] [--users 5000,500]
                                    [--fifth 2] [--tuned] [--choice]

A fifth of the users (by a stable hash) is new: nothing is learned from them. Of these, each is scored from the first
n = 0, 1, 2, 5, 10, 20, 50 events in turn and asked for what the next 20 events are about, by NDCG@10. In ml-1m all have
at least 70 events, so the same people are asked at every n; in the other sets fewer are left the larger n is (there is
no row with fewer than 100), 2,000 at the most. What a layer alone says nothing of is filled by the popular list, as in
serving.

    context     the popular list                 cohort, individual   that model alone
    two parts   layered without a cohort part    three parts          with one; both at their settings by rule
    tuned       with --tuned: one of what `persona train` tries, with or without a cohort part, the same for all n: for
                either half of the users what has the best mean ratio among the other half
    ratio       three parts / best of context, cohort and individual: the aim is 0.98 everywhere in ml-1m

The rule was made with ml-100k, ml-latest-small and the first fifth of ml-1m (--fifth 0); the fifth that is asked by
default, and beauty-bert4rec, took no part in that. In ml-100k and ml-latest-small events are in order of time, those of
one second in order of item. All other settings by rule, one thread; --users are how many of the other users are learned
from at the most. The sets are looked for as convert.py does, and are not part of the project.

--choice asks whether `persona train` takes a cohort part where it should: it compares, beside much else, the beginnings
of users of whom nothing was learned; shown are NDCG@20 over these, by evidence, and what was taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import convert
import numpy as np
import polars as pl

from persona_cli.evaluation.judging import Asked
from persona_cli.evaluation.metrics import per_user
from persona_cli.evaluation.timelines import stable_hashes
from persona_cli.feedback import candidates, choosing
from persona_cli.feedback.candidates import around
from persona_cli.feedback.choosing import EVIDENCE, WITH_COHORT
from persona_cli.models import kinds
from persona_cli.models.base import Model
from persona_cli.models.cohort import Cohort
from persona_cli.models.interactions import contexts, interactions
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.ranking import rank
from persona_cli.models.stored import positions
from persona_cli.profiles.history import fold_history
from persona_cli.workspace.settings import Settings, load

COUNTS, NEXT, FEWEST = (0, 1, 2, 5, 10, 20, 50), 20, 100
START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_ASKED, LEARNED = 2_000, 6_040
AT = 10
USERS = {"ml-1m": (5_000, 500), "beauty-bert4rec": (30_000,), "ml-100k": (750, 250), "ml-latest-small": (480, 200)}
"""Learned from, at the most."""
SINGLE, RULES = ("context", "cohort", "individual"), ("two parts", "three parts")
COLUMNS = (*SINGLE, *RULES, "tuned")


def events_of(name: str) -> pl.DataFrame:
    """Rows as models learn from them, and `place`: which of the user's events it is, from 0."""
    read = pl.read_parquet(convert.source() / name / "events.parquet")
    if "pos" not in read.columns:
        read = read.sort("user", "timestamp", "item").with_columns(pos=pl.int_range(pl.len()).over("user"))
    return read.select(
        user_id=pl.col("user").cast(pl.String),
        item_id=pl.col("item").cast(pl.String),
        timestamp=pl.lit(START) + pl.duration(seconds="pos"),
        event_type=pl.lit("click"),
        value=pl.lit(None, dtype=pl.Float64),
        device=pl.lit(None, dtype=pl.String),
        country=pl.lit(None, dtype=pl.String),
        strength=pl.lit(1000, dtype=pl.Int64),
        never=pl.lit(False),
        consumed=pl.lit(True),
        place=pl.col("pos").cast(pl.Int64),
    )


def divided(events: pl.DataFrame, most: int, fifth: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events of the users to learn from, at most so many, and of the new ones."""
    users = events["user_id"].unique().sort()
    hashes = pl.Series(stable_hashes(users, "layers"))
    new, others = users.filter(hashes % 5 == fifth), users.filter(hashes % 5 != fifth)
    others = others.gather(np.argsort(stable_hashes(others, f"most{fifth}"))[:most])
    return tuple(events.filter(pl.col("user_id").is_in(some.implode())) for some in (others, new))  # type: ignore[return-value]


def asked_after(new: pl.DataFrame, n: int, settings: Settings) -> tuple[Asked, pl.DataFrame]:
    """New users scored from their first n events, and the right answers."""
    known, later = new.filter(pl.col("place") < n), new.filter(pl.col("place").is_between(n, n + NEXT - 1))
    pairs = known.select("user_id", "item_id").unique()
    answers = later.select("user_id", "item_id").unique().join(pairs, on=["user_id", "item_id"], how="anti")
    users = answers["user_id"].unique().sort()
    matrix = interactions(fold_history(known), settings)
    roster = Asked(users, matrix, positions(users, matrix.users), contexts(known, users), pairs)
    return roster, answers.sort("user_id", "item_id")


def rows(
    name: str, models: list[str], most: int, fifth: int, settings: Settings, tune: bool
) -> Iterator[tuple[str, int, int, list[float]]]:
    """Individual model, n, users asked and the figures of COLUMNS."""
    learned, new = divided(events_of(name), most, fifth)
    some = new["user_id"].unique().sort()
    new = new.filter(
        pl.col("user_id").is_in(some.gather(np.argsort(stable_hashes(some, "some"))[:MOST_ASKED]).implode())
    )
    if name == "ml-1m":
        new = new.filter(pl.len().over("user_id") >= max(COUNTS) + NEXT)
    training = prepare(learned.drop("place"), settings, START + timedelta(days=1))
    popular, cohort = Popular.from_settings(settings).fit(training), Cohort.from_settings(settings).fit(training)
    individuals = {one: kinds.unfitted(one, settings).fit(training) for one in models}
    for one, model in individuals.items():
        others = {
            **{f"{value:g}": Layered(popular, model, value).joined() for value in EVIDENCE},
            **{f"{value:g} of 3": Layered(popular, model, value, cohort).joined() for value in WITH_COHORT},
        }
        candidates: dict[str, Model] = {
            "context": popular,
            "cohort": cohort,
            "individual": model,
            "two parts": Layered(popular, model).joined(),
            "three parts": Layered(popular, model, cohort=cohort).joined(),
            **(others if tune else {}),
        }
        found: list[tuple[int, pl.DataFrame]] = []
        for n in COUNTS:
            roster, answers = asked_after(new, n, settings)
            if len(roster.users) < FEWEST:
                break
            values = {"user_id": roster.users}
            for label, candidate in candidates.items():
                fill = popular if label in ("cohort", "individual") else None
                lists = rank(candidate, roster, AT, settings, fill=fill)
                values[label] = per_user(lists, answers, [AT])[f"ndcg@{AT}"]
            half = pl.Series(stable_hashes(roster.users, "halves") % 2).cast(pl.Int8)
            found.append((n, pl.DataFrame(values).with_columns(half=half)))
        if not tune:
            for n, values in found:
                yield one, n, values.height, list(values.select(pl.col(COLUMNS[:-1]).mean()).row(0))
            continue
        tried = [label for label in candidates if label not in (*SINGLE, *RULES)]
        best = {half: tuned_on([values.filter(half=half) for _, values in found], tried) for half in (0, 1)}
        print(f"{name}, {most:,}, {one}: {best[0]} and {best[1]} are best for either half", file=sys.stderr)
        for n, values in found:
            tuned = pl.when(half=0).then(best[1]).otherwise(best[0])
            means = values.with_columns(tuned=tuned).select(pl.col(COLUMNS).mean()).row(0)
            yield one, n, values.height, list(means)


def tuned_on(found: list[pl.DataFrame], tried: list[str]) -> str:
    """What has the best mean ratio to the best single layer over all n."""
    means = [values.select(pl.col(*SINGLE, *tried).mean()).row(0, named=True) for values in found]
    return max(tried, key=lambda label: sum(one[label] / max(one[single] for single in SINGLE) for one in means))


def choices(name: str, models: list[str], settings: Settings) -> Iterator[tuple[str, list[float], str]]:
    """What `persona train` finds around each model: means over beginnings, and what it takes."""
    events = events_of(name).drop("place").with_columns(position=pl.lit(None, pl.Int64), query=pl.lit(None, pl.String))
    users = events["user_id"].unique().sort()
    users = users.gather(np.argsort(stable_hashes(users, "choice"))[:LEARNED])
    events = events.filter(pl.col("user_id").is_in(users.implode()))
    cuts: list[candidates.Judged] = []

    def noted(*words: Any, **named: Any) -> candidates.Judged:
        cuts.append(candidates.judged(*words, **named))
        return cuts[-1]

    choosing.judged = noted
    for one in models:
        cuts.clear()
        choice = choosing.choose(events, settings, [one], tune=True)
        asked = [cut.beginnings for cut in cuts if cut.beginnings is not None]
        labels = (around(one), *(around(one, value, cohort=True) for value in WITH_COHORT))
        means = [
            float(np.mean([frame[label].to_numpy().mean() for frame in asked])) if asked else 0.0 for label in labels
        ]
        yield one, means, choice.served


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="ml-1m,beauty-bert4rec")
    parser.add_argument("--models", default="spectral,ease,knn")
    parser.add_argument("--users", default="")
    parser.add_argument("--fifth", type=int, default=2)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--choice", action="store_true")
    given = parser.parse_args()
    settings = load(None, {}).with_flags({"compute.threads": 1})
    if given.choice:
        print(f"| set | individual | two parts | {' | '.join(f'three, {value:g}' for value in WITH_COHORT)} | taken |")
        print("|---" * (4 + len(WITH_COHORT)) + "|", flush=True)
        for name in given.sets.split(","):
            for model, means, taken in choices(name, given.models.split(","), settings):
                print(f"| {name} | {model} | {' | '.join(f'{one:.4f}' for one in means)} | {taken} |", flush=True)
        return
    columns = COLUMNS if given.tuned else COLUMNS[:-1]
    print(f"| set, users | individual | n | asked | {' | '.join(columns)} | ratio |")
    print("|---" * (5 + len(columns)) + "|", flush=True)
    began, ratios = time.monotonic(), []
    for name in given.sets.split(","):
        # EASE and eigenvectors of 54,000 items: slow
        models = ["knn"] if name == "beauty-bert4rec" else given.models.split(",")
        for most in map(int, given.users.split(",")) if given.users else USERS[name]:
            for model, n, users, figures in rows(name, models, most, given.fifth, settings, given.tuned):
                ratios.append(figures[COLUMNS.index("three parts")] / max(figures[: len(SINGLE)]))
                shown = " | ".join(f"{value:.4f}" for value in figures)
                print(f"| {name}, {most:,} | {model} | {n} | {users:,} | {shown} | {ratios[-1]:.3f} |", flush=True)
    print(f"\nratio: least {min(ratios):.3f}, mean {np.mean(ratios):.3f}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
