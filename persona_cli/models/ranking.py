"""From models to lists: blocks of users, masks, the k best, threads; the same for serving and for evaluation.

What a list holds depends on the model and the user alone: not on other users, on the size of blocks or on threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Model
from persona_cli.models.layered import Layered, context_lists
from persona_cli.models.popular import Popular
from persona_cli.models.stored import pair_matrix, positions, union
from persona_cli.models.topk import Positions, in_order, topk
from persona_cli.models.wishes import Rows, Wished, Wishes
from persona_cli.workspace.settings import Settings

# Dense weights are read once a block, whatever its size.
_LARGEST_BLOCK = 2048
# Bytes that a user's row takes for each item at the most: scores, their mask, the popular part, a partition.
_BYTES_A_CELL = 20
# Scores of a block at the most, 128 MiB: beyond, memory that is new to the process costs more than the products.
_BLOCK_CELLS = 1 << 25
# A filled entry stays strictly below what the model itself has chosen.
_BELOW = np.float32(0.999)
_LIST = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64, "score": pl.Float64}
_TIES = {"user_id": pl.String, "tied": pl.Int64, "tied_relevant": pl.Int64}


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


@runtime_checkable
class Wishing(Protocol):
    """Users asked who may have said what they want more and less of."""

    @property
    def wishes(self) -> Wishes | None: ...


@dataclass(frozen=True)
class Lists:
    """The lists of consecutive users."""

    start: int
    """Position of the first of them among the users asked."""
    places: Positions
    """Positions in the vocabulary, best first (n_users, k')."""
    scores: Floats
    """Their scores; -inf from the end of a list that is shorter than k' on (n_users, k')."""
    tied: NDArray[np.int64] | None = None
    """Items with the score of the list's last entry, where some did not come into the list, else 0 (n_users,)."""
    tied_relevant: NDArray[np.int64] | None = None
    """How many of them are relevant (n_users,)."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Entries of each list (n_users,)."""
        return np.asarray((self.scores > -np.inf).sum(axis=1), dtype=np.int64)


class Chooser(Protocol):
    """Makes lists in another way than by score alone."""

    def __call__(self, start: int, scores: Floats, users: NDArray[np.int64], top: int) -> Lists:
        """Lists of `top` from scores (n, n_items), which it may change; -inf: may not be shown."""
        ...


class Choosing(Protocol):
    """What makes a `Chooser` for a vocabulary."""

    @property
    def extra(self) -> pl.Series:
        """Items to be ranked whether or not a model knows them."""
        ...

    def over(self, vocabulary: pl.Series) -> Chooser: ...


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
    return pl.concat([pl.DataFrame(schema=_LIST), *parts])


def ranked_with_ties(
    model: Model,
    asked: Asked,
    k: int,
    settings: Settings,
    relevant: pl.DataFrame,
    *,
    fill: Popular | None = None,
    only: pl.Series | pl.DataFrame | None = None,
    never: pl.Series | None = None,
    block: int | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lists of `rank`, and the ties that their ends cut through: user_id, tied, tied_relevant.

    A user has a row there if items that could have been shown have the score of the last entry and are not in the
    list: item_id decided. `tied` counts the items with that score, those of the list included; `tied_relevant` those
    among them that are in `relevant` (user_id, item_id).
    """
    made = ranking(model, asked, k, settings, fill=fill, only=only, never=never, block=block, relevant=relevant)
    lists, ties = [pl.DataFrame(schema=_LIST)], [pl.DataFrame(schema=_TIES)]
    for part in made.blocks:
        lists.append(as_frame(part, made.vocabulary, asked.users))
        ties.append(_ties_frame(part, asked.users))
    return pl.concat(lists), pl.concat(ties)


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
    relevant: pl.DataFrame | None = None,
    choosing: Choosing | None = None,
) -> Ranking:
    """Rank items for the users asked, by score and then by item_id.

    fill    where the model says nothing of an item (a score of exactly 0), the popular list decides: behind all that
            the model favours and before all that it disfavours, so a user without a history gets the popular list
    only    rank exactly these items (ids), or these pairs (user_id, item_id); an item that no model knows scores 0
    never   items that no list may hold
    block   users a block; default: by compute.memory_gb
    relevant    pairs (user_id, item_id) to be counted among what ties with the last entry; None: no ties are looked for
    choosing    makes the lists from the scores, instead of the k best

    Whatever is given, excluded items and those of topics that the user has blocked are in no list. What the users said
    (`models.wishes`) lowers and raises scores at the end, those of the popular part too.
    """
    vocabulary = _vocabulary(model, fill, only)
    if choosing is not None and only is None:
        vocabulary = union(vocabulary, choosing.extra)
    chooser = None if choosing is None else choosing.over(vocabulary)
    threads = settings.whole("compute.threads") or os.cpu_count() or 1
    task = _Task(model, asked, k, settings, vocabulary, fill, only, never, relevant, chooser)
    size = block or _block_size(max(len(vocabulary), len(model.items)), threads, settings.number("compute.memory_gb"))
    starts = range(0, len(asked.users), size)
    return Ranking(vocabulary, in_order(task, starts, size, len(asked.users), min(threads, len(starts))))


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


def _ties_frame(lists: Lists, users: pl.Series) -> pl.DataFrame:
    """Ties across the ends as rows: user_id, tied, tied_relevant."""
    assert lists.tied is not None and lists.tied_relevant is not None
    rows = np.flatnonzero(lists.tied)
    return pl.DataFrame(
        {
            "user_id": users.gather(lists.start + rows),
            "tied": lists.tied[rows],
            "tied_relevant": lists.tied_relevant[rows],
        },
        schema=_TIES,
    )


class _Best(NamedTuple):
    """Lists under way, as `Lists` has them."""

    places: Positions
    scores: Floats
    tied: NDArray[np.int64] | None
    tied_relevant: NDArray[np.int64] | None


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
        relevant: pl.DataFrame | None,
        chooser: Chooser | None,
    ) -> None:
        self.model, self.k, self.fill, self.chooser = model, k, fill, chooser
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
        self.relevant = None if relevant is None else pair_matrix(relevant, asked.users, vocabulary)
        self.relevant_here = None if relevant is None else pair_matrix(relevant, asked.users, model.items)
        wishes = asked.wishes if isinstance(asked, Wishing) else None
        self.wished = None if wishes is None else wishes.over(vocabulary)
        self.wished_here = None if wishes is None else wishes.over(model.items)

    def __call__(self, start: int, stop: int) -> Lists:
        part, users = self.histories.block(start, stop), np.arange(start, stop)
        hidden = hidden_now(self.hidden, self.wished_here, slice(start, stop))
        scores = model_scores(self.model, part, hidden, spared_now(self.wished_here, slice(start, stop)))
        if self.candidates or self.chooser is not None:
            full = self._spread(scores, part.context)
            self._adjust(full, users)
            self._close(full, users)
            if self.chooser is not None:
                return self.chooser(start, full, users, self.k)
            return Lists(start, *self._best(full, users, self.k, self.relevant))
        if self.fill is None and self.wished_here is not None:
            self.wished_here.adjust(scores, slice(start, stop), part.events)
        _hide(scores, hidden)
        scores[:, self.closed_here] = -np.inf
        found = self._best(scores, users, self.k, self.relevant_here)
        if self.fill is None:
            return Lists(start, *found)
        return self._filled(start, scores, found._replace(places=self.places[found.places]), part.context)

    def _filled(self, start: int, scores: Floats, own: _Best, context: pl.DataFrame) -> Lists:
        """The lists, with those that the model cannot fill with positive scores ranked anew with the popular part."""
        width = min(self.k, self.n_items)
        n_users, there = own.places.shape
        if there == width:
            short = np.flatnonzero(own.scores[:, -1] <= 0) if width else np.zeros(0, dtype=np.int64)
        else:
            short = np.arange(n_users)
        if self.wished is not None:
            short = np.union1d(short, np.flatnonzero(self.wished.moves(slice(start, start + n_users))))
        places = np.zeros((n_users, width), dtype=np.int64)
        found = np.full((n_users, width), -np.inf, dtype=np.float32)
        places[:, :there], found[:, :there] = own.places, own.scores
        if len(short):
            full = self._spread(scores[short], context[short])
            self._adjust(full, start + short)
            self._close(full, start + short)
            anew = self._best(full, start + short, width, self.relevant)
            places[short], found[short] = anew.places, anew.scores
            for ours, theirs in ((own.tied, anew.tied), (own.tied_relevant, anew.tied_relevant)):
                if ours is not None and theirs is not None:
                    ours[short] = theirs
        return Lists(start, places, found, own.tied, own.tied_relevant)

    def _best(self, scores: Floats, users: NDArray[np.int64], k: int, relevant: sparse.csr_array | None) -> _Best:
        """The k best of each row, and the ties across their ends where `relevant` is given, over the same columns."""
        n_users, n_items = scores.shape
        if relevant is None:
            return _Best(*topk(scores, k), None, None)
        places, values = topk(scores, k + 1)  # one more shows whether the end cuts through a tie
        tied, right = np.zeros(n_users, dtype=np.int64), np.zeros(n_users, dtype=np.int64)
        if 0 < k < n_items:
            cut = np.flatnonzero((values[:, k] == values[:, k - 1]) & (values[:, k] > -np.inf))
            for row in cut:
                own = relevant.indices[relevant.indptr[users[row]] : relevant.indptr[users[row] + 1]]
                tied[row] = np.count_nonzero(scores[row] == values[row, k])
                right[row] = np.count_nonzero(scores[row, own] == values[row, k])
        return _Best(places[:, :k], values[:, :k], tied, right)

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

    def _adjust(self, full: Floats, users: NDArray[np.int64]) -> None:
        """Lower and raise what the users said; `users`: the rows' positions among the users asked."""
        if self.wished is not None:
            self.wished.adjust(full, users, self.histories.events[users])

    def _close(self, full: Floats, users: NDArray[np.int64]) -> None:
        """Put -inf where an item may not be shown; `users`: the rows' positions among the users asked."""
        _hide(full, hidden_now(self.excluded, self.wished, users))
        full[:, self.closed] = -np.inf
        if self.allowed is not None:
            full[~self.allowed[users].toarray()] = -np.inf


def hidden_now(excluded: sparse.csr_array, wished: Wished | None, rows: Rows) -> sparse.csr_array:
    """What these of the users asked may not be shown: excluded, or of a blocked topic; bool (n_rows, n_items)."""
    hidden = excluded[rows]
    return hidden if wished is None else sparse.csr_array(hidden + wished.hidden(rows)).astype(bool)


def spared_now(wished: Wished | None, rows: Rows) -> sparse.csr_array | None:
    return None if wished is None else wished.spared(rows)


def model_scores(
    model: Model, histories: Histories, hidden: sparse.csr_array, spared: sparse.csr_array | None = None
) -> Floats:
    """Scores (n_users, n_items), writable; only a layered model's depend on what is hidden, and spares items."""
    scores = model.scores(histories, hidden, spared) if isinstance(model, Layered) else model.scores(histories)
    return scores if scores.flags.writeable else scores.copy()


def _vocabulary(model: Model, fill: Popular | None, only: pl.Series | pl.DataFrame | None) -> pl.Series:
    if only is not None:
        items = only["item_id"] if isinstance(only, pl.DataFrame) else only
        return items.unique().sort().rename("item_id")
    return model.items if fill is None else union(model.items, fill.items)


def _block_size(n_items: int, threads: int, memory_gb: float) -> int:
    fits = int(memory_gb * 2**30 / 2 / (threads * max(n_items, 1) * _BYTES_A_CELL))
    return max(1, min(_LARGEST_BLOCK, fits, _BLOCK_CELLS // max(n_items, 1)))


def _hide(scores: Floats, hidden: sparse.csr_array) -> None:
    rows = np.repeat(np.arange(hidden.shape[0]), np.diff(hidden.indptr))
    scores[rows, hidden.indices] = -np.inf


def _places(items: pl.Series | None, vocabulary: pl.Series) -> NDArray[np.int64]:
    """Positions of those of the items that are in the vocabulary."""
    if items is None:
        return np.zeros(0, dtype=np.int64)
    found = positions(items, vocabulary)
    return found[found >= 0]
