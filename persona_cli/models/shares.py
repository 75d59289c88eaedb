"""What each item of a history adds to the score of another item, by the model that gave the score.

    score_i = Σ_j own_ji + Σ_kind rest_kind,i          j over the items of the history

For models that are linear in the history the sum is exact, with everything that depends on the user as a whole (scales
of a blend, lengths of a history, the matrix of a fold-in) taken as it is:

    knn, ease   own_ji = x_j W_ji
    spectral    own_ji = x_j R_ji / m_ridge + weight · x_j L_ji / m_linear
    als         own_ji = (w_j + 1) z_i M⁻¹ z_j,  M = I + Zᵀ W Z              (Hu, Koren & Volinsky 2008, section 5)
    content     own_ji = x_j Σ_b w_b v_jb · v_ib / |profile_b|; what the words of searches add is the rest
    hybrid      own_ji = s_j / (s̄ n^⅔) (q_j - q̄) B q_i; what B says of nobody, and the bias of i, is the rest
    blend       the sum of its models', by their weights and scales

`ranker` is explained by its candidate model: the score is divided as that model's is. Any other model is asked about
every item alone; where the answers do not add up, about the history without each item, and the score is divided in the
proportion of what is lost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.models.als import Als
from persona_cli.models.base import Floats, Histories, Model, reads_queries
from persona_cli.models.blend import Blend, weights_of
from persona_cli.models.cohort import Cohort
from persona_cli.models.content import Content
from persona_cli.models.hybrid import Hybrid
from persona_cli.models.item_features import BLOCKS
from persona_cli.models.layered import top_means
from persona_cli.models.popular import CELL, Popular
from persona_cli.models.ranker import Ranker
from persona_cli.models.spectral import Spectral
from persona_cli.models.spectral_tuning import scales

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
_ADDS_UP = 1e-4  # of the largest score: what sums of float32 differ by


class Added(NamedTuple):
    """What the scores of some items are made of, for one user."""

    own: Numbers
    """Of each item of the history, in the order of its row (n_own, n_asked)."""
    rest: dict[str, Numbers]
    """By kind (search, context, cohort, general), where there is any (n_asked,)."""
    exact: bool
    """False where a model that is not linear was divided in the proportion of another, or of what is lost."""
    by: str
    """In words, whose view it is, such as `ease` or `knn, which found the candidates of ranker`."""

    @property
    def total(self) -> Numbers:
        """The scores (n_asked,)."""
        return np.asarray(self.own.sum(axis=0) + sum(self.rest.values(), np.zeros(self.own.shape[1])))

    def times(self, factor: Numbers | float) -> Added:
        return self._replace(own=self.own * factor, rest={kind: one * factor for kind, one in self.rest.items()})


class Facts(NamedTuple):
    """What depends on users as a whole and is worked out for many at once: of one alone it costs as much."""

    scales: dict[str, Numbers]
    """What the scores of a part are divided by (n_users,)."""
    scores: Floats | None
    """(n_users, n_items)"""
    parts: dict[str, Facts]

    def of(self, user: int) -> Facts:
        row = slice(user, user + 1)
        return Facts(
            {name: scale[row] for name, scale in self.scales.items()},
            None if self.scores is None else self.scores[row],
            {name: part.of(user) for name, part in self.parts.items()},
        )


def facts_of(model: Model, histories: Histories) -> Facts:
    """The facts of users over the vocabulary of the model."""
    if isinstance(model, Popular | Cohort):
        return Facts({}, model.scores(histories), {})
    if isinstance(model, Spectral):
        rows = histories.rows
        made = {"ridge": np.asarray(scales(model.ridge_.scores(rows), rows), dtype=np.float64)}
        if model.choice_.weight:
            made["linear"] = np.asarray(scales(model.linear_.scores(rows), rows), dtype=np.float64)
        return Facts(made, None, {})
    if isinstance(model, Blend):
        made, inside = {}, {}
        for name in weights_of(model.of):
            part = model.parts()[name]
            inner = histories.over(model._columns[name], len(part.items))
            made[name] = top_means(part.scores(inner).copy(), inner.rows.astype(bool))
            inside[name] = facts_of(part, inner)
        return Facts(made, None, inside)
    if isinstance(model, Ranker):
        base = facts_of(model.base_model, histories.over(model._columns, len(model.base_model.items)))
        return Facts({}, model.scores(histories), {"base": base})
    return Facts({}, None, {})


def added(model: Model, one: Histories, asked: Places, facts: Facts | None = None) -> Added:
    """What the items at `asked` (positions in the model's vocabulary) score for one user, item by item of the history.

    `one` holds one user over the vocabulary of the model; `facts` are the user's, None: they are worked out.
    """
    facts = facts_of(model, one) if facts is None else facts
    own, x = one.rows.indices.astype(np.int64), one.rows.data.astype(np.float64)
    name = model.name
    if isinstance(model, Popular | Cohort):
        kind = "context" if isinstance(model, Popular) else "cohort"
        return Added(np.zeros((len(own), len(asked))), {kind: _row(facts)[asked]}, True, name)
    if hasattr(model, "weights_of"):
        weights: Any = model.weights_of(own) if len(own) else np.zeros((0, len(model.items)))
        return Added(np.asarray(weights)[:, asked].astype(np.float64) * x[:, None], {}, True, name)
    if isinstance(model, Spectral):
        return Added(_spectral(model, own, x, asked, facts), {}, True, name)
    if isinstance(model, Als):
        return Added(_als(model, one, asked), {}, True, name)
    if isinstance(model, Content):
        return _content(model, one, own, x, asked)
    if isinstance(model, Hybrid):
        return _hybrid(model, own, x, asked)
    if isinstance(model, Blend):
        return _blend(model, one, asked, facts)
    if isinstance(model, Ranker):
        return _ranker(model, one, asked, facts)
    return _by_trial(model, one, asked)


def over(part: Model, one: Histories, asked: Places, places: Places, facts: Facts | None = None) -> Added:
    """`added` by a part of a model; `places`: the items of the whole in the vocabulary of the part, -1 where missing.

    The history is in the order of the whole's row.
    """
    inner = one.over(places, len(part.items))
    kept = np.flatnonzero(places[one.rows.indices] >= 0)
    order = kept[np.argsort(places[one.rows.indices[kept]], kind="stable")]  # as the part's row is sorted
    covered = np.flatnonzero(places[asked] >= 0)
    found = added(part, inner, places[asked[covered]], facts)
    own = np.zeros((one.rows.nnz, len(asked)))
    own[np.ix_(order, covered)] = found.own
    rest = {kind: np.zeros(len(asked)) for kind in found.rest}
    for kind, values in found.rest.items():
        rest[kind][covered] = values
    return found._replace(own=own, rest=rest)


def summed(parts: list[Added]) -> Added:
    """Parts of a score, added up."""
    rest: dict[str, Numbers] = {}
    for part in parts:
        for kind, values in part.rest.items():
            rest[kind] = rest.get(kind, 0.0) + values
    own = np.sum([part.own for part in parts], axis=0)
    return Added(own, rest, all(part.exact for part in parts), " and ".join(dict.fromkeys(part.by for part in parts)))


def _row(facts: Facts) -> Numbers:
    assert facts.scores is not None
    return np.asarray(facts.scores[0], dtype=np.float64)


def _scores(model: Model, one: Histories) -> Numbers:
    return np.asarray(model.scores(one)[0], dtype=np.float64)


def _spectral(model: Spectral, own: Places, x: Numbers, asked: Places, facts: Facts) -> Numbers:
    ridge, linear = model.ridge_, model.linear_
    inner = (x * ridge.entry[own])[:, None] * np.asarray(ridge.vectors[own], dtype=np.float64) * ridge.gains
    made = inner @ np.asarray(ridge.vectors[asked], dtype=np.float64).T * ridge.exit[asked]
    made /= float(facts.scales["ridge"][0])
    if model.choice_.weight:
        cells = linear.cells[own][:, asked].toarray().astype(np.float64)
        scale = model.choice_.weight / float(facts.scales["linear"][0])
        made += (x * linear.entry[own])[:, None] * cells * linear.exit[asked] * scale
    return np.asarray(made)


def _als(model: Als, one: Histories, asked: Places) -> Numbers:
    weights = model._weights(one.rows)
    made = np.zeros((one.rows.nnz, len(asked)))
    there = np.isin(one.rows.indices, weights.indices)  # weights of 0 take no part
    factors = np.asarray(model.factors_[weights.indices], dtype=np.float64)  # (n, n_factors)
    system = np.eye(factors.shape[1]) + factors.T @ (factors * weights.data[:, None])
    users = np.linalg.solve(system, factors.T) * (weights.data + 1)  # (n_factors, n)
    made[there] = users.T @ np.asarray(model.factors_[asked], dtype=np.float64).T
    return made


def _content(model: Content, one: Histories, own: Places, x: Numbers, asked: Places) -> Added:
    about, name = model.descriptions_, model.name
    vectors, towards = about.vectors[own].astype(np.float64), about.vectors[asked].astype(np.float64).T
    weights = np.array([model.weights_[block] for block in BLOCKS])
    spoken = np.zeros(vectors.shape[1])
    told = sparse.csr_array(vectors * x[:, None])  # (n_own, n_features)
    untold = told.nnz == 0
    if one.queries is not None and one.queries[0] is not None:  # what was searched weighs as the mean item
        told = sparse.csr_array(told / max(float(x.sum()), 1e-300))
        spoken = model._searched(one.queries).astype(np.float64).toarray()[0]
    profile = np.asarray(told.sum(axis=0)).ravel() + spoken
    lengths = np.sqrt(np.bincount(about.blocks, profile**2, len(BLOCKS)))
    factors = np.divide(np.ones_like(weights) if untold else weights, lengths, where=lengths > 0, out=0 * lengths)
    factor = factors[about.blocks]  # (n_features,)
    made = np.asarray((sparse.csr_array(told * factor) @ towards).toarray())
    if model.weights_["embedding"] > 0:
        points = about.embedding.astype(np.float64)
        length = float(np.linalg.norm(x @ points[own]))
        if length > 0:
            made += model.weights_["embedding"] / length * x[:, None] * (points[own] @ points[asked].T)
    heard = {"search": np.asarray((spoken * factor) @ towards)} if spoken.any() else {}
    return Added(made, heard, True, name)


def _hybrid(model: Hybrid, own: Places, x: Numbers, asked: Places) -> Added:
    name = model.name
    if not len(own):
        return Added(np.zeros((0, len(asked))), {}, True, name)
    # As `Hybrid.scores` folds a history in, one item at a time.
    scale = len(own) ** (1 / 3) / (float(x.sum()) or 1.0)
    factors, folding = model.factors_.astype(np.float64), model.folding_.astype(np.float64)
    users = (x * scale)[:, None] * factors[own, :-1] @ folding[:-1]  # (n_own, n_factors)
    towards = factors[asked, :-1].T
    return Added(users @ towards, {"general": folding[-1] @ towards + factors[asked, -1]}, True, name)


def _blend(model: Blend, one: Histories, asked: Places, facts: Facts) -> Added:
    parts = []
    for name, weight in weights_of(model.of).items():
        part, scale = model.parts()[name], float(facts.scales[name][0])
        if scale > 0:
            parts.append(over(part, one, asked, model._columns[name], facts.parts[name]).times(weight / scale))
    return summed(parts) if parts else Added(np.zeros((one.rows.nnz, len(asked))), {}, True, model.name)


def _ranker(model: Ranker, one: Histories, asked: Places, facts: Facts) -> Added:
    found = over(model.base_model, one, asked, model._columns, facts.parts["base"])
    score, base = _row(facts)[asked], found.total
    # What the candidate model does not speak for came from the popular list.
    speaks = (base > 0) & (found.own.max(axis=0, initial=0.0) > 0)
    divided = found.times(np.divide(score, base, out=np.zeros_like(score), where=speaks))
    general = divided.rest.get("general", 0.0) + np.where(speaks, 0.0, score)
    by = f"{found.by}, which found the candidates of {model.name}"
    return divided._replace(rest={**divided.rest, "general": general}, exact=False, by=by)


def _by_trial(model: Model, one: Histories, asked: Places) -> Added:
    """Every item alone, or the history without it."""
    n, score = one.rows.nnz, _scores(model, one)[asked]
    listens = reads_queries(model) and one.queries is not None and one.queries[0] is not None
    alone = _trials(model, one, np.eye(n, dtype=bool), np.zeros(n, dtype=bool))[:, asked]
    rest: dict[str, Numbers] = {}
    if listens:
        rest["search"] = _trials(model, one, np.zeros((1, n), dtype=bool), np.ones(1, dtype=bool))[0, asked]
    whole = Added(alone, rest, True, model.name)
    if np.allclose(whole.total, score, rtol=0, atol=_ADDS_UP * float(np.abs(score).max(initial=0))):
        return whole
    without = _trials(model, one, ~np.eye(n, dtype=bool), np.full(n, listens))[:, asked]
    lost = np.maximum(score - without, 0.0)  # (n_own, n_asked)
    unheard = np.zeros(len(asked))
    if listens:
        unheard = np.maximum(score - _trials(model, one, np.ones((1, n), dtype=bool), np.zeros(1, bool))[0, asked], 0.0)
    total = lost.sum(axis=0) + unheard
    factor = np.divide(score, total, out=np.zeros_like(total), where=total > 0)
    rest = {"general": np.where(total > 0, 0.0, score)}
    if listens:
        rest["search"] = unheard * factor
    return Added(lost * factor, rest, False, f"{model.name}, by what it would score without each")


def _trials(model: Model, one: Histories, kept: NDArray[np.bool_], heard: NDArray[np.bool_]) -> Numbers:
    """Scores of the user with some of the items `kept` (n, n_own), and with what was searched or not (n, n_items)."""
    n, lengths = len(kept), kept.sum(axis=1)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    which = np.nonzero(kept)[1]

    def rows(matrix: sparse.csr_array | None) -> sparse.csr_array | None:
        if matrix is None:
            return None
        return sparse.csr_array((matrix.data[which], matrix.indices[which], ends), shape=(n, matrix.shape[1]))

    made, times = rows(one.rows), rows(one.times)
    assert made is not None
    queries = None
    if one.queries is not None:
        queries = pl.Series([one.queries[0] if hears else None for hears in heard], dtype=pl.String)
    context = pl.DataFrame([pl.Series(name, [None] * n, dtype=pl.String) for name in CELL])
    scores = model.scores(Histories(made, lengths.astype(np.int64), context, times, None, queries))
    return np.asarray(scores, dtype=np.float64)
