"""Lists under rules: how fast they are made beside lists without any, and what each rule costs and buys.

    python benchmarks/rules.py speed [--lists 1000000] [--seconds 120] [--items 20000] [--threads 1]
    python benchmarks/rules.py quality [--sets ml-1m,taobao]

speed    Users with synthetic histories get lists of 20 from `ease` with random weights, as JSON lines, without rules
         and under five: a quota and a minimum of categories, a new item, a pin and an exclusion with conditions. Both
         sides take the same users in turn, 20,000 at a time, until so many lists are made or so many seconds are over.
quality  The exam of `persona evaluate` (cut in time, or per user where there is no time): NDCG@20 of lists without
         rules and under one rule at a time, with what they cover, how far their items differ and how well known they
         are. The shop of taobao has no categories, only when its items first had an event; ml-1m has genres and no
         dates.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import convert
import numpy as np
import polars as pl
import scoring
from scipy import sparse

from persona_cli.evaluation.beyond import beyond
from persona_cli.evaluation.coded import coded_lists, coded_pairs, hits_of
from persona_cli.evaluation.contenders import recipes, sit
from persona_cli.evaluation.exams import by_split
from persona_cli.evaluation.metrics import per_user
from persona_cli.models.base import Interactions
from persona_cli.models.ranking import Ranking, as_frame, ranking
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.permitted import MEASURING
from persona_cli.serving.context import Audience
from persona_cli.serving.recommend import _frames
from persona_cli.serving.rule_items import Catalogue
from persona_cli.serving.rule_settings import CONTEXT_COLUMNS, ITEM_COLUMNS, Rules, rules_of
from persona_cli.serving.rules import Ruling
from persona_cli.serving.writing import write_lines
from persona_cli.workspace.filters import parse
from persona_cli.workspace.home import open_home
from persona_cli.workspace.settings import Settings, load

K = 20
CHUNK = 20_000
NOW = datetime(2026, 3, 1, tzinfo=UTC)
_COLUMNS = {"title": pl.String, "category": pl.String, "tags": pl.List(pl.String), "price": pl.Float64}
_COLUMNS |= {"currency": pl.String, "url": pl.String, "published_at": pl.Datetime("us", "UTC")}
FIVE: dict[str, Any] = {
    "rules.max_per_category": 4,
    "rules.min_categories": 6,
    "rules.new_items.at_least": 1,
    "rules.pin": {"season": {"items": ["item-00007"], "when": "context_device = 'mobile'"}},
    "rules.exclude": {"kinds": {"categories": ["c03"], "when": "not (context_device = 'desktop')"}},
}


def ruled(given: dict[str, Any]) -> Rules:
    found = rules_of(load(None, {}).with_flags(given))
    assert found is not None
    return found


def ruling(rules: Rules, asked: Any, items: pl.DataFrame, moment: datetime) -> Ruling:
    """Rules for these users over a catalogue that lies in memory."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in _COLUMNS.items() if name not in items.columns]
    rows = items.with_columns(missing).with_columns(born=pl.col("published_at"))
    columns: dict[str, pl.DataType | str] = {**ITEM_COLUMNS, **CONTEXT_COLUMNS}
    conditions = {one.key: parse(one.when, columns) for one in rules.named if one.when}
    known = asked.context.rename({"device": "context_device", "country": "context_country"})
    extra = pl.Series("item_id", [], dtype=pl.String)
    return Ruling(rules, asked, Catalogue(rows, moment), conditions, known, known, 1, extra)


def audience(rows: sparse.csr_array, items: pl.Series, first: int) -> Audience:
    n = rows.shape[0]
    users = pl.Series("user_id", [f"user-{first + number:07d}" for number in range(n)])
    seen = sparse.csr_array((np.ones(rows.nnz, dtype=bool), rows.indices, rows.indptr), shape=rows.shape)
    matrix = Interactions(users, items, rows, seen, np.diff(rows.indptr).astype(np.int64))
    device = pl.Series("device", ["mobile", "desktop", None, "tablet"] * (n // 4 + 1)).head(n)
    context = pl.DataFrame([device, pl.Series("country", [None] * n, dtype=pl.String)])
    return Audience(users, matrix, np.arange(n), context, np.zeros(n, dtype=bool))


def written(made: Ranking, users: pl.Series) -> int:
    labels = pl.DataFrame({"user_id": users}).with_columns(
        model=pl.lit("ease/1"),
        base=pl.lit("ease/1"),
        stage=pl.lit("individual"),
        holdout=pl.lit(None, dtype=pl.Boolean),
    )
    stream = io.BytesIO()
    write_lines(_frames(made, labels, None), stream)
    return stream.tell()


def speed(n_lists: int, seconds: float, n_items: int, threads: int) -> None:
    settings: Settings = load(None, {}).with_flags({"compute.threads": threads})
    items = pl.Series("item_id", [f"item-{number:05d}" for number in range(n_items)])
    random = np.random.default_rng(4)
    catalogue = pl.DataFrame(
        {
            "item_id": items,
            "category": [f"c{number:02d}" for number in random.integers(0, 40, n_items)],
            "published_at": [NOW - timedelta(days=int(days)) for days in random.integers(1, 2000, n_items)],
        },
        schema_overrides={"published_at": pl.Datetime("us", "UTC")},
    )
    model, rules = scoring.model_of("ease", scoring.ease_weights(n_items), items), ruled(FIVE)
    rows = scoring.histories(CHUNK, n_items, 50)
    spent, done = {"plain": [0.0, 0.0], "ruled": [0.0, 0.0]}, 0
    began = time.monotonic()
    while done < n_lists and time.monotonic() - began < seconds:
        asked = audience(rows, items, done)
        for name in ("plain", "ruled") if done // CHUNK % 2 else ("ruled", "plain"):
            clock, processor = time.perf_counter(), time.process_time()
            choosing = ruling(rules, asked, catalogue, NOW) if name == "ruled" else None
            written(ranking(model, asked, K, settings, choosing=choosing), asked.users)
            spent[name][0] += time.perf_counter() - clock
            spent[name][1] += time.process_time() - processor
        done += CHUNK
    print(f"{done:,} lists of {K} over {n_items:,} items, {threads} thread(s)")
    print("| lists | lists/s | processor s |\n|---|---|---|")
    for name, (clock, processor) in spent.items():
        print(f"| {name} | {done / clock:,.0f} | {processor:.1f} |")
    ratio, firm = (spent["plain"][part] / spent["ruled"][part] for part in (0, 1))
    print(f"ruled / plain: {ratio:.2f} by the clock, {firm:.2f} by processor time")


GENRES: dict[str, dict[str, Any]] = {
    "max_per_category = 4": {"rules.max_per_category": 4},
    "max_per_tag = 6": {"rules.max_per_tag": 6},
    "min_categories = 6": {"rules.min_categories": 6},
    'rerank = "mmr", 0.3': {"rules.rerank": "mmr", "rules.strength": 0.3},
    'rerank = "calibrated", 0.3': {"rules.rerank": "calibrated", "rules.strength": 0.3},
    "exploration 0.1": {"rules.exploration.share": 0.1},
    "new_items = 1 (never met)": {"rules.new_items.at_least": 1},
}
DATES: dict[str, dict[str, Any]] = {
    "new_items = 1, 1 day": {"rules.new_items.at_least": 1, "rules.new_items.within_days": 1},
    "new_items = 3, 1 day": {"rules.new_items.at_least": 3, "rules.new_items.within_days": 1},
    "fresh 0.25, 3 days": {"rules.fresh.share": 0.25, "rules.fresh.within_days": 3},
    "exploration 0.1": {"rules.exploration.share": 0.1},
    "exploration 0.3": {"rules.exploration.share": 0.3},
}


def persona(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "persona_cli", *words], check=True, stdout=subprocess.DEVNULL)


def quality(name: str, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files, root = convert.convert(name, Path(folder)), str(Path(folder) / "w")
        persona("init", root)
        for kind in ("events", "items"):
            for file in files.glob(f"{kind}.*"):
                persona("ingest", str(file), "-w", root, "--kind", kind)
        home = open_home(Path(root))
        events = signal_events(home, purpose=MEASURING).collect()
        exam = by_split(events, "time", 0.2)
        sitting = sit(home, recipes(home, [model]), exam, K, baselines=False)
        contender = next(one for one in sitting.contenders if one.recipe.label == model)
        popular: Any = next(one.model for one in sitting.contenders if one.recipe.label == "popular")
        first = exam.train.drop_nulls("item_id").group_by("item_id").agg(published_at=pl.col("timestamp").min())
        items, given = first.sort("item_id"), DATES
        if sitting.background.catalogue is not None:
            items, given = sitting.background.catalogue, GENRES
        roster = sitting.roster
        asked = Audience(roster.users, roster.matrix, roster.places, roster.context, np.zeros(len(roster.users), bool))
        print(f"\n{name}: {exam.headline}; {len(roster.users):,} users, {model}")
        print("| rule | NDCG@20 | cost | coverage | diversity | category diversity | novelty | gave way |")
        print("|---|---|---|---|---|---|---|---|")
        base = None
        for label, settings in {"none": None, **given}.items():
            choosing = None if settings is None else ruling(ruled(settings), asked, items, exam.as_of)
            made = ranking(contender.model, roster, K, contender.recipe.settings, fill=popular, choosing=choosing)
            parts, gave, lists = [], 0, 0
            for block in made.blocks:
                parts.append(as_frame(block, made.vocabulary, roster.users))
                lists += len(block.places)
                gave += int(getattr(block, "gave_way", np.zeros((1, 1), bool)).any(axis=1).sum())
            frame = pl.concat(parts)
            ndcg = float(per_user(frame, exam.answers, [K])[f"ndcg@{K}"].mean())  # type: ignore[arg-type]
            wanted = coded_pairs(exam.answers, sitting.background.items)
            coded = coded_lists(frame, wanted.items)
            more = beyond(frame, coded, hits_of(coded, wanted), sitting.background, [K])
            base = base or ndcg

            def shown(metric: str, found: Any = more) -> str:
                key = f"{metric}@{K}"
                value = float(found.per_user[key].mean()) if key in found.per_user else found.whole.get(key)
                return "" if value is None else f"{value:.3f}"

            names = ("coverage", "diversity", "category_diversity", "novelty")
            cells = (f"{ndcg:.4f}", f"{ndcg / base - 1:+.1%}", *(shown(one) for one in names), f"{gave / lists:.1%}")
            print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "quality"))
    parser.add_argument("--lists", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sets", default="ml-1m,taobao")
    given = parser.parse_args()
    if given.part == "speed":
        speed(given.lists, given.seconds, given.items, given.threads)
    else:
        for name in given.sets.split(","):
            quality(name, {"ml-1m": "ease"}.get(name, "knn"))


if __name__ == "__main__":
    main()
