"""Whether an attribute of users, such as a country that is none, was made from their right answers.

    telling_attribute   how much better answers say the attribute than as many past items do
    alike_by_answers    whether users of one value are alike by their answers, beyond being so by their past

The first learns what each item says, and finds codes that can be learned from the users there are; the second learns
nothing, and adds up what is too little to be learned. Tastes that go with a country show in past and answers alike.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.vocabulary import pair_matrix, positions

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]
_USERS, _COMPARED = 5_000, 2_000
"""Users looked at, at most: by the first and, in pairs, by the second."""
_FEWEST, _VALUES = 40, 200
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
    if len(users) > _USERS:
        users = users.gather(np.sort(draws.permutation(len(users))[:_USERS]))
    value = users.to_frame().join(values, on="user_id", how="left", maintain_order="left")["value"]
    label = value.rank("dense").to_numpy().astype(np.int64) - 1
    n_users, n_values = len(users), int(label.max(initial=-1)) + 1
    if n_users < _FEWEST or not 2 <= n_values <= _VALUES:
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
    if len(users) < _FEWEST or not 2 <= n_values <= _VALUES:
        return 0.0, 0.0, len(users)
    items = pl.concat([answers["item_id"], past["item_id"]]).unique().sort()
    by_user = []
    for pairs in (answers, past):
        had = sparse.csr_array(pair_matrix(pairs.select("user_id", "item_id"), users, items).astype(np.float64))
        there = np.flatnonzero(np.diff(had.indptr) > 0)
        if len(there) < _FEWEST:
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


def _coded(pairs: pl.DataFrame, users: pl.Series, items: pl.Series) -> tuple[Integers, Integers]:
    """Places of users and items of pairs whose both are there, in order of users, then items."""
    user, item = positions(pairs["user_id"], users), positions(pairs["item_id"], items)
    there = (user >= 0) & (item >= 0)
    order = np.lexsort((item[there], user[there]))
    return user[there][order], item[there][order]
