"""Quality on a real log, against the definitions computed densely in doubles from the raw pairs.

The oracle shares no code with the package: plain loops and numpy, no sparse matrices, no float32. Rows are rounded
down to 2^-16 as the definition of the Gram says; without that a few near-ties swap, and NDCG of knn moves by 2e-6.
"""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_cli.models.base import Histories, Training
from persona_cli.models.ease import AUTO_LAMBDA, Ease
from persona_cli.models.gram import build_gram
from persona_cli.models.interactions import interactions, rows_for
from persona_cli.models.knn import Knn
from persona_cli.models.topk import topk
from persona_cli.workspace.settings import load

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "gowalla"
SETTINGS = load(None, {})
N_ITEMS, K, NEIGHBOURS = 3000, 20, 200
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "train.parquet").exists(), reason="needs gowalla (PERSONA_TEST_DATA=FOLDER)"),
]


@pytest.fixture(scope="module")
def pairs() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Train and test (user, item) of the 3,000 items with the most users in train; ids as text."""
    train, test = (pl.read_parquet(DATA / f"{part}.parquet") for part in ("train", "test"))
    chosen = train.group_by("item").len().sort(["len", "item"], descending=[True, False]).head(N_ITEMS)
    texts = [pl.col(name).cast(pl.String) for name in ("user", "item")]
    known = train.join(chosen, on="item", how="semi").select(texts).unique().sort("user", "item")
    return known, test.join(chosen, on="item", how="semi").select(texts).unique().sort("user", "item")


@pytest.fixture(scope="module")
def dense(pairs: tuple[pl.DataFrame, pl.DataFrame]) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Binary train and test matrices of the users with both (n_users, n_items), all train users' Gram's rows apart."""
    train, test = pairs
    users, items = sorted(set(train["user"])), sorted(set(train["item"]))
    user_at, item_at = {user: n for n, user in enumerate(users)}, {item: n for n, item in enumerate(items)}
    known, truth = np.zeros((len(users), len(items)), dtype=bool), np.zeros((len(users), len(items)), dtype=bool)
    for matrix, frame in ((known, train), (truth, test)):
        for user, item in frame.rows():
            if user in user_at:
                matrix[user_at[user], item_at[item]] = True
    return known, truth, users, items


def gram_of(known: np.ndarray) -> np.ndarray:
    """Σ_u q_u q_uᵀ with q_u = floor(2^16 x_u / √degree_u) / 2^16: exact in doubles, below 2^53 (n_items, n_items)."""
    total = np.zeros((known.shape[1], known.shape[1]))
    for start in range(0, len(known), 4000):
        part = known[start : start + 4000].astype(np.float64)
        scaled = np.floor(65536 * part / np.maximum(part.sum(axis=1, keepdims=True), 1) ** 0.5) / 65536
        total += scaled.T @ scaled
    return total


def quality(scores_of, known: np.ndarray, truth: np.ndarray) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Mean Recall@20 and NDCG@20 over users with something to find, one user at a time."""
    recalls, gains = [], []
    discounts = 1 / np.log2(np.arange(2, K + 2))
    judged = np.flatnonzero(truth.any(axis=1) & known.any(axis=1))
    for start in range(0, len(judged), 2000):
        block = judged[start : start + 2000]
        for user, scores in zip(block, scores_of(block), strict=True):
            scores = np.where(known[user], -np.inf, scores)
            best = np.lexsort((np.arange(len(scores)), -scores))[:K]
            hits = truth[user, best]
            found = int(truth[user].sum())
            recalls.append(hits.sum() / found)
            gains.append((hits * discounts).sum() / discounts[: min(found, K)].sum())
    return float(np.mean(recalls)), float(np.mean(gains))


def oracle(name: str, known: np.ndarray) -> np.ndarray:
    """Item-item weights by the definition, in doubles."""
    gram = gram_of(known)
    if name == "ease":
        inverse = np.linalg.inv(gram + AUTO_LAMBDA * np.diag(gram).mean() * np.eye(len(gram)))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        return weights
    degrees = known.sum(axis=0).astype(np.float64)
    weights = gram * np.outer(degrees**-0.8, degrees**-0.3)
    np.fill_diagonal(weights, 0)
    for row in weights:
        row[np.lexsort((np.arange(len(row)), -row))[NEIGHBOURS:]] = 0
    return weights


def training_of(train: pl.DataFrame) -> Training:
    one = {"strength": pl.lit(1000, pl.Int64)} | {name: pl.lit(1, pl.Int32) for name in ("n", "consumed")}
    history = train.select(
        pl.col("user").alias("user_id"), pl.col("item").alias("item_id"), pl.lit(date(2026, 1, 1)).alias("day")
    ).with_columns(**one, never=pl.lit(0, pl.Int32))
    made = interactions(history, SETTINGS)
    return Training(made, build_gram(made, SETTINGS), pl.DataFrame(), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize("name", ["knn", "ease"])
def test_recall_and_ndcg_equal_a_dense_oracle(name: str, pairs, dense) -> None:  # type: ignore[no-untyped-def]
    known, truth, users, items = dense
    weights = oracle(name, known)
    wanted = quality(lambda block: known[block] @ weights, known, truth)

    training = training_of(pairs[0])
    model = (Knn(NEIGHBOURS) if name == "knn" else Ease()).fit(training)
    assert model.items.to_list() == items
    assert training.interactions.users.to_list() == users
    rows = rows_for(training.interactions, model.items, SETTINGS)
    nowhere = pl.DataFrame({"device": [None] * len(users), "country": [None] * len(users)})
    who = Histories(rows, training.interactions.events, nowhere)
    judged = np.flatnonzero(truth.any(axis=1))
    recalls, gains = [], []
    discounts = 1 / np.log2(np.arange(2, K + 2))
    for start in range(0, len(judged), 2000):
        block = judged[start : start + 2000]
        scores = model.scores(Histories(who.rows[block], who.events[block], who.context[block]))
        scores[known[block]] = -np.inf
        hits = np.take_along_axis(truth[block], topk(scores, K)[0], axis=1)
        found = truth[block].sum(axis=1)
        recalls.append(hits.sum(axis=1) / found)
        gains.append((hits * discounts).sum(axis=1) / np.cumsum(discounts)[np.minimum(found, K) - 1])
    assert np.concatenate(recalls).mean() == pytest.approx(wanted[0], abs=1e-6)
    assert np.concatenate(gains).mean() == pytest.approx(wanted[1], abs=1e-6)
