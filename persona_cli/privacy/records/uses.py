"""What persona does with data of people, by purpose: the list behind the record of processing and the notice.

A purpose stands here if and only if code asks the gate of `consent` for it, which a test holds.
"""

from __future__ import annotations

from typing import NamedTuple


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
