"""What users told by themselves, as it stands at a moment: blocks, "show me less", settings, answers, ratings.

The profile keeps the last words (`folds.explicit`); here they are read: from the profiles table for now, from events
for a past moment, or from events that are given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from persona_cli.profiles.coding import coded
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.folds import explicit
from persona_cli.profiles.folds.explicit import CATEGORY, ITEM, TAG
from persona_cli.profiles.folds.part import FoldRules, part_of
from persona_cli.profiles.permitted import Purpose, person_events
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

SPOKEN = ("_blocks", "_show_less", "_answers", "_preferences")
"""Columns of a profile that change lists."""


def explicit_events(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """Events by which users tell something (before `as_of`): user_id, timestamp, event_type, item_id, value, said,
    reacted; in no order."""
    events = person_events(home, as_of, purpose=purpose).filter(pl.col("event_type").is_in(explicit.TYPES))
    return events.select(
        "user_id", "timestamp", "event_type", "item_id", "value", *explicit.derived().values()
    ).collect()


def folded(events: pl.DataFrame) -> pl.DataFrame:
    """user_id and the columns of `folds.explicit` of events as `explicit_events` answers them, sorted by user_id."""
    part = part_of(coded(events, ("user_id", *explicit.TEXTS)))
    if part is None:
        schema = pl.Schema(pa.schema(explicit.FIELDS))
        return pl.DataFrame(schema={"user_id": pl.String, **schema})
    return pl.DataFrame({"user_id": part.users, **explicit.fold(part, FoldRules(0))})


def spoken(
    home: Home, users: pl.Series | None = None, as_of: datetime | None = None, *, purpose: Purpose = None
) -> pl.DataFrame:
    """user_id, last (the day of the last event) and `SPOKEN` of those of `users` (None: all) who said something."""
    if as_of is None:
        rows = profile_rows(home, ("user_id", "last_seen", *SPOKEN), purpose=purpose)
        rows = rows if users is None else rows.filter(pl.col("user_id").is_in(users.implode()))
        return _speaking(rows.select("user_id", pl.col("last_seen").dt.date().alias("last"), *SPOKEN))
    said = explicit_events(home, as_of, purpose=purpose)
    if users is not None:
        said = said.filter(pl.col("user_id").is_in(users.implode()))
    theirs = pl.col("user_id").is_in(said["user_id"].unique().implode())
    events = person_events(home, as_of, purpose=purpose).select("user_id", "timestamp").filter(theirs)
    return spoken_in(said, events if said.height else said)


def spoken_in(told: pl.DataFrame, events: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """As `spoken`, of what was `told` (`explicit_events`) beside all known events (user_id, timestamp)."""
    rows = folded(told).select("user_id", *SPOKEN)
    last = events.lazy().group_by("user_id").agg(last=pl.col("timestamp").max().dt.date()).collect()
    return _speaking(rows.join(last, on="user_id", how="left").select("user_id", "last", *SPOKEN))


def among(told: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Those of the explicit events that are among the known ones (user_id, timestamp, event_type, item_id)."""
    if not told.height:
        return told
    same = ["user_id", "timestamp", "event_type", "item_id"]
    theirs = known.filter(pl.col("user_id").is_in(told["user_id"].unique().implode())).select(same)
    return told.join(theirs, on=same, how="semi", nulls_equal=True)


def blocks(rows: pl.DataFrame) -> pl.DataFrame:
    """user_id, key, on: the last word on every topic that was ever blocked; of `spoken` rows."""
    return _flat(rows, "_blocks").select("user_id", "key", "on")


def shown_less(rows: pl.DataFrame, half_life_days: float) -> pl.DataFrame:
    """user_id, key, left: what is left of "show me less" on the user's last day, a fresh one being 1; sorted.

    left = Σ n 2^(-age / half_life), age in days from saying it to the last event; a half-life of 0: nothing fades.
    """
    said = _flat(rows, "_show_less")
    age = (pl.col("last") - pl.col("day")).dt.total_days().clip(0)
    fading = pl.lit(0.5).pow(age / half_life_days) if half_life_days else pl.lit(1.0)
    ordered = said.sort("user_id", "key", "day").with_columns(left=pl.col("n") * fading)
    return ordered.group_by("user_id", "key", maintain_order=True).agg(pl.col("left").sum())


def answers(rows: pl.DataFrame) -> pl.DataFrame:
    """user_id, question, answer: the latest answers, one row each where several were given at once."""
    said = _flat(rows, "_answers").select("user_id", pl.col("key").alias("question"), "value")
    listed = pl.Series([_several(value) for value in said["value"]], dtype=pl.List(pl.String))
    return said.select("user_id", "question", answer=listed).explode("answer").drop_nulls().unique().sort(pl.all())


def lifted_in(events: pl.DataFrame) -> pl.DataFrame:
    """As `lifted`, of events (user_id, item_id, timestamp, event_type), whose last words count; sorted.

    Where events have no type, nobody has blocked a thing.
    """
    if "event_type" not in events.columns:
        return pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String})
    about = pl.col("event_type").is_in([explicit.BLOCK, explicit.UNBLOCK]) & pl.col("item_id").is_not_null()
    pair, blocked = ["user_id", "item_id"], pl.col("event_type") == explicit.BLOCK
    said = events.filter(about).sort("timestamp", blocked)  # of words at one instant a block wins
    last = said.group_by(pair).agg(blocked.last().alias("on"))
    return last.filter(~pl.col("on")).select(pair).sort(pair)


def lifted(rows: pl.DataFrame) -> pl.DataFrame:
    """user_id, item_id: items that were blocked, and whose block was taken back since."""
    off = blocks(rows).filter(~pl.col("on") & pl.col("key").str.starts_with(ITEM))
    return off.select("user_id", item_id=pl.col("key").str.slice(len(ITEM)))


def topics(items: pl.DataFrame | None) -> pl.DataFrame:
    """topic (category:NAME or tag:NAME), item_id of a catalogue: each pair once, sorted."""
    if items is None:
        return pl.DataFrame(schema={"topic": pl.String, "item_id": pl.String})
    tagged = items.select(topic="tags", item_id="item_id").explode("topic").drop_nulls()
    named = items.select(topic=pl.lit(CATEGORY) + pl.col("category"), item_id="item_id").drop_nulls()
    return pl.concat([named, tagged.with_columns(topic=pl.lit(TAG) + pl.col("topic"))]).unique().sort(pl.all())


def told(row: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What one user told, for people and JSON, of a row with `last_seen` and the columns of `folds.explicit`.

    ratings (number, mean and standard deviation; None without any), thumbs_up, thumbs_down, saved, blocked (items,
    categories, tags), show_less (what is left by topic, strongest first), preferences and answers (latest by key),
    reactions (how many answered to a list).
    """
    n, total, squares = row["ratings"], row["_rating_sum"], row["_rating_squares"]
    ratings = None
    if n:
        mean = total / n / 1000
        variance = (n * squares - total * total) / (n * n * 1_000_000)
        ratings = {"n": n, "mean": round(mean, 3), "deviation": round(float(np.sqrt(variance)), 3)}
    on = [entry["key"] for entry in row["_blocks"] if entry["on"]]
    last = row["last_seen"].date()
    half_life = settings.number("recommend.show_less_half_life_days")
    less: dict[str, float] = {}
    for entry in row["_show_less"]:
        age = max((last - entry["day"]).days, 0)
        less[entry["key"]] = less.get(entry["key"], 0.0) + entry["n"] * (0.5 ** (age / half_life) if half_life else 1.0)
    return {
        "ratings": ratings,
        "thumbs_up": row["thumbs_up"],
        "thumbs_down": row["thumbs_down"],
        "saved": [entry["key"] for entry in row["_saves"] if entry["on"]],
        "blocked": {
            name: [key[len(start) :] for key in on if key.startswith(start)]
            for name, start in (("items", ITEM), ("categories", CATEGORY), ("tags", TAG))
        },
        "show_less": {key: round(left, 3) for key, left in sorted(less.items(), key=lambda one: (-one[1], one[0]))},
        # What was taken back has the empty value.
        "preferences": {entry["key"]: entry["value"] for entry in row["_preferences"] if entry["value"]},
        "answers": {entry["key"]: _several(entry["value"]) for entry in row["_answers"] if entry["value"]},
        "reactions": row["reactions"],
    }


def _speaking(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.any_horizontal(pl.col(name).list.len() > 0 for name in SPOKEN)).sort("user_id")


def _flat(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """One row an entry of a column of lists: user_id, last and the fields of the entry."""
    given = rows.select("user_id", "last", pl.col(name).alias("entry")).filter(pl.col("entry").list.len() > 0)
    return given.explode("entry").unnest("entry")


def _several(value: str) -> list[str]:
    """An answer as it was given: a JSON list of texts, or one text."""
    if value.startswith("["):
        try:
            found = json.loads(value)
        except ValueError:
            return [value]
        return sorted({one if isinstance(one, str) else json.dumps(one) for one in found})
    return [value]
