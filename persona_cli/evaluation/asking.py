"""The users of an exam as models see them: histories, contexts and what may not be shown, over any vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Self

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.evaluation.exams import Exam
from persona_cli.events.catalogue import described
from persona_cli.models.base import Histories, Interactions
from persona_cli.models.interactions import contexts, dislikes_for, rows_for, times_for
from persona_cli.models.vocabulary import pair_matrix, positions, with_rows
from persona_cli.models.wishes import Wishes, wishes_of
from persona_cli.profiles import preferences
from persona_cli.profiles.history import recent_queries
from persona_cli.profiles.permitted import Purpose
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings


@dataclass(frozen=True)
class Beside:
    """What may be known beside the rows of `signal_events`; nothing of it by default."""

    describe: Callable[[datetime, pl.Series], pl.DataFrame | None] | None = None
    """Items as they could be known at a moment, given those with events before it: `events.catalogue.described`."""
    told: pl.DataFrame | None = field(default=None, repr=False)
    """What users told, at any time: `profiles.preferences.explicit_events`."""

    @classmethod
    def of(cls, home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> Self:
        """What a workspace knows, and what was told before `as_of` by those whom the purpose covers."""
        return cls(partial(described, home), preferences.explicit_events(home, as_of, purpose=purpose))

    def items(self, exam: Exam) -> pl.DataFrame | None:
        """Items as they could be known at the cut; None: there is no catalogue."""
        if self.describe is None:
            return None
        return self.describe(exam.as_of, exam.train["item_id"].drop_nulls().unique())

    def wishes(self, exam: Exam, settings: Settings) -> Wishes | None:
        """What the users asked had said by known events; None where they said nothing."""
        if self.told is None or not self.told.height:
            return None
        said = preferences.spoken_in(preferences.among(self.told, exam.known), exam.known)
        return wishes_of(said, exam.users, settings, lambda: self.items(exam))


@dataclass(frozen=True)
class Asked:
    """Users to be asked about, all aligned with `users`."""

    users: pl.Series
    """user_id, sorted (n_users,)."""
    matrix: Interactions
    """What is known of all users; those who are not in it have no history."""
    places: np.ndarray[tuple[int], np.dtype[np.int64]]
    """Row of each user in `matrix`, -1 for those who are not in it (n_users,)."""
    context: pl.DataFrame
    """device, country: of the latest known event that has one (n_users)."""
    exclude: pl.DataFrame
    """user_id, item_id of pairs that no list may hold."""
    queries: pl.Series | None = field(default=None, repr=False)
    """What each searched for lately (`profiles.searches`), by known events (n_users,); None: nothing is known of it."""

    wishes: Wishes | None = field(default=None, repr=False)
    """What they said they want more and less of, by known events; None: nobody said anything, or nobody looked."""

    def histories(self, vocabulary: pl.Series, settings: Settings) -> Histories:
        """What a model with this vocabulary scores them from."""
        rows = with_rows(rows_for(self.matrix, vocabulary, settings), self.places)
        events = np.where(self.places >= 0, np.append(self.matrix.events, 0)[self.places], 0)
        times, dislikes = (
            None if one is None else with_rows(one, self.places)
            for one in (times_for(self.matrix, vocabulary), dislikes_for(self.matrix, vocabulary, settings))
        )
        return Histories(rows, events, self.context, times, dislikes, self.queries)

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        """What may not be shown: bool (n_users, n_items)."""
        hidden = pair_matrix(self.exclude, self.users, vocabulary)
        wished = None if self.wishes is None else self.wishes.over(vocabulary)
        return hidden if wished is None else sparse.csr_array(hidden + wished.hidden(slice(None))).astype(bool)


def asked(exam: Exam, matrix: Interactions, wishes: Wishes | None = None) -> Asked:
    """The users of an exam; `matrix` and `wishes` are of its known events."""
    users = exam.users
    context, queries = contexts(exam.known, users), searches(exam.known, users)
    exclude = still_barred(exam.exclude, exam.known)
    return Asked(users, matrix, positions(users, matrix.users), context, exclude, queries, wishes)


def still_barred(pairs: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The pairs (user_id, item_id) but those whose block was taken back and that were never had, by `known` events."""
    lifted, pair = preferences.lifted_in(known), ["user_id", "item_id"]
    if not lifted.height:
        return pairs
    had = known.filter(pl.col("consumed") & ~pl.col("never")).select(pair)
    return pairs.join(lifted.join(had, on=pair, how="anti"), on=pair, how="anti")


def searches(events: pl.DataFrame, users: pl.Series) -> pl.Series | None:
    """Recent queries of each user (n_users,); None where no event has one."""
    if "query" not in events.columns or events["query"].null_count() == events.height:
        return None
    return recent_queries(events, users)
