"""The words in which records of privacy are written: what a column holds, what a store is, what data is used for.

A purpose stands among the uses if and only if code asks the gate of `consent` for it, which a test holds.
"""

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


class Use(NamedTuple):
    """What one purpose comes to."""

    title: str
    plain: str
    """A sentence to the people concerned, beginning with "We"."""
    logic: str
    """How it works, to them (GDPR Art. 13(2)(f), 15(1)(h))."""
    does: tuple[tuple[str, str], ...]
    """What the code does, and the commands that do it."""


USES: dict[str, Use] = {
    "personalization": Use(
        "Personalization",
        "We choose and order what you are shown by what you have looked at, used, bought, rated or asked for before.",
        "Each of your actions counts as a sign of interest in an item: a purchase more than a click, an old one less "
        "than a new one, and a thumb down against it. From these signs, and from what people with similar interests "
        "liked, each item gets a score, and you see those with the highest. What you have blocked is not shown.",
        (
            ("folds the events of each person into a profile and a history", "ingest, profile build"),
            ("scores items by the person's history and puts them into a list", "recommend, score"),
            ("estimates how likely a person is to do something next", "score --model propensity"),
        ),
    ),
    "analytics": Use(
        "Statistics",
        "We measure how our product is used and how well it serves the people who use it.",
        "Your actions are counted together with those of others. Reports show groups of 20 people or more.",
        (
            ("shows and hands out profiles", "profile show, profile list, profile diff, profile export"),
            ("counts people in groups by their profiles", "segment list, sql"),
            ("suggests questions to new users by what others like", "profile survey"),
            ("measures how well lists match what people did afterwards, also by group", "evaluate, compare"),
        ),
    ),
    "model_training": Use(
        "Training of models",
        "We let a computer learn from what many people do which items go together.",
        "The computer adds up, over all people, who liked which items together. What it keeps are numbers about items; "
        "what you have put into the sums is kept beside them, so that it can be taken out again when you ask us to.",
        (
            ("sums up which items the same people liked", "train"),
            ("fits models to these sums and to histories, and compares them", "train, evaluate"),
            ("learns how long pages are looked at and what events say of interests", "signals fit, strengths"),
        ),
    ),
}
NOT_RUN: dict[str, str] = {
    "messaging": "persona sends no messages; the purpose is there for receipts of consent to messages that you send",
}
"""Purposes of persona.toml that no code carries out."""
BASES: dict[str, tuple[str, str]] = {
    "consent": ("consent", "Art. 6(1)(a)"),
    "contract": ("performance of a contract with the person", "Art. 6(1)(b)"),
    "legal_obligation": ("a legal obligation", "Art. 6(1)(c)"),
    "vital_interests": ("vital interests", "Art. 6(1)(d)"),
    "public_task": ("a task in the public interest", "Art. 6(1)(e)"),
    "legitimate_interest": ("a legitimate interest", "Art. 6(1)(f)"),
}
"""Basis → its name and its place in the GDPR."""
