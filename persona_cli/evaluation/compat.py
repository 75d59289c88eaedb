"""What other libraries print for the same lists, and why it is not what persona prints.

Six libraries, six dialects of the same names. Each formula here is the library's own, checked against the library by
`benchmarks/compat_oracles.py` over lists that are short, missing and tied. With hits at ranks r, |rel| the user's right
answers, |list| the entries within the first k and a sum over hits unless said otherwise:

    persona       every user with a right answer counts, a missing list scores 0
                  ndcg  Σ 1/log2(r + 1) / ideal of min(k, |rel|)      map  Σ precision@r / min(k, |rel|)
                  recall hits / |rel|      precision hits / k
    RecTools      ndcg over the ideal of k right answers, for everybody; map over |rel|
    RePlay        persona's, but it sorts by score and then by item id, both descending, whatever the rank was
    LensKit       ndcg discounts by log2(max(r, 2)); recall over min(k, |rel|); precision over |list|; map over
                  min(|list|, |rel|); the last two are NaN for an empty list. A user without a list has an empty one
                  here, as its recommenders give; one that is not there at all would be left out of every mean.
                  rbp  (1 - p) Σ p^(r - 1), p = 0.85
    Recommenders  persona's, but precision, recall and map leave out users without a list; sorts by score
    implicit      precision is micro: hits of all users / Σ min(k, |rel|); no recall, no reciprocal rank
    RecBole       persona's

Gorse is not here: it ranks the right answers among 100 sampled items, so given lists have no figure of Gorse's.
implicit's AUC is not here either: it depends on the size of the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import UsageError, nearest
from persona_cli.evaluation.coded import Hits, coded_lists, coded_pairs, hits_of
from persona_cli.evaluation.metrics import METRICS
from persona_cli.models.stored import positions

Floats = NDArray[np.float64]
Order = Literal["rank", "score", "score, item id descending"]
OURS = "persona"
ALL = "all"
PATIENCE = 0.85
_EQUAL = 1e-9


class Share(NamedTuple):
    """A metric as Σ gained / Σ counted over users; in a plain mean, `counted` is 1 for each user who counts, else 0."""

    gained: Floats
    """(n_users,)"""
    counted: Floats
    """(n_users,)"""

    @property
    def value(self) -> float | None:
        """None where nobody counts."""
        total = float(self.counted.sum())
        return float(self.gained[self.counted > 0].sum()) / total if total else None


class Seen(NamedTuple):
    """Lists as one library sees them."""

    hits: Hits
    lengths: NDArray[np.int64]
    """Entries of each user's list, 0 where there is none (n_users,)."""

    def of(self, metric: str, k: int) -> Floats:
        """Persona's own value for each user (n_users,)."""
        formula = METRICS[metric].of
        assert formula is not None
        return np.asarray(formula(self.hits, k), dtype=np.float64)

    def gained(self, k: int, weights: Callable[[Floats], Floats]) -> Floats:
        """Sum of `weights(ranks)` over each user's hits within the first k (n_users,)."""
        ranks = self.hits.rank.astype(np.float64)
        return self.hits.per_user(np.where(ranks <= k, weights(ranks), 0.0))

    def precisions(self, k: int) -> Floats:
        """Sum over each user's hits of the precision at their rank: average precision before it is divided."""
        return self.of("map", k) * np.minimum(self.hits.relevant, k)

    def listed(self, k: int) -> Floats:
        """Entries within the first k (n_users,)."""
        return np.minimum(self.lengths, k).astype(np.float64)


Formula = Callable[[Seen, int], Share]


class Figure(NamedTuple):
    """One metric of one library: its formula and, where that is not persona's, the difference in a few words."""

    of: Formula
    why: str = ""


@dataclass(frozen=True)
class Dialect:
    """How one library defines its metrics."""

    library: str
    version: str
    """The release that the formulas were checked against."""
    metrics: Mapping[str, Figure]
    order: Order = "rank"
    """What the library sorts a user's entries by."""
    variants: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    """An option of the library → the metrics that it changes."""


def compat(
    lists: pl.DataFrame, answers: pl.DataFrame, ks: Sequence[int], libraries: Iterable[str] = (ALL,)
) -> list[dict[str, Any]]:
    """What each of `libraries` (of `NAMES`, or `all`) would print for `lists` at each k.

    lists (user_id, item_id, rank without gaps, score or null) and answers (user_id, item_id: distinct) as for
    `metrics.per_user`. One dictionary a figure: library, version, metric, k, value, ours (None where persona has no
    such metric), and why they differ, in a few words, empty where they don't. By k, then metric, then library.
    Raises UsageError for an unknown library, BadData for lists that are none.
    """
    chosen = [DIALECTS[name] for name in names(libraries)]
    depth = max(ks)
    by_rank = _seen(lists, answers, depth)
    seen: dict[Order, Seen] = {"rank": by_rank}
    for dialect in chosen:
        if dialect.order not in seen:
            sorted_lists = reordered(lists, dialect.order)
            seen[dialect.order] = by_rank if sorted_lists is lists else _seen(sorted_lists, answers, depth)
    figures = []
    for k in ks:
        for metric in _SPOKEN:
            ours = _mean(by_rank.of(metric, k)) if metric in METRICS else None
            for dialect in chosen:
                for name, figure in _figures(dialect, metric):
                    given = figure.of(by_rank, k).value
                    value = given if seen[dialect.order] is by_rank else figure.of(seen[dialect.order], k).value
                    reasons = [figure.why or _SAME] if _differ(given, ours) else []
                    reasons += [_SORTED[dialect.order]] if _differ(value, given) else []
                    why = "; ".join(reasons) if _differ(value, ours) else ""
                    figures.append(
                        {
                            "library": name,
                            "version": dialect.version,
                            "metric": metric,
                            "k": k,
                            "value": value,
                            "ours": ours,
                            "why": why,
                        }
                    )
    return figures


def per_user(lists: pl.DataFrame, answers: pl.DataFrame, k: int, library: str) -> pl.DataFrame:
    """Each user's values in one library's dialect: user_id (sorted) and its metrics, null where a user is left out.

    The mean of a column is what the library prints, but for a micro-averaged metric (implicit's precision), where a
    user's share counts as often as its divisor.
    """
    dialect = DIALECTS[names([library])[0]]
    seen = _seen(reordered(lists, dialect.order), answers, k)
    columns = [seen.hits.users.alias("user_id")]
    for metric, figure in dialect.metrics.items():
        share = figure.of(seen, k)
        values = share.gained / np.where(share.counted > 0, share.counted, 1.0)
        columns.append(pl.Series(metric, [v if c > 0 else None for v, c in zip(values, share.counted, strict=True)]))
    return pl.DataFrame(columns)


def names(libraries: Iterable[str]) -> list[str]:
    """The libraries asked for, each once, in the order of `NAMES`; UsageError for one that is not known."""
    asked = set(libraries)
    if unknown := sorted(asked - {*NAMES, ALL}):
        raise UsageError(
            f"no dialect of {unknown[0]!r}{nearest(unknown[0], [*NAMES, ALL])}",
            f"--compat {'|'.join(NAMES)}|{ALL}",
        )
    return [name for name in NAMES if name in asked or ALL in asked]


def rows(figures: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """For display: (metric@k, library, value, why); persona's own figure leads each metric, which is named once."""
    shown: list[tuple[str, str, str, str]] = []
    last = None
    for one in figures:
        title = f"{one['metric']}@{one['k']}"
        if title != last:
            shown.append((title, OURS, _text(one["ours"]), ""))
            last = title
        library, comma, option = one["library"].partition(",")
        shown.append(("", f"{library} {one['version']}{comma}{option}", _text(one["value"]), one["why"]))
    return shown


def reordered(lists: pl.DataFrame, order: Order) -> pl.DataFrame:
    """The lists ranked anew as a library that sorts by score would; the same frame where that changes nothing.

    Equal scores go by item id, descending, or by rank. Where a score is missing, lists stay as they were ranked.
    """
    if order == "rank" or "score" not in lists.columns or lists["score"].null_count() or not lists.height:
        return lists
    by_id = order == "score, item id descending"
    ranked = _by_user_and_rank(lists)
    follows = pl.col("user_id") == pl.col("user_id").shift(1)
    above = pl.col("score").shift(1)
    moves = (pl.col("score") >= above) if by_id else (pl.col("score") > above)
    affected = ranked.filter((follows & moves).fill_null(False))["user_id"].unique()
    if not len(affected):
        return lists
    tie = ("item_id", True) if by_id else ("rank", False)
    moved = (
        ranked.filter(pl.col("user_id").is_in(affected.implode()))
        .sort("user_id", "score", tie[0], descending=[False, True, tie[1]])
        .with_columns(pl.int_range(1, pl.len() + 1).over("user_id").cast(lists.schema["rank"]).alias("rank"))
    )
    return pl.concat([ranked.filter(~pl.col("user_id").is_in(affected.implode())), moved])


def _by_user_and_rank(lists: pl.DataFrame) -> pl.DataFrame:
    user, above = pl.col("user_id"), pl.col("user_id").shift(1)
    ascending = (user > above) | ((user == above) & (pl.col("rank") > pl.col("rank").shift(1)))
    return lists if lists.select(ascending.fill_null(True).all()).item() else lists.sort("user_id", "rank")


def _seen(lists: pl.DataFrame, answers: pl.DataFrame, depth: int) -> Seen:
    coded = coded_lists(lists)
    hits = hits_of(coded, coded_pairs(answers, coded.items), depth)
    place = positions(hits.users, coded.users)  # (n_users,), -1: no list
    lengths = np.zeros(len(place), dtype=np.int64)
    lengths[place >= 0] = coded.lengths[place[place >= 0]]
    return Seen(hits, lengths)


def _figures(dialect: Dialect, metric: str) -> list[tuple[str, Figure]]:
    """The library's figures of one metric: as it comes, then by its options."""
    found = [(dialect.library, dialect.metrics[metric])] if metric in dialect.metrics else []
    for option, changed in dialect.variants.items():
        if metric in changed:
            found.append((f"{dialect.library}, {option}", changed[metric]))
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _differ(left: float | None, right: float | None) -> bool:
    if left is None or right is None:
        return left is not right
    return abs(left - right) > _EQUAL


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}"


def _everyone(values: Floats) -> Share:
    return Share(values, np.ones(len(values)))


def _same(metric: str) -> Formula:
    return lambda seen, k: _everyone(seen.of(metric, k))


def _with_a_list(metric: str) -> Formula:
    return lambda seen, k: Share(seen.of(metric, k), (seen.lengths > 0).astype(np.float64))


def _discounts(ranks: Floats) -> Floats:
    discounts: Floats = 1.0 / np.log2(ranks + 1.0)
    return discounts


def _lenskit_discounts(ranks: Floats) -> Floats:
    discounts: Floats = 1.0 / np.log2(np.maximum(ranks, 2.0))
    return discounts


def _ndcg_of_k(seen: Seen, k: int) -> Share:
    return _everyone(seen.gained(k, _discounts) / _discounts(np.arange(1.0, k + 1)).sum())


def _ndcg_lenskit(seen: Seen, k: int) -> Share:
    ideal = np.cumsum(_lenskit_discounts(np.arange(1.0, k + 1)))  # (k,): of 1, 2, ... k right answers
    return _everyone(seen.gained(k, _lenskit_discounts) / ideal[np.minimum(seen.hits.relevant, k) - 1])


def _hits(seen: Seen, k: int) -> Floats:
    return seen.gained(k, np.ones_like)


def _over_list(gained: Floats, divisor: Floats) -> Share:
    """gained / divisor of users with a list; users without are left out."""
    has = divisor > 0
    return Share(gained / np.where(has, divisor, 1.0), has.astype(np.float64))


def _precision_of_list(seen: Seen, k: int) -> Share:
    return _over_list(_hits(seen, k), seen.listed(k))


def _map_of_list(seen: Seen, k: int) -> Share:
    return _over_list(seen.precisions(k), np.minimum(seen.listed(k), seen.hits.relevant))


def _filled(formula: Formula) -> Formula:
    """Users who are left out count with 0."""
    return lambda seen, k: _everyone(np.where((share := formula(seen, k)).counted > 0, share.gained, 0.0))


def _rbp(seen: Seen, k: int) -> Share:
    return _everyone((1.0 - PATIENCE) * seen.gained(k, lambda ranks: PATIENCE ** (ranks - 1.0)))


def _micro_precision(seen: Seen, k: int) -> Share:
    return Share(_hits(seen, k), np.minimum(seen.hits.relevant, k).astype(np.float64))


_SPOKEN = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", "rbp")
_SAME = "defined alike"
_SORTED: dict[Order, str] = {
    "rank": "",
    "score": "sorts by score, whatever the rank",
    "score, item id descending": "sorts by score, then by item id descending, whatever the rank",
}
_LEFT_OUT = "users without a list are left out of the mean"
_BY_LIST = "divides by the length of the list, not by k, and skips empty lists"
_AP_BY_LIST = "divides by min(list, relevant), not by min(k, relevant), and skips empty lists"
_PLAIN = {metric: Figure(_same(metric)) for metric in ("ndcg", "recall", "precision", "map", "mrr", "hit_rate")}

DIALECTS: dict[str, Dialect] = {
    "rectools": Dialect(
        "RecTools",
        "0.19.0",
        _PLAIN
        | {
            "ndcg": Figure(_ndcg_of_k, "the ideal list has k relevant items, also for users who have fewer"),
            "map": Figure(
                lambda seen, k: _everyone(seen.precisions(k) / seen.hits.relevant),
                "divides by all relevant items, not by min(k, relevant)",
            ),
        },
        variants={
            "divide_by_achievable": {"ndcg": Figure(_same("ndcg"))},
            "divide_by_k": {
                "map": Figure(
                    lambda seen, k: _everyone(seen.precisions(k) / k), "divides by k, not by min(k, relevant)"
                )
            },
        },
    ),
    "replay": Dialect("RePlay", "0.22.0", _PLAIN, order="score, item id descending"),
    "lenskit": Dialect(
        "LensKit",
        "2025.8.1",
        _PLAIN
        | {
            "ndcg": Figure(_ndcg_lenskit, "discounts by log2(max(rank, 2)): ranks 1 and 2 weigh the same"),
            "recall": Figure(
                lambda seen, k: _everyone(_hits(seen, k) / np.minimum(seen.hits.relevant, k)),
                "divides by min(k, relevant), not by relevant",
            ),
            "precision": Figure(_precision_of_list, _BY_LIST),
            "map": Figure(_map_of_list, _AP_BY_LIST),
            "rbp": Figure(_rbp, f"patience {PATIENCE}, not normalised"),
        },
        variants={
            "list_summary()": {
                "precision": Figure(_filled(_precision_of_list), "divides by the length of the list, not by k"),
                "map": Figure(_filled(_map_of_list), "divides by min(list, relevant), not by min(k, relevant)"),
            }
        },
    ),
    "recommenders": Dialect(
        "Recommenders",
        "1.2.1",
        {"ndcg": Figure(_same("ndcg"))}
        | {metric: Figure(_with_a_list(metric), _LEFT_OUT) for metric in ("recall", "precision", "map")},
        order="score",
    ),
    "implicit": Dialect(
        "implicit",
        "0.7.3",
        {
            "ndcg": Figure(_same("ndcg")),
            "precision": Figure(_micro_precision, "micro: hits of all users over their sum of min(k, relevant)"),
            "map": Figure(_same("map")),
        },
    ),
    "recbole": Dialect("RecBole", "1.2.1", _PLAIN),
}
NAMES = tuple(DIALECTS)
