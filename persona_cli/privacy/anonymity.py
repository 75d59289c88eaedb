"""How well a table hides people: how many share what is known of each, and how many are the only ones with a few items.

k-anonymity and l-diversity. People who agree in all quasi-identifiers form a class. A table is k-anonymous if every
class has at least k people (Sweeney 2002); it is distinct l-diverse if every class has at least l different values of a
sensitive column, and entropy l-diverse if the entropy of its values is at least log l in every class (Machanavajjhala,
Kifer, Gehrke and Venkitasubramaniam 2007). Entropy l is given as exp(entropy): never more than the number of different
values. People are counted, not rows: a table of events holds many rows of one person, and they hide nobody. A missing
value is a value like any other: whoever looks for somebody sees that it is missing.

Unicity (de Montjoye, Hidalgo, Verleysen and Blondel 2013): take p items of a user at random; the user is unique if
nobody else has all of them. The share of unique users is how many a neighbour, colleague or other recipient finds who
knows p things that they did, whatever stands in the place of their ids: pseudonymous is not anonymous.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import UsageError, nearest
from persona_cli.evaluation.intervals import wilson
from persona_cli.models.stored import positions

PEOPLE, ROWS = "people", "rows"
_PERSON = "__person"


@dataclass(frozen=True)
class Diversity:
    """Of the values of one sensitive column in the class that has the fewest."""

    column: str
    distinct: int
    entropy: float
    """exp(entropy): the number of equally frequent values that would be as hard to guess."""


@dataclass(frozen=True)
class Anonymity:
    """What the classes of a table are. An empty table has no classes, and k = 0."""

    quasi: tuple[str, ...]
    rows: int
    people: int
    classes: pl.DataFrame
    """One row a class: the quasi-identifiers, people, rows, and for each sensitive column `l_NAME` and
    `entropy_l_NAME`; the smallest first."""
    k: int
    diversities: tuple[Diversity, ...]

    def sizes(self) -> pl.DataFrame:
        """How the people spread over classes by size: from, to (null: no end), classes, people."""
        edges = [1, 2, 3, 5, 10, 20, 50, 100]
        spread = []
        for start, end in zip(edges, [*(edge - 1 for edge in edges[1:]), None], strict=True):
            fits = self.classes.filter(pl.col(PEOPLE) >= start, pl.col(PEOPLE) <= end if end else pl.lit(True))
            if fits.height:
                spread.append({"from": start, "to": end, "classes": fits.height, "people": int(fits[PEOPLE].sum())})
        schema = {"from": pl.Int64, "to": pl.Int64, "classes": pl.Int64, "people": pl.Int64}
        return pl.DataFrame(spread, schema=schema)

    def short(self, min_k: int, min_l: int = 1, min_entropy_l: float = 1.0) -> pl.DataFrame:
        """The classes with fewer than `min_k` people, or a sensitive column with fewer different values than `min_l`
        or a smaller entropy l than `min_entropy_l`.

        A table without their rows meets all three: no class changes when others go.
        """
        few = pl.col(PEOPLE) < min_k
        for one in self.diversities:
            few = few | (pl.col(f"l_{one.column}") < min_l)
            # A class of two equally frequent values has exp(log 2), which floating point may put just below 2.
            few = few | (pl.col(f"entropy_l_{one.column}") < min_entropy_l - 1e-9)
        return self.classes.filter(few)


def anonymity(
    table: pl.DataFrame, quasi: Sequence[str], sensitive: Sequence[str] = (), person: str | None = None
) -> Anonymity:
    """The classes of `table` by the columns `quasi`; `person` names the column that says whose a row is (None: each
    row is a person). Values of a sensitive column count once a person.

    Raises UsageError for columns that are not there, or named for two purposes.
    """
    named = [*quasi, *sensitive, *([person] if person else [])]
    for name in named:
        if name not in table.columns:
            raise UsageError(f"there is no column {name!r}{nearest(name, table.columns)}")
        if named.count(name) > 1:
            raise UsageError(f"the column {name!r} is named twice; expected each column once")
    if not quasi:
        raise UsageError("no quasi-identifiers; expected the columns by which people could be recognised")
    whose = pl.col(person) if person else pl.int_range(pl.len())
    rows = table.select(*quasi, *sensitive, whose.alias(_PERSON))
    classes = rows.group_by(quasi).agg(pl.col(_PERSON).n_unique().alias(PEOPLE), pl.len().alias(ROWS))
    for column in sensitive:
        classes = classes.join(_diversity(rows, quasi, column), on=list(quasi), nulls_equal=True)
    classes = classes.sort(PEOPLE, *quasi).with_columns(pl.col(PEOPLE, ROWS).cast(pl.Int64))
    diversities = [
        Diversity(
            column,
            int(classes[f"l_{column}"].min() or 0),  # type: ignore[arg-type]
            float(classes[f"entropy_l_{column}"].min() or 0.0),  # type: ignore[arg-type]
        )
        for column in sensitive
    ]
    k = int(classes[PEOPLE].min() or 0)  # type: ignore[arg-type]
    return Anonymity(tuple(quasi), rows.height, rows[_PERSON].n_unique(), classes, k, tuple(diversities))


def _diversity(rows: pl.DataFrame, quasi: Sequence[str], column: str) -> pl.DataFrame:
    """Different values and exp(entropy) of `column` in each class."""
    values = rows.unique([*quasi, _PERSON, column]).group_by([*quasi, column]).agg(n=pl.len().cast(pl.Float64))
    share = pl.col("n") / pl.col("n").sum()
    return values.group_by(quasi).agg(
        pl.len().cast(pl.Int64).alias(f"l_{column}"),
        (-(share * share.log()).sort().sum()).exp().alias(f"entropy_l_{column}"),
    )


ITEMS = 4
SAMPLE = 10_000
# Cells of one product of sampled users and all users.
_BLOCK_CELLS = 20_000_000


@dataclass(frozen=True)
class Unicity:
    """The share of users who are the only ones with `items` random items of theirs, with its 95 % interval (Wilson)."""

    items: int
    users: int
    eligible: int
    """Users with at least `items` different items; the share is of them."""
    sampled: int
    unique: int
    share: float
    low: float
    high: float

    def sentence(self) -> str:
        if not self.sampled:
            return f"pseudonymous is not anonymous: no user has {self.items} items, so none can be told apart by them"
        share = f"{100 * self.share:.1f} % of users are the only ones with {self.items} of their items"
        asked = f"{self.sampled:,} of the {self.eligible:,} users with {self.items} or more"
        return f"pseudonymous is not anonymous: {share} ({100 * self.low:.1f}–{100 * self.high:.1f} %; {asked})"


@dataclass
class Pairs:
    """(user, item) pairs as they come, coded so that each takes eight bytes."""

    _users: dict[str, int] = field(default_factory=dict)
    _items: dict[str, int] = field(default_factory=dict)
    _rows: array[int] = field(default_factory=lambda: array("i"))
    _columns: array[int] = field(default_factory=lambda: array("i"))

    def add(self, user: str, item: str) -> None:
        self._rows.append(self._users.setdefault(user, len(self._users)))
        self._columns.append(self._items.setdefault(item, len(self._items)))

    def __len__(self) -> int:
        return len(self._rows)

    def matrix(self) -> sparse.csr_array:
        """Who has what (n_users, n_items); users and items sorted by id, so that the order of the input is gone."""
        rows, columns = np.asarray(self._rows, dtype=np.int32), np.asarray(self._columns, dtype=np.int32)
        places = (_ranks(self._users)[rows], _ranks(self._items)[columns])
        return _binary(places, (len(self._users), len(self._items)))


def matrix_of(users: pl.Series, items: pl.Series) -> sparse.csr_array:
    """Who has what (n_users, n_items), of pairs in any order, repeated or not; no nulls."""
    vocabularies = users.unique().sort(), items.unique().sort()
    rows, columns = (positions(ids, vocabulary) for ids, vocabulary in zip((users, items), vocabularies, strict=True))
    return _binary((rows, columns), (len(vocabularies[0]), len(vocabularies[1])))


def unicity(who_has: sparse.csr_array, items: int = ITEMS, sample: int = SAMPLE, seed: int = 0) -> Unicity:
    """The unicity of `items` items over the users of `who_has` (n_users, n_items), one draw for each user sampled.

    The product of what was drawn (n_sampled, n_items) and `who_has` transposed counts how many of a user's drawn items
    each user has; those with all of them are the candidates. Users with fewer items are left out.
    """
    rng = np.random.default_rng(seed)
    degrees = np.diff(who_has.indptr)
    eligible = np.flatnonzero(degrees >= items)
    chosen = eligible if len(eligible) <= sample else np.sort(rng.choice(eligible, sample, replace=False))
    if not len(chosen):
        return Unicity(items, who_has.shape[0], 0, 0, 0, math.nan, math.nan, math.nan)
    drawn = _drawn(who_has[chosen], items, rng)  # (n_sampled, items)
    holders = sparse.csr_array(who_has.T)  # (n_items, n_users)
    popularity = np.diff(holders.indptr)
    unique = 0
    for block in _blocks(popularity[drawn].sum(axis=1)):
        picked = drawn[block]
        ends = np.arange(0, picked.size + 1, items)
        entries = (np.ones(picked.size, np.int8), picked.ravel(), ends)
        query = sparse.csr_array(entries, shape=(len(picked), who_has.shape[1]))
        common = sparse.csr_array(query @ holders)  # (n_block, n_users), how many of the drawn items
        complete = np.searchsorted(common.indptr, np.flatnonzero(common.data == items), side="right")
        unique += int((np.bincount(complete) == 1).sum())
    low, high = map(float, wilson(unique, len(chosen)))
    return Unicity(items, who_has.shape[0], len(eligible), len(chosen), unique, unique / len(chosen), low, high)


def _drawn(rows: sparse.csr_array, items: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`items` different columns of each row at random (n_rows, items); each row has as many.

    Draws with repetition are thrown away, so that all sets are equally likely.
    """
    degrees = np.diff(rows.indptr)
    places = np.empty((len(degrees), items), dtype=np.int64)
    open_rows = np.arange(len(degrees))
    while len(open_rows):
        tried = np.sort(rng.integers(0, degrees[open_rows, None], (len(open_rows), items)), axis=1)
        places[open_rows] = tried
        open_rows = open_rows[(np.diff(tried, axis=1) == 0).any(axis=1)]
    return np.asarray(rows.indices[rows.indptr[:-1, None] + places], dtype=np.int64)


def _blocks(cells: NDArray[np.int64]) -> Iterable[slice]:
    """Runs of rows of which each has few cells together, or one row."""
    start, held = 0, 0
    for row, more in enumerate(cells.tolist()):
        if row > start and held + more > _BLOCK_CELLS:
            yield slice(start, row)
            start, held = row, 0
        held += more
    yield slice(start, len(cells))


def _ranks(codes: dict[str, int]) -> NDArray[np.int64]:
    """The place of each code (n,) when the ids are sorted."""
    ranks = np.empty(len(codes), dtype=np.int64)
    ranks[[codes[id] for id in sorted(codes)]] = np.arange(len(codes))
    return ranks


def _binary(places: tuple[NDArray[np.int64], NDArray[np.int64]], shape: tuple[int, int]) -> sparse.csr_array:
    made = sparse.csr_array((np.ones(len(places[0]), np.int32), places), shape=shape)
    made.sum_duplicates()
    made.sort_indices()
    return sparse.csr_array((np.ones(made.nnz, np.int8), made.indices, made.indptr), shape=shape)
