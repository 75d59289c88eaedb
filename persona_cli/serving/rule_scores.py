"""What named rules do to the scores of a block (n_users, n_items), and the candidates that they ask for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persona_cli.models.base import Floats
from persona_cli.models.topk import topk
from persona_cli.serving.rule_conditions import About

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


def bar(scores: Floats, about: About, users: Integers) -> Integers:
    """Close what a rule is about, in place; how many items that closed for each user (n,)."""
    closed = np.zeros(len(users), dtype=np.int64)
    rows, columns = np.flatnonzero(about.rows(users)), np.flatnonzero(about.columns)
    if len(rows) and len(columns):
        here = np.ix_(rows, columns)
        found = scores[here]
        mask = _at(about, users[rows], columns)
        closed[rows] = (mask & (found > -np.inf)).sum(axis=1)
        scores[here] = np.where(mask, np.float32(-np.inf), found)
    return closed


def scale(scores: Floats, about: About, users: Integers, whom: Bools, factor: np.float32) -> None:
    """Multiply scores above 0, divide those below, in place, of `whom` (n,): what is raised never falls."""
    rows, columns = np.flatnonzero(about.rows(users) & whom), np.flatnonzero(about.columns)
    if len(rows) and len(columns):
        here = np.ix_(rows, columns)
        found = scores[here]
        moved = np.where(found > 0, found * factor, found / factor)
        scores[here] = np.where(_at(about, users[rows], columns), moved, found)


def showable(scores: Floats, about: About, users: Integers) -> Integers:
    """How many items that a rule is about may be shown to each user (n,)."""
    columns = np.flatnonzero(about.columns)
    return np.asarray((_at(about, users, columns) & (scores[:, columns] > -np.inf)).sum(axis=1), dtype=np.int64)


def best_of(scores: Floats, columns: Integers, most: int) -> tuple[Integers, Floats]:
    """The best of some columns: places and scores (n, at most `most`)."""
    places, values = topk(scores[:, columns], min(most, len(columns)))
    return (columns[places] if len(columns) else places), values


def best_about(scores: Floats, about: About, users: Integers, most: int) -> tuple[Integers, Floats]:
    """The best of what a rule is about: places and scores (n, at most `most`)."""
    columns = np.flatnonzero(about.columns)
    found = np.where(_at(about, users, columns), scores[:, columns], np.float32(-np.inf))
    places, values = topk(found, min(most, len(columns)))
    return (columns[places] if len(columns) else places), values


def together(places: Integers, values: Floats, more: list[tuple[Integers, Floats]]) -> tuple[Integers, Floats]:
    """Candidates and further ones, each once, best first."""
    for also, theirs in more:
        again = np.zeros(also.shape, dtype=bool)
        for number in range(also.shape[1]):
            again[:, number] = ((places == also[:, number, None]) & (values > -np.inf)).any(axis=1)
        kept = np.where(again, np.float32(-np.inf), theirs)
        useful = (kept > -np.inf).any(axis=0)
        places = np.concatenate((places, also[:, useful]), axis=1)
        values = np.concatenate((values, kept[:, useful]), axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1)


def _at(about: About, users: Integers, columns: Integers) -> Bools:
    return about.at(users, np.broadcast_to(columns, (len(users), len(columns))))
