"""What one metric is: the entry of the registry that documents, pages and checks are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """Definition, formula, range, direction and source of one metric, in words for people and documents."""

    definition: str
    formula: str
    """Over a list's first k entries, with the names that the definition uses."""
    range: str
    better: Literal["higher", "lower", "nearer 0"]
    source: str
    """Author, venue and year of the definition; also who computes it alike."""
    of: Callable[..., Any] | None = None
    """The function that computes it: of an accuracy metric `of(hits, k)`, a value for each user (n_users,)."""
    per_user: bool = False
    """The metric is the mean over users of a value that each user has: it can be compared user by user."""
