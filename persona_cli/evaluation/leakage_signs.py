"""Statistical signs that lists know what came after the cut, and that attributes of users were made from answers.

future_tie          what lists show beyond what the past explains goes with what the future brought beyond it
future_scores       so do the scores that many users share, beyond every sum of the past
strangers_known     lists of users of whom nothing was known go with their own answers, not with anybody's
telling_attribute   how much better answers say an attribute of users than as many of their past items do
alike_by_answers    whether users of one value are alike by their answers, beyond being so by their past

Of the last two the first learns what each item says, and finds codes that can be learned from the users there are;
the second learns nothing, and adds up what is too little to be learned. Tastes that go with a country show in past and
answers alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.stored import pair_matrix, positions

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]
_ITEMS, _USERS, _STRANGERS = 2_000, 5_000, 2_000
"""Items and users looked at, at most: enough for every test, and quick on large logs."""
_FEWEST = 40
"""Items or users below which nothing can be said."""
_FEWEST_SCORED, _SHARING = 20, 5
"""Items with scores of their own below which nothing can be said, and users who must share a score."""


@dataclass(frozen=True)
class Past:
    """What the past says about items, and what the future brought of them."""

    items: pl.Series
    """item_id of training, the most wanted ones, sorted (n_items,)."""
    explained: Numbers
    """Orthonormal basis of all that is forecast from the past (n_items, n_terms)."""
    surprise: Numbers
    """What the future brought (root of its users) beyond every forecast (n_items,)."""
    future: Numbers
    """Users with the item after the cut (n_items,)."""
    forecasts: list[Numbers]
    """Counts of several windows and half-lives, each (n_items,)."""


def past_of(
    train: pl.DataFrame, future: pl.DataFrame, asked: pl.Series, exclude: pl.DataFrame, cut: datetime
) -> Past | None:
    """Forecasts of demand from `train`, and how `future` differs; None where there are too few items or events.

    Both are events of interest with an item. Forecasts are counts over several windows and half-lives, of all and of
    those asked, what is kept out of lists, and how close items are to the histories of those asked (cosine).
    """
    age = (pl.lit(cut) - pl.col("timestamp")).dt.total_seconds() / 86_400
    known = train["item_id"].value_counts(name="n").sort("n", "item_id", descending=[True, False])
    items = known["item_id"].head(_ITEMS).sort()
    if len(items) < _FEWEST or future.height < _FEWEST:
        return None
    wanted = _counted(future.select("user_id", "item_id").unique(), items)
    mine = train.filter(pl.col("user_id").is_in(asked.implode()))
    lives = [_counted(train, items, (0.5 ** (age / days)).sum()) for days in (1e9, 60.0, 14.0, 5.0, 2.0)]
    windows = [_counted(train.filter(age <= days), items) for days in (3, 7, 14)]
    own = [_counted(mine, items, (0.5 ** (age / days)).sum()) for days in (1e9, 14.0)]
    hidden = _counted(exclude.filter(pl.col("user_id").is_in(asked.implode())), items) / len(asked)
    near, shown = _near(train, asked, exclude, items)
    forecasts = [*lives, *windows, *own]
    terms = [np.ones(len(items)), hidden, hidden**2, np.log1p(near), np.log1p(shown), np.sqrt(shown)]
    terms += [np.log1p(one) for one in forecasts] + [np.sqrt(one) for one in forecasts]
    if len(items) < 2 * len(terms):
        return None
    basis, triangle = np.linalg.qr(np.column_stack(terms))
    basis = basis[:, np.abs(np.diag(triangle)) > 1e-9]
    return Past(items, basis, _beyond(np.sqrt(wanted), basis), wanted, forecasts)


@dataclass(frozen=True)
class Tie:
    """How lists go with the future."""

    correlation: float
    """Partial correlation of what is shown with what is wanted after the cut, given the past."""
    z: float
    gap: float
    """(future demand of what is shown - best forecast) / (best in hindsight - best forecast)."""


def future_tie(past: Past, lists: pl.DataFrame) -> Tie:
    """Partial correlation over items of exposure (by rank) with future demand, given everything forecast."""
    depth = int(lists["rank"].max() or 1)  # type: ignore[arg-type]
    shown = _counted(lists, past.items, (depth + 1.0 - pl.col("rank")).sum())
    beyond = _beyond(np.log1p(shown), past.explained)
    size = float(np.sqrt((beyond @ beyond) * (past.surprise @ past.surprise)))
    correlation = float(beyond @ past.surprise) / size if size > 1e-9 else 0.0
    places = _counted(lists, past.items)
    reached = float(places @ past.future) / max(float(places.sum()), 1.0)
    best, usual = _top(past.future, past.future, depth), max(_top(one, past.future, depth) for one in past.forecasts)
    gap = (reached - usual) / (best - usual) if best > usual else 0.0
    return Tie(correlation, correlation * float(np.sqrt(len(past.items) - past.explained.shape[1])), gap)


def future_scores(train: pl.DataFrame, future: pl.DataFrame, lists: pl.DataFrame, cut: datetime) -> tuple[float, float]:
    """Partial correlation of scores with the future given sums of the past, and its z (Fisher): (correlation, z).

    A score that several users share is the item's, not the user's: counts, however they fade, are one. Sums of counts
    over windows and half-lives span every honest fading of the past nearly exactly, and what they leave of a count that
    goes on after the cut is the future itself. So the mean score of each item (n_items,) is regressed on the past, by
    least squares weighted by 1 / (1 + count), the variance of a count; so are counts after the cut of several
    half-lives; and of the correlations of what is left the largest is taken. (0, 0) where less than half of all
    entries have such scores, or they are of fewer than 20 items.
    """
    given = lists.filter(pl.col("score").is_not_null() & pl.col("score").is_finite())
    few = max(_SHARING, 0.02 * given["user_id"].n_unique())
    shared = given.group_by("item_id", "score").agg(users=pl.len().cast(pl.Float64)).filter(pl.col("users") >= few)
    mean = (pl.col("score") * pl.col("users")).sort_by("score").sum() / pl.col("users").sum()
    scored = shared.group_by("item_id").agg(mean.alias("score")).sort("item_id")
    items = scored["item_id"].rename("item_id")
    impersonal = float(shared["users"].sum()) >= given.height / 2
    if not impersonal or len(items) < _FEWEST_SCORED or not future.height:
        return 0.0, 0.0
    age = (pl.lit(cut) - pl.col("timestamp")).dt.total_seconds() / 86_400
    # With few items there is room for few terms; those left out are close to sums of the others.
    short = len(items) < 2 * _FEWEST_SCORED
    lives = (1e9, 60.0, 14.0, 3.5) if short else (1e9, 60.0, 30.0, 14.0, 7.0, 3.5, 2.0)
    sums = [_counted(train, items, (0.5 ** (age / days)).sum()) for days in lives]
    sums += [_counted(train.filter(age <= days), items) for days in ((7,) if short else (3, 7, 14))]
    last = future["timestamp"].max()
    before_last = (pl.lit(last) - pl.col("timestamp")).dt.total_seconds() / 86_400
    window = max(float(future.select(before_last.max()).item()), 1e-3)
    scale = 1.0 / np.sqrt(sums[1] + 1.0)  # (n_items,)
    terms = np.column_stack([np.ones(len(items)), *sums]) * scale[:, None]
    basis, triangle = np.linalg.qr(terms / np.maximum(np.linalg.norm(terms, axis=0), 1e-12))
    basis = basis[:, np.abs(np.diag(triangle)) > 1e-9]
    values = scored["score"].to_numpy() * scale
    beyond = _beyond(values, basis)
    if beyond @ beyond <= 1e-10 * (values @ values):
        return 0.0, 0.0
    best = 0.0
    for days in (1e9, window, window / 2, window / 4):
        brought = _beyond(_counted(future, items, (0.5 ** (before_last / days)).sum()) * scale, basis)
        size = float(np.sqrt((beyond @ beyond) * (brought @ brought)))
        best = max(best, float(beyond @ brought) / size if size > 1e-9 else 0.0)
    freedom = max(len(items) - basis.shape[1] - 1, 1)
    return best, float(np.arctanh(min(best, 1.0 - 1e-9)) * np.sqrt(freedom))


def strangers_known(
    lists: pl.DataFrame, strangers: pl.DataFrame, answers: pl.DataFrame, train: pl.DataFrame
) -> tuple[int, float]:
    """Whether lists of users of whom nothing was known go with their own answers: (users with a list, largest z).

    strangers: user_id and what is known of each, a column a part of the context; train: distinct user_id, item_id. Two
    measures of a list and a user's answers are taken: hits, more or fewer, and nearness: how likely one item makes
    another one in training beside all others (`_likely`), which tells the taste that made a list from what everybody
    wants. Answers weigh 1 / √(answers of the user). Among strangers of one context every list says as much of one
    user's answers as of another's; the sum over users of list and own answers is set against all ways of exchanging the
    answers within contexts, whose mean and variance are known (Hoeffding, Annals of Mathematical Statistics 1951).
    Equal lists have z = 0, random ones about 0.
    """
    context = [name for name in strangers.columns if name != "user_id"]
    served = strangers.join(lists.select("user_id").unique(), on="user_id", how="semi").sort("user_id").head(_STRANGERS)
    cells = served.select(pl.struct(context).rank("dense") if context else pl.lit(1).repeat_by(1).explode())
    cell = cells.to_series().to_numpy() if context else np.ones(served.height)
    items = pl.concat([lists["item_id"], answers["item_id"], train["item_id"]]).unique().sort()
    shown, wanted = (_indicator(pairs, served["user_id"], items) for pairs in (lists, answers))
    _, first, same = np.unique(cell, return_index=True, return_inverse=True)
    if not abs(shown - shown[first[same]]).sum():
        return served.height, 0.0  # whoever is alike gets the same list
    told = np.maximum(np.asarray(wanted.sum(axis=1)).ravel(), 1.0)
    wanted = sparse.csr_array(sparse.diags_array(1.0 / np.sqrt(told)) @ wanted)
    hits = np.asarray((shown @ wanted.T).todense(), dtype=np.float64)  # (n, n)
    often = train["item_id"].value_counts(name="n").sort("n", "item_id", descending=[True, False])
    common = often["item_id"].head(_ITEMS).sort()
    places = positions(common, items)
    near = shown[:, places] @ _likely(train, common) @ wanted[:, places].toarray().T  # (n, n)
    return served.height, max(abs(_own_beyond_others(hits, cell)), _own_beyond_others(near, cell))


def _own_beyond_others(table: Numbers, cell: NDArray[Any]) -> float:
    """z of the diagonal of a table (n, n) against all permutations of its columns within cells (n,)."""
    apart, variance = 0.0, 0.0
    for one in np.unique(cell):
        rows = np.flatnonzero(cell == one)
        if len(rows) < 2:
            continue
        part = table[np.ix_(rows, rows)]
        centred = part - part.mean(axis=0) - part.mean(axis=1)[:, None] + part.mean()
        apart += float(np.trace(centred))
        variance += float((centred**2).sum()) / (len(rows) - 1)
    return apart / float(np.sqrt(variance)) if variance > 1e-9 else 0.0


def _likely(train: pl.DataFrame, items: pl.Series) -> Numbers:
    """What each item says of each other one in a ridge regression on all of them, symmetric (n_items, n_items).

    P = (G + λ)⁻¹ of the item Gram G, λ four times its mean diagonal; the weights are - P_ij / P_jj, and 0 on the
    diagonal (Steck, WWW 2019).
    """
    users = train["user_id"].unique().sort()
    had = _matrix(train, users, items)
    gram = (had.T @ had).toarray()
    inverse = np.linalg.inv(gram + 4.0 * max(float(np.diag(gram).mean()), 1e-9) * np.eye(len(items)))
    weights: Numbers = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray((weights + weights.T) / 2.0)


def _indicator(pairs: pl.DataFrame, users: pl.Series, items: pl.Series) -> sparse.csr_array:
    """1 where a user has an item (n_users, n_items)."""
    return sparse.csr_array(pair_matrix(pairs.select("user_id", "item_id"), users, items).astype(np.float64))


def _near(train: pl.DataFrame, asked: pl.Series, exclude: pl.DataFrame, items: pl.Series) -> tuple[Numbers, Numbers]:
    """Cosine closeness of items to the histories of those asked: its sum, and in how many best 20 (n_items,) each."""
    users = train["user_id"].unique().sort()
    matrix = _matrix(train, users, items)
    lengths = np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0))
    alike = (matrix.T @ matrix).toarray() / np.outer(lengths, lengths)
    np.fill_diagonal(alike, 0.0)
    there = asked.filter(asked.is_in(users.implode()))
    if len(there) > _USERS:
        there = there.gather(np.sort(np.random.default_rng(0).permutation(len(there))[:_USERS]))
    scores = matrix[positions(there, users)] @ alike
    scores[_matrix(exclude, there, items).toarray() > 0] = -1.0
    best = np.argpartition(-scores, min(20, len(items) - 1), axis=1)[:, :21]
    return np.maximum(scores, 0.0).sum(axis=0), np.bincount(best.ravel(), minlength=len(items)).astype(np.float64)


def _matrix(pairs: pl.DataFrame, users: pl.Series, items: pl.Series) -> sparse.csr_array:
    """1 where the user has the item (n_users, n_items)."""
    user, item = _coded(pairs.select("user_id", "item_id").unique(), users, items)
    return sparse.csr_array((np.ones(len(user)), (user, item)), shape=(len(users), len(items)))


def _coded(pairs: pl.DataFrame, users: pl.Series, items: pl.Series) -> tuple[Integers, Integers]:
    """Places of users and items of pairs whose both are there, in order of users, then items."""
    user, item = positions(pairs["user_id"], users), positions(pairs["item_id"], items)
    there = (user >= 0) & (item >= 0)
    order = np.lexsort((item[there], user[there]))
    return user[there][order], item[there][order]


def _counted(rows: pl.DataFrame, items: pl.Series, weight: pl.Expr | None = None) -> Numbers:
    """Rows, or sums of a weight, by item (n_items,)."""
    sums = rows.group_by("item_id").agg(n=(pl.len() if weight is None else weight).cast(pl.Float64))
    found = items.to_frame("item_id").join(sums, on="item_id", how="left", maintain_order="left")
    return found["n"].fill_null(0.0).to_numpy()


def _beyond(values: Numbers, basis: Numbers) -> Numbers:
    return values - basis @ (basis.T @ values)


def _top(scores: Numbers, future: Numbers, depth: int) -> float:
    return float(future[np.argsort(-scores, kind="stable")[:depth]].mean())


_TELLING_USERS, _COMPARED = 5_000, 2_000
"""Users looked at, at most: by the first and, in pairs, by the second."""
_FEWEST_TELLING, _VALUES = 40, 200
"""Users below which nothing can be said, and values beyond which an attribute is a name."""
_PRIOR = 2.0
"""Users' worth of prior in the weight of an item: rare ones say little."""
_RARE = 0.05
"""Added to the share of a value that its weight is one over: rare ones say little."""


def telling_attribute(values: pl.DataFrame, answers: pl.DataFrame, past: pl.DataFrame) -> tuple[float, float, int]:
    """How much more an attribute says of users' answers than of as many of their past items: (nats a user, z, users).

    values: user_id, value; answers, past: distinct user_id, item_id. An attribute made of an answer is the code of one
    of them, whichever. So the chance of a value is modelled as the mean over the user's items of q(value | item), q is
    fitted by expectation and maximisation on other users (ten folds), and the gain over the plain share of the value is
    compared with that of the same number of past items, drawn, in pairs by user. Tastes tell of both alike.
    """
    users = answers["user_id"].unique().sort()
    users = users.filter(users.is_in(past["user_id"].unique().implode()) & users.is_in(values["user_id"].implode()))
    draws = np.random.default_rng(0)
    if len(users) > _TELLING_USERS:
        users = users.gather(np.sort(draws.permutation(len(users))[:_TELLING_USERS]))
    value = users.to_frame().join(values, on="user_id", how="left", maintain_order="left")["value"]
    label = value.rank("dense").to_numpy().astype(np.int64) - 1
    n_users, n_values = len(users), int(label.max(initial=-1)) + 1
    if n_users < _FEWEST_TELLING or not 2 <= n_values <= _VALUES:
        return 0.0, 0.0, n_users
    items = pl.concat([answers["item_id"], past["item_id"]]).unique().sort()
    now, before = _coded(answers, users, items), _coded(past, users, items)
    length = np.minimum(*(np.bincount(one[0], minlength=n_users) for one in (now, before)))
    rounds = 6
    gains = np.zeros((2, n_users))
    for _ in range(rounds):
        for which, (user, item) in enumerate((now, before)):
            order = np.lexsort((draws.random(len(user)), user))
            place = np.arange(len(user)) - np.searchsorted(user[order], user[order])
            kept = order[place < length[user[order]]]
            gains[which] += _gains(user[kept], item[kept], label, len(items), n_values) / rounds
    more = gains[0] - gains[1]
    z = float(more.mean() / max(more.std() / np.sqrt(n_users), 1e-9))
    return float(more.mean()), z, n_users


def alike_by_answers(values: pl.DataFrame, answers: pl.DataFrame, past: pl.DataFrame) -> tuple[float, float, int]:
    """Whether users who share a value are alike by answers beyond what they are by their past: (ratio, z, users).

    values: user_id, value, also of users without a past; answers, past: distinct user_id, item_id. Closeness of two
    users by a set of items is that of their profiles, each 1 / (items of the user), in the metric 1 / (f + 2) of the
    items' sums f, as in correspondence analysis, doubly centred; likeness by value is Σ_v y_v y'_v / (p_v + 0.05) with
    y = 1[value = v] - p_v. The mean over pairs of closeness times likeness, the score statistic of many small effects
    (Gretton et al., ALT 2005), by answers less that by past is set against its error, from the sums by user of a
    U-statistic. Profiles are means, so it does not matter that there is more past than answers.

    ratio: the mean by answers / that by past, infinite where the latter is not positive.
    """
    users = answers["user_id"].unique().sort()
    users = users.filter(users.is_in(values["user_id"].implode()))
    if len(users) > _COMPARED:
        users = users.gather(np.sort(np.random.default_rng(0).permutation(len(users))[:_COMPARED]))
    value = users.to_frame().join(values, on="user_id", how="left", maintain_order="left")["value"]
    label = value.rank("dense").to_numpy().astype(np.int64) - 1
    n_values = int(label.max(initial=-1)) + 1
    if len(users) < _FEWEST_TELLING or not 2 <= n_values <= _VALUES:
        return 0.0, 0.0, len(users)
    items = pl.concat([answers["item_id"], past["item_id"]]).unique().sort()
    by_user = []
    for pairs in (answers, past):
        had = sparse.csr_array(pair_matrix(pairs.select("user_id", "item_id"), users, items).astype(np.float64))
        there = np.flatnonzero(np.diff(had.indptr) > 0)
        if len(there) < _FEWEST_TELLING:
            return 0.0, 0.0, len(users)
        alike = _close(had[there]) * _like(label[there], n_values)
        sums = np.zeros(len(users))
        sums[there] = alike.sum(axis=1) / (len(there) * (len(there) - 1))
        by_user.append(sums)
    now, before = (float(sums.sum()) for sums in by_user)
    more = by_user[0] - by_user[1]
    error = 2.0 * float(np.sqrt(((more - more.mean()) ** 2).sum()))
    return now / before if before > 0 else np.inf, (now - before) / max(error, 1e-12), len(users)


def _close(had: sparse.csr_array) -> Numbers:
    """Closeness of users by their items (n_users, n_users): centred, 0 on the diagonal."""
    profiles = sparse.csr_array(sparse.diags_array(1.0 / np.diff(had.indptr)) @ had)
    metric = sparse.diags_array(1.0 / (np.asarray(profiles.sum(axis=0)).ravel() + _PRIOR))
    close: Numbers = (profiles @ metric @ profiles.T).toarray()
    np.fill_diagonal(close, 0.0)
    close = close - close.mean(axis=0) - close.mean(axis=1)[:, None] + close.mean()
    np.fill_diagonal(close, 0.0)
    return close


def _like(label: Integers, n_values: int) -> Numbers:
    """Likeness of users by value (n_users, n_users)."""
    ones = np.eye(n_values)[label]
    shares = ones.mean(axis=0)
    like: Numbers = ((ones - shares) / (shares + _RARE)) @ (ones - shares).T
    return like


def _gains(user: Integers, item: Integers, label: Integers, n_items: int, n_values: int, folds: int = 10) -> Numbers:
    """Log of (chance of the user's value by its items / share of the value), fitted without the user's fold."""
    n_users = len(label)
    size = np.bincount(user, minlength=n_users)
    key, fold = item * n_values + label[user], np.arange(n_users) % folds
    gains = np.zeros(n_users)
    for one in range(folds):
        learned = fold[user] != one
        base = np.bincount(label[(fold != one) & (size > 0)], minlength=n_values) + 0.5
        base = base / base.sum()
        learners, keys = user[learned], key[learned]
        part = 1.0 / size[learners]
        chance = np.zeros(0)
        for _ in range(15):
            told = np.bincount(keys, weights=part, minlength=n_items * n_values).reshape(n_items, n_values)
            chance = ((told + 3.0 * base) / (told.sum(axis=1, keepdims=True) + 3.0)).ravel()
            part = chance[keys] / np.bincount(learners, weights=chance[keys], minlength=n_users)[learners]
        tested = np.flatnonzero((fold == one) & (size > 0))
        mean = np.bincount(user[~learned], weights=chance[key[~learned]], minlength=n_users)[tested] / size[tested]
        gains[tested] = np.log(mean) - np.log(base[label[tested]])
    return gains
