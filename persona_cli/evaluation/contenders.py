"""Who takes an exam (models refitted by a recipe, or as they were saved), and one exam taken by all of them.

A recipe is a name and settings: those of the saved version that is named (`ease/3`), else of the newest version of that
name, else the settings in force. Settings given for one run win over the recipe's.

At an exam every contender is fitted on what may be learned and makes its lists, and the baselines beside it. Lists are
made as `recommend` makes them: what a user has had is kept out, what the catalogue of the cut calls unavailable too,
and where a model says nothing the popular list goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation.baselines import POPULAR, baseline_lists
from persona_cli.evaluation.beyond import Background
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import Asked, Beside, asked
from persona_cli.events.catalogue import current, unavailable
from persona_cli.events.catalogue import described as items_described
from persona_cli.models import kinds, registry
from persona_cli.models.base import Interactions, Model, Training, reads_order
from persona_cli.models.gram_store import weights_digest
from persona_cli.models.interactions import interactions_of, with_times
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.models.ranking import as_frame, ranked_with_ties, ranking
from persona_cli.models.registry import Saved
from persona_cli.profiles.permitted import MEASURING
from persona_cli.serving.context import Audience
from persona_cli.serving.rule_settings import rules_of
from persona_cli.serving.rules import ruling
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings, is_setting

BASELINE = "popular"


@dataclass(frozen=True)
class Recipe:
    """What a contender is made by."""

    label: str
    """What it is called in results: the name as it was asked for."""
    name: str
    settings: Settings
    individual: str | None = None
    """The model inside a layered one."""
    saved: Saved | None = None
    """Whose recipe it is; None where it follows from the settings in force."""
    chosen: tuple[str, ...] = ()
    """What of it was chosen on data, and not by rule or by hand."""

    unchanged: bool = False
    """The settings are those of `saved`, with none given for this run."""

    def chosen_after(self, moment: datetime | None) -> bool:
        """Whether something of it was chosen with events from `moment` on; None: a moment later than all."""
        return bool(self.chosen) and self.saved is not None and moment is not None and self.saved.trained_until > moment

    def is_saved_from(self, n_events: int, until: datetime) -> bool:
        """Whether the saved model is what fitting this recipe on that many events, all before `until`, would make.

        Equal counts and a last event at the same instant stand for equal events; signals and row settings are compared
        by their digest.
        """
        found = self.saved
        if found is None or found.trained_until != until or found.manifest.get("events") != n_events:
            return False
        return self.unchanged and found.manifest.get("weights_digest") == weights_digest(self.settings)

    def unfitted(self) -> Model:
        return kinds.unfitted(self.name, self.settings, self.individual)


@dataclass(frozen=True)
class Contender:
    """A model that takes the exam."""

    recipe: Recipe
    model: Model

    @property
    def title(self) -> str:
        return self.recipe.saved.reference if self.recipe.saved else self.recipe.label


def recipes(home: Home, names: Sequence[str], overrides: Mapping[str, Any] | None = None) -> list[Recipe]:
    """The recipes of `names` (none: of latest), in their order and once each, the popular list last.

    `overrides` are full setting keys. MissingInput where nothing is named and nothing was trained.
    """
    given = dict(overrides or {})
    wanted = list(dict.fromkeys(names))
    if not wanted:
        if registry.latest(home) is None:
            raise MissingInput(
                "no model has been trained yet, so there is no recipe to evaluate",
                "persona train, or name one: persona evaluate --model ease",
            )
        wanted = ["layered"]
        found = [_of_saved(home, registry.load_model(home), "layered", given)]
    else:
        found = [_of_name(home, name, given) for name in wanted]
    if BASELINE not in wanted:
        found.append(_of_name(home, BASELINE, given))
    return found


def as_saved(wanted: Sequence[Recipe]) -> tuple[list[Contender], datetime]:
    """The saved models of these recipes as they are, and the instant until which any of them was trained.

    MissingInput where one was never trained.
    """
    contenders, until = [], []
    for recipe in wanted:
        if recipe.saved is None:
            raise MissingInput(f"no {recipe.name} model has been trained yet", f"persona train --model {recipe.name}")
        contenders.append(Contender(recipe, recipe.saved.model))
        until.append(recipe.saved.trained_until)
    return contenders, max(until)


def baseline_of(contenders: Sequence[Contender]) -> Popular:
    """The popular list among them."""
    model = next(one.model for one in contenders if one.recipe.label == BASELINE)
    assert isinstance(model, Popular)
    return model


def full_keys(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Settings by their full keys: `ease.lambda` is model.ease.lambda, and so is `lambda` beside one --model ease."""
    found = {}
    for key, value in given.items():
        candidates = [key, f"model.{key}"]
        if len(set(names)) == 1:
            candidates.append(f"model.{names[0].partition('/')[0]}.{key}")
        found[next((name for name in candidates if is_setting(name)), key)] = value
    return found


def _of_name(home: Home, name: str, given: Mapping[str, Any]) -> Recipe:
    plain = kinds.known(name.partition("/")[0])
    try:
        return _of_saved(home, registry.load_model(home, name), name, given)
    except MissingInput:
        if "/" in name:
            raise
    # As `persona train --model layered` does where nothing was chosen.
    individual = "knn" if plain == "layered" else None
    return Recipe(name, plain, home.settings.with_flags(given), individual)


def _with_parts(home: Home, saved: Saved, settings: Settings) -> Settings:
    """The settings with those that the models inside, and inside these, were trained by."""
    for reference in saved.parts.values():
        part = registry.load_model(home, reference)
        settings = _with_parts(home, part, part.recipe(settings))
    return settings


def _of_saved(home: Home, found: Saved, label: str, given: Mapping[str, Any]) -> Recipe:
    settings = _with_parts(home, found, found.recipe(home.settings))
    individual = found.parts.get("individual", "").partition("/")[0] or None
    chosen = tuple(what for what in found.manifest.get("chosen", ()) if what not in given)
    final = settings.with_flags(given)
    return Recipe(label, found.name, final, individual, found, chosen, final.values == settings.values)


@dataclass(frozen=True)
class Sitting:
    """What there is to be judged after one exam."""

    exam: Exam
    contenders: list[Contender]
    roster: Asked
    lists: dict[str, pl.DataFrame]
    """Label → lists: those of the contenders in their order, then those of the other baselines."""
    boundaries: dict[str, pl.DataFrame]
    """Label of a contender → who shares the score of the last entry, as `ranked_with_ties` answers it."""
    background: Background


def sit(
    home: Home,
    wanted: Sequence[Recipe],
    exam: Exam,
    depth: int,
    *,
    saved: Sequence[Contender] | None = None,
    reuse: bool = False,
    baselines: bool = True,
) -> Sitting:
    """Take `exam` with lists of `depth` entries: `saved` contenders as they are, else `wanted` recipes refitted.

    With `reuse`, a saved model that was trained on just what the exam offers is taken instead of a refit.
    """
    settings = home.settings
    learned = interactions_of(exam.train, settings)
    contenders = list(saved) if saved is not None else fitted(home, wanted, exam, learned, reuse)
    # Where users are scored from what was learned from, the matrix is the same one.
    known = learned if exam.known is exam.train else interactions_of(exam.known, settings)
    if any(reads_order(one.model) for one in contenders):
        known = with_times(known, exam.known)
    roster = asked(exam, known, Beside.of(home, purpose=MEASURING).wishes(exam, settings))
    never = unavailable(home, exam.as_of)
    popular = baseline_of(contenders)
    lists: dict[str, pl.DataFrame] = {}
    boundaries: dict[str, pl.DataFrame] = {}
    for one in contenders:
        fill = None if isinstance(one.model, Popular | Layered) else popular
        label = one.recipe.label
        lists[label], boundaries[label] = ranked_with_ties(
            one.model, roster, depth, one.recipe.settings, exam.answers, fill=fill, never=never
        )
    if settings.flag("evaluate.rules") and contenders:
        lists |= under_rules(home, contenders[0], roster, exam, depth - 1, popular, never)
    expected = lists[POPULAR]
    if baselines:
        lists |= baseline_lists(exam, roster, learned, popular, expected, depth, settings, never)
    vocabularies = [one.model.items for one in contenders]
    return Sitting(
        exam, contenders, roster, lists, boundaries, background(home, exam, learned, known, vocabularies, expected)
    )


def under_rules(
    home: Home, one: Contender, roster: Asked, exam: Exam, top: int, popular: Popular, never: pl.Series
) -> dict[str, pl.DataFrame]:
    """The lists of a contender under `[rules]`, beside those without: {"NAME + rules": lists}.

    Nobody is held out. Conditions on users see the profiles as of the exam. UsageError where no rule is in force.
    """
    rules = rules_of(home.settings)
    if rules is None:
        raise UsageError("evaluate.rules is true, and persona.toml has no rule in force", "docs/rules.md")
    nobody = np.zeros(len(roster.users), dtype=bool)
    audience = Audience(roster.users, roster.matrix, roster.places, roster.context, nobody)
    choosing = ruling(home, rules, audience, exam.as_of)
    fill = None if isinstance(one.model, Popular | Layered) else popular
    made = ranking(one.model, roster, top, one.recipe.settings, fill=fill, never=never, choosing=choosing)
    parts = [as_frame(block, made.vocabulary, roster.users) for block in made.blocks]
    return {f"{one.recipe.label} + rules": pl.concat(parts)}


def fitted(home: Home, wanted: Sequence[Recipe], exam: Exam, learned: Interactions, reuse: bool) -> list[Contender]:
    """Every recipe fitted on the train side; with `reuse`, a saved model that was trained on just that is taken."""
    trainings: dict[str, Training] = {}
    catalogue = items_described(home, exam.as_of, exam.train["item_id"].drop_nulls().unique())
    contenders = []
    for recipe in wanted:
        if reuse and recipe.is_saved_from(exam.train.height, exam.as_of):
            assert recipe.saved is not None
            contenders.append(Contender(recipe, recipe.saved.model))
            continue
        # Recipes may differ in how rows are normalised, and then in their Gram.
        ordered = kinds.ordered(recipe.individual or recipe.name, recipe.settings)
        key = recipe.settings.digest(["model.gram."]) + f" {ordered}"
        if key not in trainings:
            trainings[key] = prepared(
                learned, exam.train, recipe.settings, exam.as_of, catalogue=catalogue, ordered=ordered
            )
        contenders.append(Contender(recipe, recipe.unfitted().fit(trainings[key])))
    return contenders


def background(
    home: Home,
    exam: Exam,
    learned: Interactions,
    known: Interactions,
    vocabularies: Sequence[pl.Series],
    expected: pl.DataFrame | None,
) -> Background:
    """What lists are relative to: the items of every vocabulary and of the training histories, and who has each."""
    counts = np.bincount(learned.strengths.indices, minlength=len(learned.items)).astype(np.int64)  # (n_items,)
    had = pl.DataFrame({"item_id": learned.items, "users": counts}).filter(pl.col("users") > 0)
    items = pl.concat([had["item_id"], *vocabularies]).unique().sort().rename("item_id")
    popularity = (
        items.to_frame()
        .join(had, on="item_id", how="left", maintain_order="left")
        .with_columns(pl.col("users").fill_null(0))
    )
    catalogue = described(home, exam)
    first = exam.train.filter(pl.col("item_id").is_not_null()).group_by("item_id").agg(first=pl.col("timestamp").min())
    if catalogue is not None:
        published = catalogue.select("item_id", "published_at")
        first = first.join(published, on="item_id", how="full", coalesce=True)
        first = first.select("item_id", first=pl.coalesce("published_at", "first")).drop_nulls()
    return Background(
        items=items,
        popularity=popularity,
        n_users=max(1, int((np.diff(learned.strengths.indptr) > 0).sum())),
        learned=learned,
        known=known,
        first_seen=first.sort("item_id"),
        as_of=exam.as_of,
        catalogue=None if catalogue is None else catalogue.select("item_id", "category", "tags"),
        expected=expected,
    )


def described(home: Home, exam: Exam) -> pl.DataFrame | None:
    """Items as the catalogue described them at the cut; what it did not hold yet, as it does now. None: no catalogue.

    Descriptions tell lists apart and reach no model, so a later one of an item that had none does not leak.
    """
    if not tables.exists(home, "items"):
        return None
    now, then = current(home, "items"), current(home, "items", exam.as_of)
    later = now.join(then, on="item_id", how="anti")
    return pl.concat([then, later]).sort("item_id")
