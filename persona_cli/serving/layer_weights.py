"""Which layers serve one user, and what the next one needs: the weights of lists without a list being made.

Read are the manifest of the served model, the items that its individual part knows and, where it has a cohort part, the
arrays of that: so a profile is shown in a second, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.profiles.history import faded, fold_history
from persona_cli.profiles.permitted import PERSONALIZATION, allowed
from persona_cli.profiles.preferences import lifted_in
from persona_cli.profiles.read import STAGES
from persona_cli.profiles.signals import with_signals
from persona_cli.workspace import artifacts
from persona_cli.workspace.doctor import latest_model
from persona_cli.workspace.home import Home

CONTEXT, COHORT, INDIVIDUAL = STAGES
Rising = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""The weight of a layer, of what is below it and it, by the number of events (n,)."""
_DIGITS, _MOST = 4, 10_000


class _Part(NamedTuple):
    """A layer above the context."""

    weight: float
    """Of this user, in what the layers above leave."""
    rising: Rising


def layers_of(home: Home, events: pl.DataFrame, found: Mapping[str, Any]) -> dict[str, Any]:
    """How the user whose `events` (as `profiles.read.events_of` has them) and profile these are is served.

    model (as `layered/7`; null: none is trained, and the weights are those that the settings would give); weights of
    context, cohort and individual in a list, which add up to 1; events: the evidence that they follow from; divergence
    from the cohort (0 to 1, null without a cohort part); why: what sets them where it is not the evidence, else null;
    next: of cohort and individual, unless `profiles.cohort_from` and `profiles.individual_from` are reached, layer,
    from, items (how many more events with an item it takes) and half (events from which it weighs as much as what is
    below it; null: what is served has no such layer).
    """
    reference = latest_model(home)
    n, differs, why = int(found["items"]), None, None
    one = pl.Series([found["user_id"]], dtype=pl.String)
    parts: dict[str, _Part]
    if reference is None:
        parts, why = _by_settings(home, n), "no model is trained yet, the settings would give this"
    else:
        n, parts, differs, why = _by_model(home, reference, events, n)
    if found["holdout"] or not allowed(home, PERSONALIZATION, one).of(one)[0]:
        why = "held out: the list is the same for all" if found["holdout"] else "personalization does not cover them"
        parts = {name: part._replace(weight=0.0) for name, part in parts.items()}
    individual, cohort = (parts[name].weight if name in parts else 0.0 for name in (INDIVIDUAL, COHORT))
    weights = {COHORT: round((1 - individual) * cohort, _DIGITS), INDIVIDUAL: round(individual, _DIGITS)}
    return {
        "model": reference,
        "weights": {CONTEXT: round(1.0 - sum(weights.values()), _DIGITS), **weights},
        "events": n,
        "divergence": None if differs is None else round(differs, _DIGITS),
        "why": why,
        "next": _next(home, int(found["items"]), parts),
    }


def _next(home: Home, items: int, parts: Mapping[str, _Part]) -> list[dict[str, Any]]:
    """What each layer that is not reached yet needs."""
    limits = {COHORT: "profiles.cohort_from", INDIVIDUAL: "profiles.individual_from"}
    needed = {name: home.settings.whole(key) for name, key in limits.items()}
    return [
        {
            "layer": name,
            "from": at,
            "items": at - items,
            "half": half_of(parts[name].rising) if name in parts else None,
        }
        for name, at in needed.items()
        if items < at
    ]


def half_of(rising: Rising) -> int | None:
    """Events from which a layer has half of the weight; None where that is out of reach."""
    reached = rising(np.arange(1, _MOST + 1)) >= 0.5
    return int(reached.argmax()) + 1 if reached.any() else None


def _by_settings(home: Home, n: int) -> dict[str, _Part]:
    """The parts that a model by the settings would have; what a comparison of models would choose is as by rule."""
    from persona_cli.models.layered import Layered

    rule = Layered.from_settings(home.settings)
    said = rule.settings()
    rising = _alone(said["evidence"]) if rule.cohort is None else _steeply(said["evidence"])
    found = {INDIVIDUAL: _Part(float(rising(np.array([n]))[0]), rising)}
    if rule.cohort is not None:
        below = _risen(said["cohort_evidence"])
        found[COHORT] = _Part(float(below(np.array([n]))[0]), below)
    return found


def _by_model(
    home: Home, reference: str, events: pl.DataFrame, n: int
) -> tuple[int, dict[str, _Part], float | None, str | None]:
    """The evidence, the parts of the served model with their weights, d where there is a cohort part, and why."""
    manifest = artifacts.read_manifest(home.path("models", reference))
    inside: Mapping[str, str] = manifest.get("parts", {})
    said = manifest["settings"]
    history = fold_history(with_signals(events.lazy(), home.settings))
    lifted = lifted_in(events)
    liked = _liked(history, lifted, home)
    reference = inside.get(INDIVIDUAL, "")
    told = bool(reference) and knows(home.path("models", reference), liked)
    if reference and not told:  # what was searched for may tell it something
        heard = _searches_heard(home, reference, events)
        told, n = heard > 0, n or heard
    found: dict[str, _Part] = {}
    differs, below = None, 0.0
    if COHORT in inside:
        rising, differs, below = _with_cohort(home, inside[COHORT], said, manifest, history, lifted)
        cohort = _risen(said["cohort_evidence"])
        found[COHORT] = _Part(below * float(cohort(np.array([n]))[0]), cohort)
    else:
        rising = _alone(said["evidence"])
    if reference:
        found[INDIVIDUAL] = _Part(float(rising(np.array([n]))[0]) if told else 0.0, rising)
    if not reference:
        why = "the served model is the popular list alone: none for single users did better" if n else None
    else:
        why = f"{reference} knows nothing that this user did" if n and not told else None
    return n, found, differs, why


def _liked(history: pl.DataFrame, lifted: pl.DataFrame, home: Home) -> pl.Series:
    """The items that a history holds something for, as `models.interactions` has them."""
    left = faded(history, home.settings).filter(pl.col("strength") > 0)
    again = left["item_id"].is_in(lifted["item_id"].implode())
    return left.filter((pl.col("never") == 0) | again)["item_id"]


def knows(folder: Path, items: pl.Series) -> bool:
    """Whether a saved model knows one of the items; parts inside it are in the folders beside."""
    if not len(items):
        return False
    if (path := folder / "items.parquet").is_file():
        known = pl.scan_parquet(path).filter(pl.col("item_id").is_in(items.implode())).head(1)
        return known.collect().height > 0
    inside: Sequence[str] = list(artifacts.read_manifest(folder).get("parts", {}).values())
    return any(knows(folder.parents[1] / one, items) for one in inside)


def _searches_heard(home: Home, reference: str, events: pl.DataFrame) -> int:
    """How many recent queries of the user there are, where the model makes something of them; else 0."""
    if not events["query"].count():
        return 0
    from scipy import sparse

    from persona_cli.models.base import Histories, known
    from persona_cli.models.registry import load_model
    from persona_cli.profiles.history import recent_queries

    queries = recent_queries(events, events["user_id"].unique())
    model = load_model(home, reference).model
    rows = sparse.csr_array(np.zeros((1, len(model.items)), dtype=np.float32))
    nothing = pl.DataFrame({"device": [None], "country": [None]}, schema={"device": pl.String, "country": pl.String})
    heard = known(model, Histories(rows, np.zeros(1, dtype=np.int64), nothing, queries=queries))[0]
    return queries[0].count("\n") + 1 if heard and queries[0] is not None else 0


def _with_cohort(
    home: Home,
    reference: str,
    said: Mapping[str, Any],
    manifest: Mapping[str, Any],
    history: pl.DataFrame,
    lifted: pl.DataFrame,
) -> tuple[Rising, float, float]:
    """How the individual weight rises, d, and 1 where the cohorts know the user, else 0."""
    from persona_cli.models.base import Histories
    from persona_cli.models.cohort import Cohort
    from persona_cli.models.interactions import interactions, rows_for
    from persona_cli.models.layering import Divergence, individual_share
    from persona_cli.models.registry import load_model

    cohort = load_model(home, reference).model
    assert isinstance(cohort, Cohort)
    users = int(cohort.sizes_.sum())

    def rising(events: NDArray[np.int64]) -> NDArray[np.float64]:
        differs = np.full(len(events), divergence)
        return individual_share(events, differs, users, said["evidence"], said["few_users"])

    divergence = 0.0
    if not history.height:
        return rising, divergence, 0.0
    matrix = interactions(history, home.settings, lifted=lifted)
    rows = rows_for(matrix, cohort.items, home.settings.with_flags(manifest["recipe"]))
    context = pl.DataFrame({"device": [None], "country": [None]}, schema={"device": pl.String, "country": pl.String})
    memberships = cohort.memberships(Histories(rows, matrix.events, context))
    divergence = float(Divergence(cohort).of(rows, memberships)[0])
    return rising, divergence, float(memberships.any())


def _alone(evidence: float) -> Rising:
    """n / (n + evidence): without a cohort part."""
    return lambda n: n / np.maximum(n + evidence, 1e-300)


def _steeply(half: float) -> Rising:
    """The individual share of those who do not differ from their cohort."""
    from persona_cli.models.layering import STEEP, risen

    return lambda n: risen(n, half, STEEP)


def _risen(half: float) -> Rising:
    """The cohort's share of what is not individual."""
    from persona_cli.models.layering import risen

    return lambda n: risen(n, half)
