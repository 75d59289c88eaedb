"""A person in the tables of consent: a keyed digest of the id, and never the id.

BLAKE2b (RFC 7693) with the workspace's salt as its key: equal within the workspace and meaningless without the salt.
Whoever has the salt and a list of ids can find out which of them are there, so it is no pseudonym to hand out.
"""

from __future__ import annotations

from hashlib import blake2b

import polars as pl

from persona_cli.workspace.home import Home

_PERSON = b"consent subject"
_SIZE = 16


def subject(home: Home, id: str) -> str:
    """The digest of an id: 32 hexadecimal digits."""
    return _digest(home.salt[:64], id)


def subjects(home: Home, ids: pl.Series) -> pl.Series:
    """The digest of each id (n,), null where the id is; every distinct id is digested once."""
    distinct = ids.drop_nulls().unique()
    key = home.salt[:64]
    digests = pl.Series([_digest(key, id) for id in distinct.to_list()], dtype=pl.String)
    found = pl.DataFrame({"id": distinct, "subject": digests})
    return ids.to_frame("id").join(found, on="id", how="left", maintain_order="left")["subject"]


def _digest(key: bytes, id: str) -> str:
    return blake2b(id.encode("utf-8", "surrogatepass"), key=key, person=_PERSON, digest_size=_SIZE).hexdigest()
