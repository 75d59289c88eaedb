"""The permanent holdout: users who always get the non-personalised list, so that personalisation can be measured."""

from __future__ import annotations

import hashlib

import polars as pl

from persona_cli.profiles.coding import by_distinct
from persona_cli.profiles.identity import assignment_ids
from persona_cli.workspace.home import Home


def in_holdout(home: Home, users: pl.Series) -> pl.Series:
    """Whether each user is held out (n_users,) Boolean: blake2b of the id, keyed with the workspace's salt, as a share.

    It depends on nothing but the id, the salt and `holdout.share`; a greater share only adds users. Of a person with
    several ids it is the first one seen, so that signing in never changes the side.
    """
    bound = round(home.settings.number("holdout.share") * 2**64)

    def drawn(user: str) -> bool:
        digest = hashlib.blake2b(user.encode(), key=home.salt, digest_size=8).digest()
        return int.from_bytes(digest, "big") < bound

    return by_distinct(assignment_ids(home, users), drawn, pl.Boolean).alias("holdout")
