"""Off-policy estimates: what another policy would have earned, from decisions whose propensities were logged.

With w = target / propensity (the probabilities of the logged action under the policy in question and under the one that
acted), r the reward and q a model of it:

- IPS (Horvitz and Thompson 1952): mean of w r; unbiased.
- SNIPS (Swaminathan and Joachims 2015): Σ w r / Σ w; a little biased, steadier, unmoved by a shift of the rewards.
- DM: mean of v = Σ_a π(a|x) q(x, a); as good as the model.
- DR (Dudík, Langford and Li 2011): mean of v + w (r - q); unbiased where the propensities or the model are right.
  `switch` (Wang, Agarwal and Dudík 2017) only weights up to it correct the model; with `shrink` (Su and others 2020)
  weights become λ w / (w² + λ).

The reward model is fitted on folds that a row is not in (cross-fitting; Chernozhukov and others 2018), whole clusters
together. Intervals are normal, of the influence functions summed by cluster (the user): decisions of one user are not
independent.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import BadData
from persona_cli.experiments.inference import Estimated, around

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SMALLEST_ESS = 50.0
"""Effective sample size under which an estimate says next to nothing."""


class Weights(NamedTuple):
    """Importance weights (n,), and how far they can be trusted."""

    w: Floats
    ess: float
    """Effective sample size: (Σ w)² / Σ w² (Kish 1965)."""
    largest: float
    mean: float
    """Near 1 where the propensities are right and the log covers what the policy would do."""


def weights(propensity: Floats, target: Floats) -> Weights:
    """Of logged propensities (n,) and the policy's probabilities of the logged actions (n,).

    Raises BadData for a propensity that is not over 0 and at most 1, and for a probability outside 0 to 1.
    """
    propensity, target = np.asarray(propensity, dtype=np.float64), np.asarray(target, dtype=np.float64)
    bad = ~((propensity > 0) & (propensity <= 1))
    if bad.any():
        at = int(np.argmax(bad))
        raise BadData(
            f"decision {at + 1} of {len(bad)} has the propensity {propensity[at]}; expected more than 0, at most 1",
            "log the probability with which the decision was drawn; decisions without one cannot be used",
        )
    wrong = ~((target >= 0) & (target <= 1 + 1e-9))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise BadData(f"the policy gives decision {at + 1} the probability {target[at]}; expected 0 to 1")
    w = target / propensity
    square = float((w * w).sum())
    ess = float(w.sum()) ** 2 / square if square else 0.0
    return Weights(w, ess, float(w.max(initial=0.0)), float(w.mean()) if len(w) else 0.0)


def ips(reward: Floats, w: Floats, cluster: Ints | None = None) -> Estimated:
    """Inverse propensity scoring of rewards (n,) with weights (n,)."""
    return _estimate(w * reward, cluster)


def snips(reward: Floats, w: Floats, cluster: Ints | None = None) -> Estimated:
    """Self-normalised inverse propensity scoring; 0 of weights that are all 0."""
    total = float(w.sum())
    if not total:
        return around(0.0, float("nan"))
    value = float((w * reward).sum()) / total
    return _around(value, w * (reward - value) / (total / len(w)), cluster)


def gain(reward: Floats, w: Floats, cluster: Ints | None = None) -> Estimated:
    """SNIPS less the mean reward of the log: what the policy in question earns more than the one that acted."""
    total = float(w.sum())
    if not total:
        return around(float("nan"), float("nan"))
    theirs, ours = float((w * reward).sum()) / total, float(reward.mean())
    return _around(theirs - ours, w * (reward - theirs) / (total / len(w)) - (reward - ours), cluster)


def dm(v: Floats, cluster: Ints | None = None) -> Estimated:
    """The direct method: modelled rewards of the policy (n,). Its interval leaves out how wrong the model is."""
    return _estimate(v, cluster)


def dr(
    reward: Floats,
    w: Floats,
    q: Floats,
    v: Floats,
    cluster: Ints | None = None,
    *,
    switch: float | None = None,
    shrink: float | None = None,
) -> Estimated:
    """Doubly robust: `q` (n,) the model's reward of the logged action, `v` (n,) its reward of the policy."""
    if switch is not None:
        w = np.where(w <= switch, w, 0.0)
    if shrink is not None:
        w = shrink * w / (w * w + shrink)
    return _estimate(v + w * (reward - q), cluster)


class Modelled(NamedTuple):
    """A cross-fitted model of the reward."""

    q: Floats
    """Reward of the logged action (n,)."""
    v: Floats
    """Reward of the policy (n,)."""


def cross_fitted(
    features: Floats,
    action: Ints,
    reward: Floats,
    policy: Floats,
    cluster: Ints | None = None,
    *,
    kind: Literal["auto", "linear", "logistic"] = "auto",
    folds: int = 5,
    penalty: float = 1.0,
    seed: int = 0,
) -> Modelled:
    """Rewards of features (n, d), logged actions (n,) and a policy's probabilities (n, n_actions), modelled on others.

    A ridge regression, or a logistic one where rewards are 0 and 1, on the features and one indicator an action: an
    action that was hardly seen is taken for the average one. Raises BadData for fewer clusters than folds.
    """
    n, n_actions = policy.shape
    mean, spread = features.mean(axis=0), features.std(axis=0)
    x = (features - mean) / np.where(spread > 0, spread, 1.0)
    fold = _folds(n, cluster, folds, seed)
    binary = kind == "logistic" or (kind == "auto" and bool(np.isin(reward, (0.0, 1.0)).all()))
    q, v = np.zeros(n), np.zeros(n)
    for k in range(folds):
        rest, ours = fold != k, fold == k
        of_x, of_action = _fitted(x[rest], action[rest], reward[rest], n_actions, binary, penalty)
        scores = (x[ours] @ of_x)[:, None] + of_action[None, :]
        rewards = 1.0 / (1.0 + np.exp(-scores)) if binary else scores
        q[ours] = rewards[np.arange(len(rewards)), action[ours]]
        v[ours] = (policy[ours] * rewards).sum(axis=1)
    return Modelled(q, v)


def cross_fitted_pairs(
    features: Floats,
    reward: Floats,
    asked: Floats,
    row: Ints,
    share: Floats,
    cluster: Ints | None = None,
    *,
    folds: int = 5,
    penalty: float = 1.0,
    seed: int = 0,
) -> Modelled:
    """As `cross_fitted` where actions are too many to number: each is known by its features.

    `features` (n, d) of the logged actions in their contexts; `asked` (m, d) of those that the policy would take, `row`
    (m,) the decision of each, and `share` (m,) the policy's probability of it.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf)  # what never varies says nothing
    x, wanted = (features - mean) / scale, (asked - mean) / scale
    fold = _folds(len(x), cluster, folds, seed)
    binary = bool(np.isin(reward, (0.0, 1.0)).all())
    q, v = np.zeros(len(x)), np.zeros(len(x))
    for k in range(folds):
        rest, ours, theirs = fold != k, fold == k, fold[row] == k
        none = np.zeros(int(rest.sum()), dtype=np.int64)
        of_x, level = _fitted(x[rest], none, reward[rest], 1, binary, penalty)
        logged, other = x[ours] @ of_x + level[0], wanted[theirs] @ of_x + level[0]
        if binary:
            logged, other = 1.0 / (1.0 + np.exp(-logged)), 1.0 / (1.0 + np.exp(-other))
        q[ours] = logged
        v += np.bincount(row[theirs], share[theirs] * other, len(x))
    return Modelled(q, v)


def _folds(n: int, cluster: Ints | None, folds: int, seed: int) -> Ints:
    """The fold of each row (n,), one for all of a cluster."""
    of = np.arange(n) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    n_clusters = int(of.max(initial=-1)) + 1
    if n_clusters < folds:
        raise BadData(f"a reward model is fitted on {folds} parts of the users, and there are {n_clusters}")
    return np.asarray(np.random.default_rng(seed).permutation(n_clusters)[of] % folds, dtype=np.int64)


def _fitted(
    x: Floats, action: Ints, reward: Floats, n_actions: int, binary: bool, penalty: float
) -> tuple[Floats, Floats]:
    """Weights of the features (d,) and, with the intercept, of the actions (n_actions,)."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression, Ridge

    indicator = sparse.csr_array((np.ones(len(x)), (np.arange(len(x)), action)), shape=(len(x), n_actions))
    design = sparse.csr_array(sparse.hstack([sparse.csr_array(x), indicator]))
    if binary and len(np.unique(reward)) < 2:  # nobody, or everybody: there is nothing to tell apart
        rate = (reward.sum() + 0.5) / (len(reward) + 1.0)
        return np.zeros(x.shape[1]), np.full(n_actions, np.log(rate / (1.0 - rate)))
    if binary:
        model = LogisticRegression(C=1.0 / penalty, max_iter=1_000).fit(design, reward)
        coefficients, intercept = model.coef_[0], float(model.intercept_[0])
    else:
        model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-10).fit(design, reward)
        coefficients, intercept = model.coef_, float(model.intercept_)
    return coefficients[: x.shape[1]], coefficients[x.shape[1] :] + intercept


def _estimate(terms: Floats, cluster: Ints | None) -> Estimated:
    value = float(terms.mean()) if len(terms) else float("nan")
    return _around(value, terms - value, cluster)


def _around(value: float, influence: Floats, cluster: Ints | None) -> Estimated:
    """A mean of n with the influence of each row (n,), which add up to 0."""
    n = len(influence)
    if cluster is not None:
        of = np.unique(cluster, return_inverse=True)[1]
        influence = np.bincount(of, weights=influence).astype(np.float64)
    many = len(influence)
    if many < 2:
        return around(value, float("nan"))
    se = float(np.sqrt((influence * influence).sum() * many / (many - 1))) / n
    return around(value, se)
