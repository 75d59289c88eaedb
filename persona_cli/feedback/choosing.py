"""Which model to serve: compared at several past cuts, the simpler one kept unless another wins at all of them.

Few degrees of freedom, so that little can be overfitted: one individual model of those that fit the time, or one of two
blends, one number, the evidence of the layered model, out of five, and whether there is a cohort part. A single cut
misleads: what is ahead there by a property of that cut alone is behind in the future. So a candidate takes the place of
a simpler one only where it is

    clearly better    the paired interval of NDCG@20 over users, each user's mean over the cuts, lies above 0; its level
                      is 95 % over all that is tried at once (Bonferroni)
    steady            its mean is the higher one at every cut

A cohort part also stands where that is so among those whom it is for, while the interval over all users lies above a
loss of 1 %: users with few events (1 to 10), and users of whom nothing was learned, each asked about after the first
1, 2, 5 and 10 events (`exams.with_beginnings`). Most users asked at a cut have a long past. Else what stands by rule
stays: the model that promises most (`candidates.by_rule`) if it is likely better than the popular list, else the
popular list; the evidence by rule instead of a number. Where few lists hold a right answer, thousands of users cannot
tell any model from the popular list for sure; that a personal list is better is then the safer guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl
from polars import selectors

from persona_cli.errors import MissingInput
from persona_cli.evaluation import exams
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import Interval, difference_intervals, mean_interval
from persona_cli.evaluation.judging import Beside
from persona_cli.evaluation.rolling import pooled
from persona_cli.feedback.candidates import (
    ALONE,
    METRIC,
    NOTHING,
    POPULAR,
    Further,
    Judged,
    Values,
    around,
    blend_of,
    by_rule,
    judged,
    sampled,
)
from persona_cli.models.layered import AUTO_EVIDENCE
from persona_cli.models.layering import COHORT_EVIDENCE
from persona_cli.workspace.settings import Settings

EVIDENCE = (0.3, 1.0, 3.0, 10.0, 30.0)
"""What is tried for model.layered.evidence = "auto"."""
WITH_COHORT = (3.0, 9.0, 27.0)
"""The same beside a cohort part, where evidence is raised to a power."""
FEW_EVENTS = (1, 10)
"""Users of whom so many events are known are those that a cohort part is for."""
BEGINNINGS, NEW_USERS = (1, 2, 5, 10), 500
"""First events after which new users are asked about, and how many users at a cut."""
BEARABLE = 0.01
"""Loss over all users that has to be ruled out where a cohort part helps these."""
NEEDED = (
    "user_id",
    "item_id",
    "timestamp",
    "event_type",
    "device",
    "country",
    "position",
    "query",
    "strength",
    "never",
    "consumed",
)
"""Columns of events that models are learned from."""
IF_CENTRED = selectors.by_name("rated", require_all=False)
"""And one that is there where ratings are centred."""
BLENDED = 0.5
"""Weight of a second model in a blend, beside the first one at 1."""
LIKELY = 0.6
"""Level of the interval that must lie above 0 for the model by rule to stand instead of the popular list."""
FEW = 100
"""With fewer users asked no interval can decide: any gain over the popular list makes lists personal, at one cut."""


class Cut(NamedTuple):
    """What was found at one cut."""

    headline: str
    cut: datetime
    """Models were as of this instant (UTC)."""
    until: datetime | None
    """The instant from which events were not asked about; None: the last event was."""
    users: int
    figures: dict[str, float]
    """Mean NDCG@20 of every candidate (`candidates.around`)."""


@dataclass(frozen=True)
class Choice:
    """What was found best, and by how much."""

    individual: str | None
    """The model inside the layered one; None: the popular list alone."""
    evidence: float | str
    """model.layered.evidence; "auto" where the rule's value was not clearly worse than another."""
    figures: dict[str, Interval]
    """NDCG@20 of every model compared, as it would be served (layered around it), of the popular list, and of `layered`
    as chosen: over users, each user's mean over the cuts."""
    users: int
    """Different users asked."""
    headline: str
    """Which cuts the models were compared at."""
    why: str
    served: str = POPULAR
    """The candidate that was chosen, as it is called in `cuts`."""
    cuts: tuple[Cut, ...] = ()
    """What was found at each cut, earliest first; none where nothing was compared."""
    blend: tuple[str, ...] = ()
    """model.blend.of, where the individual model is a blend."""
    further: Further = NOTHING
    """What was tried beside each model by its rule."""
    cohort_evidence: float | None = None
    """model.layered.cohort_evidence, where a cohort part was chosen."""

    def validation(self, name: str) -> dict[str, Any] | None:
        """The figure of a model as JSON; None where it was not compared."""
        figure = self.figures.get(name)
        if figure is None:
            return None
        return {"metric": METRIC, **figure._asdict(), "users": self.users}

    def record(self) -> dict[str, Any] | None:
        """The choice as JSON types, for the manifest of the model that it made; None where nothing was compared.

        metric, individual, served, evidence, cohort_evidence and blend (where one is chosen), users, why, figures
        {model: {value, low, high}}, and cuts, each with headline, cut, until, users and figures {candidate: mean}.
        Numbers are rounded to 6 digits.
        """
        if not self.cuts:
            return None
        return {
            "metric": METRIC,
            "individual": self.individual,
            "served": self.served,
            "evidence": self.evidence,
            **({} if self.cohort_evidence is None else {"cohort_evidence": self.cohort_evidence}),
            **({"blend": list(self.blend)} if self.blend else {}),
            "users": self.users,
            "why": self.why,
            "figures": {
                name: {bound: None if value is None else round(value, 6) for bound, value in figure._asdict().items()}
                for name, figure in self.figures.items()
            },
            "cuts": [
                {
                    "headline": one.headline,
                    "cut": _text(one.cut),
                    "until": None if one.until is None else _text(one.until),
                    "users": one.users,
                    "figures": {name: round(mean, 6) for name, mean in one.figures.items()},
                }
                for one in self.cuts
            ],
        }


def choose(
    events: pl.DataFrame,
    settings: Settings,
    names: Sequence[str],
    tune: bool,
    cuts: int | None = None,
    beside: Beside = ALONE,
) -> Choice:
    """Compare the individual models `names` (simplest first) as they would be served; `tune` also tries more.

    `events` are rows of `signal_events`. At most `cuts` (default: train.cuts) windows of the last part of the events,
    and fewer where one of them would ask fewer than 100 users. Every cut fits every model once. With `tune`, what is
    ahead at the first cut decides what else is tried at all of them (`more`): other values of the evidence and a cohort
    part for the model that leads there, and blends of it with the next two. Raises MissingInput where no cut leaves
    something to learn and to ask.
    """
    found = past(events, settings, settings.whole("train.cuts") if cuts is None else cuts)
    evidence = settings.number_or_word("model.layered.evidence")
    evidences, cohorts = (tried(settings), with_cohort(settings)) if tune else ([], ())
    results: list[Judged] = []
    further = NOTHING

    def decided(means: Mapping[str, float]) -> Further:
        nonlocal further
        if not results and tune:
            further = more(means, names, evidences, cohorts)
        return further

    for exam in found:
        exam, new = exams.with_beginnings(exam, events, BEGINNINGS, NEW_USERS) if cohorts else (exam, None)
        results.append(judged(exam, settings, names, decided, beside=beside, new=new))
    return decide(results, names, evidence, further, _headline(found))


def more(
    means: Mapping[str, float], names: Sequence[str], evidences: Sequence[float], cohorts: Sequence[float] = ()
) -> Further:
    """What else is tried, by the means of the candidates at one cut."""
    ahead = sorted(names, key=lambda name: -means[around(name)])
    if not ahead or means[around(ahead[0])] <= 0:
        return NOTHING
    blends = tuple((ahead[0], f"{name}:{BLENDED:g}") for name in ahead[1:3] if means[around(name)] > 0)
    return Further((ahead[0],), tuple(evidences), blends, tuple(cohorts))


def tried(settings: Settings) -> list[float]:
    """Values of evidence to try beside the rule's; none where the settings give one."""
    auto = settings.number_or_word("model.layered.evidence") == "auto"
    return [value for value in EVIDENCE if value != AUTO_EVIDENCE] if auto else []


def with_cohort(settings: Settings) -> tuple[float, ...]:
    """Values of evidence to try with a cohort part; none where the settings say whether there is one."""
    if settings.number_or_word("model.layered.cohort_evidence") != "auto":
        return ()
    given = settings.number_or_word("model.layered.evidence")
    return WITH_COHORT if isinstance(given, str) else (given,)


def past(events: pl.DataFrame, settings: Settings, cuts: int) -> list[Exam]:
    """The exams at which models are compared: as many of `cuts` as leave each at least `FEW` users, at least one."""
    share, limit = settings.number("evaluate.test_share"), settings.whole("train.validation_users")
    for number in range(cuts, 1, -1):
        try:
            found = sampled(exams.rolling(events, "time", share, number), limit)
        except MissingInput:
            continue
        if all(len(exam.users) >= FEW for exam in found):
            return found
    return sampled(exams.rolling(events, "time", share, 1), limit)


def decide(
    cuts: Sequence[Judged],
    names: Sequence[str],
    evidence: float | str = "auto",
    further: Further = NOTHING,
    headline: str = "",
) -> Choice:
    """The choice between candidates judged at `cuts`; `evidence` is what stands unless another value wins."""
    together = pooled([one.figures for one in cuts])
    values = {name: together[name].to_numpy() for name in together.columns[1:]}
    few = together.height < FEW
    blends = {blend_of(of): of for of in further.blends}

    def wins(name: str, than: str, of: int) -> bool:
        return clearly_better(values[name], values[than], of) and steady(cuts, name, than)

    said = [f"{POPULAR} {_shown(values[POPULAR])}"]
    rule = by_rule(names)
    best = rule if rule is not None and _likely(cuts, values, around(rule)) else None
    for name in (*names, *blends):
        ours, theirs = around(name), around(best)
        said.append(f"{ours} {_shown(values[ours])}")
        by_mean = best is None and few and values[ours].mean() > values[theirs].mean()
        if by_mean or wins(ours, theirs, len(names) + len(blends)):
            best = name
    served = around(best)
    evidences = further.evidences if best in further.tuned else ()
    tuned = max(evidences, key=lambda value: (values[around(best, value)].mean(), -value)) if evidences else None
    if tuned is not None and wins(around(best, tuned), served, len(evidences)):
        evidence, served = tuned, around(best, tuned)
    cohorts = further.cohorts if best in (*further.tuned, *blends) else ()
    cohort_evidence = None
    helping = [value for value in cohorts if _helps(cuts, values, around(best, value, True), served, len(cohorts))]
    if helping:
        evidence = max(helping, key=lambda value: _early_mean(cuts, values, around(best, value, True), served))
        served, cohort_evidence = around(best, evidence, True), COHORT_EVIDENCE
    figures = {POPULAR: mean_interval(values[POPULAR])} | {name: mean_interval(values[around(name)]) for name in names}
    figures["layered"] = mean_interval(values[served])
    at = "" if len(cuts) == 1 else f" at {len(cuts)} cuts"
    why = f"{METRIC} of {together.height:,} users{at}: {', '.join(said)}; "
    why += "nothing is clearly better than the popular list" if best is None else f"{best} is taken"
    if best is not None and served != around(best):
        with_ = "" if cohort_evidence is None else "a cohort part and "
        why += f" with {with_}evidence {evidence:g} ({_shown(values[served])})"
    found = tuple(Cut(one.headline, one.cut, one.until, one.figures.height, one.means()) for one in cuts)
    individual, blend = ("blend", blends[best]) if best in blends else (best, ())
    return Choice(
        individual,
        evidence,
        figures,
        together.height,
        headline or cuts[-1].headline,
        why,
        served,
        found,
        blend,
        further,
        cohort_evidence,
    )


def clearly_better(values: Values, than: Values, of: int = 1, level: float = 0.95) -> bool:
    """Whether the paired interval of the mean difference lies above 0; its level holds over `of` comparisons."""
    low = difference_intervals(values[:, None], than[:, None], level=1.0 - (1.0 - level) / of)[0].low
    return low is not None and low > 0


def _helps(cuts: Sequence[Judged], values: Mapping[str, Values], name: str, than: str, of: int) -> bool:
    """Whether a cohort part is better for all, or for users with few events while nobody else pays for it.

    Two chances for each of the `of` that are tried, so intervals are of that many comparisons.
    """
    if clearly_better(values[name], values[than], 2 * of) and steady(cuts, name, than):
        return True
    if any(one.events is None for one in cuts):
        return False
    few = [_early(one, name, than) for one in cuts]
    together = pooled([one.figures for one in few])
    if together.height < FEW or not steady(few, name, than):
        return False
    loss = difference_intervals(values[name][:, None], values[than][:, None])[0].low
    return (
        clearly_better(together[name].to_numpy(), together[than].to_numpy(), 2 * of)
        and loss is not None
        and loss > -BEARABLE * float(values[than].mean())
    )


def _early(cut: Judged, name: str, than: str) -> Judged:
    """Two candidates by users with few events, and by the beginnings of others."""
    few, columns = cut.of(*FEW_EVENTS).figures, ["user_id", name, than]
    more = () if cut.beginnings is None else (cut.beginnings.select(columns),)
    return Judged(cut.headline, cut.cut, cut.until, pl.concat([few.select(columns), *more]))


def _early_mean(cuts: Sequence[Judged], values: Mapping[str, Values], name: str, than: str) -> float:
    """The mean of a candidate among those whom a cohort part is for; where they are too few, among all."""
    if all(one.events is not None for one in cuts):
        together = pooled([_early(one, name, than).figures for one in cuts])
        if together.height >= FEW:
            return float(together[name].to_numpy().mean())
    return float(values[name].mean())


def _likely(cuts: Sequence[Judged], values: Mapping[str, Values], name: str) -> bool:
    """Whether a candidate is ahead of the popular list at every cut, by more than `LIKELY` lets chance explain."""
    return clearly_better(values[name], values[POPULAR], level=LIKELY) and steady(cuts, name, POPULAR)


def steady(cuts: Sequence[Judged], name: str, than: str) -> bool:
    """Whether the mean of candidate `name` is above that of `than` at every cut."""
    return all(float(one.values(name).mean()) > float(one.values(than).mean()) for one in cuts)


def _headline(found: Sequence[Exam]) -> str:
    """All cuts in one sentence."""
    if len(found) == 1:
        return found[0].headline
    if found[0].split["kind"] == "time":
        moments = ", ".join(f"{exam.as_of:%Y-%m-%d %H:%M:%S}" for exam in found)
        return (
            f"{len(found)} cuts in time: trained before {moments} UTC, each tested on what followed until the next one"
        )
    return f"{len(found)} cuts, the last of them: {found[-1].headline}"


def _shown(values: Values) -> str:
    return f"{float(values.mean()):.4f}"


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
