"""What the catalogue says of items as blocks of unit vectors: category, tags, price, text, embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.item_features import ItemFeatures, item_features
from persona_cli.models.texts import Words, rarity, units

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
