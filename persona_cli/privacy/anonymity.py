"""k-anonymity and l-diversity of a table: how many people share what is known of each, and what it tells of them.

People who agree in all quasi-identifiers form a class. A table is k-anonymous if every class has at least k people
(Sweeney 2002); it is distinct l-diverse if every class has at least l different values of a sensitive column, and
entropy l-diverse if the entropy of its values is at least log l in every class (Machanavajjhala, Kifer, Gehrke and
Venkitasubramaniam 2007). Entropy l is given as exp(entropy): never more than the number of different values.

People are counted, not rows: a table of events holds many rows of one person, and they hide nobody. A missing value is
a value like any other: whoever looks for somebody sees that it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from persona_cli.errors import UsageError, nearest

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
