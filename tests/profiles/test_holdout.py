"""Who is held out depends on the id, the salt and the share, and on nothing else."""

from __future__ import annotations

import hashlib

import polars as pl
from stored import with_settings

from persona_cli.profiles.permitted import in_holdout
from persona_cli.workspace.home import Home

USERS = pl.Series([f"u{n}" for n in range(4000)])


def salted(home: Home, salt: bytes) -> Home:
    return Home(home.root, home.settings, salt)


def test_follows_its_definition(home: Home) -> None:
    home = salted(home, bytes(range(16)))
    found = in_holdout(home, USERS)
    shares = [
        int.from_bytes(hashlib.blake2b(user.encode(), key=bytes(range(16)), digest_size=8).digest(), "big") / 2**64
        for user in USERS
    ]
    assert found.to_list() == [share < 0.05 for share in shares]
    assert 150 <= found.sum() <= 250
    assert in_holdout(home, USERS.reverse()).to_list() == found.reverse().to_list()
    assert in_holdout(home, USERS[:0]).dtype == pl.Boolean


def test_a_greater_share_only_adds_users_and_another_salt_draws_others(home: Home) -> None:
    home = salted(home, bytes(16))
    small, large = in_holdout(home, USERS), in_holdout(with_settings(home, holdout__share=0.1), USERS)
    assert (small & ~large).sum() == 0
    assert large.sum() > small.sum()
    other = in_holdout(salted(home, b"another salt 123"), USERS)
    assert (small & other).sum() < small.sum() / 2
