"""What is said of people beside what they do: their own settings, and the tables of users and accounts.

What users set themselves stands in the place of what was learned of them.

Settings by key (events of type `preference`): `preferred_category`, `usual_channel`, `usual_hour` (0 to 23) replace the
features of the same names, `country` (alpha-2) the one that was seen last, and items of the preferred category come
first in lists, however much is known. A value that cannot be one, and an empty one, sets nothing.

What the tables of users and accounts say of people beside their events: role, plan, industry, size.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from persona_cli.events.catalogue import current
from persona_cli.events.countries import country_code
from persona_cli.events.schema import Kind
from persona_cli.profiles.folds.explicit import CATEGORY
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import Purpose, allowed
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

PREFERRED, CHANNEL, HOUR, COUNTRY = "preferred_category", "usual_channel", "usual_hour", "country"
KEYS = (PREFERRED, CHANNEL, HOUR, COUNTRY)
_CERTAIN = {PREFERRED: "preferred_category_certainty", CHANNEL: "usual_channel_certainty"}
_LEARNED = {PREFERRED: "preferred_category_share", HOUR: "usual_hour_concentration"}
"""Figures about what was learned, which say nothing of what was set."""


def set_by(rows: pl.DataFrame, key: str) -> pl.Series:
    """What each user set under a key (n_users,), null where nothing; of rows with `_preferences`."""
    entry = pl.element().struct.field
    values = pl.col("_preferences").list.eval(entry("value").filter((entry("key") == key) & (entry("value") != "")))
    return rows.select(values.list.first()).to_series().alias(key)


def stated(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of profiles with computed features and `_preferences`: what was set in the place of what was learned."""
    for key in (PREFERRED, CHANNEL, HOUR):
        own = set_by(rows, key)
        if key == HOUR:
            own = own.cast(pl.Int64, strict=False)
            own = own.to_frame().select(pl.when(pl.col(key).is_between(0, 23)).then(key)).to_series()
        if not own.count():
            continue
        said = own.is_not_null()
        changed = {key: pl.when(said).then(own).otherwise(pl.col(key))}
        if key in _CERTAIN:
            changed[_CERTAIN[key]] = pl.when(said).then(1.0).otherwise(pl.col(_CERTAIN[key]))
        if key in _LEARNED:
            changed[_LEARNED[key]] = pl.when(~said).then(pl.col(_LEARNED[key]))
        rows = rows.with_columns(**changed)
    return rows


def countries(rows: pl.DataFrame, users: pl.Series) -> pl.Series:
    """The country that each of `users` (n_users,) set, alpha-2; of rows with user_id and `_preferences`."""
    own = rows.select("user_id").with_columns(set_by(rows, COUNTRY)).drop_nulls()
    codes = pl.Series([country_code(text) for text in own[COUNTRY]], dtype=pl.String)
    own = own.with_columns(codes.alias(COUNTRY)).filter(codes.str.contains("^[A-Z]{2}$"))
    return users.to_frame("user_id").join(own, on="user_id", how="left", maintain_order="left")[COUNTRY]


def leading(rows: pl.DataFrame) -> pl.DataFrame:
    """user_id, key (category:NAME): whose lists begin with which category."""
    own = rows.select("user_id").with_columns(set_by(rows, PREFERRED)).drop_nulls()
    return own.select("user_id", key=pl.lit(CATEGORY) + pl.col(PREFERRED))


ATTRIBUTES: dict[str, str] = {"role": "text", "plan": "text", "industry": "text", "size": "whole"}
"""Columns and their kinds, as conditions name them."""
_READ: dict[Kind, tuple[str, ...]] = {
    "users": ("user_id", "role", "account_id"),
    "accounts": ("account_id", "plan", "industry", "size"),
}


def attributes(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """user_id (the person) and `ATTRIBUTES` as they are at the moment: of the user's row, and of the account's."""
    users, accounts = (
        current(home, kind, as_of).select(columns)
        if tables.exists(home, kind)
        else pl.DataFrame(schema={name: pl.Int64 if name == "size" else pl.String for name in columns})
        for kind, columns in _READ.items()
    )
    found = allowed(home, purpose).rows(users).join(accounts, on="account_id", how="left", maintain_order="left")
    person = persons(home, as_of).of(found["user_id"]).alias("user_id")
    return found.drop("account_id").with_columns(person).unique("user_id", keep="first", maintain_order=True)
