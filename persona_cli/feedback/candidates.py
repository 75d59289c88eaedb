"""What could be served, asked at one cut: the popular list, each model alone, and the layered model around each.

All learn from the same events before the cut and are ranked for the same users, so their figures are paired by user.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.evaluation.asking import Beside, asked
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.metrics import per_user
from persona_cli.evaluation.timelines import stable_hashes
from persona_cli.models import kinds
from persona_cli.models.base import Interactions, Model
from persona_cli.models.blend import Blend, weights_of
from persona_cli.models.cohort import Cohort
from persona_cli.models.interactions import interactions_of, with_times
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.ranking import rank
from persona_cli.workspace.settings import Settings

K = 20
METRIC = f"ndcg@{K}"
POPULAR = "popular"
ALONE = Beside()
"""Events and nothing beside them."""
log = logging.getLogger("persona")
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One cut: how good each candidate's lists were for each user asked."""

    headline: str
    """What was learned from and asked about."""
    cut: datetime
    """Models are as of this instant (UTC)."""
    until: datetime | None
    """The instant from which events were not asked about; None: the last event is."""
    figures: pl.DataFrame
    """user_id (sorted) and NDCG@20 of every candidate, a column each."""
    events: NDArray[np.int64] | None = None
    """Events with an item that were known of each user (n_users,)."""

    def of(self, fewest: int, most: int) -> Judged:
        """The same of the users of whom so many events were known."""
        assert self.events is not None
        kept = (self.events >= fewest) & (self.events <= most)
        return dataclasses.replace(self, figures=self.figures.filter(pl.Series(kept)), events=self.events[kept])

    def values(self, candidate: str) -> Values:
        """NDCG@20 of one candidate (n_users,)."""
        return self.figures[candidate].to_numpy()

    def means(self) -> dict[str, float]:
        """Candidate → mean over the users asked."""
        return {name: float(self.values(name).mean()) for name in self.figures.columns[1:]}


def around(individual: str | None, evidence: float | str | None = None, cohort: bool = False) -> str:
    """What a candidate is called: the popular list, or layered around a model; `evidence` and `cohort` where tried."""
    if individual is None:
        return POPULAR
    return (
        f"layered around {individual}"
        + (" with cohorts" if cohort else "")
        + ("" if evidence is None else f", evidence {evidence:g}")
    )


class Panel:
    """The users of one exam, who judge the lists of any model."""

    def __init__(
        self,
        exam: Exam,
        settings: Settings,
        known: Interactions | None = None,
        ordered: bool = False,
        beside: Beside = ALONE,
    ) -> None:
        """`known` is the matrix of the exam's known events where it is there already; `ordered`: it says when."""
        self.exam = exam
        self.settings = settings
        matrix = interactions_of(exam.known, settings) if known is None else known
        if ordered and matrix.times is None:
            matrix = with_times(matrix, exam.known)
        self.roster = asked(exam, matrix, beside.wishes(exam, settings))

    def values(self, model: Model, fill: Popular | None = None) -> pl.Series:
        """NDCG@20 of each user's list (n_users,); where the model says nothing, `fill` decides."""
        return per_user(rank(model, self.roster, K, self.settings, fill=fill), self.exam.answers, [K])[METRIC]

    def judged(self, figures: Mapping[str, pl.Series]) -> Judged:
        """What was found, by candidate."""
        frame = pl.DataFrame({"user_id": self.roster.users, **figures})
        places, events = self.roster.places, self.roster.matrix.events
        known = np.where(places >= 0, np.append(events, 0)[places], 0)
        return Judged(self.exam.headline, self.exam.as_of, self.exam.split.get("end"), frame, known)


@dataclass(frozen=True)
class Further:
    """What is tried beside each model by its rule."""

    tuned: tuple[str, ...] = ()
    """Models whose layered one is tried with each of `evidences`."""
    evidences: tuple[float, ...] = ()
    blends: tuple[tuple[str, ...], ...] = ()
    """`model.blend.of` of each blend tried, of models that are compared."""
    cohorts: tuple[float, ...] = ()
    """Values of evidence that `tuned` and blends are tried with beside a cohort part."""


NOTHING = Further()


def judged(
    exam: Exam,
    settings: Settings,
    names: Sequence[str],
    further: Further | Callable[[Mapping[str, float]], Further] = NOTHING,
    *,
    alone: bool = False,
    beside: Beside = ALONE,
) -> Judged:
    """Fit `names` on what the exam leaves to learn from and judge what could be served for the users asked.

    Candidates: the popular list; layered around each model of `names`, with the evidence of the settings; with `alone`
    each model by itself, filled up by the popular list; and what `further` says, given or as it follows from the means
    of the candidates so far.
    """
    ordered = any(kinds.ordered(name, settings) for name in names)
    training = prepare(exam.train, settings, exam.as_of, catalogue=beside.items(exam), ordered=ordered)
    known = training.interactions if exam.known is exam.train else None
    panel = Panel(exam, settings, known, ordered, beside)
    popular = Popular.from_settings(settings).fit(training)
    plain = Layered.from_settings(settings)
    cohort = None if plain.cohort is None else plain.cohort.fit(training)

    def served(inside: Model, evidence: float | str = plain.evidence, cohort: Cohort | None = cohort) -> pl.Series:
        made = Layered(popular, inside, evidence, cohort, plain.cohort_evidence, plain.few_users)
        return panel.values(made.joined())

    found = {POPULAR: panel.values(popular)}
    fitted: dict[str, Model] = {}
    for name in names:
        log.debug("comparing %s: %s", name, exam.headline)
        fitted[name] = kinds.unfitted(name, settings).fit(training)
        if alone:
            found[name] = panel.values(fitted[name], popular)
        found[around(name)] = served(fitted[name])
    if callable(further):
        further = further({name: float(values.mean() or 0.0) for name, values in found.items()})  # type: ignore[arg-type]
    if further.cohorts:
        cohort = Cohort.from_settings(settings).fit(training)
    for name in further.tuned:
        for evidence in further.evidences:
            found[around(name, evidence)] = served(fitted[name], evidence)
    for of in further.blends:
        blend = Blend({name: fitted[name] for name in weights_of(of)}, of).joined()
        fitted[blend_of(of)] = blend
        found[around(blend_of(of))] = served(blend)
    for name in (*further.tuned, *map(blend_of, further.blends)):
        for evidence in further.cohorts:
            found[around(name, evidence, cohort=True)] = served(fitted[name], evidence, cohort)
    return panel.judged(found)


def blend_of(of: Sequence[str]) -> str:
    """What a blend is called among the models compared."""
    return f"blend of {' and '.join(of)}"


def sampled(exams: Sequence[Exam], limit: int) -> list[Exam]:
    """The exams with at most `limit` different users in all: those whose ids have the smallest hashes.

    The same people are asked at every cut where they have a right answer: a user is the unit of every interval.
    """
    users = pl.concat([exam.users for exam in exams]).unique().sort()
    if len(users) <= limit:
        return list(exams)
    hashes = stable_hashes(users, "validation")
    chosen = users.gather(np.sort(np.argsort(hashes, kind="stable")[:limit])).implode()
    return [
        dataclasses.replace(
            exam,
            answers=exam.answers.filter(pl.col("user_id").is_in(chosen)),
            exclude=exam.exclude.filter(pl.col("user_id").is_in(chosen)),
        )
        for exam in exams
    ]
