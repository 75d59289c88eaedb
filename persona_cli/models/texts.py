"""Texts as weighted words, in any language: the words of a text, how rare they are, and vectors to compare texts by."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats
from persona_cli.models.gram import row_sums
from persona_cli.models.vocabulary import positions

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
