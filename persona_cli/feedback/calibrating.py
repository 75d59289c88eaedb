"""`persona surface calibrate`: how often what a surface would have chosen was right, by how much was known.

One moment divides what happened: the latest with `evaluate.test_share` of the events that tell at it or after. The
surface chooses as of then, for each person who did something later, by what was known then; what came shows whether the
choice was right:

    content    the next new item that the person took is in the list of a model that was trained on the time before
    ui         the entry that the person used next is in the first third of the order
    feature    all that was shown would still be shown at the end, because it applies or because it was used

Chosen for and learned from are people whom personalization, analytics and training cover and who are not held out.
Neither what was served before nor `min_confidence` counts: the question is how good each choice would have been. The
curve (`serving.surfaces.confidence`) is of all of them. Whether it holds is told by people it was not learned from:
people are parted into `FOLDS` by a stable hash, and each part is told its chances by the curve of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from persona_cli.errors import MissingInput, UsageError
from persona_cli.evaluation import exams
from persona_cli.evaluation.contenders import baseline_of, fitted, recipes
from persona_cli.evaluation.judging import Beside, asked
from persona_cli.evaluation.timelines import some_of, stable_hashes
from persona_cli.events.catalogue import unavailable
from persona_cli.models.base import reads_order
from persona_cli.models.interactions import interactions_of, with_times
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.ranking import ranking
from persona_cli.models.stored import positions
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.permitted import MEASURING, PERSONALIZATION, allowed, in_holdout, person_events
from persona_cli.serving.context import Audience
from persona_cli.serving.rule_settings import on_surface, rules_of
from persona_cli.serving.rules import ruling
from persona_cli.serving.surfaces import Surface, confidence, surface_of
from persona_cli.serving.surfaces.confidence import Flags, Floats
from persona_cli.serving.surfaces.deciding import kind_of
from persona_cli.serving.surfaces.use import each_use
from persona_cli.serving.surfaces.visitors import visitors
from persona_cli.workspace.home import Home
from persona_cli.workspace.surface_declarations import ARMS, BANDIT, HELP

USING = (PERSONALIZATION, *MEASURING)
LEAST = 100
"""People that a curve takes: of fewer, bins would be too few to rise."""
MOST = 50_000
"""People who are looked at; of more a part, by a stable hash of the person."""
FOLDS = 5
EVIDENCE = {"content": "events with an item", "ui": "faded uses", "feature": "events"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Held(NamedTuple):
    """What happened to choices."""

    users: pl.Series
    """Persons (n,)."""
    n: Floats
    """How much was known of each at the cut (n,)."""
    right: Flags
    half: float
    """m of n / (n + m)."""
    cut: datetime
    choice: str
    """What is right, in words."""


def calibrate(home: Home, name: str) -> dict[str, Any]:
    """Learn the curve of a surface, check it and keep it; answers the document that is kept.

    surface, kind, digest, evidence (what n is), half, cut, people, right (the share), choice (what is right), bins
    (`confidence.Curve`), check (`confidence.calibration` of "evidence" and "calibrated", with folds). UsageError for a
    kind without `min_confidence`, MissingInput where there are fewer than `LEAST` people; then nothing is written.
    """
    surface = surface_of(home, name)
    if surface.kind not in confidence.FOLLOWS:
        kinds = ", ".join(confidence.FOLLOWS)
        raise UsageError(
            f"[surface.{name}] is of the kind {surface.kind}, which has no min_confidence; {kinds} have one"
        )
    held = _HELD[surface.kind](home, _bare(surface))
    if len(held.users) < LEAST:
        raise MissingInput(
            f"[surface.{name}]: {len(held.users):,} people can tell whether its choices were right (not held out, "
            f"covered, active from {held.cut:%Y-%m-%d %H:%M} UTC on); a curve takes {LEAST}",
            "leave its confidence at n / (n + m) until there are more",
        )
    document = learned(surface, held)
    confidence.keep(home, name, document)
    return document


def learned(surface: Surface, held: Held) -> dict[str, Any]:
    """The curve of what happened and its check, as it is kept."""
    told = {"evidence": confidence.by_evidence(held.n, held.half), "calibrated": crossed(held)}
    return {
        "format": confidence.FORMAT,
        "surface": surface.name,
        "kind": surface.kind,
        "digest": confidence.digest_of(surface.kind, surface.options),
        "evidence": EVIDENCE[surface.kind],
        "half": held.half,
        "cut": held.cut.isoformat(),
        "people": len(held.users),
        "right": round(float(held.right.mean()), 6),
        "choice": held.choice,
        "bins": confidence.as_rows(confidence.curve_of(held.n, held.right)),
        "check": {"folds": FOLDS, **confidence.calibration(held.n, held.right, told)},
    }


def crossed(held: Held) -> Floats:
    """The confidence of each person by the curve of the people of other folds (n,)."""
    fold = (stable_hashes(held.users, "confidence folds") % np.uint64(FOLDS)).astype(np.int64)
    found = np.full(len(held.users), float(held.right.mean()))
    for number in range(FOLDS):
        mine = fold == number
        if mine.any() and not mine.all():
            found[mine] = confidence.curve_of(held.n[~mine], held.right[~mine]).of(held.n[mine])
    return found


def _content(home: Home, surface: Surface) -> Held:
    """Lists of a model that is refitted by its recipe on what was before the cut, as `persona evaluate` does."""
    home = replace(home, settings=on_surface(home.settings, surface.options["rules"]))
    settings, model = home.settings, surface.options["model"]
    half = float(max(settings.whole("profiles.individual_from"), 1))
    wanted = recipes(home, [model] if model else [])
    events = signal_events(home, purpose=MEASURING).collect()
    cut = _cut(home, surface, events.filter(pl.col("item_id").is_not_null())["timestamp"])
    exam = exams.by_cut(events, cut, f"[surface.{surface.name}]")
    people = _some(home, exam.users)
    exam = replace(exam, answers=exam.answers.filter(pl.col("user_id").is_in(people.implode())))
    choice = "the next new item taken is in the list"
    if not len(people):
        return Held(people, np.zeros(0), np.zeros(0, dtype=bool), half, cut, choice)
    matrix = interactions_of(exam.train, settings)
    one, *others = fitted(home, wanted, exam, matrix, reuse=True)
    if reads_order(one.model):
        matrix = with_times(matrix, exam.known)
    roster = asked(exam, matrix, Beside.of(home, purpose=MEASURING).wishes(exam, settings))
    rules = rules_of(settings)
    nobody = np.zeros(len(roster.users), dtype=bool)
    seats = Audience(roster.users, roster.matrix, roster.places, roster.context, nobody)
    made = ranking(
        one.model,
        roster,
        surface.options["top"] or settings.whole("recommend.top"),
        one.recipe.settings,
        fill=None if isinstance(one.model, Popular | Layered) else baseline_of([one, *others]),
        never=unavailable(home, cut),
        choosing=None if rules is None else ruling(home, rules, seats, cut),
    )
    after = events.filter((pl.col("timestamp") >= cut) & (pl.col("strength") > 0) & ~pl.col("never"))
    taken = _first(after.join(exam.answers, on=["user_id", "item_id"], how="semi"), "item_id", roster.users)
    place = positions(taken, made.vocabulary)
    right = np.zeros(len(roster.users), dtype=bool)
    for lists in made.blocks:
        theirs = place[lists.start : lists.start + len(lists.places), None]
        hits = (lists.places == theirs) & (lists.scores > -np.inf) & (theirs >= 0)
        right[lists.start : lists.start + len(lists.places)] = hits.any(axis=1)
    n = np.where(roster.places >= 0, np.append(matrix.events, 0)[roster.places], 0).astype(np.float64)
    return Held(roster.users, n, right, half, cut, choice)


def _ui(home: Home, surface: Surface) -> Held:
    entries = list(surface.options["entries"])
    uses = each_use(home, entries, surface.options["events"], USING)
    cut = _cut(home, surface, uses["timestamp"])
    after = uses.filter(pl.col("timestamp") >= cut)
    people = _some(home, after["user_id"].unique())
    first = -(-len(entries) // 3)
    made = _as_of(home, surface, people, cut)
    order = made["config"].struct.field("order").list.head(first)
    nearest = pl.DataFrame({"order": order, "used": _first(after, "name", people)})
    right = nearest.select(pl.col("order").list.contains(pl.col("used"))).to_series().to_numpy().astype(bool)
    choice = f"the entry used next is among the first {first} of {len(entries)}"
    return Held(people, made["evidence"].to_numpy(), right, float(surface.options["prior_uses"]), cut, choice)


def _feature(home: Home, surface: Surface) -> Held:
    events = person_events(home, purpose=USING).select("user_id", "timestamp").collect()
    cut = _cut(home, surface, events["timestamp"])
    people = _some(home, events.filter(pl.col("timestamp") >= cut)["user_id"].unique())
    then, now = (_as_of(home, surface, people, moment) for moment in (cut, exams.after(events)))
    shown = pl.DataFrame({"then": _shown(then), "now": _shown(now)})
    gone = shown.select(pl.col("then").list.set_difference("now").list.len()).to_series().to_numpy()
    half = float(max(home.settings.whole("profiles.cohort_from"), 1))
    choice = "all that was shown still would be at the end, or was used"
    return Held(people, then["evidence"].to_numpy(), gone == 0, half, cut, choice)


_HELD: dict[str, Callable[[Home, Surface], Held]] = {"content": _content, "ui": _ui, "feature": _feature}


def _bare(surface: Surface) -> Surface:
    """The surface without arms, and as bold as it can be."""
    options = {name: value for name, value in surface.options.items() if name not in (ARMS, BANDIT)}
    return replace(surface, options={**options, "min_confidence": 0.0})


def _cut(home: Home, surface: Surface, times: pl.Series) -> datetime:
    """The latest instant with `evaluate.test_share` of the events at it or after."""
    if not len(times):
        what = EVIDENCE[surface.kind]
        raise MissingInput(f"[surface.{surface.name}]: nobody has any {what} to learn from", "persona ingest FILE")
    micros = np.sort(times.dt.epoch("us").to_numpy())
    share = home.settings.number("evaluate.test_share")
    return _EPOCH + timedelta(microseconds=int(micros[min(int((1.0 - share) * len(micros) + 1e-9), len(micros) - 1)]))


def _some(home: Home, users: pl.Series) -> pl.Series:
    """Those of `users` who may be asked, sorted: covered by all purposes and not held out; at most `MOST` of them."""
    users = users.drop_nulls().unique().sort().rename("user_id")
    users = users.filter(allowed(home, USING, users).of(users) & ~in_holdout(home, users))
    return some_of(users, MOST, "confidence people")


def _as_of(home: Home, surface: Surface, people: pl.Series, moment: datetime) -> pl.DataFrame:
    """What the surface chooses for persons as of a moment, as if it had served nothing before; aligned with them."""
    kind = kind_of(surface)
    there = visitors(home, kind.needs(home, surface), at=moment, users=people, as_of=moment)
    # Without its name: what was learned of it before, damaged or not, is nothing to go by here.
    return kind.decide(home, replace(surface, name=""), there)


def _first(rows: pl.DataFrame, name: str, users: pl.Series) -> pl.Series:
    """`name` of each user's first row (timestamp; of simultaneous ones the name that sorts first), null: none (n,)."""
    first = rows.sort("timestamp", name).group_by("user_id", maintain_order=True).agg(pl.col(name).first())
    return users.rename("user_id").to_frame().join(first, on="user_id", how="left", maintain_order="left")[name]


def _shown(made: pl.DataFrame) -> pl.Series:
    """The names of all that is shown to each (n,)."""
    return made["config"].struct.unnest().select(pl.concat_list(HELP)).to_series()


def kept(home: Home, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The documents that are kept, by name of the surface, with `current`: whether it is as it was calibrated.

    MissingInput for one of `names` that is no surface, or was never calibrated.
    """
    found = []
    for name in names or sorted(home.settings.values["surface"]):
        surface = surface_of(home, name)
        document = confidence.read(home, name)
        if document is None:
            if names:
                raise MissingInput(f"[surface.{name}] was never calibrated", f"persona surface calibrate {name}")
            continue
        digest = confidence.digest_of(surface.kind, surface.options)
        found.append({**document, "current": document["digest"] == digest})
    return found
