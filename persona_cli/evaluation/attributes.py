"""Who the users of an exam are, as far as it was known at the cut: what segments and slices are made of.

Histories are the known events of the exam, tables of users and accounts are read as of its cut, so an attribute that
changed later is not seen. Where each user has a cut of their own (per-user, leave-last, user and random splits), ages
are as of the user's last known event; the tables are then as of the end of the training events, as for the models.

Slices by segments of persona.toml: `segment:NAME` in a condition is whether the user was in it at the cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from persona_cli.errors import UsageError
from persona_cli.evaluation.exams import Exam
from persona_cli.events.catalogue import current
from persona_cli.events.schema import KEY, Kind
from persona_cli.models.interactions import contexts
from persona_cli.profiles import segments
from persona_cli.profiles.people import described
from persona_cli.profiles.permitted import ANALYTICS
from persona_cli.workspace import tables
from persona_cli.workspace.filters import Filter
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

ACTIVITY = ("new", "light", "heavy")
NO_HISTORY = "no history"
AGES = (("under 7 days", 7), ("under 30 days", 30), ("under 180 days", 180))
"""Ages of accounts below which each label holds, in days; the first that holds counts."""
OLDEST = "180 days and more"

_DAY = timedelta(days=1)
_TEXT, _INSTANT = pl.String(), pl.Datetime("us", "UTC")
_KNOWN: dict[str, pl.DataType] = {"item_id": _TEXT, "timestamp": _INSTANT, "device": _TEXT, "country": _TEXT}
_USERS: dict[str, pl.DataType] = {
    "user_country": _TEXT,
    "role": _TEXT,
    "locale": _TEXT,
    "tz": _TEXT,
    "signed_up": _INSTANT,
    "account_id": _TEXT,
}
_ACCOUNTS: dict[str, pl.DataType] = {"plan": _TEXT, "industry": _TEXT, "size": pl.Int64(), "account_country": _TEXT}


def attributes(home: Home | None, exam: Exam, settings: Settings, segments: Sequence[str] = ()) -> pl.DataFrame:
    """One row a user asked about, sorted by user_id; null where unknown.

    user_id            String
    events             Int64, known events with an item: the evidence that models have
    activity           new: fewer than profiles.cohort_from; light: than profiles.individual_from; heavy: the others
    device, country    of the latest known event that has one; the country else from the table of users
    account_age_days   Float64, from the first known event or the sign-up, whichever is earlier, to the cut
    account_age        its label in AGES, OLDEST or NO_HISTORY
    cohort             "2026-03": month (UTC) of the first known event
    last_seen_days     Float64, from the last known event to the cut; null where each user has a cut of their own
    role, locale, tz, signed_up, account_id              of the table of users
    plan, industry, size (Int64), account_country        of the table of accounts
    segment:NAME       for each of `segments`: whether the user was in this segment of persona.toml at the cut

    Without `home` there are no tables, and without any known event nobody's activity is known. Segments raise
    what `in_segments` raises.
    """
    users = exam.users
    missing = [
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in _KNOWN.items() if name not in exam.known.columns
    ]
    known = exam.known.with_columns(missing).join(users.to_frame(), on="user_id", how="semi")
    history = known.group_by("user_id").agg(
        events=pl.col("item_id").count().cast(pl.Int64), first=pl.col("timestamp").min(), last=pl.col("timestamp").max()
    )
    found = users.to_frame().join(history, on="user_id", how="left", maintain_order="left")
    found = found.hstack(contexts(known, users)).join(_tables(home, exam), "user_id", "left", maintain_order="left")
    # Whoever has no event is new, unless there is no history of anybody to tell by.
    events = pl.col("events").fill_null(0) if exam.known.height else pl.col("events")
    own_cuts = exam.split.get("cut") is None and exam.split.get("kind") != "test"
    cut = pl.col("last") if own_cuts else pl.lit(exam.as_of, dtype=_INSTANT)
    seen = pl.lit(None, dtype=pl.Float64) if own_cuts else _days(cut - pl.col("last"))
    age = _days(cut - pl.min_horizontal("first", "signed_up"))
    return (
        found.with_columns(
            events=events,
            activity=_activity(events, settings),
            country=pl.coalesce("country", "user_country"),
            account_age_days=age,
            account_age=_label(age),
            cohort=pl.col("first").dt.strftime("%Y-%m"),
            last_seen_days=seen,
        )
        .select(
            "user_id",
            *("events", "activity", "device", "country", "account_age_days", "account_age", "cohort", "last_seen_days"),
            *(name for name in _USERS if name != "user_country"),
            *_ACCOUNTS,
        )
        .hstack(in_segments(home, exam, segments))
    )


def columns(attributes: pl.DataFrame) -> dict[str, pl.DataType]:
    """What a condition may read, for `workspace.filters.parse`: every attribute but the name of the user."""
    return {name: dtype for name, dtype in attributes.schema.items() if name != "user_id"}


def _activity(events: pl.Expr, settings: Settings) -> pl.Expr:
    light, heavy = settings.whole("profiles.cohort_from"), settings.whole("profiles.individual_from")
    names = [pl.lit(name) for name in ACTIVITY]
    at_least_light = pl.when(events < light).then(names[0]).when(events < heavy).then(names[1]).otherwise(names[2])
    return pl.when(events.is_not_null()).then(at_least_light)


def _label(age: pl.Expr) -> pl.Expr:
    label = pl.when(age.is_not_null()).then(pl.lit(OLDEST)).otherwise(pl.lit(NO_HISTORY))
    for name, days in reversed(AGES):
        label = pl.when(age < days).then(pl.lit(name)).otherwise(label)
    return label


def _days(length: pl.Expr) -> pl.Expr:
    """A duration in days, none of them negative: a sign-up may be dated after the cut that knew of it."""
    return (length / pl.lit(_DAY)).clip(lower_bound=0.0)


def _tables(home: Home | None, exam: Exam) -> pl.DataFrame:
    """user_id and what the tables of users and accounts say of each, as of the cut."""
    users = _current(home, "users", exam, "user_country").select("user_id", *_USERS)
    accounts = _current(home, "accounts", exam, "account_country").select("account_id", *_ACCOUNTS)
    return users.join(accounts, on="account_id", how="left", maintain_order="left")


def _current(home: Home | None, kind: Kind, exam: Exam, country: str) -> pl.DataFrame:
    """The rows that held at the cut, `country` under the name given; none where there is no such table."""
    if home is None or not tables.exists(home, kind):
        key: dict[str, pl.DataType] = {KEY[kind]: _TEXT}
        return pl.DataFrame(schema=key | (_USERS if kind == "users" else _ACCOUNTS))
    return current(home, kind, exam.as_of).rename({"country": country})


PREFIX = "segment:"
# Names stand outside of texts and of quoted columns.
_PARTS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")+"|\bsegment:\s*(?P<name>[^\W\d]\w*)""")


def segments_named(slices: Sequence[str]) -> list[str]:
    """The segments that conditions name as `segment:NAME`, each once."""
    found = (match["name"] for one in slices for match in _PARTS.finditer(one))
    return list(dict.fromkeys(name for name in found if name is not None))


def as_columns(condition: str) -> str:
    """The condition with `segment:NAME` as the column that `in_segments` calls so."""
    return _PARTS.sub(lambda match: match[0] if match["name"] is None else f'"{PREFIX}{match["name"]}"', condition)


def segment_conditions(home: Home | None, exam: Exam, names: Sequence[str]) -> dict[str, Filter]:
    """The conditions of these segments, where the exam has one moment to ask them at.

    UsageError where it has none (each user has a cut of their own, or lists whose moment nobody named) and without a
    workspace; MissingInput for a name that no segment has.
    """
    if not names:
        return {}
    if home is None:
        raise UsageError("slices by segment need a workspace, whose persona.toml defines the segments")
    found = {name: segments.condition(home, name) for name in names}
    kind = exam.split.get("kind")
    if exam.split.get("cut") is None and kind != "test":
        if kind == "lists":
            raise UsageError("segments are as of one moment, and that of the lists is not known", "add --as-of TIME")
        raise UsageError(
            f"segments are as of one moment, and a {kind} split has a cut for each user",
            "persona evaluate --split time, or a condition such as --slice \"activity = 'heavy'\"",
        )
    return found


def in_segments(home: Home | None, exam: Exam, names: Sequence[str]) -> pl.DataFrame:
    """Columns `segment:NAME` (n_users,): which of the users asked were in each segment at the cut.

    Profiles are folded from the events before the cut, so nothing later puts anybody into a segment, and features that
    measure a user against others see the others as of then. Whoever was not there yet is in none. Raises what
    `segment_conditions` raises.
    """
    conditions = segment_conditions(home, exam, names)
    if not conditions or home is None:
        return pl.DataFrame()
    rows = described(home, exam.as_of, purpose=ANALYTICS)
    members = rows.select("user_id", *(one.mask(rows).alias(PREFIX + name) for name, one in conditions.items()))
    aligned = exam.users.to_frame().join(members, on="user_id", how="left", maintain_order="left")
    return aligned.drop("user_id").select(pl.all().fill_null(False))
