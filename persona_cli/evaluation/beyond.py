"""Beyond accuracy: what lists are like, judged against what could be shown, was known and is expected.

    beyond(lists, coded, hits, background, ks) -> Beyond     every metric of `BEYOND` and tie_share, at every k

`lists` are user_id, item_id, rank, score; `coded` is what `coded_lists` makes of them with a vocabulary that begins
with `background.items`; `hits` are theirs, to rank max(ks) or deeper. Of a metric that is the mean over users of a
value that each has, the values are given, so that an interval can be made of them; of one that is a ratio of two such
means, both; of one that only the lists as a whole have, the figure. What a metric needs and the background lacks makes
it None: not stated, never 0.

Users are those with a list, whether or not they have right answers; only serendipity is a mean over all users with
answers, and score calibration looks at lists of users with answers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.errors import BadData
from persona_cli.evaluation.calibration import category_calibration, score_bins, score_calibration
from persona_cli.evaluation.coded import Coded, Hits, Metric, coded_lists, entries_at, rows_among, scores_of, table
from persona_cli.evaluation.diversity import (
    FRESH_DAYS,
    category_diversity,
    coverage,
    diversity,
    drawn,
    fresh,
    gini,
    halves,
    own_popularity,
    self_information,
)
from persona_cli.evaluation.ties import tie_share, tied_by
from persona_cli.models.base import Interactions
from persona_cli.models.stored import positions, with_columns, with_rows
from persona_cli.profiles.draws import keys

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Background:
    """What lists are relative to, all as of the moment up to which the models learned."""

    items: pl.Series
    """item_id of everything that could be shown, sorted (n_items,)."""
    popularity: pl.DataFrame | None
    """item_id, users: training users with the item at strength > 0, one row for each of `items`; None: not known."""
    n_users: int
    """Training users with a history, at least 1 where popularity is known."""
    learned: Interactions | None = None
    """What models learn from: who has which items together."""
    known: Interactions | None = None
    """The histories that the users asked are scored from."""
    first_seen: pl.DataFrame | None = None
    """item_id, first Datetime[us, UTC]: when the item was published, else when it first had an event."""
    as_of: datetime | None = None
    """The moment the lists are made for (UTC)."""
    catalogue: pl.DataFrame | None = None
    """item_id, category String (nullable), tags List[String] (nullable); None: there is no catalogue."""
    expected: pl.DataFrame | None = None
    """Lists of the popular baseline: what anybody would have expected to be shown."""

    # Made once, however many models are judged.

    @cached_property
    def had(self) -> Integers:
        """Training users with each item (n_items,)."""
        if self.popularity is None:
            return np.zeros(len(self.items), dtype=np.int64)
        if self.popularity["item_id"].is_duplicated().any():
            raise BadData("the popularity table holds an item twice; expected one row per item")
        row = positions(self.items, self.popularity["item_id"])
        users = self.popularity["users"].fill_null(0).to_numpy().astype(np.int64)
        return np.where(row >= 0, np.append(users, 0)[row], 0)

    @cached_property
    def bits(self) -> Floats:
        """Self-information of each item (n_items,)."""
        return self_information(self.had, self.n_users)

    @cached_property
    def own(self) -> tuple[pl.Series, Floats] | None:
        """Users with a history, and the mean popularity of its items."""
        if self.known is None or self.popularity is None:
            return None
        means = own_popularity(self.known, self.had.astype(np.float64), self.items)
        stated = np.flatnonzero(~np.isnan(means))
        return self.known.users.gather(stated), means[stated]

    @cached_property
    def users_of(self) -> tuple[sparse.csc_array, Integers] | None:
        """Training users of each item (n_training, n_items), and the order in which a sample takes them."""
        if self.learned is None:
            return None
        rows = with_columns(self.learned.strengths, positions(self.learned.items, self.items), len(self.items))
        return rows.tocsc(), np.argsort(keys(self.learned.users), kind="stable")

    @cached_property
    def categories(self) -> Integers | None:
        """Number of each item's category, -1 where it has none or two (n_items,); None where no item has one."""
        if self.catalogue is None or "category" not in self.catalogue.columns:
            return None
        named = self.catalogue.select("item_id", "category").drop_nulls().unique()
        named = named.unique("item_id", keep="none")
        names = named["category"].unique().sort()
        row = positions(self.items, named["item_id"])
        if not (row >= 0).any():
            return None
        return np.where(row >= 0, np.append(positions(named["category"], names), -1)[row], -1)

    @cached_property
    def tastes(self) -> sparse.csr_array | None:
        """Strength of each user of `known` in each category (n_known, n_categories)."""
        if self.known is None or self.categories is None:
            return None
        of_item = np.append(self.categories, -1)[positions(self.known.items, self.items)]
        tastes = with_columns(self.known.strengths, of_item, int(self.categories.max()) + 1)
        tastes.sum_duplicates()
        return tastes

    @cached_property
    def anybodys(self) -> Coded | None:
        """What is expected, as numbers."""
        return None if self.expected is None else coded_lists(self.expected, self.items)


@dataclass(frozen=True)
class Beyond:
    """The metrics of one model's lists, keyed `metric@k`; each key is in exactly one of the three."""

    per_user: dict[str, Floats]
    """The metric is the mean of these: one value for each user who has one, in order of user_id; at least one."""
    ratios: dict[str, Floats]
    """The metric is mean of column 0 / mean of column 1 - 1: (n_users, 2) in order of user_id, as `lift_intervals`."""
    whole: dict[str, float | None]
    """The metric as such: of the lists as a whole, or None where it cannot be stated."""
    bins: list[dict[str, Any]] | None = field(default=None, repr=False)
    """Hit rate by score, at the largest k: low, high, entries, hit_rate, hit_low, hit_high, from low scores to high."""


def beyond(
    lists: pl.DataFrame,
    coded: Coded,
    hits: Hits,
    background: Background,
    ks: Sequence[int],
    fresh_days: int = FRESH_DAYS,
) -> Beyond:
    """Every metric of `BEYOND`, and tie_share, at every k. Raises BadData where an item is shown that could not be."""
    n_items = len(background.items)
    _check_items(coded, n_items)
    scores = scores_of(lists, coded)
    values: dict[str, Floats | None] = {}
    whole: dict[str, float | None] = {}
    tied, rows = tied_by(coded, scores), drawn(coded.users)
    owner = None if background.own is None else rows_among(coded.users, background.own[0])
    for k in ks:
        times = coded.shown(k, n_items)[:n_items]
        whole[f"coverage@{k}"] = coverage(times)
        whole[f"gini@{k}"] = gini(times)
        whole[f"tie_share@{k}"] = tie_share(tied, k)
        values[f"novelty@{k}"] = None if background.popularity is None else coded.means(background.bits, k)[1]
        values[f"popularity_lift@{k}"] = _popularity(coded, background, owner, k)
        values[f"freshness@{k}"] = _freshness(coded, background, k, fresh_days)
    unexpected = _unexpected(coded, hits, background)
    for k in ks:
        wanted = None if unexpected is None else hits.per_user((hits.rank <= k) & (unexpected > k)) / k
        values[f"serendipity@{k}"] = wanted
    values |= _differences(coded, rows, background, ks)
    calibration, bins = _scores(coded, rows, scores, hits, ks)
    whole |= calibration
    stated = {key: found for key, found in values.items() if found is not None and len(found)}
    whole |= dict.fromkeys(key for key in values if key not in stated)
    ratios = {key: found for key, found in stated.items() if found.ndim == 2}
    return Beyond({key: found for key, found in stated.items() if key not in ratios}, ratios, whole, bins)


def _check_items(coded: Coded, n_items: int) -> None:
    over = np.unique(coded.codes[coded.codes >= n_items])
    if len(over):
        raise BadData(
            f"the lists show {len(over)} items that are not among the {n_items} that could be shown, "
            f"{coded.items.gather(over).min()!r} first"
        )


def _popularity(coded: Coded, background: Background, owner: Integers | None, k: int) -> Floats | None:
    """Mean popularity of what is shown and of what is known, of users with both (n_users, 2).

    `owner` is the row of each list's user in `background.own`, -1 where there is none.
    """
    if owner is None or background.own is None:
        return None
    rows, shown = coded.means(background.had.astype(np.float64), k)
    place = owner[rows]
    return np.column_stack([shown, np.append(background.own[1], 0.0)[place]])[place >= 0]


def _freshness(coded: Coded, background: Background, k: int, days: int) -> Floats | None:
    if background.first_seen is None or background.as_of is None:
        return None
    return coded.means(fresh(background.items, background.first_seen, background.as_of, days), k)[1]


def _unexpected(coded: Coded, hits: Hits, background: Background) -> Integers | None:
    """The rank at which anybody would have expected each hit (n_hits,); beyond every rank where nobody would have."""
    expected = background.anybodys
    if expected is None:
        return None
    assert expected.ranks is not None
    items = coded.codes[entries_at(coded, rows_among(hits.users, coded.users)[hits.user], hits.rank)]
    row = rows_among(hits.users, expected.users)[hits.user]
    starts = np.where(row >= 0, expected.starts[row], 0)
    lengths = np.where(row >= 0, np.append(expected.lengths, 0)[row], 0)
    found = np.full(len(items), np.iinfo(np.int64).max)
    for place in range(int(lengths.max(initial=0))):
        asked = np.flatnonzero(lengths > place)
        entry = starts[asked] + place
        same = expected.codes[entry] == items[asked]
        found[asked[same]] = expected.ranks[entry[same]]
    return found


def _differences(coded: Coded, rows: Integers, background: Background, ks: Sequence[int]) -> dict[str, Floats | None]:
    """Metrics of pairs of entries and of proportions, on the lists at `rows`."""
    found: dict[str, Floats | None] = {
        f"{name}@{k}": None for k in ks for name in ("diversity", "category_diversity", "category_calibration")
    }
    codes = table(coded, rows, max(ks), coded.codes.astype(np.int64), -1)  # (n_sample, depth)
    if background.users_of is not None:
        found |= _named("diversity", diversity(codes, *background.users_of, ks))
    if background.categories is None:
        return found
    categories = np.where(codes >= 0, background.categories[codes], -1)
    found |= _named("category_diversity", category_diversity(categories, ks))
    if background.tastes is not None and background.known is not None:
        tastes = with_rows(background.tastes, positions(coded.users.gather(rows), background.known.users))
        found |= _named("category_calibration", category_calibration(categories, tastes, ks))
    return found


def _named(name: str, by_k: dict[int, Floats]) -> dict[str, Floats]:
    return {f"{name}@{k}": values for k, values in by_k.items()}


def _scores(
    coded: Coded, rows: Integers, scores: Floats | None, hits: Hits, ks: Sequence[int]
) -> tuple[dict[str, float | None], list[dict[str, Any]] | None]:
    """Score calibration at every k, and the hit rate by score at the largest; `rows` are drawn from all lists."""
    found: dict[str, float | None] = {f"score_calibration@{k}": None for k in ks}
    listed = rows_among(hits.users, coded.users)  # (n_answered,)
    answered = np.flatnonzero(listed >= 0)
    if scores is None or not len(answered):
        return found, None
    chosen = rows if hits.users.equals(coded.users) else answered[drawn(hits.users.gather(answered))]
    row_of = np.full(len(hits.users), -1, dtype=np.int64)
    row_of[chosen] = np.arange(len(chosen))
    depth = max(ks)
    shown = table(coded, listed[chosen], depth, np.ones(len(scores), dtype=bool), False)
    worth = table(coded, listed[chosen], depth, scores, np.nan)  # (n_sample, depth)
    won = np.zeros(shown.shape, dtype=bool)
    near = np.flatnonzero((row_of[hits.user] >= 0) & (hits.rank <= depth))
    won[row_of[hits.user[near]], hits.rank[near] - 1] = True
    half = np.broadcast_to(halves(hits.users.gather(chosen))[:, None], shown.shape)
    bins = None
    for k in sorted(ks):
        there = shown[:, :k]
        entries, right = worth[:, :k][there], won[:, :k][there]
        if not np.isfinite(entries).all():
            continue
        found[f"score_calibration@{k}"] = score_calibration(entries, right, half[:, :k][there])
        bins = score_bins(entries, right) if k == depth else None
    return found, bins


_SAMPLED = "; of more than 10,000 users a stable sample of 10,000"

BEYOND: dict[str, Metric] = {
    "coverage": Metric(
        "share of the items that could be shown which stand in anybody's first k",
        "|union of the first k of all lists| / items that could be shown",
        "0 to 1",
        "higher",
        "Ge, Delgado-Battenfeld and Jannach, RecSys 2010; catalogue coverage, as RecTools, Amazon Personalize",
    ),
    "gini": Metric(
        "inequality of exposure over the items that could be shown, items never shown included",
        "sum_i (2 i - n - 1) x_(i) / (n sum_i x_(i)), x_(1) <= ... <= x_(n) the times each of n items is shown",
        "0 to (n - 1) / n",
        "lower",
        "Gini, 1912; Fleder and Hosanagar, Management Science 2009",
    ),
    "novelty": Metric(
        "mean self-information of the shown items, in bits: how few users have them already",
        "mean over users of the mean over the first k of -log2(max(users with the item, 1) / users)",
        "0 to log2(users)",
        "higher",
        "Zhou et al., PNAS 2010; Castells, Vargas and Wang, DDR 2011",
        per_user=True,
    ),
    "popularity_lift": Metric(
        "how much more popular the shown items are than those of the users' own histories; users with a list and a "
        "history",
        "mean over users of the mean over the first k of users(item), divided by the mean over users of the mean over "
        "the history of users(item), minus 1; users(item): training users with the item",
        "-1 to infinity; 0 is as popular as the histories",
        "nearer 0",
        "Abdollahpouri, Mansoury, Burke and Mobasher, RMSE workshop at RecSys 2019; UMAP 2021",
    ),
    "diversity": Metric(
        "how rarely two items of one list are had by the same training users; lists of two items or more"
        + _SAMPLED
        + ", and of the training users a stable sample where more than 200 million look-ups would be needed",
        "mean over users of the mean over the pairs i, j of the first k of 1 - users(i, j) / sqrt(users(i) users(j)); "
        "1 for a pair of which nobody has one",
        "0 to 1",
        "higher",
        "intra-list diversity: Ziegler et al., WWW 2005; Vargas and Castells, RecSys 2011",
        per_user=True,
    ),
    "category_diversity": Metric(
        "share of the pairs of a list's items whose categories differ; items without a category are in no pair, and "
        "lists without a pair are left out" + _SAMPLED,
        "mean over users of (pairs of the first k in different categories / pairs with two categories)",
        "0 to 1",
        "higher",
        "intra-list diversity: Ziegler et al., WWW 2005",
        per_user=True,
    ),
    "serendipity": Metric(
        "share of the k places that hold a right answer which the first k of the popular list did not hold",
        "mean over all users with answers of |hits@k not in the first k of the popular list| / k",
        "0 to precision",
        "higher",
        "Ge, Delgado-Battenfeld and Jannach, RecSys 2010; Murakami, Mori and Orihara, JSAI 2007",
        per_user=True,
    ),
    "freshness": Metric(
        "share of the shown items that were first seen within 30 days before the lists: when published, else when they "
        "first had an event; an item of which neither is known is not fresh",
        "mean over users of (entries of the first k first seen within 30 days / entries of the first k)",
        "0 to 1",
        "higher",
        "temporal novelty: Vargas and Castells, RecSys 2011; Lathia et al., SIGIR 2010",
        per_user=True,
    ),
    "category_calibration": Metric(
        "how far a list's categories are from the proportions of the user's history, in bits; users without a category "
        "in list or history are left out" + _SAMPLED,
        "mean over users of sum over categories c of p(c) log2(p(c) / q~(c)), q~ = 0.99 q + 0.01 p; p: strength in the "
        "history by category, as shares; q: shares of the categories among the first k",
        "0 to log2(100) = 6.64",
        "lower",
        "Steck, RecSys 2018 (there in nats)",
        per_user=True,
    ),
    "score_calibration": Metric(
        "expected error of scores as chances of a hit, in units of probability: chances are learned from one half of "
        "the users and tested on the other, both ways round; users with answers; not stated where a score is missing "
        "or all are equal" + _SAMPLED,
        "mean over ten bins of equal size, by chance, of |mean chance - hit rate|; chance: isotonic regression of hits "
        "on scores of the first k",
        "0 to 1",
        "lower",
        "Zadrozny and Elkan, KDD 2002 (isotonic); Naeini, Cooper and Hauskrecht, AAAI 2015 (the error)",
    ),
}
