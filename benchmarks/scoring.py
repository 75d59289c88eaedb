"""Lists of 20 from `ease`, `knn` and `als` against what scipy, BLAS and implicit take, side by side in one run.

    python benchmarks/scoring.py [--users 20000] [--items 20000] [--history 50] [--models ease,knn] [--repeat 3]
    python benchmarks/scoring.py --models als --users 20000 --items 100000 [--factors 128] [--threads 1]

Both sides score the same users with the same weights on the same machine. persona's side is what `persona recommend`
runs (models.ranking: scores, the user's own items masked, the 20 best with exact ties) and it writes the lists as JSON
lines; the peer is the usual loop over blocks of 1,000 users (product, mask, argpartition, sort) and writes nothing.
`als` stands beside the bare matrix product of the factors, which is the least that any way of scoring takes, and
`implicit`'s recommend with the same items masked; persona also folds every user in from the history, which implicit
does not (it is given the factors of the users, and so is `als, users given`: persona without that step). Histories are
log-normal in length, items Zipf-like (exponent 0.8), weights random: times do not depend on their values. Rounds
alternate; printed are medians, by the clock and of processor time, extrapolated to 200,000 users where fewer are run.
Processor time is the firmer figure on a machine with other work.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.als import Als
from persona_cli.models.base import Histories
from persona_cli.models.ease import STRIP, Ease
from persona_cli.models.knn import Knn
from persona_cli.models.ranking import ranking
from persona_cli.models.topk import products
from persona_cli.workspace.settings import load

K = 20
GOAL_USERS = 200_000


class Audience:
    """An `Asked` of models.ranking: users with these rows, who have seen what they hold."""

    def __init__(self, rows: sparse.csr_array) -> None:
        self.rows = rows
        self.users = pl.Series("user_id", [f"user-{number:07d}" for number in range(rows.shape[0])])
        self.seen = sparse.csr_array((np.ones(rows.nnz, dtype=bool), rows.indices, rows.indptr), shape=rows.shape)

    def histories(self, vocabulary: pl.Series, settings: Any) -> Histories:
        nowhere = {name: pl.Series([None] * len(self.users), dtype=pl.String) for name in ("device", "country")}
        return Histories(self.rows, np.diff(self.rows.indptr).astype(np.int64), pl.DataFrame(nowhere))

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        return self.seen


def histories(n_users: int, n_items: int, mean: float, seed: int = 7) -> sparse.csr_array:
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(np.log(mean) - 0.32, 0.8, n_users), 1, n_items / 4).astype(np.int64)
    popularity = np.arange(1, n_items + 1) ** -0.8
    popularity = random.permutation(popularity / popularity.sum())
    # Items drawn twice by a user count once, so more are drawn than wanted.
    users = np.repeat(np.arange(n_users), np.ceil(lengths * 1.12).astype(np.int64))
    pairs = np.unique(users * n_items + random.choice(n_items, size=len(users), p=popularity))
    rows, columns = pairs // n_items, pairs % n_items
    values = random.random(len(pairs), dtype=np.float32) + np.float32(0.1)
    return sparse.csr_array((values, (rows, columns)), shape=(n_users, n_items))


def ease_weights(n_items: int) -> np.ndarray:
    weights = np.random.default_rng(1).standard_normal((n_items, n_items), dtype=np.float32)
    np.fill_diagonal(weights, 0)
    return weights


def knn_weights(n_items: int, neighbours: int = 200) -> sparse.csr_array:
    random = np.random.default_rng(2)
    columns = np.sort(np.stack([random.choice(n_items, neighbours, replace=False) for _ in range(n_items)]), axis=1)
    ends = np.arange(0, n_items * neighbours + 1, neighbours)
    values = random.random(n_items * neighbours, dtype=np.float32)
    return sparse.csr_array((values, columns.ravel().astype(np.int32), ends), shape=(n_items, n_items))


def model_of(name: str, weights: Any, items: pl.Series) -> Any:
    """A fitted model with these weights."""
    if name == "knn":
        model: Any = Knn()
        model.weights_ = weights
    else:
        model = Ease()
        n = len(items)
        model.strips_ = np.zeros((-(-n // STRIP), n, STRIP), dtype=np.float32)
        for strip, start in zip(model.strips_, range(0, n, STRIP), strict=True):
            stop = min(start + STRIP, n)
            strip[:, : stop - start] = weights[:, start:stop]
    model.items = items
    return model


def persona(model: Any, audience: Audience, out: Path, threads: int = 0) -> list[np.ndarray]:
    found = []
    made = ranking(model, audience, K, load(None, {}).with_flags({"compute.threads": threads}))
    with out.open("wb") as stream:
        for lists in made.blocks:
            n = len(lists.places)
            entries = pl.DataFrame(
                {
                    "item_id": made.vocabulary.gather(lists.places.ravel()),
                    "score": np.round(lists.scores.ravel().astype(np.float64), 4),
                }
            ).to_struct()
            frame = pl.DataFrame(
                {
                    "user_id": audience.users.slice(lists.start, n),
                    "items": entries.reshape((n, lists.places.shape[1])).arr.to_list(),
                }
            )
            frame.write_ndjson(stream)
            found.append(lists.places)
    return found


def peer(weights: Any, audience: Audience) -> list[np.ndarray]:
    found = []
    for start in range(0, audience.rows.shape[0], 1000):
        rows = audience.rows[start : start + 1000]
        scores = rows @ weights
        if sparse.issparse(scores):
            scores = scores.toarray()
        scores[np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), rows.indices] = -np.inf
        best = np.argpartition(scores, scores.shape[1] - K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        found.append(np.take_along_axis(best, order, axis=1))
    return found


class UsersGiven:
    """A model of factors that is told the users' own, so that nothing is folded in: in blocks, in their order."""

    name, exact = "users-given", False

    def __init__(self, items: pl.Series, users: np.ndarray, factors: np.ndarray) -> None:
        self.items, self.users, self.factors = items, users, factors

    def scores(self, histories: Histories) -> np.ndarray:
        chosen = histories.events  # the audience puts each user's number there
        return products(self.users[chosen], self.factors)


class Numbered(Audience):
    """Users who carry their number in place of how many events they have."""

    def histories(self, vocabulary: pl.Series, settings: Any) -> Histories:
        found = super().histories(vocabulary, settings)
        return Histories(found.rows, np.arange(len(self.users)), found.context)


def bare(users: np.ndarray, factors: np.ndarray, block: np.ndarray) -> None:
    """The product alone, block by block into one place that is in memory already."""
    for start in range(0, len(users), len(block)):
        part = users[start : start + len(block)]
        np.matmul(part, factors.T, out=block[: len(part)])


def factor_models(options: argparse.Namespace, audience: Audience, items: pl.Series) -> None:
    """`als` beside the bare product and implicit's recommend."""
    random = np.random.default_rng(4)
    factors = random.standard_normal((options.items, options.factors), dtype=np.float32) / np.float32(10)
    users = random.standard_normal((options.users, options.factors), dtype=np.float32) / np.float32(10)
    als = Als()
    als.items, als.factors_, als.weights_ = items, factors, np.ones(options.items)
    given, numbered = UsersGiven(items, users, factors), Numbered(audience.rows)
    threads = options.threads or 1
    seen = sparse.csr_matrix(audience.rows)
    ids = np.arange(options.users)
    rounds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(threads, user_api="blas"):
        out = Path(folder) / "lists.jsonl"
        block = np.zeros((512, options.items), dtype=np.float32)
        peer = AlternatingLeastSquares(factors=options.factors, num_threads=threads)
        peer.item_factors, peer.user_factors = factors, users
        for _ in range(options.repeat):
            timed(rounds.setdefault("bare product", []), bare, users, factors, block)
            timed(rounds.setdefault("als", []), persona, als, audience, out, threads)
            ours = timed(rounds.setdefault("als, users given", []), persona, given, numbered, out, threads)
            theirs, _ = timed(rounds.setdefault("implicit", []), peer.recommend, ids, seen, K)
    same = np.mean(np.concatenate(ours) == theirs)
    times = GOAL_USERS / options.users
    bare_clock, bare_cpu = np.median(rounds["bare product"], axis=0)
    peer_clock, peer_cpu = np.median(rounds["implicit"], axis=0)
    print(f"{options.factors} factors, {threads} threads; equal places of implicit and als with its users {same:.4%}")
    for name, found in rounds.items():
        clock, cpu = np.median(found, axis=0)
        print(
            f"{name}: {clock:.1f} s ({clock * times:.0f} s for {GOAL_USERS:,} users), {cpu:.1f} CPU-s; of the bare "
            f"product's speed {bare_clock / clock:.2f} (CPU {bare_cpu / cpu:.2f}); of implicit's "
            f"{peer_clock / clock:.2f} (CPU {peer_cpu / cpu:.2f})",
            flush=True,
        )


def timed(into: list[tuple[float, float]], work: Any, *given: Any) -> Any:
    """What `work` answers; its seconds by the clock and of all its threads go to `into`."""
    clock, cpu = time.monotonic(), time.process_time()
    answer = work(*given)
    into.append((time.monotonic() - clock, time.process_time() - cpu))
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--history", type=float, default=50)
    parser.add_argument("--models", default="ease,knn")
    parser.add_argument("--factors", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores; als alone: 1")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    audience = Audience(histories(options.users, options.items, options.history))
    items = pl.Series("item_id", [f"item-{number:06d}" for number in range(options.items)])
    print(f"{options.users:,} users with {audience.rows.nnz / options.users:.1f} items each, {options.items:,} items")
    times = GOAL_USERS / options.users
    for name in options.models.split(","):
        if name == "als":
            factor_models(options, audience, items)
            continue
        weights = (knn_weights if name == "knn" else ease_weights)(options.items)
        model = model_of(name, weights, items)
        rounds: dict[str, list[tuple[float, float]]] = {"persona": [], "peer": []}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.repeat):
                ours = timed(rounds["persona"], persona, model, audience, Path(folder) / "lists.jsonl", options.threads)
                theirs = timed(rounds["peer"], peer, weights, audience)
        same = np.mean(np.concatenate(ours) == np.concatenate(theirs))
        (mine, mine_cpu), (other, other_cpu) = (np.median(rounds[side], axis=0) for side in ("persona", "peer"))
        ratios = sorted(b / a for (a, _), (b, _) in zip(rounds["persona"], rounds["peer"], strict=True))
        print(
            f"{name}: persona {mine:.1f} s, written out ({mine * times:.0f} s for {GOAL_USERS:,} users; {mine_cpu:.1f} "
            f"CPU-s); scipy + argpartition {other:.1f} s ({other * times:.0f} s; {other_cpu:.1f} CPU-s); "
            f"ratio {other / mine:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} by round); equal places {same:.4%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
