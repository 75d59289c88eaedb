"""What every model is given and must offer: the types that training, ranking and serving share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.gram import Gram

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Interactions:
    """Who did what, as one matrix: the histories of all users as of a moment."""

    users: pl.Series
    """user_id String, sorted (n_users,)."""
    items: pl.Series
    """item_id String, sorted (n_items,)."""
    strengths: sparse.csr_array
    """Decayed strength, only entries > 0, float32 (n_users, n_items)."""
    seen: sparse.csr_array
    """True where the item was consumed or is never to be shown again, bool (n_users, n_items)."""
    events: NDArray[np.int64]
    """Events with an item of each user (n_users,)."""


@dataclass(frozen=True)
class Training:
    """All that a model may learn from."""

    interactions: Interactions
    gram: Gram
    """Integer Gram of the users' rows; its vocabulary is the items that some row holds."""
    popularity: pl.DataFrame
    """item_id String, day Date, device String, country String (nullable), n Int64: counts of events with an item."""
    as_of: datetime
    """Only what happened before this moment was used (UTC)."""


@dataclass(frozen=True)
class Histories:
    """Users to be scored, over one model's vocabulary."""

    rows: sparse.csr_array
    """Decayed strengths clipped to [0, cap], float32 (n_users, n_items of the model)."""
    events: NDArray[np.int64]
    """Events with an item of each user (n_users,): the evidence."""
    context: pl.DataFrame
    """device String, country String, nullable, one row a user (n_users): the cell of the popular list."""

    def block(self, start: int, stop: int) -> Histories:
        return Histories(self.rows[start:stop], self.events[start:stop], self.context[start:stop])


class Model(Protocol):
    """An item-side model in scikit-learn manners: the constructor stores settings, `fit` forgets the past."""

    name: ClassVar[str]
    exact: ClassVar[bool]
    """True where the model follows from mergeable integer sums alone."""
    items: pl.Series
    """Vocabulary, sorted; set by `fit` and `load`."""

    def settings(self) -> Mapping[str, Any]:
        """Settings in force after `fit` (nothing "auto" is left), as JSON types."""
        ...

    def fit(self, training: Training) -> Self: ...
    def scores(self, histories: Histories) -> Floats:
        """Scores (n_users, n_items), float32; higher is better; -inf never."""
        ...

    def save(self, folder: Path) -> None:
        """Write .npy and .parquet files into an empty folder; no pickle."""
        ...

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self: ...
