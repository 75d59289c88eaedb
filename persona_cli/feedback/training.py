"""`persona train`: from events to saved models, and the layered one that is served.

Without names, what fits the time limit is compared on a validation cut (`choosing`), fitted again on everything, and
saved; EASE is fitted on as many of the most popular items as the time allows. With names, these are trained by rule or
by the settings given. Either way latest.json names a layered model at the end: around the best of what was compared, or
around what was named. It is written last, so a run that dies leaves what was served before.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from persona_cli.errors import BadData, BadSettings, MissingInput, UsageError, nearest
from persona_cli.evaluation.contenders import full_keys
from persona_cli.evaluation.exams import after
from persona_cli.evaluation.judging import Beside
from persona_cli.events.catalogue import described
from persona_cli.feedback.candidates import Portfolio, by_rule, portfolio
from persona_cli.feedback.choosing import IF_CENTRED, NEEDED, Choice, choose
from persona_cli.models import gram_store, kinds, registry
from persona_cli.models.base import Model, Training, parts_of
from persona_cli.models.blend import Blend, weights_of
from persona_cli.models.cohort import Cohort
from persona_cli.models.interactions import interactions_of
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare, prepared
from persona_cli.profiles.history import history, signal_events
from persona_cli.profiles.permitted import TRAINING
from persona_cli.profiles.sync import sync
from persona_cli.workspace import artifacts, locks
from persona_cli.workspace.declarations import BY_KEY
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings, is_setting

log = logging.getLogger("persona")
_MAY_BE_SET = ("model.", "train.", "compute.")


@dataclass(frozen=True)
class Trained:
    """One model of a training."""

    model: str
    version: int
    seconds: float
    """Time of the last fit."""
    validation: dict[str, Any] | None
    """metric, value, low, high, users; None where nothing was compared."""


@dataclass(frozen=True)
class TrainReport:
    """What a training did."""

    models: list[Trained]
    latest: str
    """What is served from now on, as `layered/7`."""
    why: str
    skipped: dict[str, str]
    """Model → why it was not trained."""
    users: int
    items: int
    events: int
    headline: str | None
    """The cut on which models were compared."""


def train(
    home: Home,
    names: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    time_limit: float | None = None,
    as_of: datetime | None = None,
    wait: float = 0.0,
) -> TrainReport:
    """Train, save and serve; see above. `time_limit` in seconds, default train.time_limit.

    Raises MissingInput where there is nothing to learn from, UsageError for an unknown name, Busy where another run
    holds the models after `wait` seconds.
    """
    names = list(dict.fromkeys(kinds.known(name) for name in names))
    if names and time_limit is not None:
        raise UsageError("--time-limit chooses what is trained, and --model names it; give one of them")
    settings = home.settings.with_flags(hyper_parameters(overrides or {}, names))
    with locks.hold(home, "models", "train", wait):
        sync(home, wait=wait)
        events, training = material(home, settings, names, as_of)
        limit = settings.seconds("train.time_limit") if time_limit is None else time_limit
        afford = _afford(home, names, training, settings, limit)
        choice = _chosen(home, events, names, afford, as_of)
        return saved(home, afford.settings, training, events, as_of, afford.names, afford.skipped, choice)


def material(
    home: Home, settings: Settings, names: Sequence[str], as_of: datetime | None
) -> tuple[pl.DataFrame, Training]:
    """The events to learn from, and all that the models `names` need of them; profiles must be up to date.

    MissingInput where there is nothing to learn from.
    """
    events = signal_events(home, as_of, purpose=TRAINING).select(*NEEDED, IF_CENTRED).collect()
    if not events.height:
        when = "" if as_of is None else f" before {as_of.isoformat().replace('+00:00', 'Z')}"
        raise MissingInput(f"there are no events{when} to learn from", "persona ingest FILE")
    ordered = any(kinds.ordered(name, settings) for name in names if name != "layered")
    training = _prepared(home, events, settings, as_of, ordered)
    if not training.popularity.height:
        raise MissingInput(
            "no event has both an item and a strength above 0, so there is nothing to learn from",
            "persona config show signals",
        )
    return events, training


def hyper_parameters(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Full setting keys of what `--set` names: `model.ease.lambda`, `ease.lambda`, or `lambda` beside one --model.

    BadSettings for anything else: signals are read again when lists are made, so they belong in persona.toml.
    """
    found = full_keys(given, names)
    for key in found:
        if not is_setting(key):
            may_be = [name for name in BY_KEY if name.startswith("model.")]
            raise BadSettings(
                f"--set {key}: no hyper-parameter has this name{nearest(key, may_be)}", "persona config show model"
            )
        if not key.startswith(_MAY_BE_SET):
            raise BadSettings(
                f"--set {key} is not a setting of models; profiles and lists follow from it too",
                f"write {key} into persona.toml",
            )
    return found


def _prepared(home: Home, events: pl.DataFrame, settings: Settings, as_of: datetime | None, ordered: bool) -> Training:
    """All that models learn from; the stored Gram is brought up to date unless a past moment is asked for."""
    if as_of is not None:
        known = events["item_id"].drop_nulls().unique()
        return prepare(events, settings, as_of, catalogue=described(home, as_of, known), ordered=ordered)
    matrix = interactions_of(events, settings, history(home, purpose=TRAINING))
    gram = gram_store.current_gram(dataclasses.replace(home, settings=settings), matrix, settings)
    return prepared(matrix, events, settings, after(events), gram, described(home), ordered)


def _afford(home: Home, names: Sequence[str], training: Training, settings: Settings, limit: float) -> Portfolio:
    """The individual models to train, simplest first, and why others are not."""
    cuts = settings.whole("train.cuts")
    named = [name for name in kinds.INDIVIDUAL if name in names]
    if named or list(names) == ["popular"]:
        return Portfolio(named, {}, settings, cuts)
    if names and len(training.gram.items) >= 2:  # layered by its name: around what it is around now
        return Portfolio([_served(home) or "knn"], {}, settings, cuts)
    return portfolio(training, settings, limit, training.catalogue)


def _served(home: Home) -> str | None:
    """The name of the individual model inside what is served now."""
    try:
        parts = artifacts.read_manifest(registry.find(home))["parts"]
    except (MissingInput, BadData):
        return None
    return str(parts.get("individual", "")).partition("/")[0] or None


def _kept(home: Home, model: Model, settings: Settings, said: Mapping[str, Any]) -> str:
    """Save a model that is inside another, and those inside it, and answer its reference."""
    parts = {role: _kept(home, part, settings, said) for role, part in parts_of(model).items()}
    recipe = registry.recipe_of(settings, [model.name])
    version = registry.save_model(home, model, {**said, "recipe": recipe, "chosen": [], "parts": parts})
    return f"{model.name}/{version}"


def _chosen(
    home: Home, events: pl.DataFrame, names: Sequence[str], afford: Portfolio, as_of: datetime | None
) -> Choice:
    """What to serve: compared where there is a choice, by rule where there is none."""
    wanted, evidence = afford.names, afford.settings.number_or_word("model.layered.evidence")
    if names and len(wanted) <= 1:
        individual = wanted[0] if wanted else None
        return Choice(individual, evidence, {}, 0, "", "named" if individual else "named: the popular list alone")
    try:
        beside = Beside.of(home, as_of, purpose=TRAINING)
        return choose(events, afford.settings, wanted, tune=not names, cuts=afford.cuts, beside=beside)
    except MissingInput as error:
        individual = by_rule(wanted)
        return Choice(individual, evidence, {}, 0, "", f"by rule, since nothing can be compared: {error.message}")


def saved(
    home: Home,
    settings: Settings,
    training: Training,
    events: pl.DataFrame,
    as_of: datetime | None,
    wanted: Sequence[str],
    skipped: dict[str, str],
    choice: Choice,
    standing: Sequence[str] | None = None,
) -> TrainReport:
    """Fit on everything, save, and at last serve; call it under the lock `models`.

    `standing`: what an earlier training had chosen and is chosen no more (`chosen` of its manifest); None: `choice` was
    made now.
    """
    said = {
        "weights_digest": gram_store.weights_digest(settings),
        "as_of": None if as_of is None else as_of.isoformat(),
        "trained_until": after(events).isoformat(),
        "users": len(training.interactions.users),
        "events": events.height,
    }
    fitted: dict[str, Model] = {}
    references: dict[str, str] = {}
    done: list[Trained] = []

    def save(model: Model, seconds: float) -> None:
        """The model and those inside it, which are versions of their own."""
        parts = {role: _kept(home, part, settings, said) for role, part in parts_of(model).items()}
        recipe = registry.recipe_of(settings, [model.name])
        version = registry.save_model(home, model, {**said, "recipe": recipe, "chosen": [], "parts": parts})
        fitted[model.name], references[model.name] = model, f"{model.name}/{version}"
        done.append(Trained(model.name, version, round(seconds, 3), choice.validation(model.name)))

    for name in ("popular", *wanted):
        began = time.monotonic()
        model = kinds.unfitted(name, settings).fit(training)
        save(model, time.monotonic() - began)
    if choice.blend:
        settings = settings.with_flags({"model.blend.of": list(choice.blend)})
        save(Blend({name: fitted[name] for name in weights_of(choice.blend)}, choice.blend).joined(), 0.0)
    began = time.monotonic()
    popular, inside = fitted["popular"], fitted.get(choice.individual or "")
    assert isinstance(popular, Popular)
    if choice.cohort_evidence is not None:
        settings = settings.with_flags({"model.layered.cohort_evidence": choice.cohort_evidence})
    rule = Layered.from_settings(settings)
    if rule.cohort is not None and "cohort" not in fitted:
        save(rule.cohort.fit(training), time.monotonic() - began)
    cohort = None if rule.cohort is None else fitted["cohort"]
    assert cohort is None or isinstance(cohort, Cohort)
    layered = Layered(popular, inside, choice.evidence, cohort, rule.cohort_evidence, rule.few_users).joined()
    parts = {"popular": references["popular"]}
    if cohort is not None:
        parts["cohort"] = references["cohort"]
    if choice.individual is not None:
        parts["individual"] = references[choice.individual]
    tuned = choice.evidence != settings.number_or_word("model.layered.evidence")
    chosen = (["individual"] if choice.figures else []) + (["model.layered.evidence"] if tuned else [])
    chosen += [] if choice.cohort_evidence is None else ["model.layered.cohort_evidence"]
    recipe = {**registry.recipe_of(settings, ["layered"]), "model.layered.evidence": choice.evidence}
    chosen = chosen if standing is None else list(standing)
    exact = all(model.exact for model in fitted.values()) and "model.layered.evidence" not in chosen
    manifest = {**said, "recipe": recipe, "chosen": chosen, "parts": parts, "exact": exact, "choice": choice.record()}
    manifest["candidates"] = {name: references[name] for name in wanted} if choice.cuts else {}
    version = registry.save_model(home, layered, manifest)
    done.append(Trained("layered", version, round(time.monotonic() - began, 3), choice.validation("layered")))
    registry.set_latest(home, version)
    if gone := registry.prune(home, settings.whole("train.keep")):
        log.debug("removed old versions: %s", ", ".join(gone))
    return TrainReport(
        done,
        f"layered/{version}",
        choice.why,
        skipped,
        len(training.interactions.users),
        len(layered.items),
        events.height,
        choice.headline or None,
    )
