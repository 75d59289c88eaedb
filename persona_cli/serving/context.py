"""The users who are to get lists, as models see them: histories, contexts, what is hidden, who is held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import MissingInput, UsageError, nearest
from persona_cli.events.catalogue import described
from persona_cli.events.countries import country_code
from persona_cli.models.base import Histories, Interactions
from persona_cli.models.interactions import dislikes_for, interactions, rows_for, seen_for, times_for, with_times
from persona_cli.models.popular import CELL
from persona_cli.models.stored import positions, with_rows
from persona_cli.models.wishes import Wishes, wishes_of
from persona_cli.profiles import history as histories
from persona_cli.profiles import preferences
from persona_cli.profiles.buckets import buckets_of
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.history import recent_queries
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import ANY, PERSONALIZATION, allowed, in_holdout, person_events
from persona_cli.profiles.read import contexts, stage_of
from persona_cli.profiles.stated import countries
from persona_cli.serving import GENERIC
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

# Up to this many users are looked up in the files of their buckets; more are cheaper to pick from all.
_FEW = 100_000


@dataclass(frozen=True)
class Audience:
    """Users asked, all aligned with `users`; an `Asked` of `models.ranking`."""

    users: pl.Series
    """user_id, distinct and sorted (n_users,)."""
    matrix: Interactions
    """Histories of those who have one."""
    places: NDArray[np.int64]
    """Row of each user in `matrix`, -1 without a history (n_users,)."""
    context: pl.DataFrame
    """device, country of each; null where unknown, and for the held out (n_users)."""
    holdout: NDArray[np.bool_]
    """Who gets the non-personalised list, whatever is known of them (n_users,)."""
    queries: pl.Series | None = field(default=None, repr=False)
    """What each searched for lately (`profiles.history`), nothing of the held out (n_users,); None: not asked for."""

    wishes: Wishes | None = field(default=None, repr=False)
    """What they said they want more and less of; None: nobody said anything."""
    generic: NDArray[np.bool_] | None = field(default=None, repr=False)
    """Whom personalization does not cover (n_users,), of whom nothing was read: they get what a stranger gets; None:
    nobody."""

    def histories(self, vocabulary: pl.Series, settings: Settings) -> Histories:
        """What they are scored from; the held out as if nothing was known of them."""
        places = np.where(self.holdout, -1, self.places)
        rows = with_rows(rows_for(self.matrix, vocabulary, settings), places)
        times, dislikes = (
            None if one is None else with_rows(one, places)
            for one in (times_for(self.matrix, vocabulary), dislikes_for(self.matrix, vocabulary, settings))
        )
        events = np.where(self.holdout, 0, self.evidence)
        return Histories(rows, events, self.context, times, dislikes, self.queries)

    def excluded(self, vocabulary: pl.Series) -> sparse.csr_array:
        """What they have consumed or never want to see, bool (n_users, n_items)."""
        return with_rows(seen_for(self.matrix, vocabulary), self.places)

    @property
    def evidence(self) -> NDArray[np.int64]:
        """Events with an item of each user (n_users,)."""
        return np.where(self.places >= 0, np.append(self.matrix.events, 0)[self.places], 0).astype(np.int64)

    def stages(self, settings: Settings) -> pl.Series:
        """context, cohort or individual, by the events that are made use of; generic: none may be (n_users,)."""
        events = pl.DataFrame({"n": np.where(self.holdout, 0, self.evidence)})
        stages = events.select(stage_of(pl.col("n"), settings))
        if self.generic is None:
            return stages.to_series()
        return stages.select(pl.when(~pl.Series(self.generic)).then("stage").otherwise(pl.lit(GENERIC))).to_series()


def audience(
    home: Home,
    users: pl.Series | None = None,
    as_of: datetime | None = None,
    context: Mapping[str, str] | None = None,
    include_holdout: bool = False,
    ordered: bool = False,
    queries: bool = False,
) -> Audience:
    """`users` (default: everyone with a profile) as they were before `as_of`; users of whom nothing is known too.

    `context` replaces what is known of everybody's device or country; `ordered`: histories say when;
    `queries`: and what was searched for. Whom personalization does not cover is as unknown here as a stranger.
    MissingInput where no user is known at all, UsageError for a context that popularity is not counted by.
    """
    for name in context or {}:
        if name not in CELL:
            raise UsageError(f"--context {name}: popularity is not counted by that{nearest(name, CELL)}")
    chosen = (everyone(home, as_of) if users is None else users).unique().sort().alias("user_id")
    # Lists are for the ids asked, whatever person is behind them.
    people = persons(home, as_of).of(chosen)
    who = allowed(home, PERSONALIZATION, None if users is None else chosen)
    generic = None if who.everybody else ~who.of(chosen).to_numpy()
    if generic is not None:  # from here on a stranger of whom nothing is known stands in their place
        people = people.to_frame().select(pl.when(~pl.Series(generic)).then(pl.first())).to_series()
    # What is read below is read of them alone, or of all and then cut down to them.
    needed = None if users is None else people.drop_nulls().unique()
    said = who.rows(preferences.spoken(home, needed, as_of, purpose=None))
    history = _shown_again(who.rows(history_of(home, needed, as_of)), home.settings, as_of)
    matrix = interactions(history, home.settings, lifted=preferences.lifted(said))
    if ordered:
        events = person_events(home, as_of, purpose=None).select("user_id", "item_id", "timestamp")
        matrix = with_times(matrix, events.filter(pl.col("user_id").is_in(matrix.users.implode())))
    held_out = np.zeros(len(chosen), dtype=bool) if include_holdout else in_holdout(home, chosen).to_numpy()
    if generic is not None:
        held_out &= ~generic
    known = contexts(home, people, as_of, purpose=None).with_columns(own=countries(said, people))
    known = known.select("device", country=pl.coalesce("own", "country")).with_columns(
        pl.lit(country_code(value) if name == "country" else value, dtype=pl.String).alias(name)
        for name, value in (context or {}).items()
    )
    # The non-personalised list is one for all: the context is part of what is measured against it.
    known = known.with_columns(pl.when(~pl.Series(held_out)).then(pl.col(CELL)).name.keep())
    searched = _searched(home, people, as_of, held_out) if queries else None
    wishes = wishes_of(said, people, home.settings, lambda: described(home, as_of), held_out)
    return Audience(chosen, matrix, positions(people, matrix.users), known, held_out, searched, wishes, generic)


def everyone(home: Home, as_of: datetime | None = None) -> pl.Series:
    """All users with an event (before `as_of`), sorted."""
    if as_of is None:
        users = profile_rows(home, ("user_id",), purpose=ANY)["user_id"]
    else:
        keyed = person_events(home, as_of, purpose=ANY).select("user_id")
        users = keyed.unique().collect()["user_id"]
    if not len(users):
        when = "" if as_of is None else f" before {as_of.isoformat().replace('+00:00', 'Z')}"
        raise MissingInput(f"no user is known{when}", "persona ingest FILE")
    return users.sort()


def _searched(home: Home, users: pl.Series, as_of: datetime | None, held_out: NDArray[np.bool_]) -> pl.Series:
    """Recent queries of each user but the held out (n_users,)."""
    events = person_events(home, as_of, purpose=None).filter(pl.col("query").is_not_null())
    found = recent_queries(events.select("user_id", "timestamp", "query"), users)
    return found.to_frame().select(pl.when(~pl.Series(held_out)).then("queries")).to_series()


def history_of(home: Home, users: pl.Series | None, as_of: datetime | None) -> pl.DataFrame:
    """The history of `users` (None: everybody), whoever they are: who may be read was asked before."""
    if users is None:
        return histories.history(home, as_of, purpose=None)
    mine = pl.col("user_id").is_in(users.implode())
    if as_of is not None:
        return histories.fold_history(histories.signal_events(home, as_of, purpose=None).filter(mine))
    table = histories.stored(home)
    if table is None:
        return histories.NOBODY
    rows = table.scan()
    if len(users) <= _FEW:
        buckets = buckets_of(users, home.settings.whole("profiles.buckets")).unique()
        rows = rows.filter(pl.col("bucket").is_in(buckets.cast(pl.Int32).implode()))
    return histories.summed(rows.filter(mine))


def _shown_again(history: pl.DataFrame, settings: Settings, as_of: datetime | None) -> pl.DataFrame:
    """The history without consumption so long ago that its items may be shown again (`rules.never_again_days`)."""
    days = settings.whole("rules.never_again_days")
    if not days:
        return history
    long_ago = pl.col("day") <= pl.lit((as_of or datetime.now(UTC)).date() - timedelta(days=days))
    return history.with_columns(pl.when(long_ago).then(0).otherwise("consumed").cast(pl.Int32).alias("consumed"))
