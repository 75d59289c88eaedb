"""What could be served, asked at one cut: the popular list, each model alone, and the layered model around each.

All learn from the same events before the cut and are ranked for the same users, so their figures are paired by user.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.evaluation.asking import asked
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.metrics import per_user
from persona_cli.evaluation.timelines import stable_hashes
from persona_cli.models.base import Interactions, Model
from persona_cli.models.interactions import interactions
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.ranking import rank
from persona_cli.models.kinds import unfitted
from persona_cli.profiles.history import fold_history
from persona_cli.workspace.settings import Settings

K = 20
METRIC = f"ndcg@{K}"
POPULAR = "popular"
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

    def values(self, candidate: str) -> Values:
        """NDCG@20 of one candidate (n_users,)."""
        return self.figures[candidate].to_numpy()

    def means(self) -> dict[str, float]:
        """Candidate → mean over the users asked."""
        return {name: float(self.values(name).mean()) for name in self.figures.columns[1:]}


def around(individual: str | None, evidence: float | str | None = None) -> str:
    """What a candidate is called: the popular list, or layered around a model; `evidence` where another was tried."""
    if individual is None:
        return POPULAR
    return f"layered around {individual}" + ("" if evidence is None else f", evidence {evidence:g}")


class Panel:
    """The users of one exam, who judge the lists of any model."""

    def __init__(self, exam: Exam, settings: Settings, known: Interactions | None = None) -> None:
        """`known` is the matrix of the exam's known events where it is there already."""
        self.exam = exam
        self.settings = settings
        self.roster = asked(exam, interactions(fold_history(exam.known), settings) if known is None else known)

    def values(self, model: Model, fill: Popular | None = None) -> pl.Series:
        """NDCG@20 of each user's list (n_users,); where the model says nothing, `fill` decides."""
        return per_user(rank(model, self.roster, K, self.settings, fill=fill), self.exam.answers, [K])[METRIC]

    def judged(self, figures: Mapping[str, pl.Series]) -> Judged:
        """What was found, by candidate."""
        frame = pl.DataFrame({"user_id": self.roster.users, **figures})
        return Judged(self.exam.headline, self.exam.as_of, self.exam.split.get("end"), frame)


def judged(
    exam: Exam, settings: Settings, names: Sequence[str], evidences: Sequence[float] = (), alone: bool = True
) -> Judged:
    """Fit `names` on what the exam leaves to learn from and judge what could be served for the users asked.

    Candidates: the popular list; each model of `names` (`alone`), filled up by the popular list; layered around each,
    with the evidence of the settings, and with each of `evidences`.
    """
    training = prepare(exam.train, settings, exam.as_of)
    panel = Panel(exam, settings, training.interactions if exam.known is exam.train else None)
    popular = Popular.from_settings(settings).fit(training)
    found = {POPULAR: panel.values(popular)}
    for name in names:
        log.debug("comparing %s: %s", name, exam.headline)
        model = unfitted(name, settings).fit(training)
        if alone:
            found[name] = panel.values(model, popular)
        rule = settings.number_or_word("model.layered.evidence")
        found[around(name)] = panel.values(Layered(popular, model, rule).joined())
        for evidence in evidences:
            found[around(name, evidence)] = panel.values(Layered(popular, model, evidence).joined())
    return panel.judged(found)


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
