"""How well each group of users is served, and who is served worse than the others.

Five ways to group users (`SEGMENTATIONS`), each by what was known of them at the cut (`attributes`). No figure is of
fewer than SMALLEST_CELL people: smaller groups are put together, and left out where even that is too few. The figure
of a group is the mean over its users, with a 95 % interval.

Served worse: in each segmentation the group with the lowest mean is set against all other users. Its p is two-sided,
from Student's t with the larger of the standard errors that Welch's test (separate variances) and the pooled test
(Student 1908) use, with min(n, m) - 1 degrees of freedom: most values are 0, and a small group whose users all have 0
shows no variance of its own, a lucky one more than all others have; the larger error is the careful one in both cases.
That the worst was picked is paid for: Holm's correction runs over every group of every segmentation, not the picked.

Read it with care: groups differ in how hard they are to serve. Who has many right answers has a lower recall@10 by
arithmetic, and new users get the popular list by design. And whoever sees a group's figure beside that of everybody
can work out the figure of the rest, also where the rest is small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from persona_cli.errors import BadData, UsageError, nearest
from persona_cli.evaluation.attributes import ACTIVITY, AGES, NO_HISTORY, OLDEST, as_columns, attributes, columns
from persona_cli.evaluation.comparisons import ALPHA, holm
from persona_cli.evaluation.intervals import Interval, mean_intervals
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.workspace.filters import FilterError, parse

__all__ = [
    "SEGMENTATIONS",
    "attributes",
    "by_segment",
    "columns",
    "groups",
    "rows_within",
    "said",
    "served_worse",
    "sliced",
    "within",
]

Floats = NDArray[np.float64]

SEGMENTATIONS = ("activity", "device", "country", "account_age", "cohort")
LARGEST = 10
"""Devices and countries that are shown by name."""
LATEST = 12
"""Months of first events that are shown one by one."""
OTHERS, UNKNOWN = "others", "unknown"
TOO_FEW = f"others (fewer than {SMALLEST_CELL} each)"
LEVEL = 0.95
_ORDER = (*ACTIVITY, *(name for name, _ in AGES), OLDEST)
_EQUAL = 1e-12
"""Means within this of one another are equal: the rest is rounding."""


class Group(NamedTuple):
    """Users with something in common; at least SMALLEST_CELL of them."""

    name: str
    rows: NDArray[np.int64]
    """Rows of the attributes (n_members,), ascending."""


def groups(attributes: pl.DataFrame) -> dict[str, list[Group]]:
    """The groups that are shown, in the order to show them; a segmentation needs one that is known and large enough."""
    found = {}
    for name in SEGMENTATIONS:
        if name not in attributes.columns:
            continue
        labels = attributes[name].fill_null(NO_HISTORY if name == "cohort" else UNKNOWN).rename("group")
        if name == "cohort":
            labels = _latest(labels)
        if shown := _shown(labels, LARGEST if name in ("device", "country") else None):
            found[name] = shown
    return found


def by_segment(
    per_user: Mapping[str, pl.DataFrame], attributes: pl.DataFrame, metric: str
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Model → segmentation → groups {"group", "users", "value", "low", "high"}, in the order to show them.

    `per_user`: user_id and metrics, one row a user, the same users in every frame; UsageError for an unknown metric.
    """
    names, values, aligned = _aligned(per_user, attributes, metric)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names}
    for segmentation, shown in groups(aligned).items():
        for group in shown:
            intervals = mean_intervals(values[group.rows], LEVEL)
            for name, interval in zip(names, intervals, strict=True):
                row = {"group": group.name, "users": len(group.rows), **interval._asdict()}
                found[name].setdefault(segmentation, []).append(row)
    return found


def served_worse(
    per_user: Mapping[str, pl.DataFrame], attributes: pl.DataFrame, metric: str, model: str | None = None
) -> list[dict[str, Any]]:
    """The worst group of each segmentation, for `model` (None: for each of `per_user`); higher metrics are better.

    {"model", "segmentation", "group", "users", "value": {value, low, high}, "rest": mean of all other users,
    "difference": {value, low, high} of the group over the rest, "p", "p_holm", "worse": p_holm < 0.05,
    "looked_at": groups that the correction is over}. A group is looked at where it and the rest are SMALLEST_CELL
    users or more; a group that is not below the rest has p = 1.
    """
    if model is not None and model not in per_user:
        raise UsageError(f"there is no model {model!r}{nearest(model, per_user)}")
    wanted = per_user if model is None else {model: per_user[model]}
    names, values, aligned = _aligned(wanted, attributes, metric)
    looked_at = [
        (segmentation, group)
        for segmentation, shown in groups(aligned).items()
        for group in shown
        if len(values) - len(group.rows) >= SMALLEST_CELL
    ]
    found = []
    for column, name in enumerate(names):
        rows = [_against_rest(values[:, column], segmentation, group) for segmentation, group in looked_at]
        for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row |= {"model": name, "p_holm": p_holm, "worse": p_holm < ALPHA, "looked_at": len(rows)}
        for segmentation in dict.fromkeys(segmentation for segmentation, _ in looked_at):
            own = [row for row in rows if row["segmentation"] == segmentation]
            found.append(min(own, key=lambda row: row["value"]["value"]))
    return found


def said(found: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """What `served_worse` found, a sentence for each group that is clearly served worse, or one that none is."""
    sentences = []
    for model in dict.fromkeys(row["model"] for row in found):
        own = [row for row in found if row["model"] == model]
        by = ", ".join(row["segmentation"].replace("_", " ") for row in own)
        over = f"{own[0]['looked_at']} groups by {by}"
        worse = [row for row in own if row["worse"]]
        if not worse:
            sentences.append(f"{model}: no group is clearly served worse on {metric}; looked at {over}")
        for row in worse:
            difference = row["difference"]
            sentences.append(
                f"{model}: {metric} of {row['users']:,} users with {row['segmentation'].replace('_', ' ')} "
                f"{row['group']!r} is {row['value']['value']:.4f}, of all others {row['rest']:.4f}: "
                f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}], "
                f"p = {row['p_holm']:.2g} corrected for {over}"
            )
    return sentences or [f"no two groups of {SMALLEST_CELL} users or more can be told apart by what is known of them"]


def within(attributes: pl.DataFrame, expression: str) -> pl.Series:
    """user_id of the users who meet the condition, sorted; errors as `rows_within` raises them."""
    return attributes["user_id"].gather(rows_within(attributes, expression)).sort()


def rows_within(attributes: pl.DataFrame, expression: str) -> NDArray[np.int64]:
    """Rows of the users who meet the condition (n_members,), ascending; it may name segments as `segment:NAME`.

    UsageError for an expression that is none, and where fewer than SMALLEST_CELL users meet it.
    """
    try:
        condition = parse(as_columns(expression), columns(attributes))
    except FilterError as error:
        raise UsageError(f"slice {expression!r}: {error}") from error
    members: NDArray[np.int64] = np.flatnonzero(condition.mask(attributes).to_numpy())
    if len(members) < SMALLEST_CELL:
        raise UsageError(
            f"slice {expression!r} holds {len(members)} of the {attributes.height:,} users asked about; "
            f"figures are shown of {SMALLEST_CELL} or more"
        )
    return members


def sliced(
    per_user: Mapping[str, pl.DataFrame], attributes: pl.DataFrame, expressions: Sequence[str]
) -> list[dict[str, Any]]:
    """Every metric of every model for the users of each slice, with 95 % intervals; errors as `within` raises them.

    {"expression", "users", "models": [{"model", "metrics": {"ndcg@20": {value, low, high}}}]}. A metric that fewer than
    SMALLEST_CELL of the users have is None.
    """
    slices = []
    for expression in expressions:
        members = within(attributes, expression)
        models = [
            {"model": name, "metrics": _means(frame.join(members.to_frame(), on="user_id", how="semi"))}
            for name, frame in per_user.items()
        ]
        slices.append({"expression": expression, "users": len(members), "models": models})
    return slices


def _shown(labels: pl.Series, largest: int | None) -> list[Group]:
    """One group a label, without the small ones and with at most `largest` known ones; the others together, if enough.

    Nothing where no known label is large enough to stand alone.
    """
    found = labels.to_frame().with_row_index("row").group_by("group").agg(pl.col("row").sort(), n=pl.len())
    found = found.sort("n", "group", descending=[True, False])
    members = dict(zip(found["group"], (rows.to_numpy().astype(np.int64) for rows in found["row"]), strict=True))
    alone = [name for name, rows in members.items() if len(rows) >= SMALLEST_CELL]
    if largest is not None:
        known = [name for name in alone if name != UNKNOWN][:largest]
        alone = [name for name in alone if name in known or name == UNKNOWN]
    if set(alone) <= {UNKNOWN, NO_HISTORY}:
        return []
    alone = sorted(alone, key=lambda name: _place(name, len(members[name]), by_size=largest is not None))
    shown = [Group(name, members[name]) for name in alone]
    rest = [rows for name, rows in members.items() if name not in alone]
    together = np.sort(np.concatenate(rest)) if rest else np.zeros(0, dtype=np.int64)
    if len(together) >= SMALLEST_CELL:
        shown.append(Group(OTHERS if max(map(len, rest)) >= SMALLEST_CELL else TOO_FEW, together))
    return shown


def _place(name: str, n: int, by_size: bool) -> tuple[int, int, str]:
    """Known groups first: in their natural order, or the largest first; then what is unknown."""
    if name in (UNKNOWN, NO_HISTORY):
        return (len(_ORDER) + 1, 0, name)
    if by_size:
        return (0, -n, name)
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), 0, name)


def _latest(months: pl.Series) -> pl.Series:
    """The latest months by themselves, all earlier ones as one."""
    distinct = sorted(set(months) - {NO_HISTORY})
    if len(distinct) <= LATEST:
        return months
    first = distinct[-LATEST]
    earlier = dict.fromkeys(distinct[:-LATEST], f"before {first}")
    return months.replace(earlier)


def _against_rest(values: Floats, segmentation: str, group: Group) -> dict[str, Any]:
    """One group against all other users; `values` (n_users,)."""
    inside = np.zeros(len(values), dtype=bool)
    inside[group.rows] = True
    own, rest = values[inside], values[~inside]
    difference, p = _difference(own, rest)
    return {
        "segmentation": segmentation,
        "group": group.name,
        "users": len(own),
        "value": mean_intervals(own, LEVEL)[0]._asdict(),
        "rest": float(rest.mean()),
        "difference": difference._asdict(),
        "p": p if difference.value < 0.0 else 1.0,
    }


def _difference(own: Floats, rest: Floats) -> tuple[Interval, float]:
    """mean(own) - mean(rest) with its interval, and the two-sided p of "no difference"; each of two users or more."""
    n, m = len(own), len(rest)
    value = float(own.mean()) - float(rest.mean())
    if abs(value) <= _EQUAL:
        value = 0.0
    own_variance, rest_variance = float(own.var(ddof=1)), float(rest.var(ddof=1))
    separate = own_variance / n + rest_variance / m
    pooled = ((n - 1) * own_variance + (m - 1) * rest_variance) / (n + m - 2) * (1 / n + 1 / m)
    error, freedom = math.sqrt(max(separate, pooled)), min(n, m) - 1
    reach = float(stdtrit(freedom, (1.0 + LEVEL) / 2.0)) * error
    p = float(value == 0.0) if error == 0.0 else 2.0 * float(stdtr(freedom, -abs(value) / error))
    return Interval(value, value - reach, value + reach), p


def _means(frame: pl.DataFrame) -> dict[str, dict[str, float | None] | None]:
    found: dict[str, dict[str, float | None] | None] = {}
    for name in frame.columns:
        if name != "user_id":
            values = frame[name].drop_nulls()
            enough = len(values) >= SMALLEST_CELL
            found[name] = mean_intervals(values.to_numpy(), LEVEL)[0]._asdict() if enough else None
    return found


def _aligned(
    per_user: Mapping[str, pl.DataFrame], attributes: pl.DataFrame, metric: str
) -> tuple[list[str], Floats, pl.DataFrame]:
    """Models, their values (n_users, n_models) and the attributes of the same users, all sorted by user_id."""
    users: pl.Series | None = None
    values = []
    for name, frame in per_user.items():
        if metric not in frame.columns:
            known = [column for column in frame.columns if column != "user_id"]
            raise UsageError(f"there is no metric {metric!r} by user{nearest(metric, known)}")
        ordered = frame.select("user_id", metric).sort("user_id")
        if users is not None and not ordered["user_id"].equals(users):
            raise BadData(f"{name} was judged on other users than the models before it; expected the same")
        users = ordered["user_id"]
        values.append(ordered[metric].cast(pl.Float64).to_numpy())
    if users is None:
        raise BadData("there is no model to group users of; expected at least one")
    if attributes["user_id"].is_duplicated().any():
        raise BadData("a user has two rows of attributes; expected one")
    aligned = users.to_frame().join(attributes, on="user_id", how="left", maintain_order="left")
    return list(per_user), np.column_stack(values), aligned
