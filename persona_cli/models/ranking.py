"""From models to lists: blocks of users, masks, the k best, threads; the same for serving and for evaluation.

What a list holds depends on the model and the user alone: not on other users, on the size of blocks or on threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Model
from persona_cli.models.layered import Layered, context_lists
from persona_cli.models.popular import Popular
from persona_cli.models.topk import Positions, topk
from persona_cli.models.vocabulary import pair_matrix, positions, union
from persona_cli.workspace.settings import Settings

# Dense weights are read once a block, whatever its size.
_LARGEST_BLOCK = 2048
# Bytes that a user's row takes for each item at the most: scores, their mask, the popular part, a partition.
_BYTES_A_CELL = 20
# A filled entry stays strictly below what the model itself has chosen.
_BELOW = np.float32(0.999)


class Asked(Protocol):
    """Users who are to get lists."""

    @property
    def users(self) -> pl.Series:
        """user_id, distinct (n_users,)."""
        ...

    def histories(self, vocabulary: pl.Series, settings: Settings) -> Histories:
        """What they are scored from."""
        ...

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        """What may not be in their lists, bool (n_users, n_items)."""
        ...


@dataclass(frozen=True)
class Lists:
    """The lists of consecutive users."""

    start: int
    """Position of the first of them among the users asked."""
    places: Positions
    """Positions in the vocabulary, best first (n_users, k')."""
    scores: Floats
    """Their scores; -inf from the end of a list that is shorter than k' on (n_users, k')."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Entries of each list (n_users,)."""
        return np.asarray((self.scores > -np.inf).sum(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Ranking:
    """Lists to come, block by block, and the vocabulary that their places are of."""

    vocabulary: pl.Series
    """item_id, sorted (n_items,)."""
    blocks: Iterator[Lists]


def rank(
    model: Model,
    asked: Asked,
    k: int,
    settings: Settings,
    *,
    fill: Popular | None = None,
    only: pl.Series | pl.DataFrame | None = None,
    never: pl.Series | None = None,
    block: int | None = None,
) -> pl.DataFrame:
    """The k best items of every user asked: user_id, item_id, rank (from 1), score Float64; see `ranking`."""
    made = ranking(model, asked, k, settings, fill=fill, only=only, never=never, block=block)
    parts = [as_frame(lists, made.vocabulary, asked.users) for lists in made.blocks]
    empty = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64, "score": pl.Float64}
    return pl.concat(parts) if parts else pl.DataFrame(schema=empty)


def ranking(
    model: Model,
    asked: Asked,
    k: int,
    settings: Settings,
    *,
    fill: Popular | None = None,
    only: pl.Series | pl.DataFrame | None = None,
    never: pl.Series | None = None,
    block: int | None = None,
) -> Ranking:
    """Rank items for the users asked, by score and then by item_id.

    fill    where the model says nothing of an item (a score of exactly 0), the popular list decides: behind all that
            the model favours and before all that it disfavours, so a user without a history gets the popular list
    only    rank exactly these items (ids), or these pairs (user_id, item_id); an item that no model knows scores 0
    never   items that no list may hold
    block   users a block; default: by compute.memory_gb

    Whatever is given, excluded items are in no list.
    """
    vocabulary = _vocabulary(model, fill, only)
    threads = settings.whole("compute.threads") or os.cpu_count() or 1
    task = _Task(model, asked, k, settings, vocabulary, fill, only, never)
    size = block or _block_size(max(len(vocabulary), len(model.items)), threads, settings.number("compute.memory_gb"))
    starts = range(0, len(asked.users), size)
    return Ranking(vocabulary, _in_order(task, starts, size, min(threads, len(starts))))


def as_frame(lists: Lists, vocabulary: pl.Series, users: pl.Series) -> pl.DataFrame:
    """Lists as rows: user_id, item_id, rank, score."""
    n_users, k = lists.places.shape
    there = (lists.scores > -np.inf).ravel()
    return pl.DataFrame(
        {
            "user_id": users.slice(lists.start, n_users).gather(np.repeat(np.arange(n_users), k)[there]),
            "item_id": vocabulary.gather(lists.places.ravel()[there]),
            "rank": np.tile(np.arange(1, k + 1, dtype=np.int64), n_users)[there],
            "score": lists.scores.ravel()[there].astype(np.float64),
        }
    )


class _Task:
    """What every block needs, made once."""

    def __init__(
        self,
        model: Model,
        asked: Asked,
        k: int,
        settings: Settings,
        vocabulary: pl.Series,
        fill: Popular | None,
        only: pl.Series | pl.DataFrame | None,
        never: pl.Series | None,
    ) -> None:
        self.model, self.k, self.fill = model, k, fill
        self.histories = asked.histories(model.items, settings)
        self.hidden = asked.excluded(model.items)
        self.places = positions(model.items, vocabulary)  # (n_model,), -1: not to be ranked
        self.candidates = only is not None
        self.n_items = len(vocabulary)
        self.excluded = asked.excluded(vocabulary)
        self.closed = _places(never, vocabulary)
        self.closed_here = _places(never, model.items)
        self.allowed = pair_matrix(only, asked.users, vocabulary) if isinstance(only, pl.DataFrame) else None
        self.fill_places = None if fill is None else positions(fill.items, vocabulary)

    def __call__(self, start: int, stop: int) -> Lists:
        part = self.histories.block(start, stop)
        scores = model_scores(self.model, part, self.hidden[start:stop])
        if self.candidates:
            full = self._spread(scores, part.context)
            self._close(full, slice(start, stop))
            return Lists(start, *topk(full, self.k))
        _hide(scores, self.hidden[start:stop])
        scores[:, self.closed_here] = -np.inf
        best, values = topk(scores, self.k)
        if self.fill is None:
            return Lists(start, best, values)
        return self._filled(start, scores, self.places[best], values, part.context)

    def _filled(self, start: int, scores: Floats, best: Positions, values: Floats, context: pl.DataFrame) -> Lists:
        """The lists, with those that the model cannot fill with positive scores ranked anew with the popular part."""
        width = min(self.k, self.n_items)
        if best.shape[1] == width:
            short = np.flatnonzero(values[:, -1] <= 0) if width else np.zeros(0, dtype=np.int64)
        else:
            short = np.arange(len(scores))
        places = np.zeros((len(scores), width), dtype=np.int64)
        found = np.full((len(scores), width), -np.inf, dtype=np.float32)
        places[:, : best.shape[1]], found[:, : best.shape[1]] = best, values
        if len(short):
            full = self._spread(scores[short], context[short])
            self._close(full, start + short)
            places[short], found[short] = topk(full, width)
        return Lists(start, places, found)

    def _spread(self, scores: Floats, context: pl.DataFrame) -> Floats:
        """Scores over the vocabulary that is ranked, the popular part put where the model says nothing (n, n_items)."""
        full = np.zeros((len(scores), self.n_items), dtype=np.float32)
        ranked = self.places >= 0
        full[:, self.places[ranked]] = scores[:, ranked]
        if self.fill is not None and self.fill_places is not None:
            lists, which = context_lists(self.fill, context)
            ratio = np.zeros((len(lists), self.n_items), dtype=np.float32)
            filled = self.fill_places >= 0
            ratio[:, self.fill_places[filled]] = lists[:, filled] * _BELOW
            least = np.where(full > 0, full, np.inf).min(axis=1, initial=np.inf)  # (n,)
            least[~np.isfinite(least)] = 1.0
            for row in range(len(full)):
                silent = full[row] == 0
                full[row, silent] = least[row] * ratio[which[row], silent]
        return full

    def _close(self, full: Floats, users: Any) -> None:
        """Put -inf where an item may not be shown; `users`: the rows' positions among the users asked."""
        _hide(full, self.excluded[users])
        full[:, self.closed] = -np.inf
        if self.allowed is not None:
            full[~self.allowed[users].toarray()] = -np.inf


def model_scores(model: Model, histories: Histories, hidden: sparse.csr_array) -> Floats:
    """Scores (n_users, n_items), writable; only a layered model's scale depends on what is hidden."""
    scores = model.scores(histories, hidden) if isinstance(model, Layered) else model.scores(histories)
    return scores if scores.flags.writeable else scores.copy()


def _in_order(task: _Task, starts: range, size: int, threads: int) -> Iterator[Lists]:
    end = len(task.histories.events)
    if threads <= 1:
        for start in starts:
            yield task(start, min(start + size, end))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="rank") as pool:
        ahead: deque[Future[Lists]] = deque()
        try:
            for start in starts:
                ahead.append(pool.submit(task, start, min(start + size, end)))
                # One more than there are threads, so that none waits for whoever takes the lists.
                if len(ahead) > threads + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _vocabulary(model: Model, fill: Popular | None, only: pl.Series | pl.DataFrame | None) -> pl.Series:
    if only is not None:
        items = only["item_id"] if isinstance(only, pl.DataFrame) else only
        return items.unique().sort().rename("item_id")
    return model.items if fill is None else union(model.items, fill.items)


def _block_size(n_items: int, threads: int, memory_gb: float) -> int:
    fits = int(memory_gb * 2**30 / 2 / (threads * max(n_items, 1) * _BYTES_A_CELL))
    return max(1, min(_LARGEST_BLOCK, fits))


def _hide(scores: Floats, hidden: sparse.csr_array) -> None:
    rows = np.repeat(np.arange(hidden.shape[0]), np.diff(hidden.indptr))
    scores[rows, hidden.indices] = -np.inf


def _places(items: pl.Series | None, vocabulary: pl.Series) -> NDArray[np.int64]:
    """Positions of those of the items that are in the vocabulary."""
    if items is None:
        return np.zeros(0, dtype=np.int64)
    found = positions(items, vocabulary)
    return found[found >= 0]
