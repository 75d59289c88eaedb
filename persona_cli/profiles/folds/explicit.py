"""What users told: ratings, thumbs, saves, blocks, "show me less", preference settings, answers to questions.

What can be taken back or said anew is kept with its instant, and the last word counts; of words at the same microsecond
the value that sorts last (so a block wins over taking it back). What is said repeatedly is counted, by day where it
fades. Ratings are kept as number, sum and sum of squares, which is what centring needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.profiles.coding import Ints
from persona_cli.profiles.folds.part import FoldRules, Part, lists, owners

RATING, UP, DOWN, SAVE, UNSAVE = "rating", "thumbs_up", "thumbs_down", "save", "unsave"
BLOCK, UNBLOCK, LESS, PREFERENCE, ANSWER = "block", "unblock", "show_less", "preference", "survey_answer"
TYPES = (RATING, UP, DOWN, SAVE, UNSAVE, BLOCK, UNBLOCK, LESS, PREFERENCE, ANSWER)
REACTIONS = (RATING, UP, DOWN, SAVE, BLOCK, LESS)
"""Types that answer to a list where they carry the id of its decision."""
ITEM, CATEGORY, TAG = "item:", "category:", "tag:"
"""How a topic begins: what a block or a "show me less" may be about."""
APART = "\x1f"
"""Between the key and the value of a preference or an answer in `said`."""
LARGEST_RATING = 1000.0
"""Ratings are cut off here on either side, so that sums of squares stay whole 64-bit numbers."""
DAY = 86_400_000_000  # microseconds


def _entries(*fields: tuple[str, pa.DataType]) -> pa.DataType:
    return pa.list_(pa.struct([pa.field(name, type_) for name, type_ in fields]))


_SWITCH = _entries(("key", pa.string()), ("at", UTC_MICROSECONDS), ("on", pa.bool_()))
_SETTING = _entries(("key", pa.string()), ("at", UTC_MICROSECONDS), ("value", pa.string()))
FIELDS = (
    pa.field("ratings", pa.int64()),
    pa.field("thumbs_up", pa.int64()),
    pa.field("thumbs_down", pa.int64()),
    pa.field("reactions", pa.int64()),
    pa.field("_rating_sum", pa.int64()),
    pa.field("_rating_squares", pa.int64()),
    pa.field("_saves", _SWITCH),
    pa.field("_blocks", _SWITCH),
    pa.field("_show_less", _entries(("key", pa.string()), ("day", pa.date32()), ("n", pa.int64()))),
    pa.field("_preferences", _SETTING),
    pa.field("_answers", _SETTING),
)
NEEDED = ("event_type", "item_id", "value", "said", "reacted")
"""`said` and `reacted` are made of stored columns: `derived`."""
TEXTS = ("event_type", "item_id", "said")
SOURCES = ("event_type", "target", "value", "props", "decision_id")
"""Stored columns that `derived` is made of."""
_SUMS = ("ratings", "thumbs_up", "thumbs_down", "reactions", "_rating_sum", "_rating_squares")
_LATEST = {"_saves": "on", "_blocks": "on", "_preferences": "value", "_answers": "value"}
_TYPE: dict[str, Any] = dict(pl.Schema(pa.schema(FIELDS)))


def derived() -> dict[str, pl.Expr]:
    """`said` and `reacted` of an event, made of `SOURCES`.

    said: the topic of a block, unblock or show_less; the key, APART and the value of a preference or an answer: `value`
    (`answer`) of the props, lists as JSON, else the number in `value`. Null for all other events. reacted: whether a
    reaction names a decision.
    """
    kind = pl.col("event_type")
    keyed = kind.is_in([PREFERENCE, ANSWER])
    number, props = pl.col("value"), pl.when(keyed).then("props")  # of all others no JSON is read
    plain = pl.when(number == number.round()).then(number.cast(pl.Int64, strict=False).cast(pl.String))
    number_text = plain.otherwise(number.cast(pl.String))
    told = [props.str.json_path_match(f"$.{name}") for name in ("answer", "value")]
    value = pl.coalesce(*told, number_text)
    said = (
        pl.when(kind.is_in([BLOCK, UNBLOCK, LESS]))
        .then("target")
        .when(keyed)
        .then(pl.concat_str([pl.col("target"), value], separator=APART))
    )
    reacted = pl.col("decision_id").is_not_null() & kind.is_in(REACTIONS)
    return {"said": said.alias("said"), "reacted": reacted.alias("reacted")}


def fold(part: Part, rules: FoldRules) -> dict[str, pl.Series]:
    """ratings, thumbs_up, thumbs_down: how many; reactions: how many events named the decision they answer to.

    _rating_sum in thousandths, _rating_squares in millionths. _saves by item, _blocks by topic: on or taken back, and
    since when. _show_less: how often by topic and day. _preferences by key, _answers by question: the latest value.
    A topic is item:ID, category:NAME or tag:NAME.
    """
    told = explicit(part)
    kind, n_users = pl.col("event_type"), len(part.users)
    rated = told.filter((kind == RATING) & pl.col("value").is_finite())
    stars = rated.select(thousandths(pl.col("value"))).to_series().to_numpy()
    by_rater = rated["owner"].to_numpy()
    topic = pl.when(pl.col("item_id").is_not_null()).then(pl.lit(ITEM) + pl.col("item_id")).otherwise(_topic())
    about = told.filter(kind.is_in([BLOCK, UNBLOCK, LESS])).with_columns(key=topic).filter(pl.col("key").is_not_null())
    keyed = told.filter(kind.is_in([PREFERENCE, ANSWER])).with_columns(
        pl.col("said").str.splitn(APART, 2).struct.rename_fields(["key", "value"]).struct.unnest()
    )
    keyed = keyed.filter(pl.col("key").is_not_null() & pl.col("value").is_not_null())
    switches = pl.col("owner"), pl.col("key"), pl.col("at")
    saves = told.filter(kind.is_in([SAVE, UNSAVE]) & pl.col("item_id").is_not_null())
    saves = saves.select("owner", pl.col("item_id").alias("key"), "at", on=kind == SAVE)
    blocks = about.filter(kind != LESS).select(*switches, on=kind == BLOCK)
    less = about.filter(kind == LESS).select("owner", "key", day=_day(), n=pl.lit(1, pl.Int64))
    sums = {
        "ratings": np.bincount(by_rater, minlength=n_users),
        "thumbs_up": _number(told.filter(kind == UP), n_users),
        "thumbs_down": _number(told.filter(kind == DOWN), n_users),
        "reactions": _number(told.filter(kind.is_in(REACTIONS) & pl.col("reacted")), n_users),
        "_rating_sum": _added(by_rater, stars, n_users),
        "_rating_squares": _added(by_rater, stars * stars, n_users),
    }
    return {
        **{name: pl.Series(name, sums[name].astype(np.int64)) for name in _SUMS},
        "_saves": _listed("_saves", _last(saves, "on"), n_users),
        "_blocks": _listed("_blocks", _last(blocks, "on"), n_users),
        "_show_less": _listed("_show_less", _by_day(less), n_users),
        "_preferences": _listed("_preferences", _last(keyed.filter(kind == PREFERENCE), "value"), n_users),
        "_answers": _listed("_answers", _last(keyed.filter(kind == ANSWER), "value"), n_users),
    }


def thousandths(rating: pl.Expr) -> pl.Expr:
    """A rating as a whole number of thousandths."""
    return (rating.clip(-LARGEST_RATING, LARGEST_RATING) * 1000).round().cast(pl.Int64)


def merge(rows: pl.DataFrame, rules: FoldRules) -> pl.DataFrame:
    owner, users = owners(rows)
    n_users = len(users)
    found = {"user_id": users}
    for name in _SUMS:
        found[name] = pl.Series(name, _added(owner, rows[name].to_numpy(), n_users))
    for name, value in _LATEST.items():
        found[name] = _listed(name, _last(flat(owner, rows[name]), value), n_users)
    found["_show_less"] = _listed("_show_less", _by_day(flat(owner, rows["_show_less"])), n_users)
    return pl.DataFrame({name: found[name] for name in ("user_id", *_TYPE)})


def nothing() -> dict[str, pl.Expr]:
    """What `derived` makes of events of other types than `TYPES`."""
    return {"said": pl.lit(None, pl.String).alias("said"), "reacted": pl.lit(False).alias("reacted")}


def any_explicit(events: pl.LazyFrame) -> bool:
    """Whether any of the events is of `TYPES`: where none is, `SOURCES` need not be read."""
    return events.filter(pl.col("event_type").is_in(TYPES)).select("event_type").head(1).collect().height > 0


def explicit(part: Part) -> pl.DataFrame:
    """The events of `TYPES`: owner (place among the users), event_type, item_id, said, value, reacted, at (µs)."""
    events = part.events
    types, code = events.values["event_type"], events.codes("event_type")
    assert code is not None, "every event has a type"
    places = np.flatnonzero(types.is_in(list(TYPES)).to_numpy()[code])
    found = {"owner": pl.Series(part.user[places]), "event_type": types.gather(code[places])}
    for name in ("item_id", "said"):
        codes = events.codes(name)
        chosen = np.full(len(places), -1) if codes is None else codes[places]
        texts = events.values.get(name, pl.Series(dtype=pl.String))
        found[name] = texts.gather(pl.Series(chosen, dtype=pl.Int64).replace(-1, None))
    for name, dtype in (("value", pl.Float64), ("reacted", pl.Boolean)):
        nothing = pl.Series([None], dtype=dtype).new_from_index(0, len(places))
        found[name] = events.rows[name][places] if name in events.rows.columns else nothing
    return pl.DataFrame({**found, "at": pl.Series(part.time[places])})


def flat(owner: Ints, column: pl.Series) -> pl.DataFrame:
    """Lists of entries (n_rows,) as one row an entry: owner and the fields of the entry; instants in microseconds."""
    nested = pl.DataFrame({"owner": owner, "entry": column}).filter(pl.col("entry").list.len() > 0)
    found = nested.explode("entry").unnest("entry")
    return found.with_columns(pl.col("at").dt.epoch("us")) if "at" in found.columns else found


def _topic() -> pl.Expr:
    """What was said, where it is a topic by name."""
    named = pl.col("said").str.starts_with(CATEGORY) | pl.col("said").str.starts_with(TAG)
    return pl.when(named & ~pl.col("said").is_in([CATEGORY, TAG])).then("said")


def _day() -> pl.Expr:
    return (pl.col("at") // DAY).cast(pl.Int32).cast(pl.Date)


def _last(said: pl.DataFrame, value: str) -> pl.DataFrame:
    """The last word of each (owner, key), sorted by them."""
    ordered = said.select("owner", "key", "at", value).sort("owner", "key", "at", value)
    return ordered.unique(["owner", "key"], keep="last", maintain_order=True)


def _by_day(said: pl.DataFrame) -> pl.DataFrame:
    return said.group_by("owner", "key", "day").agg(pl.col("n").sum()).sort("owner", "key", "day")


def _number(rows: pl.DataFrame, n_users: int) -> Ints:
    return np.bincount(rows["owner"].to_numpy(), minlength=n_users)


def _added(owner: Ints, numbers: Ints, n_users: int) -> Ints:
    """Whole sums by owner (n_users,); `bincount` with weights would add floats."""
    sums = np.zeros(n_users, dtype=np.int64)
    np.add.at(sums, owner, numbers)
    return sums


def _listed(name: str, rows: pl.DataFrame, n_users: int) -> pl.Series:
    """Rows sorted by owner as the lists of a column (n_users,)."""
    moments = [pl.from_epoch(pl.col("at"), "us").dt.replace_time_zone("UTC")] if "at" in rows.columns else []
    entries = rows.with_columns(moments).select(pl.col(one.name).cast(one.dtype) for one in _TYPE[name].inner.fields)
    return lists(rows["owner"].to_numpy(), n_users, entries).alias(name)
