"""The item sums after 1 % new users, and after 1 % of users come back, against summing everybody, in one run.

    python benchmarks/retrain.py [--data gowalla] [--share 0.01] [--repeat 3]

What `persona train` does for the item Gram of a workspace (models.gram_store: read the stored rows, find users whose
rows differ, subtract and add those, write a new version) beside `build_gram` alone, which is the least that summing
everybody takes, and beside the same with everything stored (what a first training does). The data are the pairs of
train.parquet of a set in $PERSONA_TEST_DATA or ../shared/data, or `synthetic`: 200,000 users with 50 of 20,000 items.

    new users    everybody but a share of users is stored; then all are there
    come back    all are stored; then a share of users has one more item each

Results must be equal bit for bit. Medians of the rounds, by the clock and of processor time; the latter is the firmer
figure on a machine with other work.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from convert import source
from scipy import sparse

from persona_cli.models import gram_store
from persona_cli.models.base import Interactions
from persona_cli.models.gram import build_gram
from persona_cli.workspace.home import create


def pairs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of the distinct pairs, as numbers."""
    if name == "synthetic":
        random = np.random.default_rng(7)
        popularity = np.arange(1, 20_001) ** -0.8
        lengths = np.clip(random.lognormal(np.log(50) - 0.32, 0.8, 200_000), 1, 5_000).astype(np.int64)
        users = np.repeat(np.arange(len(lengths)), lengths)
        items = random.choice(len(popularity), size=len(users), p=popularity / popularity.sum())
        keys = np.unique(users * len(popularity) + items)
        return keys // len(popularity), keys % len(popularity)
    frame = pl.read_parquet(source() / name / "train.parquet").select("user", "item").unique().sort("user", "item")
    return (frame[column].rank("dense").to_numpy().astype(np.int64) - 1 for column in ("user", "item"))  # type: ignore[return-value]


def matrix(users: np.ndarray, items: np.ndarray) -> Interactions:
    """Everybody's likes, of strength 1; the vocabularies are those of the pairs."""
    distinct_users, rows = np.unique(users, return_inverse=True)
    distinct_items, columns = np.unique(items, return_inverse=True)
    strengths = sparse.csr_array(
        (np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(distinct_users), len(distinct_items))
    )
    strengths.sort_indices()
    return Interactions(
        pl.Series("user_id", [f"u{n:07d}" for n in distinct_users]),
        pl.Series("item_id", [f"i{n:07d}" for n in distinct_items]),
        strengths,
        strengths.astype(bool),
        np.diff(strengths.indptr).astype(np.int64),
    )


def timed(into: list[tuple[float, float]], work: Callable[..., Any], *given: Any) -> Any:
    """What `work` answers; its seconds by the clock and of all its threads go to `into`."""
    clock, cpu = time.monotonic(), time.process_time()
    answer = work(*given)
    into.append((time.monotonic() - clock, time.process_time() - cpu))
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="gowalla", help="a folder with train.parquet, or synthetic")
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    users, items = pairs(options.data)
    random = np.random.default_rng(3)
    n_users = int(users.max()) + 1
    chosen = np.zeros(n_users, dtype=bool)
    chosen[random.choice(n_users, max(1, round(n_users * options.share)), replace=False)] = True
    whole, before = matrix(users, items), matrix(users[~chosen[users]], items[~chosen[users]])
    back = np.flatnonzero(chosen)
    keys = np.unique(np.concatenate((users, back)) * (items.max() + 1) + np.concatenate((items, back % items.max())))
    later = matrix(keys // (items.max() + 1), keys % (items.max() + 1))
    print(
        f"{options.data}: {n_users:,} users, {len(whole.items):,} items, {whole.strengths.nnz:,} pairs; "
        f"{int(chosen.sum()):,} users are new or come back"
    )
    rounds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repeat):
            home = create(Path(folder) / f"w{number}")
            settings = home.settings
            full = timed(rounds.setdefault("build_gram alone", []), build_gram, whole, settings)
            gram_store.update(home, before, settings)
            new = timed(rounds.setdefault("new users", []), gram_store.update, home, whole, settings)
            again = timed(rounds.setdefault("come back", []), gram_store.update, home, later, settings)
            assert (new.mode, again.mode) == ("updated", "updated"), (new.mode, again.mode)
            assert new.gram.digest() == full.digest() and again.gram.digest() == build_gram(later, settings).digest()
            other = create(Path(folder) / f"x{number}")
            timed(rounds.setdefault("everybody, stored", []), gram_store.update, other, whole, settings)
            for path in (home.root, other.root):
                shutil.rmtree(path)
    medians = {name: np.median(found, axis=0) for name, found in rounds.items()}
    alone, stored = medians["build_gram alone"], medians["everybody, stored"]
    for name, (clock, cpu) in medians.items():
        print(
            f"{name}: {clock:.2f} s, {cpu:.2f} CPU-s; of build_gram alone {clock / alone[0]:.0%} (CPU "
            f"{cpu / alone[1]:.0%}); of everybody, stored {clock / stored[0]:.0%} (CPU {cpu / stored[1]:.0%})"
        )


if __name__ == "__main__":
    main()
