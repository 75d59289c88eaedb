"""What training can afford: which models, of what size, compared at how many cuts.

A model is fitted once at every cut and once on everything, and makes lists for the people asked at every cut. Speeds
are fixed, so what is trained follows from the data, the settings and the time allowed, and never from how busy the
machine is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import polars as pl

from persona_cli.models.base import Training
from persona_cli.models.kinds import INDIVIDUAL
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
PORTFOLIO = ("content", "knn", "als", "ease", "spectral", "hybrid", "ranker")
"""What is compared without names, beside the popular list, simplest first."""
_FIRST = ("spectral", "knn", "als", "content", "ranker", "ease", "hybrid")
# Cells of score blocks that are made and ranked a second.
_RANKED_A_SECOND = 40e6
# Cells of score blocks of which only the best are looked for.
_JUDGED_A_SECOND = 300e6
_FACTORED_A_SECOND = 200e6  # factors of entries in a pass of ALS
_REORDERED_A_SECOND = 400  # users whose candidates a ranker describes and puts in order
_DESCENDED_A_SECOND = 100e3  # entries in an epoch of WARP
_WHOLE = 4096  # items up to which a spectral model decomposes everything
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


def portfolio(training: Training, settings: Settings, limit: float, catalogue: pl.DataFrame | None = None) -> Portfolio:
    """The models that `limit` seconds allow in all, at train.cuts cuts; at fewer where else one would be left out.

    Models are taken in by what they promise; one that does not fit in what is left is skipped.
    """
    if len(training.gram.items) < 2:
        return Portfolio([], dict.fromkeys(PORTFOLIO, "fewer than two items have been wanted by anybody"), settings, 1)
    missing = {name: why for name in PORTFOLIO if (why := lacking(name, catalogue)) is not None}
    found = Portfolio([], missing, settings, 1)
    for cuts in range(settings.whole("train.cuts"), 0, -1):
        found = _within(training, settings, limit, cuts, missing)
        if len(found.skipped) == len(missing):
            break
    covered = found.settings.whole("model.ease.max_items")
    if "ease" in found.names and covered < min(len(training.gram.items), settings.whole("model.ease.max_items")):
        log.info(
            "ease: the %s most popular of %s items, as the time allows", f"{covered:,}", f"{len(training.gram.items):,}"
        )
    return found


def by_rule(names: Sequence[str]) -> str | None:
    """Which of these is served where nothing can be compared: what promises most."""
    return next((name for name in (*_FIRST, *names) if name in names), None)


def lacking(name: str, catalogue: pl.DataFrame | None) -> str | None:
    """What a model of the portfolio needs and does not have here."""
    if name == "content" and (catalogue is None or not catalogue.height):
        return "there is no catalogue of items that describes them (persona ingest --kind items FILE)"
    if name == "hybrid" and find_spec("lightfm") is None:
        return "LightFM is not installed (pip install 'persona-cli[hybrid]')"
    return None


def _within(training: Training, settings: Settings, limit: float, cuts: int, missing: dict[str, str]) -> Portfolio:
    left, taken, skipped = limit, set[str](), dict(missing)
    for name in _FIRST:
        if name in missing:
            continue
        if name == "ease":
            settings = fitting(training, settings, left, cuts)
        needed = (cuts + 1) * estimated_seconds(name, training, settings) + cuts * ranking_seconds(
            training, settings, name
        )
        if needed <= left:
            taken.add(name)
            left -= needed
        else:
            skipped[name] = f"would take about {needed:,.0f} s of the {limit:,.0f} s allowed (--time-limit)"
    return Portfolio([name for name in INDIVIDUAL if name in taken], skipped, settings, cuts)


def ranking_seconds(training: Training, settings: Settings, name: str = "") -> float:
    """Time to make one model's lists for the people asked at one cut."""
    users = settings.whole("train.validation_users")
    plain = users * len(training.gram.items) / _RANKED_A_SECOND
    return plain + (users / _REORDERED_A_SECOND if name == "ranker" else 0.0)


def estimated_seconds(name: str, training: Training, settings: Settings) -> float:
    """Time that one fit of an individual model takes on a common machine, by its size alone."""
    gram, n_items = training.gram, len(training.gram.items)
    if name == "ease":
        covered = min(n_items, settings.whole("model.ease.max_items"))
        return covered**3 / (_SOLVED_A_SECOND * settings.whole("compute.solver_threads"))
    if name == "ranker":
        base = settings.text("model.ranker.base")
        learned = min(settings.whole("model.ranker.users"), len(training.interactions.users))
        return 2 * estimated_seconds(base, training, settings) + learned / _REORDERED_A_SECOND
    if name == "als":
        return 10.0 * 256 * training.interactions.strengths.nnz / _FACTORED_A_SECOND
    if name == "hybrid":
        entries = training.interactions.strengths.nnz
        given = settings.number_or_word("model.hybrid.epochs")
        epochs = _hybrid_epochs(entries) if isinstance(given, str) else given
        return epochs * entries / _DESCENDED_A_SECOND
    if name == "content":
        return 2.0 + n_items / 5_000
    if name == "spectral":
        return _spectral_seconds(training)
    return 2.0 * gram.cells.nnz / _SUMMED_A_SECOND


def _spectral_seconds(training: Training) -> float:
    """Item sums, a small decomposition and many lists while the exponents are sought; then the decomposition."""
    n_users, n_items = training.interactions.strengths.shape
    entries = float(training.interactions.strengths.nnz)

    def decomposed(k: float) -> float:
        if n_items <= _WHOLE:
            return float(n_items**3) / _SOLVED_A_SECOND * 4
        return entries * k / 1e8 + (n_users + n_items) * k**2 / 4e9

    judged = 60 * min(n_users, 2000) * n_items / _JUDGED_A_SECOND
    sums = 4 * 2.0 * training.gram.cells.nnz / _SUMMED_A_SECOND
    return sums + 3 * decomposed(256) + judged + decomposed(1024)


def _hybrid_epochs(entries: int) -> int:
    from persona_cli.models.hybrid import epochs_for

    return epochs_for(entries)


def fitting(training: Training, settings: Settings, limit: float, cuts: int) -> Settings:
    """The settings with as many items for EASE, the most popular first, as fit in `limit` seconds."""
    n_items = len(training.gram.items)
    speed = _SOLVED_A_SECOND * settings.whole("compute.solver_threads")
    spare = limit - cuts * ranking_seconds(training, settings)
    items = int((max(spare, 0.0) / (cuts + 1) * speed) ** (1 / 3)) // 100 * 100
    if items >= min(n_items, settings.whole("model.ease.max_items")) or items < _FEWEST_ITEMS:
        return settings
    return settings.with_flags({"model.ease.max_items": items})
