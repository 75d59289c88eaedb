"""Click models: how people go through a list, fitted on lists and their clicks, and asked for clicks on other lists.

Both hold one attraction an item, the chance that whoever looks at it clicks it, and differ in who looks:

position  Position-based (Craswell et al., WSDM 2008): place k is looked at with chance examination[k], whatever
          happened above.                       P(click) = examination[k] * attraction[item]
cascade   From the top, one by one (Craswell et al. 2008), with an end: after a click the person leaves with chance
          `stop`, after an item passed over with chance `abandon`. stop = 1 and abandon = 0 is the plain cascade. Who
          looks below the last click is unknown, and is what EM fills in (as for the dependent click model of Guo, Liu
          and Wang, WSDM 2009, and the click chain model of Guo et al., WWW 2009).

Lists are int arrays (n, k) of items numbered from 0, -1 after the end; clicks (n, k) are Booleans. Rare items are drawn
towards the mean attraction by a prior of `prior` looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_cli.errors import BadData
from persona_cli.experiments.interleaving import Merged, interleave
from persona_cli.experiments.merging import Flags, Floats, Ints, uniforms
from persona_cli.profiles.draws import Keys, mixed

ITERATIONS = 500
TOLERANCE = 1e-8  # of the log-likelihood a list
PRIOR = 1.0
_EDGE = 1e-9  # chances stay this far from 0 and 1


@dataclass(frozen=True)
class PositionModel:
    """Fitted position-based model. Only products are seen in clicks: the place looked at most has examination 1."""

    attraction: Floats
    """(n_items,)"""
    examination: Floats
    """(k,)"""
    log_likelihood: float = float("nan")
    """Of the lists that it was fitted on."""


@dataclass(frozen=True)
class CascadeModel:
    """Fitted cascade with leaving."""

    attraction: Floats
    """(n_items,)"""
    stop: float
    """Chance to leave after a click."""
    abandon: float
    """Chance to leave after an item that was looked at and not clicked."""
    log_likelihood: float = float("nan")
    """Of the lists that it was fitted on."""


def fit_position(
    items: Ints, clicks: NDArray[Any], prior: float = PRIOR, iterations: int = ITERATIONS
) -> PositionModel:
    """EM over counts of (item, place): a step costs one pass over the pairs that were shown, however many lists.

    Raises BadData where nothing was shown or lists and clicks differ in shape.
    """
    clicked, shown = _checked(items, clicks)
    n_items, width = int(items.max()) + 1, items.shape[1]
    pair = (items * width + np.arange(width))[shown]
    pairs, which = np.unique(pair, return_inverse=True)
    item, place = pairs // width, pairs % width
    looks = np.bincount(which).astype(np.float64)
    hits = np.bincount(which, weights=clicked[shown]).astype(np.float64)
    item_looks = np.bincount(item, weights=looks, minlength=n_items)
    place_looks = np.bincount(place, weights=looks, minlength=width)
    mean = _chance(hits.sum() / looks.sum())
    attraction, examination = np.full(n_items, mean**0.5), np.full(width, mean**0.5)
    before = -np.inf
    likelihood = before
    for _ in range(iterations):
        alpha, theta = attraction[item], examination[place]
        seen = theta * alpha
        likelihood = float((hits * np.log(seen) + (looks - hits) * np.log1p(-seen)).sum())
        if likelihood - before <= TOLERANCE * len(items):
            break
        before = likelihood
        unclicked = (looks - hits) / (1 - seen)
        wanted = np.bincount(item, weights=hits + unclicked * alpha * (1 - theta), minlength=n_items)
        looked = np.bincount(place, weights=hits + unclicked * theta * (1 - alpha), minlength=width)
        average = wanted.sum() / looks.sum()
        attraction = _chance((wanted + prior * average) / (item_looks + prior))
        examination = _chance(looked / np.maximum(place_looks, 1.0))
    most = examination[place_looks > 0].max()
    return PositionModel(attraction * most, np.where(place_looks > 0, examination / most, 0.0), likelihood)


def fit_cascade(items: Ints, clicks: NDArray[Any], prior: float = PRIOR, iterations: int = ITERATIONS) -> CascadeModel:
    """EM over how far below the last click each person looked; the places down to it were looked at for certain.

    Raises BadData where nothing was shown or lists and clicks differ in shape.
    """
    clicked, shown = _checked(items, clicks)
    n_items, (n, width) = int(items.max()) + 1, items.shape
    size = shown.sum(axis=1)
    last = np.where(clicked, np.arange(1, width + 1), 0).max(axis=1)  # place of the last click from 1, 0 without one
    below = shown & (np.arange(width) >= last[:, None])
    certain = shown & ~below
    hits = np.bincount(items[clicked], minlength=n_items).astype(np.float64)
    sure = np.bincount(items[certain], minlength=n_items).astype(np.float64)
    # Only what follows a place says whether somebody left there: the last place of a list says nothing.
    goes_on = np.arange(1, width + 1) < size[:, None]
    stayed_clicked = float((clicked & goes_on & (np.arange(1, width + 1) < last[:, None])).sum())
    stayed_passed = float((certain & ~clicked & goes_on).sum())
    open_click = (last > 0) & (last < size)
    codes = np.maximum(items, 0)
    attraction = np.full(n_items, _chance(clicked.sum() / max(certain.sum() + below.sum() / 2, 1)))
    stop, abandon = 0.5, 0.1
    before = -np.inf
    likelihood = before
    for _ in range(iterations):
        alpha = attraction[codes]
        # ends[j] (n,): chance of leaving at place j below the last click, and of no click from there on
        survived = np.where(open_click, 1 - stop, np.where(last == 0, 1.0, 0.0))
        left_at_once = np.where(open_click, stop, np.where(last == size, 1.0, 0.0))
        total = left_at_once.copy()
        looked = np.zeros((width, n))  # joint chance of looking at place j and no click below the last
        leaving = np.zeros((width, n))
        for j in range(width):
            here = below[:, j]
            survived = np.where(here, survived * (1 - alpha[:, j]), survived)
            end = here & ~goes_on[:, j]
            leaving[j] = np.where(end, survived, np.where(here, survived * abandon, 0.0))
            total += leaving[j]
            survived = np.where(end, 0.0, np.where(here, survived * (1 - abandon), survived))
        total = np.maximum(total, 1e-300)
        looked = np.cumsum(leaving[::-1], axis=0)[::-1] / total * below.T  # whoever leaves at or below j looked at j
        likelihood = float(
            np.log(total).sum()
            + (np.log(alpha) * clicked).sum()
            + (np.log1p(-alpha) * (certain & ~clicked)).sum()
            + stayed_clicked * np.log1p(-stop)
            + stayed_passed * np.log1p(-abandon)
        )
        if likelihood - before <= TOLERANCE * n:
            break
        before = likelihood
        exposure = sure + np.bincount(codes.ravel(), weights=looked.T.ravel(), minlength=n_items)
        average = hits.sum() / exposure.sum()
        stopped = float((left_at_once / total)[open_click].sum())
        went = (goes_on & below).T
        passed = float((looked * went).sum())
        gone = float((leaving / total * went).sum())
        attraction = _chance((hits + prior * average) / (exposure + prior))
        stop = float(_chance(stopped / max(stayed_clicked + open_click.sum(), 1.0)))
        abandon = float(_chance(gone / max(stayed_passed + passed, 1.0)))
    return CascadeModel(attraction, stop, abandon, likelihood)


def position_clicks(chances: Floats, examination: Floats, keys: Keys) -> Flags:
    """Clicks (n, k) on places whose items attract with `chances` (n, k), looked at with `examination` (k,)."""
    clicks = np.empty(chances.shape, dtype=np.bool_)
    for j in range(chances.shape[1]):
        clicks[:, j] = uniforms(keys, j) < chances[:, j] * examination[j]
    return clicks


def cascade_clicks(chances: Floats, stop: float, abandon: float, keys: Keys) -> Flags:
    """Clicks (n, k) of people who go down a list of items that attract with `chances` (n, k) until they leave."""
    clicks = np.empty(chances.shape, dtype=np.bool_)
    here = np.ones(len(chances), dtype=np.bool_)
    for j in range(chances.shape[1]):
        clicks[:, j] = here & (uniforms(keys, 2 * j) < chances[:, j])
        here &= uniforms(keys, 2 * j + 1) >= np.where(clicks[:, j], stop, abandon)
    return clicks


def clicks_on(model: PositionModel | CascadeModel, items: Ints, keys: Keys, factor: Floats | float = 1.0) -> Flags:
    """Clicks (n, k) on lists of numbered items; `factor` (n,) is how much readier each person clicks than the mean.

    An attraction times its factor is cut at 1. The same keys give the same clicks, whatever the other rows are.
    """
    chances = np.minimum(attractions(model, items) * np.reshape(factor, (-1, 1)), 1.0)
    if isinstance(model, PositionModel):
        return position_clicks(chances, model.examination, keys)
    return cascade_clicks(chances, model.stop, model.abandon, keys)


def attractions(model: PositionModel | CascadeModel, items: Ints) -> Floats:
    """The attraction of each item of lists (n, k), 0 after the end.

    A model's attraction may also be (n, n_items), each list's own: what is relevant differs from request to request.
    """
    numbers = np.maximum(items, 0)
    one_for_all = model.attraction.ndim == 1
    at = model.attraction[numbers] if one_for_all else np.take_along_axis(model.attraction, numbers, axis=1)
    return np.where(items >= 0, at, 0.0)


def interleaved_trial(
    model: PositionModel | CascadeModel,
    a: Ints,
    b: Ints,
    keys: Keys,
    method: str = "team-draft",
    length: int | None = None,
    factor: Floats | float = 1.0,
) -> tuple[Merged, Flags]:
    """Rankings (n, k) merged and clicked on as the model has it: merged lists, and clicks (n, length)."""
    merged = interleave(a, b, keys, method, length)
    return merged, clicks_on(model, merged.items, mixed(~keys), factor)


def click_chances(model: PositionModel | CascadeModel, items: Ints) -> Floats:
    """Chance of a click at each place (n, k), before any click is known."""
    alpha = attractions(model, items)
    if isinstance(model, PositionModel):
        return np.asarray(alpha * model.examination[: items.shape[1]])
    here = np.ones(len(items))
    chances = np.empty(alpha.shape)
    for j in range(items.shape[1]):
        chances[:, j] = here * alpha[:, j]
        here = here * (alpha[:, j] * (1 - model.stop) + (1 - alpha[:, j]) * (1 - model.abandon))
    return chances


def _checked(items: Ints, clicks: NDArray[Any]) -> tuple[Flags, Flags]:
    """Which places were clicked and which were filled, (n, k)."""
    if items.shape != clicks.shape:
        raise BadData(f"lists of shape {items.shape} with clicks of shape {clicks.shape}; expected the same")
    shown: Flags = items >= 0
    if not shown.any():
        raise BadData("no item was shown in any list; expected at least one to fit a click model on")
    return (clicks > 0) & shown, shown


def _chance(values: Any) -> Any:
    return np.clip(values, _EDGE, 1 - _EDGE)
