"""Which model to serve: compared on what happened after a cut, the simpler one kept unless another is clearly better.

Few degrees of freedom, so that little can be overfitted: one individual model of those that fit the time, and one
number, the evidence of the layered model, out of five. All are learned from the same events before the cut and ranked
for the same users; "clearly better" is a paired 95 % interval of NDCG@20 that lies above 0.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.evaluation import exams
from persona_cli.evaluation.asking import asked
from persona_cli.evaluation.intervals import Interval, difference_intervals, mean_interval
from persona_cli.evaluation.metrics import per_user
from persona_cli.evaluation.timelines import stable_hashes
from persona_cli.models.base import Model
from persona_cli.models.interactions import interactions
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.ranking import rank
from persona_cli.models.registry import unfitted
from persona_cli.profiles.history import fold_history
from persona_cli.workspace.settings import Settings

EVIDENCE = (0.3, 1.0, 3.0, 10.0, 30.0)
"""What is tried for model.layered.evidence = "auto"."""
FEW = 100
"""With fewer users asked no interval can decide, and any gain over the popular list makes lists personal."""
K = 20
METRIC = f"ndcg@{K}"
log = logging.getLogger("persona")
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """What was found best, and by how much."""

    individual: str | None
    """The model inside the layered one; None: the popular list alone."""
    evidence: float | str
    """model.layered.evidence; "auto" where the rule's value was not clearly worse than another."""
    figures: dict[str, Interval]
    """NDCG@20 of every model compared, and of `layered` as chosen."""
    users: int
    headline: str
    """Which cut the models were compared on."""
    why: str

    def validation(self, name: str) -> dict[str, Any] | None:
        """The figure of a model as JSON; None where it was not compared."""
        figure = self.figures.get(name)
        if figure is None:
            return None
        return {"metric": METRIC, **figure._asdict(), "users": self.users}


def choose(events: pl.DataFrame, settings: Settings, names: Sequence[str], tune: bool) -> Choice:
    """Compare the individual models `names` (simplest first), alone and layered; `tune` also chooses the evidence.

    `events` are rows of `signal_events`. Raises MissingInput where no cut leaves something to learn and to ask.
    """
    exam = _sampled(exams.by_split(events, "time", settings.number("evaluate.test_share")), settings)
    training = prepare(exam.train, settings, exam.as_of)
    learned = training.interactions
    known = learned if exam.known is exam.train else interactions(fold_history(exam.known), settings)
    roster = asked(exam, known)

    def judged(model: Model, fill: Popular | None = None) -> Values:
        return per_user(rank(model, roster, K, settings, fill=fill), exam.answers, [K])[METRIC].to_numpy()

    popular = Popular.from_settings(settings).fit(training)
    alone = {"popular": judged(popular)}
    models: dict[str, Model] = {}
    layered: dict[str | None, Values] = {None: alone["popular"]}
    for name in names:
        log.debug("comparing %s", name)
        models[name] = unfitted(name, settings).fit(training)
        alone[name] = judged(models[name], popular)
        layered[name] = judged(_around(popular, models[name], settings.number_or_word("model.layered.evidence")))
    best: str | None = None
    said = [f"popular {_shown(layered[None])}"]
    for name in names:
        said.append(f"layered around {name} {_shown(layered[name])}")
        by_mean = best is None and len(roster.users) < FEW and layered[name].mean() > layered[None].mean()
        if by_mean or clearly_better(layered[name], layered[best]):
            best = name
    evidence, values = settings.number_or_word("model.layered.evidence"), layered[best]
    if best is not None and tune and evidence == "auto":
        evidence, values = _evidence(popular, models[best], values, judged)
    figures = {name: mean_interval(values) for name, values in (alone | {"layered": values}).items()}
    why = f"{METRIC} of {len(roster.users):,} users: {', '.join(said)}; "
    why += "nothing is clearly better than the popular list" if best is None else f"{best} is taken"
    if evidence != settings.number_or_word("model.layered.evidence"):
        why += f" with evidence {evidence:g} ({_shown(values)})"
    return Choice(best, evidence, figures, len(roster.users), exam.headline, why)


def clearly_better(values: Values, than: Values) -> bool:
    """Whether the paired 95 % interval of the mean difference lies above 0."""
    low = difference_intervals(values[:, None], than[:, None])[0].low
    return low is not None and low > 0


def _evidence(popular: Popular, individual: Model, by_rule: Values, judged: Any) -> tuple[float | str, Values]:
    """The best of `EVIDENCE` if clearly better than the rule, with its figures."""
    tried = [(value, judged(_around(popular, individual, value))) for value in EVIDENCE]
    value, values = max(tried, key=lambda one: (float(one[1].mean()), -one[0]))
    return (value, values) if clearly_better(values, by_rule) else ("auto", by_rule)


def _around(popular: Popular, individual: Model, evidence: float | str) -> Layered:
    return Layered(popular, individual, evidence).joined()


def _sampled(exam: exams.Exam, settings: Settings) -> exams.Exam:
    """The exam with at most train.validation_users users: those whose ids have the smallest hashes."""
    users, limit = exam.users, settings.whole("train.validation_users")
    if len(users) <= limit:
        return exam
    chosen = users.gather(np.sort(np.argsort(stable_hashes(users, "validation"), kind="stable")[:limit]))
    answers = exam.answers.filter(pl.col("user_id").is_in(chosen.implode()))
    exclude = exam.exclude.filter(pl.col("user_id").is_in(chosen.implode()))
    return dataclasses.replace(exam, answers=answers, exclude=exclude)


def _shown(values: Values) -> str:
    return f"{float(values.mean()):.4f}"
