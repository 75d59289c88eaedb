"""Items that nobody has touched yet, and users of whom little is known: recall@20 and NDCG@20.

    python benchmarks/cold_items.py [--sets ml-1m,sample] [--only items,lists,users] [--data DIR] [--seed 1]

items   A fifth of the items is hidden from training with all its events. Users who have a training event are scored
        for the hidden items alone, and what they did with those is right. `most popular hidden` ranks by the hidden
        events themselves: what one list for all could reach at most.
lists   As before, and a fifth of the other events is hidden too: how many of the best 20 of all items are hidden ones,
        and what recall of both kinds comes to, without the hidden items and with them.
users   A quarter of the users is left out of training. Of each 5 to 10 first events are known, the next 30 are right.

`sample` is the sample data of the project, `ml-1m` MovieLens 1M without ratings, in the user's own order.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.events.catalogue import described
from persona_cli.models.als import Als
from persona_cli.models.base import Histories, Model, Training
from persona_cli.models.cohort import Cohort
from persona_cli.models.cold import Cold
from persona_cli.models.content import Content
from persona_cli.models.ease import Ease
from persona_cli.models.hybrid import Hybrid
from persona_cli.models.interactions import rows_for
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.spectral import Spectral
from persona_cli.models.stored import pair_matrix, positions, union
from persona_cli.profiles.history import signal_events
from persona_cli.workspace.home import open_home
from persona_cli.workspace.settings import load

K = 20
SETTINGS = load(None, {})
HERE = Path(__file__).parents[1]
Scores = NDArray[np.float32]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Log:
    """Events as models learn from them, and what is known of the items."""

    events: pl.DataFrame
    catalogue: pl.DataFrame
    as_of: datetime

    def training(self, kept: pl.Expr) -> Training:
        return prepare(self.events.filter(kept), SETTINGS, self.as_of, catalogue=self.catalogue)


def movielens(folder: Path) -> Log:
    events = pl.read_parquet(folder / "ml-1m" / "events.parquet").select(
        user_id=pl.col("user").cast(pl.String),
        item_id=pl.col("item").cast(pl.String),
        # All within the last month: nothing has faded.
        timestamp=pl.datetime(2003, 1, 1, time_zone="UTC") + pl.duration(minutes=pl.col("pos")),
        event_type=pl.lit("view"),
        device=pl.lit(None, dtype=pl.String),
        country=pl.lit(None, dtype=pl.String),
        strength=pl.lit(1000, dtype=pl.Int64),
        never=pl.lit(False),
        consumed=pl.lit(True),
    )
    catalogue = pl.read_parquet(folder / "ml-1m" / "items.parquet").select(
        item_id=pl.col("item").cast(pl.String),
        title="title",
        category=pl.lit(None, dtype=pl.String),
        tags=pl.col("genres").str.split("|"),
        text=pl.lit(None, dtype=pl.String),
        price=pl.lit(None, dtype=pl.Float64),
    )
    return Log(events, catalogue.sort("item_id"), datetime(2003, 1, 4, tzinfo=UTC))


def sample(folder: Path) -> Log:
    """The sample data, taken in by a workspace in `folder`."""
    for words in (
        ["init", str(folder)],
        ["ingest", "--kind", "items", str(HERE / "sample_data" / "items.jsonl"), "-w", str(folder)],
        ["ingest", str(HERE / "sample_data" / "events.jsonl.gz"), "-w", str(folder)],
    ):
        subprocess.run([sys.executable, "-m", "persona_cli", *words, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    home = open_home(folder)
    events = signal_events(home).filter(pl.col("item_id").is_not_null() & (pl.col("strength") > 0)).collect()
    catalogue = described(home)
    assert catalogue is not None
    return Log(events, catalogue, datetime.now(UTC))


def told(model: Model, given: Training, users: pl.Series) -> Histories:
    matrix = given.interactions
    places = positions(users, matrix.users)
    nowhere = {name: pl.Series([None] * len(users), dtype=pl.String) for name in ("device", "country")}
    rows = rows_for(matrix, model.items, SETTINGS)[places]
    return Histories(rows, matrix.events[places], pl.DataFrame(nowhere))


def over(scores: Scores, model: Model, items: pl.Series) -> Scores:
    """Scores over other items; -inf for those that the model does not know."""
    places = positions(items, model.items)
    made = np.full((len(scores), len(items)), -np.inf, dtype=np.float32)
    made[:, places >= 0] = scores[:, places[places >= 0]]
    return made


def judged(scores: Scores, truth: Truth) -> tuple[float, float, NDArray[np.int64]]:
    """Recall and NDCG at 20 over users with an answer, and the lists."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    hits = np.take_along_axis(truth, best, axis=1) & (np.take_along_axis(scores, best, axis=1) > -np.inf)
    n = truth.sum(axis=1)
    some = n > 0
    gains = 1 / np.log2(np.arange(2, K + 2))
    ideal = np.cumsum(gains)[np.minimum(n[some], K) - 1]
    return (
        float((hits.sum(axis=1)[some] / n[some]).mean()),
        float(((hits * gains).sum(axis=1)[some] / ideal).mean()),
        best,
    )


def around(model: Model) -> Cold:
    return Cold({model.name: model}, model.name)


def rivals() -> dict[str, Callable[[], Model]]:
    return {
        "content": Content,
        "hybrid": Hybrid,
        "content → als": lambda: around(Als()),
        "content → ease": lambda: around(Ease()),
        "content → spectral": lambda: around(Spectral()),
    }


def hidden_items(log: Log, seed: int) -> pl.Series:
    items = log.events["item_id"].unique().sort()
    chosen = np.random.default_rng(seed).permutation(len(items))[: len(items) // 5]
    return items[np.sort(chosen)]


def cold_items(name: str, log: Log, seed: int) -> None:
    hidden = hidden_items(log, seed)
    new = pl.col("item_id").is_in(hidden.implode())
    given = log.training(~new)
    answers = log.events.filter(new & pl.col("user_id").is_in(given.interactions.users.implode()))
    users = answers["user_id"].unique().sort()
    truth = pair_matrix(answers, users, hidden).toarray()
    chance = np.random.default_rng(seed).random(truth.shape, dtype=np.float32)
    popular = np.tile(truth.sum(axis=0, dtype=np.float32), (len(users), 1))
    made: dict[str, tuple[Scores, float]] = {"random": (chance, 0.0), "most popular hidden": (popular, 0.0)}
    for label, kind in rivals().items():
        began = time.monotonic()
        model = kind().fit(given)
        seconds = time.monotonic() - began
        made[label] = over(model.scores(told(model, given, users)), model, hidden), seconds
    base = judged(chance, truth)[0]
    print(f"\n{name}: {len(users):,} users, {len(hidden):,} hidden items, {int(truth.sum()):,} hidden pairs\n")
    print("| items without events | recall@20 | x random | NDCG@20 | fit, s |\n|---|---|---|---|---|")
    for label, (scores, seconds) in made.items():
        recall, ndcg, _ = judged(scores, truth)
        shown = f"{seconds:.1f}" if seconds else ""
        print(f"| {label} | {recall:.4f} | {recall / base:.1f} | {ndcg:.4f} | {shown} |", flush=True)


def whole_lists(name: str, log: Log, seed: int) -> None:
    hidden = hidden_items(log, seed)
    out = np.random.default_rng(seed + 1).random(log.events.height) < 0.2
    log = Log(log.events.sort("user_id", "item_id", "timestamp").with_columns(out=out), log.catalogue, log.as_of)
    new = pl.col("item_id").is_in(hidden.implode())
    given = log.training(~new & ~pl.col("out"))
    answers = log.events.filter(pl.col("out") & pl.col("user_id").is_in(given.interactions.users.implode()))
    users = answers["user_id"].unique().sort().gather_every(2)
    items = union(given.gram.items, hidden)
    seen = rows_for(given.interactions, items, SETTINGS)[positions(users, given.interactions.users)].toarray() > 0
    truth = pair_matrix(answers, users, items).toarray() & ~seen
    cold = np.isin(items.to_numpy(), hidden.to_numpy())
    share = truth[:, cold].sum() / truth.sum()
    print(f"\n{name}: {len(users):,} users; {cold.mean():.1%} of the items and {share:.1%} of the answers are hidden\n")
    print("| all items | recall@20 without hidden items | with them | hidden items in lists |\n|---|---|---|---|")
    for label, inside in {"als": Als, "ease": Ease, "spectral": Spectral}.items():
        model = around(inside()).fit(given)
        scores = over(model.scores(told(model, given, users)), model, items)
        scores[seen] = -np.inf
        alone = np.where(cold, np.float32(-np.inf), scores)
        recall, _, best = judged(scores, truth)
        print(
            f"| content → {label} | {judged(alone, truth)[0]:.4f} | {recall:.4f} | {cold[best].mean():.1%} |",
            flush=True,
        )


def new_users(name: str, log: Log, seed: int) -> None:
    rng = np.random.default_rng(seed)
    everyone = log.events["user_id"].unique().sort()
    left_out = everyone[np.sort(rng.permutation(len(everyone))[: len(everyone) // 4])]
    known = pl.DataFrame({"user_id": left_out, "known": rng.integers(5, 11, len(left_out))})
    ranked = (
        log.events.sort("timestamp", "item_id")
        .unique(["user_id", "item_id"], keep="first", maintain_order=True)
        .with_columns(place=pl.int_range(pl.len()).over("user_id"))
        .join(known, on="user_id")
    )
    first = ranked.filter(pl.col("place") < pl.col("known"))
    later = ranked.filter((pl.col("place") >= pl.col("known")) & (pl.col("place") < pl.col("known") + 30))
    given = log.training(~pl.col("user_id").is_in(left_out.implode()))
    asked = prepare(first.drop("place", "known"), SETTINGS, log.as_of)
    users = asked.interactions.users.filter(asked.interactions.users.is_in(later["user_id"].unique().implode()))
    print(f"\n{name}: {len(users):,} users with 5 to 10 known events\n")
    print("| users with few events | recall@20 | NDCG@20 | fit, s |\n|---|---|---|---|")
    for kind in (Popular, Cohort, Content, Ease, Spectral):
        began = time.monotonic()
        model = kind().fit(given)
        seconds = time.monotonic() - began
        scores = model.scores(told(model, asked, users)).copy()
        scores[pair_matrix(first, users, model.items).toarray()] = -np.inf
        recall, ndcg, _ = judged(scores, pair_matrix(later, users, model.items).toarray())
        print(f"| {model.name} | {recall:.4f} | {ndcg:.4f} | {seconds:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="ml-1m,sample")
    parser.add_argument("--only", default="items,lists,users")
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    parts = {"items": cold_items, "lists": whole_lists, "users": new_users}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.sets.split(","):
            log = sample(Path(folder) / "workspace") if name == "sample" else movielens(given.data)
            for part in given.only.split(","):
                parts[part](name, log, given.seed)


if __name__ == "__main__":
    main()
