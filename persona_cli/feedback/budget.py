"""What training can afford: which models, of what size, compared at how many cuts.

A model is fitted once at every cut and once on everything. Speeds are fixed, so what is trained follows from the data,
the settings and the time allowed, and never from how busy the machine is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from persona_cli.models.gram import Gram
from persona_cli.models.kinds import INDIVIDUAL
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
_SOLVED_A_SECOND = 30e9  # operations of the inverse of EASE on one thread, n³ in all
_SUMMED_A_SECOND = 15e6  # products of the item sums
# EASE on fewer items than this is not worth its time beside knn on all.
_FEWEST_ITEMS = 1_000


@dataclass(frozen=True)
class Portfolio:
    """What to train without names."""

    names: list[str]
    """Individual models, simplest first."""
    skipped: dict[str, str]
    """Model → why it is not trained."""
    settings: Settings
    """With as many items for EASE as the time allows."""
    cuts: int
    """Past cuts at which the models are compared, at least one."""


def portfolio(gram: Gram, settings: Settings, limit: float) -> Portfolio:
    """The models that `limit` seconds allow, at train.cuts cuts; at fewer where else a model would be left out."""
    if len(gram.items) < 2:
        return Portfolio([], dict.fromkeys(INDIVIDUAL, "fewer than two items have been wanted by anybody"), settings, 1)
    for cuts in range(settings.whole("train.cuts"), 0, -1):
        sized = fitting(gram, settings, limit, cuts + 1)
        needed = {name: (cuts + 1) * estimated_seconds(name, gram, sized) for name in INDIVIDUAL}
        if max(needed.values()) <= limit:
            break
    names = [name for name in INDIVIDUAL if needed[name] <= limit]
    skipped = {
        name: f"would take about {needed[name]:,.0f} s of the {limit:,.0f} s allowed (--time-limit)"
        for name in INDIVIDUAL
        if name not in names
    }
    if sized.values != settings.values:
        covered = sized.whole("model.ease.max_items")
        log.info("ease: the %s most popular of %s items, as the time allows", f"{covered:,}", f"{len(gram.items):,}")
    return Portfolio(names, skipped, sized, cuts)


def estimated_seconds(name: str, gram: Gram, settings: Settings) -> float:
    """Time that one fit of an individual model takes on a common machine, by its size alone."""
    if name == "ease":
        n_items = min(len(gram.items), settings.whole("model.ease.max_items"))
        return n_items**3 / (_SOLVED_A_SECOND * settings.whole("compute.solver_threads"))
    return 2.0 * gram.cells.nnz / _SUMMED_A_SECOND


def fitting(gram: Gram, settings: Settings, limit: float, fits: int = 2) -> Settings:
    """The settings with as many items for EASE, the most popular first, as `fits` fits in `limit` seconds allow."""
    speed = _SOLVED_A_SECOND * settings.whole("compute.solver_threads")
    items = int((limit / fits * speed) ** (1 / 3)) // 100 * 100
    if items >= min(len(gram.items), settings.whole("model.ease.max_items")) or items < _FEWEST_ITEMS:
        return settings
    return settings.with_flags({"model.ease.max_items": items})
