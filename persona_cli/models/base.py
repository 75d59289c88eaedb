"""What every model is given and must offer: the types that training, ranking and serving share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.gram import Gram
from persona_cli.models.stored import with_columns

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
    times: NDArray[np.int64] | None = None
    """Microseconds (UTC) of the user's last event with the item, aligned with `strengths.data`; None: not known."""
    dislikes: sparse.csr_array | None = None
    """How far decayed strengths are below 0, only entries > 0, float32 (n_users, n_items); None: none is."""


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
    catalogue: pl.DataFrame | None = None
    """The items as the catalogue described them at `as_of`, sorted by item_id; None: there is no catalogue."""
    events: pl.DataFrame | None = None
    """What was learned from, in no order: rows of `profiles.history.signal_events`; None: only the sums are there."""


@dataclass(frozen=True)
class Histories:
    """Users to be scored, over one model's vocabulary."""

    rows: sparse.csr_array
    """Decayed strengths clipped to [0, cap], float32 (n_users, n_items of the model)."""
    events: NDArray[np.int64]
    """Events with an item of each user (n_users,): the evidence."""
    context: pl.DataFrame
    """device String, country String, nullable, one row a user (n_users): the cell of the popular list."""
    times: sparse.csr_array | None = None
    """Instant of the last event with each item, microseconds (UTC), the same pattern as `rows`; None: not known."""
    dislikes: sparse.csr_array | None = None
    """How far decayed strengths are below 0, clipped to [0, cap], float32 (n_users, n_items); None: no entry."""
    queries: pl.Series | None = field(default=None, repr=False)
    """Latest different search queries of each user, one a line, null without any: String (n_users,); None: nobody has
    one, or they were not asked for. Personal: for the model alone, and not to be shown."""

    def over(self, columns: NDArray[np.int64], n_items: int) -> Histories:
        """The same users over another vocabulary: item j has column `columns[j]` there; -1: it has none."""
        times, dislikes = (
            None if one is None else with_columns(one, columns, n_items) for one in (self.times, self.dislikes)
        )
        rows = with_columns(self.rows, columns, n_items)
        return Histories(rows, self.events, self.context, times, dislikes, self.queries)

    def block(self, start: int, stop: int) -> Histories:
        return self.chosen(slice(start, stop))

    def chosen(self, users: slice | NDArray[np.int64]) -> Histories:
        """Some of the users, by their rows."""
        times, dislikes = (None if one is None else one[users] for one in (self.times, self.dislikes))
        queries = None if self.queries is None else self.queries[users]
        return Histories(self.rows[users], self.events[users], self.context[users], times, dislikes, queries)


class Model(Protocol):
    """An item-side model in scikit-learn manners: the constructor stores settings, `fit` forgets the past.

    Its class has `from_settings(settings)`, unfitted, and `load(folder, settings)`, as `save` and `settings()` left it.
    """

    name: ClassVar[str]
    items: pl.Series
    """Vocabulary, sorted; set by `fit` and `load`."""

    @property
    def exact(self) -> bool:
        """True where the model follows from mergeable integer sums alone."""
        ...

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


@runtime_checkable
class Composite(Protocol):
    """A model made of others, which its class names by the settings: `inside(settings)`.

    `from_settings(settings, parts)` and `load(folder, settings, parts)` are given them, by role.
    """

    def parts(self) -> Mapping[str, Model]:
        """The models inside, by role; each is saved as a version of its own."""
        ...


def parts_of(model: Model) -> Mapping[str, Model]:
    """The models inside a model, by role; none inside most."""
    return model.parts() if isinstance(model, Composite) else {}


def reads_order(model: Model) -> bool:
    """Whether the model or one inside reads when things happened: `Histories.times`."""
    return bool(getattr(model, "ordered", False)) or any(reads_order(one) for one in parts_of(model).values())


def reads_queries(model: Model) -> bool:
    """Whether the model or one inside reads what users searched for: `Histories.queries`."""
    return bool(getattr(model, "reads_queries", False)) or any(reads_queries(one) for one in parts_of(model).values())


def known(model: Model, histories: Histories) -> NDArray[np.bool_]:
    """Of which users the model knows something: an item of the history, or a word of a query (n_users,).

    `histories` are over the vocabulary of the model.
    """
    told = np.diff(histories.rows.indptr) > 0
    return told if histories.queries is None else told | _heard(model, histories.queries)


def _heard(model: Model, queries: pl.Series) -> NDArray[np.bool_]:
    """Which queries say something to the model or to one inside (n_users,)."""
    heard = np.zeros(len(queries), dtype=bool)
    if getattr(model, "reads_queries", False):
        heard |= model.heard(queries) if hasattr(model, "heard") else queries.is_not_null().to_numpy()
    for part in parts_of(model).values():
        heard |= _heard(part, queries)
    return heard
