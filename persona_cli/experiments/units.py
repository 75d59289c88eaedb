"""Units of anybody's experiment, from a file of CSV, Parquet or JSON lines: one row a unit, or many that are added up.

Rows of a unit are summed by one group-by of polars, whatever the number of metrics; only units are held in memory. A
unit that was seen in two variants is left out, and counted. A value that is missing in every row of a unit is no value:
the unit is left out of that metric alone. What was known before the experiment (for CUPED) is averaged over a unit's
rows, because the number of rows may itself be an outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from persona_cli.errors import BadData, MissingInput, UsageError, nearest
from persona_cli.experiments import quantiles
from persona_cli.experiments.measuring import Arms
from persona_cli.experiments.verdicts import DOWN, KINDS, UP, Question

AUTO = "auto"
MOST_VARIANTS = 20
_READERS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl",
}  # fmt: skip
_ROLES = ("value", "denominator", "before", "denominator before")


class Asked(NamedTuple):
    """One metric as asked for: columns of the file, None where there is none."""

    value: str
    denominator: str | None = None
    before: str | None = None
    denominator_before: str | None = None
    kind: str = AUTO
    q: float = 0.5
    down: bool = False


class Units(NamedTuple):
    """What a file holds; `measuring.measure` takes it."""

    frame: pl.DataFrame
    """One row a unit: variant, the columns of the questions, and the segment."""
    variants: tuple[str, ...]
    questions: tuple[Question, ...]
    given: dict[str, Arms]
    """Quantiles of events, where a unit has several."""
    rows: int
    notes: tuple[str, ...]


def asked(
    values: Sequence[str],
    kinds: Sequence[str] = (),
    denominators: Sequence[str] = (),
    befores: Sequence[str] = (),
    denominators_before: Sequence[str] = (),
    down: Sequence[str] = (),
) -> tuple[Asked, ...]:
    """Options that may repeat, put together: one of a kind holds for every value, several go with them in turn.

    UsageError where their number fits neither, or a kind is none.
    """
    if not values:
        raise UsageError("no metric was named", "--value COLUMN, which may repeat")
    if twice := sorted({one for one in values if list(values).count(one) > 1}):
        raise UsageError(f"--value {twice[0]} is there twice")
    for name in down:
        if name not in values:
            raise UsageError(f"--down {name} is no --value{nearest(name, values)}")

    def turns(option: str, given: Sequence[str]) -> list[str | None]:
        if not given:
            return [None] * len(values)
        if len(given) not in (1, len(values)):
            raise UsageError(f"{len(given)} {option} for {len(values)} --value; expected one, or one for each")
        return [*given] * (len(values) if len(given) == 1 else 1)

    if len(befores) == 1 < len(values):
        raise UsageError(f"one --before for {len(values)} --value; expected the same metric before for each")
    found = []
    for value, kind, denominator, before, below in zip(
        values,
        turns("--kind", kinds),
        turns("--denominator", denominators),
        turns("--before", befores),
        turns("--denominator-before", denominators_before),
        strict=True,
    ):
        name, q = _kind(kind or AUTO)
        if denominator is not None and name in (AUTO, "mean"):
            name = "ratio"
        if (name == "ratio") != (denominator is not None) and name != "count":
            raise UsageError(
                f"{value} is a {name}; a ratio and nothing else has a denominator", "--kind ratio --denominator COLUMN"
            )
        if before is not None and name in ("nps", "quantile"):
            raise UsageError(f"{value} is of the kind {name}, which --before cannot adjust", "leave --before away")
        if denominator is not None and (before is None) != (below is None):
            raise UsageError(
                f"the ratio {value} / {denominator} is adjusted by both of its parts before",
                "--before COLUMN --denominator-before COLUMN",
            )
        if denominator is None and below is not None:
            raise UsageError("--denominator-before goes with --denominator and --before")
        found.append(Asked(value, denominator, before, below, name, q, value in down))
    return tuple(found)


def _kind(text: str) -> tuple[str, float]:
    name, colon, rest = text.partition(":")
    if name not in (AUTO, *KINDS):
        raise UsageError(f"no kind {text!r}{nearest(name, (AUTO, *KINDS))}")
    if (name == "quantile") != bool(colon):
        raise UsageError(f"the kind {text!r}; a quantile and nothing else says which", "--kind quantile:0.9")
    try:
        q = float(rest) if colon else 0.5
    except ValueError:
        q = -1.0
    if not 0 < q < 1:
        raise UsageError(f"the quantile {rest!r}; a share between 0 and 1 was expected", "--kind quantile:0.9")
    return name, q


def read(
    path: Path,
    wanted: Sequence[Asked],
    variant: str,
    *,
    unit: str | None = None,
    control: str | None = None,
    segment: str | None = None,
    winsor: float | None = None,
) -> Units:
    """Units of a file. Without `unit` every row is one.

    Raises MissingInput for a file or column that is not there, BadData for values that are no numbers or scores, and
    UsageError for a control that is no variant or too many variants.
    """
    rows = _scan(path)
    schema = rows.collect_schema()
    needed = [name for one in wanted for name in one[:4] if name is not None]
    for name in (variant, *([unit] if unit else []), *([segment] if segment else []), *needed):
        if name not in schema:
            raise MissingInput(f"{path} has no column {name!r}{nearest(name, schema.names())}")
    for name in needed:
        if not (schema[name].is_numeric() or schema[name] in (pl.Boolean, pl.Null)):
            raise BadData(f"{path}: {name} holds {_sample(rows, name)}; expected numbers, or true and false")
    names, notes = _variants(rows, variant, control, path)
    scales = _scales(rows, wanted, path)
    rows = rows.filter(pl.col(variant).is_not_null())
    if unit is not None:
        rows = rows.filter(pl.col(unit).is_not_null())
    found = _summed(rows, wanted, variant, unit, segment, scales, careful=False)
    # sums of missing values are 0 and those of NaN are NaN: either is told from a value by counting, where it is needed
    if _incomplete(rows, needed, found, path):
        found = _summed(rows, wanted, variant, unit, segment, scales, careful=True)
    if unit is not None:
        both = found["unit"].is_duplicated()
        if twice := found.filter(both)["unit"].n_unique():
            share = twice / found["unit"].n_unique()
            notes.append(f"{twice:,} units ({share:.2%}) were seen in more than one variant and are left out")
            found = found.filter(~both)
    codes = {name: number for number, name in enumerate(names)}
    found = found.with_columns(
        pl.col("variant").cast(pl.String).replace_strict(codes, return_dtype=pl.Int64).alias("variant")
    )
    # whoever has no past gets the mean of all pasts: any constant would do, this one moves the slope least
    past = [name for name in found.columns if name.endswith(("before", "denominator before"))]
    found = found.with_columns(pl.col(name).fill_null(pl.col(name).mean()).fill_null(0.0) for name in past)
    n_rows = int(found["rows"].sum())
    questions = tuple(_question(found, number, one, winsor) for number, one in enumerate(wanted))
    for question in questions:
        if missing := found.select(pl.any_horizontal(pl.col(question.columns).is_null()).sum()).item():
            notes.append(f"{question.name}: {missing:,} units have no value and are left out of it")
    given: dict[str, Arms] = {}
    if unit is not None and n_rows > found.height:
        for one in wanted:
            if one.kind == "quantile":
                given[one.value] = _of_events(rows, one, found, variant, unit, names)
                notes.append(f"{one.value}: of all rows, with the unit's chance taken into account")
    return Units(found, names, questions, given, n_rows, tuple(notes))


def _scan(path: Path) -> pl.LazyFrame:
    if not path.is_file():
        raise MissingInput(f"{path} is no file")
    kind = next((_READERS[suffix] for suffix in reversed(path.suffixes) if suffix in _READERS), None)
    try:
        if kind == "parquet":
            return pl.scan_parquet(path)
        if kind == "jsonl":
            return pl.scan_ndjson(path, infer_schema_length=None)
        if kind in ("csv", "tsv"):
            separator = "\t" if kind == "tsv" else ","
            found = pl.scan_csv(path, separator=separator, infer_schema_length=10_000, try_parse_dates=False)
            found.collect_schema()
            return found
    except pl.exceptions.PolarsError as error:
        raise BadData(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    raise UsageError(f"{path.name} is of no known kind; expected .csv, .tsv, .parquet or .jsonl")


def _sample(rows: pl.LazyFrame, name: str) -> str:
    """The first value that is no number, shortened, with the row that it is in."""
    texts = rows.select(name).with_row_index("row").head(100_000).collect()
    texts = texts.with_columns(pl.col(name).cast(pl.String)).filter(
        pl.col(name).is_not_null() & pl.col(name).cast(pl.Float64, strict=False).is_null()
    )
    if not texts.height:
        return "texts"
    return f"{str(texts[name][0])[:40]!r} in row {texts['row'][0] + 1}"


def _variants(rows: pl.LazyFrame, variant: str, control: str | None, path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Names of the variants, the control first, and notes on rows without one."""
    counted = _collect(rows.group_by(variant).len(), path)
    nothing = counted.filter(pl.col(variant).is_null())["len"].sum()
    notes = [f"{nothing:,} rows without a {variant} are left out"] if nothing else []
    names = sorted(counted[variant].drop_nulls().cast(pl.String).to_list())
    if len(names) > MOST_VARIANTS:
        raise UsageError(f"{variant} has {len(names):,} values; expected 2 to {MOST_VARIANTS} variants")
    if len(names) < 2:
        raise BadData(f"{path}: {variant} has {len(names)} values; at least two variants are compared")
    if control is not None and control not in names:
        raise UsageError(f"--control {control} is no variant{nearest(control, names)}")
    first = control or next((name for name in names if name.lower() in ("control", "baseline")), names[0])
    if control is None and first.lower() not in ("control", "baseline"):
        notes.append(f"{first} is taken for the control; --control NAME says otherwise")
    return (first, *(name for name in names if name != first)), notes


def _scales(rows: pl.LazyFrame, wanted: Sequence[Asked], path: Path) -> dict[str, bool]:
    """Of scores: whether a column is 0 to 10 (True) or already -1, 0, 1 (False); BadData for others."""
    scores = [one.value for one in wanted if one.kind == "nps"]
    if not scores:
        return {}
    ends = _collect(
        rows.select(
            *(pl.col(name).min().alias(f"low {name}") for name in scores),
            *(pl.col(name).max().alias(f"high {name}") for name in scores),
        ),
        path,
    ).row(0, named=True)
    found = {}
    for name in scores:
        low, high = ends[f"low {name}"], ends[f"high {name}"]
        if low is None or low < -1 or high > 10 or (low < 0 and high > 1):
            raise BadData(f"{path}: {name} is from {low} to {high}; expected scores from 0 to 10, or -1, 0 and 1")
        found[name] = low >= 0
    return found


def _column(number: int, role: int) -> str:
    return f"{number} {_ROLES[role]}"


def _summed(
    rows: pl.LazyFrame,
    wanted: Sequence[Asked],
    variant: str,
    unit: str | None,
    segment: str | None,
    scales: Mapping[str, bool],
    careful: bool,
) -> pl.DataFrame:
    """unit, variant, rows, segment and `_column`s; `careful`: null where a unit has no value at all."""
    parts: list[pl.Expr] = []
    for number, one in enumerate(wanted):
        for role, name in enumerate(one[:4]):
            if name is None:
                continue
            value = pl.col(str(name))
            if careful:
                value = value.cast(pl.Float64).fill_nan(None)
            if one.kind == "nps":
                score = pl.when(value >= 9).then(1.0).when(value <= 6).then(-1.0).when(value.is_not_null()).then(0.0)
                value = score if scales[one.value] else value.cast(pl.Float64)
            if unit is None:
                made = value.cast(pl.Float64)
            elif role >= 2 or one.kind == "nps":
                made = value.mean()
            else:
                made = pl.when(value.count() > 0).then(value.sum()) if careful else value.sum()
            parts.append(made.alias(_column(number, role)))
    if unit is None:
        frame = rows.select(
            pl.col(variant).alias("variant"),
            pl.lit(1, pl.Int64).alias("rows"),
            *([pl.col(segment).cast(pl.String).alias("segment")] if segment else []),
            *parts,
        ).collect(engine="streaming")
    else:
        more = [pl.col(segment).max().cast(pl.String).alias("segment")] if segment else []
        frame = (
            rows.group_by(pl.col(unit).alias("unit"), pl.col(variant).alias("variant"))
            .agg(pl.len().cast(pl.Int64).alias("rows"), *more, *parts)
            .collect(engine="streaming")
        )
    return frame


def _incomplete(rows: pl.LazyFrame, needed: Sequence[str], found: pl.DataFrame, path: Path) -> bool:
    """Whether any value is missing: NaN in a sum, or null in a row."""
    floats = [name for name, kind in found.schema.items() if kind.is_float()]
    if floats and found.select(pl.any_horizontal(pl.col(floats).is_nan().any())).item():
        return True
    names = sorted(set(needed))
    if (counted := _nulls_written(path, names)) is not None:
        return counted > 0
    return bool(rows.select(pl.any_horizontal(pl.col(names).null_count() > 0)).collect(engine="streaming").item())


def _nulls_written(path: Path, names: Sequence[str]) -> int | None:
    """How many nulls the columns of a Parquet file have, by its footer; None where that does not say."""
    import pyarrow.parquet as pq

    if not any(suffix in (".parquet", ".pq") for suffix in path.suffixes):
        return None
    footer = pq.read_metadata(path)
    places = [place for place, name in enumerate(footer.schema.to_arrow_schema().names) if name in names]
    if footer.num_columns != len(footer.schema.to_arrow_schema().names):  # nested columns: places are others
        return None
    total = 0
    for block in range(footer.num_row_groups):
        for place in places:
            said = footer.row_group(block).column(place).statistics
            if said is None or said.null_count is None:
                return None
            total += said.null_count
    return total


def _question(found: pl.DataFrame, number: int, one: Asked, winsor: float | None) -> Question:
    roles = [role for role, name in enumerate(one[:4]) if name is not None]
    columns = tuple(_column(number, role) for role in roles)
    kind = one.kind
    if kind in (AUTO, "proportion"):
        values = found[columns[0]].drop_nulls()
        values = values.cast(pl.Float64)
        flags = bool(((values == 0) | (values == 1)).all())
        if kind == "proportion" and not flags:
            other = values.filter((values != 0) & (values != 1)).sort()[0]
            raise BadData(f"{one.value} is {other:g} of a unit; a proportion is of units that have 0 or 1, or a flag")
        kind = "proportion" if flags else "mean"
    name = one.value if one.denominator is None else f"{one.value} / {one.denominator}"
    direction = DOWN if one.down else UP
    return Question(name, kind, columns, one.before is not None, direction, one.q, winsor)


def _of_events(
    rows: pl.LazyFrame, one: Asked, found: pl.DataFrame, variant: str, unit: str, names: Sequence[str]
) -> Arms:
    """Quantiles of the rows of the units that are kept."""
    whose = found.select("unit", number=pl.int_range(pl.len(), dtype=pl.Int64), variant="variant")
    value = pl.col(one.value).cast(pl.Float64).fill_nan(None).alias("value")
    events = rows.select(pl.col(unit).alias("unit"), value).drop_nulls().collect(engine="streaming")
    events = events.join(whose, on="unit")
    arms = []
    for number in range(len(names)):
        arm = events.filter(pl.col("variant") == number).select(pl.col("value"), pl.col("number"))
        arms.append(quantiles.of_events(arm["value"].to_numpy(), arm["number"].to_numpy().astype(np.int64), one.q))
    return arms


def _collect(rows: pl.LazyFrame, path: Path) -> Any:
    """Collected; what a file cannot be read for is told in one sentence."""
    try:
        return rows.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise BadData(f"{path} cannot be read: {str(error).splitlines()[0][:200]}") from error
