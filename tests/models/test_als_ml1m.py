"""ALS by rule on a published split: every item ranked, training pairs excluded."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from persona_cli.models.als import Als
from persona_cli.models.base import Histories, Interactions, Training
from persona_cli.models.gram import empty
from persona_cli.models.topk import topk

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ml-1m-ultragcn"
K = 20
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "train.parquet").exists(), reason="needs ml-1m-ultragcn (PERSONA_TEST_DATA=FOLDER)"),
]


def test_recall_and_ndcg() -> None:
    train, test = (
        pl.read_parquet(DATA / f"{part}.parquet").select(pl.col("user", "item").cast(pl.String)).unique()
        for part in ("train", "test")
    )
    users, items = (train[name].unique().sort().rename(f"{name}_id") for name in ("user", "item"))
    test = test.filter(pl.col("item").is_in(items.implode()) & pl.col("user").is_in(users.implode()))
    known, wanted = (
        sparse.csr_array(
            (
                np.ones(part.height, np.float32),
                (users.search_sorted(part["user"]).to_numpy(), items.search_sorted(part["item"]).to_numpy()),
            ),
            shape=(len(users), len(items)),
        )
        for part in (train, test)
    )
    events = np.diff(known.indptr).astype(np.int64)
    given = Training(
        Interactions(users, items, known, known.astype(bool), events), empty(), pl.DataFrame(), datetime.now(UTC)
    )
    scores = Als(threads=2).fit(given).scores(Histories(known, events, pl.DataFrame()))
    scores[known.toarray() > 0] = -np.inf
    hits = np.take_along_axis(wanted.toarray() > 0, topk(scores, K)[0], axis=1)
    found = (wanted.toarray() > 0).sum(axis=1)
    judged = found > 0
    discounts = 1 / np.log2(np.arange(2, K + 2))
    gains = (hits * discounts).sum(axis=1)[judged] / np.cumsum(discounts)[np.minimum(found[judged], K) - 1]
    assert (hits.sum(axis=1)[judged] / found[judged]).mean() > 0.28
    assert gains.mean() > 0.265
