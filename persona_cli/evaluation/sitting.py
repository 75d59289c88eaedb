"""One exam taken: every contender is fitted on what may be learned, makes its lists, and the baselines beside it.

Lists are made as `recommend` makes them: what a user has had is kept out, what the catalogue of the cut calls
unavailable too, and where a model says nothing the popular list goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from persona_cli.errors import UsageError
from persona_cli.evaluation.asking import Asked, Beside, asked
from persona_cli.evaluation.baselines import POPULAR, baseline_lists
from persona_cli.evaluation.beyond import Background
from persona_cli.evaluation.contenders import Contender, Recipe, baseline_of
from persona_cli.evaluation.exams import Exam
from persona_cli.events.catalogue import current, unavailable
from persona_cli.events.catalogue import described as items_described
from persona_cli.models import kinds
from persona_cli.models.base import Interactions, Training, reads_order
from persona_cli.models.interactions import interactions_of, with_times
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.models.ranking import as_frame, ranked_with_ties, ranking
from persona_cli.profiles.permitted import MEASURING
from persona_cli.serving.context import Audience
from persona_cli.serving.rule_settings import rules_of
from persona_cli.serving.rules import ruling
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home


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
