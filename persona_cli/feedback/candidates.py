"""What `train` tries, and in what time.

What training can afford: which models, of what size, compared at how many cuts.

A model is fitted once at every cut and once on everything, and makes lists for the people asked at every cut. Speeds
are fixed, so what is trained follows from the data, the settings and the time allowed, and never from how busy the
machine is.

What could be served, asked at one cut: the popular list, each model alone, and the layered model around each.

All learn from the same events before the cut and are ranked for the same users, so their figures are paired by user.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import Beside, asked
from persona_cli.evaluation.metrics import per_user
from persona_cli.evaluation.timelines import some_of
from persona_cli.models import kinds
from persona_cli.models.base import Interactions, Model, Training
from persona_cli.models.blend import Blend, weights_of
from persona_cli.models.cohort import Cohort
from persona_cli.models.interactions import interactions_of, with_times
from persona_cli.models.kinds import INDIVIDUAL
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.ranking import rank
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


K = 20
METRIC = f"ndcg@{K}"
POPULAR = "popular"
ALONE = Beside()
"""Events and nothing beside them."""
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
    beginnings: pl.DataFrame | None = None
    """Of users of whom nothing was learned: user_id, and means of NDCG@20 over the counts of first events after which
    each was asked about, of candidates with a cohort part and of those that they are beside. None: nobody was asked."""

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
    new: Exam | None = None,
) -> Judged:
    """Fit `names` on what the exam leaves to learn from and judge what could be served for the users asked.

    Candidates: the popular list; layered around each model of `names`, with the evidence of the settings; with `alone`
    each model by itself, filled up by the popular list; and what `further` says, given or as it follows from the means
    of the candidates so far. `new` asks what is compared with a cohort part about beginnings (`exams.with_beginnings`).
    """
    ordered = any(kinds.ordered(name, settings) for name in names)
    training = prepare(exam.train, settings, exam.as_of, catalogue=beside.items(exam), ordered=ordered)
    known = training.interactions if exam.known is exam.train else None
    panel = Panel(exam, settings, known, ordered, beside)
    early = None if new is None else Panel(new, settings, ordered=ordered)
    popular = Popular.from_settings(settings).fit(training)
    plain = Layered.from_settings(settings)
    cohort = None if plain.cohort is None else plain.cohort.fit(training)

    def served(inside: Model, evidence: float | str = plain.evidence, cohort: Cohort | None = cohort) -> Layered:
        return Layered(popular, inside, evidence, cohort, plain.cohort_evidence, plain.few_users).joined()

    found = {POPULAR: panel.values(popular)}
    offered: dict[str, Layered] = {}
    fitted: dict[str, Model] = {}
    for name in names:
        log.debug("comparing %s: %s", name, exam.headline)
        fitted[name] = kinds.unfitted(name, settings).fit(training)
        if alone:
            found[name] = panel.values(fitted[name], popular)
        found[around(name)] = panel.values(served(fitted[name]))
    if callable(further):
        further = further({name: float(values.mean() or 0.0) for name, values in found.items()})  # type: ignore[arg-type]
    if further.cohorts:
        cohort = Cohort.from_settings(settings).fit(training)
    for of in further.blends:
        fitted[blend_of(of)] = Blend({name: fitted[name] for name in weights_of(of)}, of).joined()
        offered[around(blend_of(of))] = served(fitted[blend_of(of)])
    for name in further.tuned:
        offered |= {around(name, evidence): served(fitted[name], evidence) for evidence in further.evidences}
    for name in (*further.tuned, *map(blend_of, further.blends)):
        for evidence in further.cohorts:
            offered[around(name, evidence, cohort=True)] = served(fitted[name], evidence, cohort)
    found |= {name: panel.values(model) for name, model in offered.items()}
    beginnings = None
    if early is not None and further.cohorts:
        offered |= {around(name): served(fitted[name]) for name in further.tuned}
        users = early.roster.users.str.replace(r"^\d+ ", "").alias("user_id")
        figures = pl.DataFrame([users, *(early.values(model).alias(name) for name, model in offered.items())])
        beginnings = figures.group_by("user_id", maintain_order=True).mean().sort("user_id")
    return dataclasses.replace(panel.judged(found), beginnings=beginnings)


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
    chosen = some_of(users, limit, "validation").implode()
    return [
        dataclasses.replace(
            exam,
            answers=exam.answers.filter(pl.col("user_id").is_in(chosen)),
            exclude=exam.exclude.filter(pl.col("user_id").is_in(chosen)),
        )
        for exam in exams
    ]
