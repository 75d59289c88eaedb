"""Why an item is in a list, in plain words: which of the user's own items speak for it, or that it is popular."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.base import Floats, Histories, Model
from persona_cli.models.layered import Layered
from persona_cli.models.popular import CELL, Popular
from persona_cli.models.ranking import Lists
from persona_cli.models.registry import Saved
from persona_cli.models.vocabulary import positions
from persona_cli.serving.context import Audience
from persona_cli.serving.rule_items import sensitive_items
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

MOST = 3
"""Own items named for one recommendation."""
_MATCHES = "matches a recent search"


class Reasons:
    """Words for the entries of lists.

    An own item j speaks for item i with x_j W_ji, where W is the weights of a model that is linear in the history
    (knn, ease), else what the model would say to somebody with j alone in the history. The largest positive of these
    are named, and that the item matches a search where the searches alone would speak for it (their words are personal
    and not repeated). Where there is none of this, the item stands there by its popularity. What `rules.sensitive` is
    about is never named.
    """

    def __init__(self, home: Home, saved: Saved, asked: Audience, settings: Settings) -> None:
        inside = saved.model.individual if isinstance(saved.model, Layered) else saved.model
        self.inside = None if isinstance(inside, Popular) else inside
        self.items = saved.model.items if inside is None else inside.items
        histories = asked.histories(self.items, settings)
        self.rows, self.queries = histories.rows, histories.queries
        self.context = asked.context
        self.names = _names(home, self.items)
        self.unnamed = self.items.is_in(sensitive_items(home).implode()).to_numpy()

    def of(self, lists: Lists, vocabulary: pl.Series) -> list[list[str]]:
        """Reasons of every entry, list after list, best first (n_entries,)."""
        places = positions(vocabulary, self.items)  # (n_vocabulary,)
        told: list[list[str]] = []
        for number, length in enumerate(lists.lengths):
            user = lists.start + number
            start, stop = self.rows.indptr[user : user + 2]
            own, strengths = self.rows.indices[start:stop], self.rows.data[start:stop]
            own, strengths = own[~self.unnamed[own]], strengths[~self.unnamed[own]]
            entries = places[lists.places[number, :length]]
            speaks = self._speaks(own, strengths, entries)  # (n_own, n_entries)
            searched = self._searched(user, entries)
            for column in range(length):
                best = np.argsort(-speaks[:, column], kind="stable")[:MOST] if len(own) else np.zeros(0, dtype=np.int64)
                named = [self.names[own[row]] for row in best if speaks[row, column] > 0]
                reasons = [f"goes with {name}" for name in named] + [_MATCHES] * bool(searched[column])
                told.append(reasons or [self._popular(user)])
        return told

    def _speaks(
        self, own: NDArray[np.int32], strengths: NDArray[np.float32], entries: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        speaks = np.zeros((len(own), len(entries)), dtype=np.float32)
        covered = entries >= 0
        if self.inside is not None and len(own) and covered.any():
            speaks[:, covered] = _weights(self.inside, own)[:, entries[covered]] * strengths[:, None]
        return speaks

    def _searched(self, user: int, entries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the entries what the user searched for would speak for by itself (n_entries,)."""
        found = np.zeros(len(entries), dtype=bool)
        if self.inside is None or self.queries is None or self.queries[user] is None:
            return found
        none = np.zeros(0, dtype=np.int64)
        nothing = sparse.csr_array((none.astype(np.float32), (none, none)), shape=(1, len(self.items)))
        one = Histories(nothing, np.zeros(1, dtype=np.int64), _nowhere(1), queries=self.queries[user : user + 1])
        covered = entries >= 0
        found[covered] = self.inside.scores(one)[0, entries[covered]] > 0
        return found

    def _popular(self, user: int) -> str:
        device, country = self.context.row(user)
        where = "".join((f" on {device}" if device else "", f" in {country}" if country else ""))
        return f"popular{where}"


def _weights(model: Model, own: NDArray[np.int32]) -> Floats:
    """What each of these items (positions) says for every other (n_own, n_items)."""
    if hasattr(model, "weights_of"):
        weights: Floats = model.weights_of(own)
        return weights
    n = len(own)
    alone = sparse.csr_array((np.ones(n, dtype=np.float32), (np.arange(n), own)), shape=(n, len(model.items)))
    times = sparse.csr_array((np.zeros(n, dtype=np.int64), alone.indices, alone.indptr), shape=alone.shape)
    return model.scores(Histories(alone, np.ones(n, dtype=np.int64), _nowhere(n), times))


def _nowhere(n: int) -> pl.DataFrame:
    return pl.DataFrame([pl.Series(name, [None] * n, dtype=pl.String) for name in CELL])


def _names(home: Home, items: pl.Series) -> list[str]:
    """How people know each item: its title, else its id (n_items,)."""
    if not tables.exists(home, "items"):
        return items.to_list()
    from persona_cli.events.catalogue import current

    titles = current(home, "items").select("item_id", "title")
    named = items.to_frame("item_id").join(titles, on="item_id", how="left", maintain_order="left")
    return named.select(pl.coalesce("title", "item_id")).to_series().to_list()
