"""Several behaviours in one matrix: what carts and favourites add to purchases, at declared and at learned strengths.

    python benchmarks/behaviours.py [--users 10000] [--models knn,spectral] [--half-life 3]

taobao (nine days of a shop: saved, put into the cart, bought) is cut once for all users, before the last fifth of its
events. Wanted are the items that a user buys later and has had nothing to do with before; whoever has one is asked, at
most --users people. Models are at their settings by rule, alone, and filled up by the popular list where they say
nothing. Strengths are learned as `persona strengths --model knn` does it, with as many users asked, on the events
before the cut alone; once from what is declared, and once from a table that has carts and favourites at 0.1.

Prints Markdown: figures are means over users with 95 % intervals; a gain is NDCG@20 less that of all behaviours at
declared strengths without fading, paired by user. Rows that come to the same matrix are fitted once. The set is looked
for as convert.py does, and is not part of the project.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import polars as pl
from convert import source

from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import Interval, mean_interval, paired_difference
from persona_cli.evaluation.judging import asked
from persona_cli.evaluation.metrics import per_user
from persona_cli.feedback import strengths
from persona_cli.feedback.candidates import sampled
from persona_cli.feedback.searching import Past, Point, with_signal
from persona_cli.feedback.targets import Wanted, held_out
from persona_cli.models import kinds
from persona_cli.models.interactions import interactions
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.models.ranking import rank
from persona_cli.profiles.signals import THOUSANDTHS, with_signals
from persona_cli.workspace.settings import Settings, load

NAMES = {"fav": "save", "cart": "add_to_cart", "buy": "purchase"}
FAINT = {"add_to_cart": 0.1, "save": 0.1}
"""Another table to start from."""
TARGET, LATER, K = "purchase", 0.2, 20
Table = Mapping[str, float | str]


def taobao() -> pl.DataFrame:
    """The events with the columns that models read."""
    raw = pl.read_parquet(source() / "taobao" / "events.parquet")
    nothing = {name: pl.lit(None, dtype=pl.String) for name in ("device", "country", "query")}
    return raw.select(
        pl.col("user").cast(pl.String).alias("user_id"),
        pl.col("item").cast(pl.String).alias("item_id"),
        pl.from_epoch("timestamp", "s").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        pl.col("event").replace_strict(NAMES).alias("event_type"),
        value=pl.lit(None, dtype=pl.Float64),
        position=pl.lit(None, dtype=pl.Int64),
        **nothing,
    )


class Future:
    """The later purchases, and models of the time before at any strengths."""

    def __init__(self, exam: Exam, names: tuple[str, ...], settings: Settings) -> None:
        self.exam, self.names, self.settings = exam, names, settings
        self.past = Past(exam, settings, "knn")
        self.found: dict[tuple[str, bytes], pl.DataFrame] = {}

    def figures(self, model: str, table: Table, half_life: float) -> pl.DataFrame:
        """NDCG and recall of each user asked."""
        settings = self.settings.with_flags({"signals.half_life_days": half_life, "signals.strengths": dict(table)})
        point = Point(tuple(round(float(table.get(name, 0)) * THOUSANDTHS) for name in self.names), half_life)
        matrix = interactions(self.past.history_at(point), settings)
        capped = matrix.strengths.data.clip(max=settings.number("model.gram.cap"))
        key = model, b"".join(part.tobytes() for part in (capped, matrix.strengths.indices, matrix.strengths.indptr))
        if key not in self.found:
            events = with_signals(self.exam.train.drop("strength", "never", "consumed").lazy(), settings).collect()
            training = prepared(matrix, events, settings, self.exam.as_of)
            fitted = kinds.unfitted(model, settings).fit(training)
            fill = Popular.from_settings(settings).fit(training)
            lists = rank(fitted, asked(self.exam, matrix), K, settings, fill=fill)
            self.found[key] = per_user(lists, self.exam.answers, [K]).sort("user_id")
        return self.found[key]


def ranged(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.4f} ({interval.low:{sign}.4f} to {interval.high:{sign}.4f})"


def told(table: Table) -> str:
    return ", ".join(f"{name} {table[name]:g}" for name in NAMES.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, help="people asked at most; default: %(default)s")
    parser.add_argument("--models", default="knn,spectral", metavar="NAME,NAME")
    parser.add_argument("--half-life", type=float, default=3.0, help="days, where strengths fade; default: %(default)s")
    options = parser.parse_args()
    began = time.monotonic()
    settings = load(None, {}).with_flags(
        {"train.validation_users": options.users, "evaluate.test_share": LATER, "signals.half_life_days": 0}
    )
    declared = {name: settings.table("signals.strengths")[name] for name in NAMES.values()}
    events, names = with_signal(with_signals(taobao().lazy(), settings).collect(), settings)
    once = settings.with_flags({"train.cuts": 1})
    (exam,) = sampled(held_out(events, Wanted(TARGET, (names.index(TARGET),)), once), options.users)
    print(f"{exam.headline}; {len(exam.users):,} users with a later purchase of something new\n", flush=True)

    before = exam.train.drop("signal", "share", "relevant", "strength", "never", "consumed")
    learned = {}
    for start, stated in (("declared", declared), ("faint", declared | FAINT)):
        by = settings.with_flags({"signals.strengths": stated})
        found = strengths.from_events(with_signals(before.lazy(), by).collect(), by, TARGET)
        learned[start] = {one.event_type: one.learned for one in found.signals}, float(found.half_life.learned)
        gain = "nothing is clearly better" if found.gain is None else f"a gain of {ranged(found.gain, '+')}"
        print(
            f"learned from {told(stated)}: {told(learned[start][0])}, half-life {learned[start][1]:g}; {gain}",
            flush=True,
        )
    rows: list[tuple[str, Table, float]] = [
        ("purchases only", {TARGET: declared[TARGET]}, 0.0),
        ("all, declared", declared, 0.0),
        ("all, learned from these", *learned["declared"]),
        (f"all, declared, half-life {options.half_life:g} days", declared, options.half_life),
        ("all, carts and favourites at 0.1", declared | FAINT, 0.0),
        ("all, learned from these", *learned["faint"]),
    ]
    head = ["model", "behaviours", "strengths", "users", f"NDCG@{K}", f"recall@{K}", "gain"]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    future = Future(exam, names, settings)
    for model in options.models.split(","):
        than = future.figures(model, declared, 0.0)[f"ndcg@{K}"].to_numpy()
        for label, table, half_life in rows:
            each = future.figures(model, table, half_life)
            ndcg, recall = (each[f"{name}@{K}"].to_numpy() for name in ("ndcg", "recall"))
            shown = told({name: table.get(name, 0) for name in NAMES.values()})
            figures = [ranged(mean_interval(ndcg)), ranged(mean_interval(recall))]
            gain = "" if table == declared and not half_life else ranged(paired_difference(ndcg, than), "+")
            print(f"| {' | '.join([model, label, shown, f'{each.height:,}', *figures, gain])} |", flush=True)
    print(f"\n{time.monotonic() - began:,.0f} seconds, {time.process_time():,.0f} of a processor")


if __name__ == "__main__":
    main()
