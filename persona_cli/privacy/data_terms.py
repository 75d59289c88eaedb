"""The words in which the data map is written: what a column holds, and what a store of a workspace is."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Category = Literal[
    "identifier", "behaviour", "technical", "place", "free text", "opinion", "attribute", "learned", "proof",
    "parameter", "aggregate", "item", "bookkeeping",
]  # fmt: skip
CATEGORIES: dict[Category, tuple[str, str]] = {
    "identifier": ("Identifiers", "yes, identifies"),
    "behaviour": ("What people did and when", "yes"),
    "technical": ("Device, browser and network", "yes"),
    "place": ("Country, region, language and time zone", "yes"),
    "free text": ("Free text and addresses of pages", "yes, and may hold anything"),
    "opinion": ("What people said of themselves and of items", "yes"),
    "attribute": ("Attributes of users and accounts", "yes"),
    "learned": ("What was derived about a person", "yes"),
    "proof": ("Keyed digests of ids", "yes, pseudonymous"),
    "parameter": ("Parameters of models, made of what many people did", "yes, unless shown to be anonymous"),
    "aggregate": ("Counts and means over people", "no single person's"),
    "item": ("Descriptions of items", "no"),
    "bookkeeping": ("Bookkeeping", "as the row is"),
}
"""Category → its name in the record of processing, and whether a column of it is personal data."""
PERSONAL: frozenset[str] = frozenset(CATEGORIES) - {"aggregate", "item", "bookkeeping"}


_BY_READER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("models", ("personalization", "model_training")),
    ("profiles", ("personalization", "analytics")),
    ("evaluation", ("analytics",)),
    ("persona sql", ("analytics",)),
)


class Column(NamedTuple):
    """One column or field."""

    category: Category
    what: str
    inside: str = ""
    """Names of the fields of its entries, where it is a list of records."""
    read: str = ""
    """Who reads it, where that is not all that read the store."""


@dataclass(frozen=True)
class Store:
    """One table, or one kind of file."""

    place: str
    """The folder of a table, or a pattern of file names (`fnmatch`) from the workspace's folder."""
    what: str
    source: str
    """Where its content comes from."""
    purposes: tuple[str, ...]
    """Names of `[privacy.purposes]`; none: needed to run persona itself, or a duty of the law."""
    kept: str
    """How long, as a key of the retention schedule."""
    read: str
    """What reads it."""
    columns: Mapping[str, Column]
    open: bool = False
    """Whether further columns may come, named `*` among the columns."""

    @property
    def is_table(self) -> bool:
        return "." not in self.place and "*" not in self.place

    @property
    def personal(self) -> bool:
        return any(column.category in PERSONAL for column in self.columns.values())

    def holds(self, path: str) -> bool:
        """Whether a file of the workspace (its path from there, with `/`) is of this store."""
        if self.is_table:
            return path.startswith(f"{self.place}/")
        return fnmatch.fnmatchcase(path, self.place)

    def purposes_of(self, name: str) -> tuple[str, ...]:
        """What a column is used for: by its own readers where it has some, else as the store is."""
        read = self.columns[name].read
        if not read:
            return self.purposes
        found = {purpose for reader, purposes in _BY_READER if reader in read for purpose in purposes}
        return tuple(purpose for purpose in self.purposes if purpose in found)

    def column(self, name: str) -> Column | None:
        return self.columns.get(name) or (self.columns.get("*") if self.open else None)
