"""What resembles the items that a user liked, by their descriptions: an item needs no event for that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import optimize, sparse
from threadpoolctl import threadpool_limits

from persona_cli.errors import BadData, MissingInput
from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.item_features import BLOCKS, Descriptions, Words, described
from persona_cli.models.stored import (
    load_array,
    load_items,
    load_sparse,
    positions,
    save_array,
    save_items,
    save_sparse,
    union,
    with_columns,
)
from persona_cli.models.topk import products
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
# Users of one product: few enough for their profiles to stay in the cache while all items pass.
_BLOCK = 32
# Users whose liked items the weights are learned from, at the most, and at the least.
_ASKED, _FEWEST = 2_000, 20


class Content:
    """Content-based filtering: the cosine between a user's profile and an item, block by block.

        score = Σ_b w_b · cos(Σ_i x_ui v_ib, v_jb),   Σ_b w_b = 1

    b is a kind of description: category, tags, fifth of price, words of title and text (tf-idf), and an embedding where
    the catalogue has one; v_ib is the unit vector of item i in it, x_ui the strength of the history: Rocchio's profile
    (1971) without its negative part. What a user searched for is added to the profile of the words with the weight of
    the mean item; somebody of whom nothing else is known is compared by these words alone. An item without a
    description scores 0.

    "auto" weights follow from what users like together: of up to 2,000 users one liked item is held out, and w is the
    direction that tells it best from the items held out of the others, by its cosines in each block (Fisher's linear
    discriminant, 1936, none of them negative). Those items are as popular as it is, so that taste counts and not
    popularity. Of fewer than 20 users nothing is learned: blocks that say something weigh the same.
    """

    name: ClassVar[str] = "content"
    exact: ClassVar[bool] = False
    reads_queries: ClassVar[bool] = True
    items: pl.Series
    """Items of the catalogue and of the histories, sorted (n_items,)."""
    weights_: dict[str, float]
    """w of each of `BLOCKS`; 0 where nothing is known."""
    descriptions_: Descriptions

    def __init__(
        self,
        category: float | str = "auto",
        tags: float | str = "auto",
        price: float | str = "auto",
        text: float | str = "auto",
        embedding: float | str = "auto",
    ) -> None:
        self.category = category
        self.tags = tags
        self.price = price
        self.text = text
        self.embedding = embedding

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(**{block: settings.number_or_word(f"model.content.{block}") for block in BLOCKS})

    def settings(self) -> Mapping[str, Any]:
        return dict(self.weights_)

    def fit(self, training: Training) -> Self:
        if training.catalogue is None or not training.catalogue.height:
            raise MissingInput(
                "content compares items by their descriptions, and the workspace has no catalogue",
                "persona ingest --kind items FILE",
            )
        matrix = training.interactions
        self.items = union(matrix.items, training.catalogue["item_id"])
        self.descriptions_ = described(training.catalogue, self.items)
        rows = with_columns(matrix.strengths, positions(matrix.items, self.items), len(self.items))
        self.weights_ = self._weights(rows)
        log.debug("content: weights %s", self.weights_)
        return self

    def query(self, texts: pl.Series) -> sparse.csr_array:
        """Texts as unit vectors of the words that items are compared by: (n_texts, n_words)."""
        return self.descriptions_.words.vectors(texts)

    def heard(self, queries: pl.Series) -> NDArray[np.bool_]:
        """Which of the texts (nullable) have a word that items are compared by (n_texts,)."""
        return np.asarray(np.diff(self.query(queries).indptr) > 0)

    def scores(self, histories: Histories) -> Floats:
        weights = np.array([self.weights_[block] for block in BLOCKS])
        profiles = self._profiles(histories.rows, weights, histories.queries)
        scores = _products(profiles, self.descriptions_.vectors)
        if self.weights_["embedding"] > 0:
            scores += _similar(histories.rows, self.descriptions_.embedding, self.weights_["embedding"])
        return scores

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        save_sparse(folder, "vectors", self.descriptions_.vectors)
        save_array(folder, "widths", self.descriptions_.widths)
        save_array(folder, "rarity", self.descriptions_.words.rarity)
        save_array(folder, "embedding", self.descriptions_.embedding)
        words = self.descriptions_.words.names.to_frame("word")
        words.write_parquet(folder / "words.parquet", compression="zstd", compression_level=1)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.weights_ = {block: float(settings[block]) for block in BLOCKS}
        model.items = load_items(folder)
        widths = np.asarray(load_array(folder, "widths"))
        vectors = load_sparse(folder, "vectors", (len(model.items), int(widths.sum())))
        words = Words(_load_words(folder), load_array(folder, "rarity"))
        model.descriptions_ = Descriptions(vectors, widths, words, load_array(folder, "embedding"))
        return model

    def _profiles(
        self, rows: sparse.csr_array, weights: NDArray[np.float64], queries: pl.Series | None = None
    ) -> sparse.csr_array:
        """Vectors of users in all blocks but the embedding, of length w_b in each or 0 (n_users, n_features)."""
        profiles = sparse.csr_array(rows @ self.descriptions_.vectors)
        untold = np.diff(profiles.indptr) == 0  # of whom queries say all
        if queries is not None and queries.null_count() < len(queries):
            profiles = sparse.csr_array(_means(profiles, rows) + self._searched(queries))
        profiles.sort_indices()
        users = np.repeat(np.arange(profiles.shape[0]), np.diff(profiles.indptr))
        places = users * len(BLOCKS) + self.descriptions_.blocks[profiles.indices]  # one a user and block
        squares = np.bincount(places, np.square(profiles.data, dtype=np.float64), profiles.shape[0] * len(BLOCKS))
        lengths = np.sqrt(squares)[places]
        scaled = np.divide(profiles.data, lengths, out=np.zeros(profiles.nnz), where=lengths > 0)
        scaled *= np.where(untold[users], 1.0, weights[self.descriptions_.blocks[profiles.indices]])
        return sparse.csr_array((scaled.astype(np.float32), profiles.indices, profiles.indptr), shape=profiles.shape)

    def _searched(self, queries: pl.Series) -> sparse.csr_array:
        """`query` in the columns of all blocks (n_users, n_features)."""
        found = self.query(queries)
        before = self.descriptions_.vectors.shape[1] - found.shape[1]
        return sparse.csr_array(
            (found.data, found.indices + before, found.indptr), (len(queries), before + found.shape[1])
        )

    def _weights(self, rows: sparse.csr_array) -> dict[str, float]:
        """w of each block; `rows` are the strengths of all users (n_users, n_items)."""
        given = {block: getattr(self, block) for block in BLOCKS}
        there = self.descriptions_.there()
        learned = self._learned(rows, there) if any(isinstance(given[block], str) for block in there) else {}
        weights = {
            block: (learned.get(block, 0.0) if isinstance(value, str) else float(value)) if block in there else 0.0
            for block, value in given.items()
        }
        total = sum(weights.values())
        return {block: weight / total if total else 0.0 for block, weight in weights.items()}

    def _learned(self, rows: sparse.csr_array, there: list[str]) -> dict[str, float]:
        """Weights of the blocks that say something, by how well they tell what a user likes besides; sum 1."""
        asked = np.flatnonzero(np.diff(rows.indptr) >= 2)
        asked = asked[np.linspace(0, len(asked) - 1, min(len(asked), _ASKED)).astype(np.int64)]
        if len(asked) < _FEWEST or len(there) < 2:
            return {block: 1 / len(there) for block in there}
        given, held = _without_one(sparse.csr_array(rows[asked]))
        cosines = []
        for block in there:
            if block == "embedding":
                cosines.append(_similar(given, self.descriptions_.embedding, 1.0, held))
            else:
                alone = np.array([float(one == block) for one in BLOCKS])
                cosines.append(_products(self._profiles(given, alone), self.descriptions_.vectors[held]))
        with threadpool_limits(1):
            weights = discriminant(np.stack(cosines), held)
        return dict(zip(there, weights.tolist(), strict=True))


def discriminant(cosines: Floats, held: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of blocks, none negative, sum 1, from (n_blocks, n_users, n_users): user by item held out of each user.

    The diagonal holds what is to be told from the rest; a user's own item held out of another user too is left out.
    """
    own = held[:, None] == held[None, :]
    right = np.eye(len(held), dtype=bool)
    liked, others = (cosines[:, mask].astype(np.float64) for mask in (right, ~own))  # (n_blocks, n)
    ahead = liked.mean(axis=1) - others.mean(axis=1)
    spread = np.atleast_2d(np.cov(liked)) + np.atleast_2d(np.cov(others))
    spread += np.eye(len(spread)) * (1e-3 * np.trace(spread) / len(spread) + 1e-12)
    # Of wᵀ·spread·w = 1 the w with the most wᵀ·ahead: least squares under w >= 0 in the square root of the spread.
    root = np.linalg.cholesky(spread)
    weights: NDArray[np.float64] = optimize.nnls(root.T, np.linalg.solve(root, ahead))[0]
    return weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))


def _load_words(folder: Path) -> pl.Series:
    path = folder / "words.parquet"
    try:
        return pl.read_parquet(path)["word"]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadData(f"{path} cannot be read ({error})", "persona train --model content") from error


def _without_one(rows: sparse.csr_array) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """The rows (of two entries at least) without one entry each, and the columns of those: the n-th of the n-th row."""
    lengths = np.diff(rows.indptr)
    out = rows.indptr[:-1] + np.arange(len(lengths)) % lengths
    kept = np.ones(rows.nnz, dtype=bool)
    kept[out] = False
    ends = np.concatenate(([0], np.cumsum(lengths - 1)))
    left = sparse.csr_array((rows.data[kept], rows.indices[kept], ends), shape=rows.shape)
    return left, rows.indices[out].astype(np.int64)


def _means(profiles: sparse.csr_array, rows: sparse.csr_array) -> sparse.csr_array:
    """Sums of item vectors divided by the sums of the strengths (n_users, n_features)."""
    sums = np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()
    scale = np.repeat(np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0), np.diff(profiles.indptr))
    values = (profiles.data * scale).astype(np.float32)
    return sparse.csr_array((values, profiles.indices, profiles.indptr), shape=profiles.shape)


def _products(profiles: sparse.csr_array, vectors: sparse.csr_array) -> Floats:
    """profiles vectorsᵀ (n_users, n_items): each item's few features meet the profiles of a block of users at once."""
    made = np.empty((profiles.shape[0], vectors.shape[0]), dtype=np.float32)
    for start in range(0, profiles.shape[0], _BLOCK):
        block = profiles[start : start + _BLOCK].T.toarray()  # (n_features, n_block)
        made[start : start + _BLOCK] = (vectors @ block).T
    return made


def _similar(
    rows: sparse.csr_array, embedding: Floats, weight: float, items: NDArray[np.int64] | None = None
) -> Floats:
    """weight · cosine of each user's summed embedding and each item's, or of those `items` (n_users, n_items)."""
    profiles = (rows @ embedding).astype(np.float32)  # (n_users, n_dimensions)
    lengths = np.sqrt(np.square(profiles, dtype=np.float64).sum(axis=1))
    profiles *= np.divide(weight, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)[:, None]
    return products(profiles, embedding if items is None else embedding[items])
