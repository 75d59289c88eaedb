"""What is known of items: words, descriptions, and features made of them.

Texts as weighted words, in any language: the words of a text, how rare they are, and vectors to compare texts by.

What the catalogue says of items as blocks of unit vectors: category, tags, price, text, embedding.

What the catalogue says of items, as one sparse matrix: categories, tags and bands of price.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.gram import row_sums
from persona_cli.models.stored import positions

LEAST = 2
"""Texts that a word must be in: one that a single text has says nothing of others."""
STOP_SHARE, STOP_LEAST = 0.2, 20
"""A word in more than this share of the texts (and in more than so many) holds sentences together and says little."""
MOST_WORDS = 50_000
"""Words kept at the most: those in the most texts."""

# Scripts that put no space between words: a run of them is read as its pairs of neighbouring characters.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]+|[\p{{L}}\p{{M}}\p{{N}}--[{_UNSPACED}]]+"


@dataclass(frozen=True)
class Words:
    """The words that texts are compared by."""

    names: pl.Series
    """String, sorted (n_words,)."""
    rarity: Floats
    """ln((1 + texts) / (1 + texts with the word)) + 1 (n_words,)."""

    @classmethod
    def of(cls, texts: pl.Series) -> Words:
        """The words of the texts that are to be compared, but those that are too rare or in too many of them."""
        found = _counted(texts)
        n_texts = found["text"].n_unique()
        most = max(STOP_SHARE * n_texts, STOP_LEAST)
        counts = (
            found.group_by("word")
            .agg(texts=pl.len())
            .filter(pl.col("texts").is_between(LEAST, most))
            .sort("texts", "word", descending=[True, False])
            .head(MOST_WORDS)
            .sort("word")
        )
        return cls(counts["word"].alias("word"), rarity(counts["texts"].to_numpy(), n_texts))

    def vectors(self, texts: pl.Series) -> sparse.csr_array:
        """Unit vectors of texts (nullable), a zero one where no word is known: float32 (n_texts, n_words).

        An entry is (1 + ln count) · rarity before the length is divided out (Salton & Buckley 1988).
        """
        found = _counted(texts)
        columns = positions(found["word"], self.names)
        kept = columns >= 0
        values = (1 + np.log(found["n"].to_numpy()[kept])) * self.rarity[columns[kept]]
        shape = (len(texts), len(self.names))
        made = sparse.csr_array((values.astype(np.float32), (found["text"].to_numpy()[kept], columns[kept])), shape)
        made.sort_indices()
        return units(made)


def rarity(counts: NDArray[np.integer], total: int) -> Floats:
    """Smoothed inverse document frequency (Spärck Jones 1972) of what `counts` of `total` documents have."""
    return (np.log((1 + total) / (1 + counts.astype(np.float64))) + 1).astype(np.float32)


def units(rows: sparse.csr_array) -> sparse.csr_array:
    """Each row divided by its Euclidean length; rows without entries stay so. float32."""
    squares = row_sums(np.square(rows.data, dtype=np.float64), rows.indptr)
    lengths = np.repeat(np.sqrt(squares), np.diff(rows.indptr))
    values = np.divide(rows.data, lengths, out=np.zeros(rows.nnz), where=lengths > 0)
    return sparse.csr_array((values.astype(np.float32), rows.indices, rows.indptr), shape=rows.shape)


def _counted(texts: pl.Series) -> pl.DataFrame:
    """text (its place), word, n: how often each word is in each text."""
    plain = texts.cast(pl.String).str.normalize("NFKC").str.to_lowercase()
    runs = (
        pl.DataFrame({"text": np.arange(len(texts), dtype=np.int64), "run": plain.str.extract_all(_WORD)})
        .explode("run")
        .drop_nulls()
    )
    words = pl.DataFrame({"run": runs["run"].unique()}).with_columns(
        unspaced=pl.col("run").str.contains(f"[{_UNSPACED}]")
    )
    split = words.filter("unspaced")["run"]
    pieces = pl.concat(
        [
            words.filter(~pl.col("unspaced")).select("run", word="run"),
            pl.DataFrame(
                {"run": split, "word": [_neighbours(run) for run in split]},
                schema={"run": pl.String, "word": pl.List(pl.String)},
            ).explode("word"),
        ]
    )
    return runs.join(pieces, on="run").group_by("text", "word").agg(n=pl.len()).sort("text", "word")


def _neighbours(run: str) -> list[str]:
    return [first + second for first, second in pairwise(run)] or [run]


BLOCKS = ("category", "tags", "price", "text", "embedding")
"""Kinds of description, in the order in which they are added up."""
_PREFIXES = ("category=", "tag=", "price=")


@dataclass(frozen=True)
class Descriptions:
    """Unit vectors of items by kind of description; a kind that nothing is known in has no columns."""

    vectors: sparse.csr_array
    """The blocks but the embedding side by side, each a row of length 1 or 0, float32 (n_items, n_features)."""
    widths: NDArray[np.int64]
    """Columns of each of those blocks, in the order of `BLOCKS` (4,)."""
    words: Words
    """The columns of the text, which are the last ones."""
    embedding: Floats
    """Rows of length 1, or of zeros where the item has none (n_items, n_dimensions)."""

    @property
    def blocks(self) -> NDArray[np.int64]:
        """The number in `BLOCKS` of each column (n_features,)."""
        return np.repeat(np.arange(len(self.widths)), self.widths)

    def there(self) -> list[str]:
        """The blocks that say something of some item."""
        filled = [block for block, width in zip(BLOCKS, self.widths, strict=False) if width]
        return [*filled, "embedding"] if self.embedding.size else filled


def described(catalogue: pl.DataFrame, items: pl.Series) -> Descriptions:
    """Descriptions of `items` (each once), of which the catalogue need not know all; its order does not matter."""
    features = item_features(catalogue, items)
    rows = pl.DataFrame({"item_id": items}).join(catalogue, on="item_id", how="left", maintain_order="left")
    texts = texts_of(rows)
    words = Words.of(texts)
    blocks = [*(_feature_vectors(features, prefix) for prefix in _PREFIXES), words.vectors(texts)]
    stacked = sparse.csr_array(sparse.hstack(blocks, format="csr"))
    stacked.sort_indices()
    return Descriptions(stacked, np.array([block.shape[1] for block in blocks]), words, _embeddings(rows))


def texts_of(rows: pl.DataFrame) -> pl.Series:
    """Title and text of catalogue rows, null where there is neither."""
    there = [name for name in ("title", "text") if name in rows.columns]
    if not there:
        return pl.Series("text", [None] * rows.height, dtype=pl.String)
    joined = rows.select(pl.concat_str(pl.col(there).cast(pl.String), separator="\n", ignore_nulls=True))
    return joined.to_series().alias("text")


def _feature_vectors(features: ItemFeatures, prefix: str) -> sparse.csr_array:
    """The features of one kind, weighed by how rare they are."""
    columns = np.flatnonzero(features.names.str.starts_with(prefix).to_numpy())
    chosen = sparse.csr_array(features.matrix[:, columns])
    counts = np.bincount(chosen.indices, minlength=len(columns))
    total = int(np.count_nonzero(np.diff(chosen.indptr)))
    weighed = (chosen.data * rarity(counts, total)[chosen.indices]).astype(np.float32)
    return units(sparse.csr_array((weighed, chosen.indices, chosen.indptr), shape=chosen.shape))


def _embeddings(rows: pl.DataFrame) -> Floats:
    """The column `embedding`, else what `props` holds under that name; of several lengths the commonest counts."""
    if "embedding" in rows.columns:
        given = rows["embedding"].cast(pl.List(pl.Float64), strict=False)
    elif "props" in rows.columns:
        texts = rows["props"].cast(pl.String).str.json_path_match("$.embedding")
        lists = texts.str.contains(r"^\[[-+0-9eE.,\s]*\]$")
        given = pl.select(pl.when(lists).then(texts)).to_series().str.json_decode(pl.List(pl.Float64))
    else:
        return np.zeros((rows.height, 0), dtype=np.float32)
    frame = pl.DataFrame({"place": np.arange(rows.height), "embedding": given}).drop_nulls()
    frame = frame.filter(pl.col("embedding").list.eval(pl.element().is_finite().fill_null(False)).list.all())
    frame = frame.with_columns(size=pl.col("embedding").list.len()).filter(pl.col("size") > 0)
    if not frame.height:
        return np.zeros((rows.height, 0), dtype=np.float32)
    sizes = frame.group_by("size").len().sort("len", "size", descending=[True, False])
    frame = frame.filter(pl.col("size") == sizes["size"][0])
    found: NDArray[np.float64] = frame["embedding"].explode().to_numpy().reshape(frame.height, -1)
    lengths = np.sqrt(np.square(found).sum(axis=1, keepdims=True))
    made = np.zeros((rows.height, found.shape[1]), dtype=np.float32)
    made[frame["place"].to_numpy()] = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
    return made


BANDS = 5
"""Bands of price: fifths of the items that have one."""


@dataclass(frozen=True)
class ItemFeatures:
    """Which item has which feature."""

    items: pl.Series
    """item_id String (n_items,), in the order that was asked for."""
    names: pl.Series
    """`category=news`, `tag=short`, `price=2` (the second fifth from below), String, sorted (n_features,)."""
    matrix: sparse.csr_array
    """1 where the item has the feature, float32, sorted indices (n_items, n_features)."""

    def with_identity(self) -> sparse.csr_array:
        """One more feature for each item itself, before the others: float32 (n_items, n_items + n_features)."""
        own = sparse.eye_array(len(self.items), dtype=np.float32, format="csr")
        both = sparse.csr_array(sparse.hstack([own, self.matrix], format="csr"))
        both.sort_indices()
        return both

    def described(self) -> NDArray[np.bool_]:
        """Whether anything is known of the item (n_items,)."""
        return np.diff(self.matrix.indptr) > 0


def item_features(catalogue: pl.DataFrame | None, items: pl.Series, least: int = 2) -> ItemFeatures:
    """Features of `items` (sorted or not, each once) by the catalogue; items that it does not know have none.

    A feature that fewer than `least` of them have is left out: nothing learned of it could be told of another item.
    The order of the catalogue's rows, and of tags within a row, does not matter.
    """
    pairs = _pairs(catalogue, items)  # item Int64, name String; each pair once
    counted = pairs.group_by("name").len().filter(pl.col("len") >= least)
    names = counted["name"].sort()
    columns = positions(pairs["name"], names)
    kept = columns >= 0
    entries = (np.ones(int(kept.sum()), dtype=np.float32), (pairs["item"].to_numpy()[kept], columns[kept]))
    matrix = sparse.csr_array(entries, shape=(len(items), len(names)))
    matrix.sort_indices()
    return ItemFeatures(items, names, matrix)


def _pairs(catalogue: pl.DataFrame | None, items: pl.Series) -> pl.DataFrame:
    """(place of the item in `items`, name of a feature that it has), each once."""
    schema = {"item": pl.Int64, "name": pl.String}
    if catalogue is None:
        return pl.DataFrame(schema=schema)
    there = catalogue.with_columns(item=pl.Series(positions(catalogue["item_id"], items), dtype=pl.Int64))
    there = there.filter(pl.col("item") >= 0)
    found = [
        there.select("item", name="category=" + pl.col("category")),
        there.select("item", "tags").explode("tags").select("item", name="tag=" + pl.col("tags")),
        there.select("item", "price").drop_nulls().pipe(_bands),
    ]
    return pl.concat([frame.cast(schema) for frame in found]).drop_nulls().unique()  # type: ignore[arg-type]


def _bands(priced: pl.DataFrame) -> pl.DataFrame:
    """(item, `price=n`): the n-th fifth of (item, price) by price; items of equal price are in the same band."""
    prices = priced["price"].cast(pl.Float64).to_numpy()
    # With fewer prices than bands a band says no more than the price itself would, of nobody else.
    if len(np.unique(prices)) < BANDS:
        return pl.DataFrame(schema={"item": pl.Int64, "name": pl.String})
    edges = np.quantile(prices, np.arange(1, BANDS) / BANDS)
    numbers = 1 + np.searchsorted(edges, prices, side="left")
    return priced.select("item", name=pl.Series([f"price={number}" for number in numbers], dtype=pl.String))
