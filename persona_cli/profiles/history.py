"""What is kept of a user for models: strengths by item and day, and the words searched for lately.

A user's history: strengths by (user, item, day), the only per-user state that models read.

Rows are sums over disjoint events and add up: the table holds partial folds, and negative ones for events that were
taken back, which are summed when read. A row whose events sum to none does not exist.

What users searched for lately: texts that models of words read. They are personal data and in no log or report.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.errors import MissingInput
from persona_cli.profiles.coding import Coded, Ints, coded, compacted, run_starts, sort_order
from persona_cli.profiles.permitted import Purpose, allowed, person_events
from persona_cli.profiles.signal_fit import ALONE, RATED, RATINGS, Centring, centring, spoken
from persona_cli.profiles.signals import THOUSANDTHS, Flags, Signals, with_signals
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings
from persona_cli.workspace.tables import File, Table

NAME = "history"
KEY = ("user_id", "item_id", "day")
SUMS = ("strength", "n", "consumed", "never", RATED, RATINGS)
SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("day", pa.date32()),
        pa.field("strength", pa.int64()),
        pa.field("n", pa.int32()),
        pa.field("consumed", pa.int32()),
        pa.field("never", pa.int32()),
        pa.field(RATED, pa.int64()),
        pa.field(RATINGS, pa.int32()),
        pa.field("bucket", pa.int32()),
    ]
)
_SUMMED = ("n", "consumed", "never")
_DAY = 86_400_000_000
_TYPES = {
    "user_id": pl.String,
    "item_id": pl.String,
    "day": pl.Date,
    "strength": pl.Int64,
    "n": pl.Int32,
    "consumed": pl.Int32,
    "never": pl.Int32,
    RATED: pl.Int64,
    RATINGS: pl.Int32,
}


NOBODY = pl.DataFrame(schema=_TYPES)


def signal_events(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.LazyFrame:
    """All events (before `as_of`) with their signals, one row an event, in no order.

    Columns: user_id (the person), item_id (nullable), timestamp, event_type, value, device, country, position, query,
    strength Int64 (thousandths), never, consumed Boolean; with signals.center_ratings also rated (`with_signals`).
    """
    events = person_events(home, as_of, purpose=purpose).select(
        "user_id", "item_id", "timestamp", "event_type", "value", "device", "country", "position", "query"
    )
    return with_signals(events, home.settings)


def fold_history(events: pl.LazyFrame | pl.DataFrame) -> pl.DataFrame:
    """History rows of events: user_id, item_id, day (UTC) and `SUMS`; sorted by the first three.

    Needs user_id, item_id, timestamp, strength, consumed, never, and rated where ratings are centred: these add to the
    columns rated and ratings, and nothing to strength. Events without an item leave no row.
    """
    keys, said = ("user_id", "item_id", "timestamp"), ("strength", "never", "consumed")
    centred = [RATED] if RATED in events.lazy().collect_schema().names() else []
    rows = events.lazy().select(*keys, *said, *centred).collect()
    signals = Signals(*(rows[name].to_numpy() for name in said))
    if centred and rows[RATED].count():
        rated = rows[RATED]
        signals = signals._replace(rated=rated.fill_null(0).to_numpy(), counted=rated.is_not_null().to_numpy())
    return fold_coded_history(coded(rows.select(keys), ("user_id", "item_id")), signals)


def fold_coded_history(events: Coded, signals: Signals) -> pl.DataFrame:
    """As `fold_history`, of coded events and their signals."""
    user, item = events.codes("user_id"), events.codes("item_id")
    given = np.zeros(0, dtype=np.int64) if item is None else np.flatnonzero(item >= 0)
    if user is None or item is None or not len(given):
        return NOBODY
    user, users = compacted(user[given], events.values["user_id"])
    item, items = item[given], events.values["item_id"]
    day = events.rows["timestamp"].to_physical().to_numpy()[given] // _DAY
    first_day = day.min()
    order = sort_order([(user, len(users)), (item, len(items)), (day - first_day, int(day.max() - first_day) + 1)])
    user, item, day = user[order], item[order], day[order]
    order = given[order]
    starts = run_starts(user, item, day)
    n = np.diff(starts, append=len(order))
    rated, counted = signals.rated, signals.counted
    if rated is None or counted is None:
        strength, sums = signals.strength, np.zeros(len(starts), dtype=np.int64)
        ratings = np.zeros(len(starts), dtype=np.int32)
    else:
        strength, sums = np.where(counted, 0, signals.strength), np.add.reduceat(rated[order], starts)
        ratings = _counted(counted, order, starts, n)
    return pl.DataFrame(
        {
            "user_id": users.gather(user[starts]),
            "item_id": items.gather(item[starts]),
            "day": pl.Series(day[starts].astype(np.int32)).cast(pl.Date),
            "strength": np.add.reduceat(strength[order], starts),
            "n": n.astype(np.int32),
            "consumed": _counted(signals.consumed, order, starts, n),
            "never": _counted(signals.never, order, starts, n),
            RATED: sums,
            RATINGS: ratings,
        }
    )


def _counted(flags: Flags, order: Ints, starts: Ints, n: Ints) -> NDArray[np.int32]:
    """How many rows of each run have the flag; most workspaces have one that all or none have."""
    if flags.all():
        return n.astype(np.int32)
    if not flags.any():
        return np.zeros(len(starts), dtype=np.int32)
    return np.add.reduceat(flags[order], starts, dtype=np.int32)


def summed(rows: pl.LazyFrame | pl.DataFrame) -> pl.DataFrame:
    """History rows with the partial folds of each key added up, sorted; keys with nothing left are gone."""
    added = rows.lazy().group_by(KEY).agg(pl.col(SUMS).sum())
    return added.filter(pl.col("n") != 0).select(*_TYPES).sort(KEY).collect()


def merged(rows: pl.DataFrame) -> pl.DataFrame:
    """As `summed`, but keeping keys with negative sums: a partial fold to append."""
    added = rows.group_by(KEY).agg(pl.col(SUMS).sum())
    return added.filter(pl.any_horizontal(pl.col(SUMS) != 0)).select(*_TYPES).sort(KEY)


def negative(rows: pl.DataFrame) -> pl.DataFrame:
    """What takes these rows back when it is added."""
    return rows.with_columns(-pl.col(SUMS))


def history(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """All users' history, sorted by user_id, item_id, day: from the table, or folded from events before `as_of`."""
    if as_of is not None:
        return fold_history(signal_events(home, as_of, purpose=purpose))
    table = stored(home)
    by_bucket: dict[str, list[File]] = {}
    for file in table.files if table is not None else ():
        by_bucket.setdefault(file.partition["bucket"], []).append(file)
    if table is None or not by_bucket:
        return NOBODY
    who = allowed(home, purpose)
    parts = [who.rows(_bucket(table, files)) for files in by_bucket.values()]
    return _sorted_by_user(pl.concat(parts, rechunk=True))


def stored(home: Home) -> Table | None:
    """The table; MissingInput where another version of persona made it."""
    table = tables.open_table(home, NAME)
    if table is not None and table.schema != SCHEMA:
        raise MissingInput("the histories were built by another version of persona", "persona profile build")
    return table


def _bucket(table: Table, files: list[File]) -> pl.DataFrame:
    """The history of one bucket, each user's rows together and sorted: only users with increments are added up."""
    largest, *increments = sorted(files, key=lambda file: (-file.rows, file.path))
    rows = table.scan([largest]).select(*_TYPES).collect()  # sorted, as every file is
    if not increments:
        return rows
    later = table.scan(increments).select(*_TYPES).collect()
    touched = pl.col("user_id").is_in(later["user_id"].unique().implode())
    return pl.concat([rows.filter(~touched), summed(pl.concat([rows.filter(touched), later]))])


def _sorted_by_user(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in which each user's stand together and in order, with the users in order too."""
    starts = np.flatnonzero(~_same_as_above(rows["user_id"]))
    order = rows["user_id"].gather(starts).arg_sort().to_numpy()
    lengths = np.diff(starts, append=rows.height)[order]
    before = np.cumsum(lengths) - lengths  # rows of the users that come before
    return rows[np.repeat(starts[order] - before, lengths) + np.arange(rows.height)]


def faded(history: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """`decayed` by the settings."""
    return decayed(history, settings.number("signals.half_life_days"), centring(settings))


def decayed(history: pl.DataFrame, half_life_days: float, how: Centring = ALONE) -> pl.DataFrame:
    """What is left of each interest on the user's own last day: one row a (user_id, item_id), sorted by them.

    strength Float64 (whole units) = Σ_days thousandths / 1000 · 2^(-age / half_life), where age is the number of days
    from that day to the last day of the user's history; a half-life of 0 means that nothing fades. Ratings that are
    centred speak as `ratings.spoken` says, by the mean of all the user's ratings in the history, and fade alike. n,
    consumed and never are Int64 sums. `history` must be sorted as `history()` answers it.
    """
    user, item = _same_as_above(history["user_id"]), _same_as_above(history["item_id"])
    user_starts = np.flatnonzero(~user)
    starts = np.flatnonzero(~(user & item))
    if not history.height:
        empty = {"user_id": pl.String, "item_id": pl.String, "strength": pl.Float64}
        return pl.DataFrame(schema=empty | dict.fromkeys(_SUMMED, pl.Int64))
    day = history["day"].to_physical().to_numpy().astype(np.int64)
    last = np.maximum.reduceat(day, user_starts)
    age = np.repeat(last, np.diff(user_starts, append=len(day))) - day
    # Ages are whole days: a table makes every machine use the same few powers.
    left = np.array([2.0 ** (-a / half_life_days) if half_life_days else 1.0 for a in range(int(age.max()) + 1)])
    said = history["strength"].to_numpy() / THOUSANDTHS
    if (history[RATINGS] != 0).any():
        said = said + spoken(history, user_starts, how)
    strength = np.add.reduceat(said * left[age], starts)
    keys = history.select("user_id", "item_id")[starts]
    sums = {name: np.add.reduceat(history[name].to_numpy(), starts, dtype=np.int64) for name in _SUMMED}
    return keys.with_columns(strength=pl.Series(strength), **{name: pl.Series(added) for name, added in sums.items()})


def _same_as_above(column: pl.Series) -> Flags:
    return (column == column.shift()).fill_null(False).to_numpy()


RECENT = 10
"""Different queries of a user that are read: the latest."""


def recent_queries(events: pl.DataFrame | pl.LazyFrame, users: pl.Series) -> pl.Series:
    """The latest different queries of each user, latest first, one a line; null without any: String (n_users,).

    `events` has user_id, timestamp and query; those of others than `users` (distinct) are not looked at. A query is
    what is left of its text without blanks at the ends, runs of blanks and line ends being one blank; of queries at the
    same instant the one that sorts first comes first.
    """
    asked = users.alias("user_id").to_frame()
    latest = (
        events.lazy()
        .select("user_id", "timestamp", "query")
        .filter(pl.col("query").is_not_null())
        .join(asked.lazy(), on="user_id", how="semi")
        .with_columns(pl.col("query").str.replace_all(r"\s+", " ").str.strip_chars())
        .filter(pl.col("query") != "")
        .group_by("user_id", "query")
        .agg(pl.col("timestamp").max())
        .sort("user_id", "timestamp", "query", descending=[False, True, False])
        .group_by("user_id", maintain_order=True)
        .agg(pl.col("query").head(RECENT))
        .with_columns(pl.col("query").list.join("\n"))
        .collect()
    )
    return asked.join(latest, on="user_id", how="left", maintain_order="left")["query"].alias("queries")
