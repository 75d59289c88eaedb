"""Those for whom a surface decides, and what of them it may know: the rows that all kinds decide from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import UsageError, nearest
from persona_cli.events.countries import country_code
from persona_cli.profiles import features, segments
from persona_cli.profiles import fold as folding
from persona_cli.profiles.buckets import buckets_of
from persona_cli.profiles.features import PREFERRED, Population, computed
from persona_cli.profiles.fold import profile_rows, stored_rows
from persona_cli.profiles.folds.part import FoldRules
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import PERSONALIZATION, allowed, in_holdout
from persona_cli.profiles.population import moment_of_all, population_of
from persona_cli.profiles.read import preferred_categories, profiles, stage_of
from persona_cli.profiles.stated import ATTRIBUTES, attributes, countries, stated
from persona_cli.serving import GENERIC
from persona_cli.workspace.home import Home

CONTEXT = ("device", "browser", "os", "country", "network", "locale", "tz", "hour")
"""What may be told of the visit; it stands in the place of what the profile says of the same."""
EARLIER = pl.Schema({"user_id": pl.String(), "at": pl.Datetime("us", "UTC"), "choice": pl.String()})
"""Columns of earlier decisions: the id asked for, when, and what was chosen as JSON."""
_FEW = 2_000
_COUNTS = ("maturity", "feature_breadth", "power_user_score", "active_days", "features", "purchases")

Flags = NDArray[np.bool_]
Earlier = Callable[[], pl.DataFrame]


@dataclass(frozen=True)
class Visitors:
    """Everybody asked, one row each; all aligned with `users`."""

    users: pl.Series
    """user_id, distinct and sorted (n,)."""
    rows: pl.DataFrame
    """user_id, person (null: nothing may be known of them), `CONTEXT` but the hour, stage and what was needed (n)."""
    holdout: NDArray[np.bool_]
    generic: NDArray[np.bool_]
    """Whom personalization does not cover: a visitor of whom nothing is known stands in their place (n,)."""
    kept: Flags
    """Whose decisions may be kept (n,)."""
    moment: datetime
    """From when ages are counted back: `as_of`, else the last event of anybody."""
    at: datetime
    """When the decision is made."""
    context: Mapping[str, str]
    as_of: datetime | None
    earlier: Earlier
    """Reads decisions that were made on this surface for the persons asked (`EARLIER`), in no order."""

    @property
    def items(self) -> NDArray[np.int64]:
        """Events with an item (n,)."""
        found: NDArray[np.int64] = self.rows["items"].fill_null(0).to_numpy()
        return found

    @property
    def personal(self) -> NDArray[np.bool_]:
        """Who may get more than the default (n,)."""
        return ~(self.holdout | self.generic)

    def past(self) -> pl.DataFrame:
        """`EARLIER` with row (the place among `users`) in the place of user_id: what was decided for the person."""
        told = self.earlier()
        rows = pl.DataFrame({"person": self.rows["person"], "row": np.arange(len(self.users))}).drop_nulls("person")
        return told.rename({"user_id": "person"}).join(rows, on="person").select("row", "at", "choice")


def visitors(
    home: Home,
    needs: Iterable[str],
    *,
    at: datetime,
    users: pl.Series | None = None,
    as_of: datetime | None = None,
    context: Mapping[str, str] | None = None,
    earlier: Callable[[pl.Series], pl.DataFrame] | None = None,
    kept: Callable[[pl.Series], pl.Series] | None = None,
) -> Visitors:
    """`users` (default: everyone with a profile) with the columns that a surface `needs` to know.

    `earlier` reads the decisions that were made for ids (`EARLIER`); `kept` says for whose ids decisions may be kept.

    Everything is read for personalization. UsageError for a context that is none; MissingInput where nobody is known.
    """
    told = dict(context or {})
    for name in told:
        if name not in CONTEXT:
            raise UsageError(f"--context {name}: nothing of that name is told of a visit{nearest(name, CONTEXT)}")
    if "hour" in told and not (told["hour"].isdecimal() and int(told["hour"]) < 24):
        raise UsageError(f"--context hour={told['hour']}: expected the visitor's local hour, 0 to 23")
    if users is None:
        from persona_cli.serving.context import everyone  # with all that models need

        chosen = everyone(home, as_of)
    else:
        chosen = users.unique().sort().alias("user_id")
    who = persons(home, as_of)
    people = who.of(chosen)
    permitted = allowed(home, PERSONALIZATION, None if users is None else chosen)
    generic = (
        np.zeros(len(chosen), dtype=bool) if permitted.everybody else ~permitted.of(chosen).to_numpy().astype(bool)
    )
    people = people.to_frame("person").select(pl.when(~pl.Series(generic)).then("person")).to_series()
    needed = None if users is None else people.drop_nulls().unique()
    known, moment = _known(home, {*needs, *CONTEXT} - {"hour"}, needed, as_of)
    rows = pl.DataFrame({"user_id": chosen, "person": people})
    rows = rows.join(known.rename({"user_id": "person"}), on="person", how="left", maintain_order="left")
    held_out = in_holdout(home, chosen).to_numpy().astype(bool) & ~generic
    # The default is one for all: the context is part of what is measured against it.
    override = [
        pl.when(~pl.Series(held_out)).then(pl.lit(_read(name, value))).otherwise(name).alias(name)
        for name, value in told.items()
        if name != "hour"
    ]
    stage = stage_of(pl.when(pl.Series(held_out)).then(0).otherwise(pl.col("items").fill_null(0)), home.settings)
    rows = rows.with_columns(
        *override,
        *(pl.col(name).fill_null(0) for name in (*_COUNTS, "events", "sessions") if name in rows.columns),
        pl.when(pl.Series(generic)).then(pl.lit(GENERIC)).otherwise(stage).alias("stage"),
    )

    def read() -> pl.DataFrame:
        found = pl.DataFrame(schema=EARLIER) if earlier is None else earlier(who.ids_of(people.drop_nulls().unique()))
        return found.filter(pl.col("at") < at).with_columns(who.of(found["user_id"]).alias("user_id"))

    keeping = np.ones(len(chosen), dtype=bool) if kept is None else kept(chosen).to_numpy().astype(bool)
    return Visitors(chosen, rows, held_out, generic, keeping, moment, at, told, as_of, read)


def _read(name: str, value: str) -> str:
    return country_code(value) if name == "country" else value


def known_columns(home: Home) -> dict[str, pl.DataType | str]:
    """What a condition of a surface may name."""
    return {**segments.columns(home), **ATTRIBUTES}


def chosen_names(chosen: Flags, names: Sequence[str]) -> pl.Series:
    """The names that are chosen (n, n_names) as lists (n,), in their order."""
    if not names:
        return pl.Series([[]], dtype=pl.List(pl.String)).new_from_index(0, len(chosen))
    marks = pl.DataFrame(chosen, schema=[str(place) for place in range(len(names))])
    told = [pl.when(pl.col(str(place))).then(pl.lit(name)) for place, name in enumerate(names)]
    return marks.select(pl.concat_list(told).list.drop_nulls()).to_series()


def _known(
    home: Home, needs: set[str], people: pl.Series | None, as_of: datetime | None
) -> tuple[pl.DataFrame, datetime]:
    """user_id and the columns needed of those of `people` (None: everybody) of whom something is known; the moment."""
    own = segments.own(home)
    wanted = set(needs)
    for name in reversed(own):  # each stands after those that it needs
        if name in wanted:
            wanted |= set(own[name].columns)
    computing = bool(wanted & {*features.NAMES, *own})
    stored = {"user_id", "last_seen", "first_seen", "items", "_preferences"} | (wanted & set(folding.COLUMNS))
    if computing:
        stored |= set(features.NEEDED)
    columns = tuple(name for name in folding.COLUMNS if name in stored)
    preferring = bool(wanted & set(PREFERRED))
    rows = _rows(home, columns, people, as_of, preferring)
    if preferring and as_of is None:
        best = preferred_categories(home, people, purpose=PERSONALIZATION)
        rows = rows.join(best, on="user_id", how="left")
    among = _population(home, rows, people, as_of, wanted)
    rows = rows.with_columns(country=pl.coalesce(countries(rows, rows["user_id"]), "country"))
    if computing:
        rows = rows.hstack(computed(rows, among))
        types = {name: pl.String() if kind == "text" else pl.Float64() for name, kind in PREFERRED.items()}
        missing = [pl.lit(None, type_).alias(name) for name, type_ in types.items() if name not in rows.columns]
        rows = stated(rows.with_columns(missing))
    rows = rows.with_columns(stage_of(pl.col("items"), home.settings), in_holdout(home, rows["user_id"]))
    for name, value in own.items():
        if name in wanted:
            rows = rows.with_columns(value.expression.alias(name))
    if wanted & set(ATTRIBUTES):
        rows = rows.join(attributes(home, as_of, purpose=PERSONALIZATION), on="user_id", how="left")
    return rows.drop("stage"), among.moment


def _rows(
    home: Home, columns: tuple[str, ...], people: pl.Series | None, as_of: datetime | None, preferring: bool
) -> pl.DataFrame:
    """The columns of those asked, and `PREFERRED` of a past moment where that is needed."""
    if as_of is not None:
        rows = profiles(home, preferring, as_of, None, columns, purpose=PERSONALIZATION)
        found = rows.select(*columns, *(PREFERRED if preferring else ())).collect()
        return found if people is None else found.filter(pl.col("user_id").is_in(people.implode()))
    if people is None:
        return profile_rows(home, columns, purpose=PERSONALIZATION)
    if len(people) > _FEW:
        found = profile_rows(home, columns, purpose=PERSONALIZATION)
        return found.filter(pl.col("user_id").is_in(people.implode()))
    table, largest, increments = stored_rows(home)
    if table is None:
        return folding.NOBODY.select(columns)
    buckets = set(buckets_of(people, home.settings.whole("profiles.buckets")).to_list())
    files = [file for file in (*largest, *increments) if int(file.partition["bucket"]) in buckets]
    theirs = table.scan(files).filter(pl.col("user_id").is_in(people.implode())).select(folding.COLUMNS).collect()
    # `people` are those whom personalization covers: they were asked before.
    return folding.merge(theirs, FoldRules.of(home.settings)).select(columns)


def _population(
    home: Home, rows: pl.DataFrame, people: pl.Series | None, as_of: datetime | None, wanted: set[str]
) -> Population:
    """What is needed of others: all of it for what compares users, else the moment alone."""
    if wanted & {"power_user_score", "feature_breadth"}:
        if people is None:
            return features.population(as_of or moment_of_all(rows["last_seen"]), rows)
        return population_of(home, as_of, purpose=PERSONALIZATION)
    if as_of is not None:
        return features.alone(as_of)
    if people is None:
        return features.alone(moment_of_all(rows["last_seen"]))
    table, largest, increments = stored_rows(home)
    if table is None:
        return features.alone(moment_of_all(rows["last_seen"]))
    last = table.scan([*largest, *increments]).select(pl.col("last_seen").max()).collect().to_series()
    return features.alone(moment_of_all(last))
