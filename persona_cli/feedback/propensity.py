"""`persona train --model propensity --event upgrade --within 30d`: the chance that a user does something in time.

    past ──┬── snapshots, one horizon or more apart ──┬── calibration ──┬── test ──┐ last event
           └ learned from; each label is a horizon    └ a horizon       └ a horizon┘

A snapshot is what was known of everyone at a moment; its label is whether the event followed within the horizon, which
must be over. What is learned from ends before the calibration snapshot and that before the test, so the figures are
those of a forecast. Then everything moves up by one horizon: what was the test calibrates, and the rest is learned
from. A line in the log-odds is the rule; boosted trees take its place where their loss on users that were not learned
from is clearly lower.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import MissingInput, UsageError, nearest
from persona_cli.evaluation.exams import after
from persona_cli.feedback.chances import judged, log_losses
from persona_cli.models import registry
from persona_cli.models.base import Model
from persona_cli.models.propensity import Calibration, Logistic, Propensity, boosted, sigmoid
from persona_cli.models.trees import Trees
from persona_cli.profiles.permitted import PERSONALIZATION, TRAINING
from persona_cli.profiles.snapshots import Spec, happened, snapshot, spec_of, user_events
from persona_cli.workspace import artifacts, locks
from persona_cli.workspace.doctor import model_versions
from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import Condition, parse_condition, seconds

NAME = Propensity.name
NEEDED = 20
"""Users of either outcome, below which nothing is learned or calibrated."""
SNAPSHOTS = 6
"""Moments that are learned from, at most."""
ROWS = 300_000
"""Rows that are learned from, at most: users are then fewer, the same at every moment."""
FOLDS = 3
COMPARED = 60_000
"""Rows on which algorithms are compared, at most."""
CLEARLY = 0.01
"""Share of the loss that boosted trees must save."""
_APART = timedelta(days=28)
"""Snapshots are no further apart than this, unless the horizon is: what is long ago says little of now."""
_Z = 1.959963984540054
Values = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Target(NamedTuple):
    """What may happen."""

    text: str
    """As it was asked for: `upgrade`, `rating>=4`, `churn`, `none:purchase`."""
    condition: Condition | None
    """The event; None: any."""
    absent: bool
    """Whether it is the absence that is asked about."""


@dataclass(frozen=True)
class PropensityReport:
    """What a training did."""

    model: str
    """As `propensity/3`."""
    event: str
    within_days: float
    algorithm: str
    calibration: str
    why: str
    """Why this algorithm."""
    test: dict[str, Any]
    """Figures of the forecast of the last full horizon (`chances.judged`), and of the base rate of the past."""
    learned: dict[str, Any]
    """users, rows, positives, and the moments of the snapshots."""


class _Examples(NamedTuple):
    users: pl.Series
    rows: Values
    wanted: Flags

    @property
    def said(self) -> tuple[int, int]:
        return int(self.wanted.sum()), int((~self.wanted).sum())


def target_of(text: str) -> Target:
    """`upgrade` or `rating>=4`: such an event; `none:purchase`: none of these; `churn`, or `none:*`: no event at all.

    `event:churn` is an event of that name.
    """
    given = text.strip()
    if given in ("churn", "none:*"):
        return Target(given, None, True)
    kind, colon, rest = given.partition(":")
    absent = bool(colon) and kind == "none"
    plain = rest if colon and kind in ("none", "event") else given
    try:
        return Target(given, parse_condition(plain), absent)
    except ValueError as error:
        raise UsageError(f"--event is {text!r}: {error}", "--event upgrade, or --event churn") from error


def horizon_of(text: str) -> timedelta:
    """`30d`, `4w`, `12h`: how far ahead."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([dw])", text.strip())
    try:
        given = float(found[1]) * (7 if found[2] == "w" else 1) * 86_400 if found else seconds(text)
        within = timedelta(seconds=given)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--within is {text!r}; expected a time such as 30d, 4w or 12h") from error
    if within <= timedelta(0):
        raise UsageError(f"--within is {text!r}; expected more than nothing")
    return within


def train_propensity(
    home: Home, event: str, within: timedelta, as_of: datetime | None = None, wait: float = 0.0
) -> PropensityReport:
    """Learn, judge, calibrate and save; see above.

    Raises MissingInput where the events do not span four horizons, or fewer than 20 users had either outcome;
    UsageError for an event that never happened; Busy where another run holds the models after `wait` seconds.
    """
    target = target_of(event)
    with locks.hold(home, "models", "train", wait):
        events = user_events(home, as_of, purpose=TRAINING)
        if not events.height:
            raise MissingInput("there are no events of users to learn from", "persona ingest FILE")
        _check_known(events, target)
        end = after(events) if as_of is None else min(as_of, after(events))
        moments = _moments(events, within, end)
        test_at, tuned_at, learned_at = moments[-1], moments[-2], moments[:-2]
        spec = spec_of(home, events, learned_at[-1], within, "" if target.condition is None else _type(target))
        # Each moment's snapshot is made once, for the trial and for what is kept.
        trial = {at: _examples(home, events, spec, target, within, at) for at in moments}
        threads = home.settings.whole("compute.solver_threads")
        past = _together([trial[at] for at in learned_at])
        _check_enough(past, events, target, f"in the {len(learned_at)} snapshots that would be learned from")
        _check_enough(trial[tuned_at], events, target, "after the snapshot that calibrates")
        algorithm, why = _algorithm(past, threads)
        forecast = _fitted(algorithm, past, trial[tuned_at], spec, target, within, threads)
        test = trial[test_at]
        figures = judged(forecast.chances(test.rows), test.wanted)
        # What stating the base rate of the past for everybody would have cost.
        flat = np.full(len(test.wanted), trial[tuned_at].wanted.mean())
        figures["log_loss_of_base_rate"] = float(log_losses(flat, test.wanted).mean())
        # All moves up: the newest calibrates, and what it calibrated before is learned from.
        kept = [*learned_at, tuned_at][-SNAPSHOTS:]
        whole = _together([trial[at] for at in kept])
        enough = min(test.said) >= NEEDED
        final = _fitted(algorithm, whole, test, spec, target, within, threads) if enough else forecast
        manifest = {
            "recipe": {},
            "trained_until": end.isoformat(),
            "as_of": None if as_of is None else as_of.isoformat(),
            "users": test.users.len(),
            "test": {name: None if value is None else round(value, 6) for name, value in figures.items()},
            "why": why,
        }
        version = registry.save_model(home, cast(Model, final), manifest)  # it makes no lists, but is kept like one
        return PropensityReport(
            f"{NAME}/{version}",
            target.text,
            within / timedelta(days=1),
            algorithm,
            final.calibration.kind,
            why,
            figures,
            {
                "rows": len(whole.wanted),
                "positives": int(whole.wanted.sum()),
                "moments": [at.isoformat() for at in kept],
                "calibrated_at": (test_at if enough else tuned_at).isoformat(),
            },
        )


def score_propensity(
    home: Home,
    reference: str | None = None,
    users: pl.Series | None = None,
    as_of: datetime | None = None,
    event: str | None = None,
) -> pl.DataFrame:
    """user_id and score, the chance: of `users` in their order, else of everyone with an event.

    `reference`: `propensity` (its newest version, with `event` the newest of that event) or `propensity/3`. A user
    without an event has no score (null). MissingInput where there is no such model.
    """
    model = load_propensity(home, reference, event)
    events = user_events(home, as_of, purpose=PERSONALIZATION)
    if not events.height:
        raise MissingInput("there are no events of users to score them from", "persona ingest FILE")
    at = after(events) if as_of is None else as_of
    told = snapshot(home, events, Spec.of(model.stated["spec"]), at)
    chances = model.chances(told.drop("user_id").to_numpy())
    scored = told.select("user_id").with_columns(score=pl.Series(np.round(chances, 6)))
    if users is None:
        return scored
    return users.rename("user_id").to_frame().join(scored, on="user_id", how="left", maintain_order="left")


def load_propensity(home: Home, reference: str | None = None, event: str | None = None) -> Propensity:
    """The model that `reference` names; see `score_propensity`."""
    name, slash, version = (reference or NAME).partition("/")
    versions = model_versions(home).get(NAME, [])
    hint = "persona train --model propensity --event churn --within 30d"
    if name != NAME or (slash and not (version.isascii() and version.isdigit())):
        raise UsageError(f"{reference!r} is not a model of chances; expected {NAME}, or {NAME}/3", hint)
    if not versions:
        raise MissingInput(f"no {NAME} model has been trained yet", hint)
    if slash:
        if str(int(version)) not in versions:
            raise MissingInput(f"there is no model {reference}; there are {', '.join(versions[-5:])}", hint)
        versions = [str(int(version))]
    for one in reversed(versions):
        folder = home.path("models", NAME, one)
        manifest = artifacts.verify(folder, contents=False)
        if event is None or manifest["settings"]["event"] == event:
            return Propensity.load(folder, manifest["settings"])
    raise MissingInput(f"no {NAME} model is of {event!r}", f"persona train --model {NAME} --event {event} --within 30d")


def _type(target: Target) -> str:
    return "" if target.condition is None else target.condition.event_type


def _check_known(events: pl.DataFrame, target: Target) -> None:
    types = events["event_type"].unique().drop_nulls().to_list()
    if target.condition is not None and _type(target) not in types:
        raise UsageError(
            f"--event is {target.text!r}, but no event has the type {_type(target)!r}{nearest(_type(target), types)}",
            "--event churn: no event of any type",
        )
    if target.text == "churn" and "churn" in types:
        raise UsageError(
            "--event churn means no event of any type, and there are events of that name",
            "--event event:churn for these, --event none:* for no event at all",
        )


def _check_enough(examples: _Examples, events: pl.DataFrame, target: Target, where: str) -> None:
    """NEEDED users of either outcome, counted once each."""
    for outcome in (True, False):
        n = examples.users.filter(pl.Series(examples.wanted == outcome)).n_unique()
        if n < NEEDED:
            what = f"{target.text} {'happened' if outcome else 'did not happen'} to {n} users {where}"
            if outcome and target.condition is not None and not target.absent:
                whole = happened(events, target.condition, *_span(events)).len()
                what += f" ({whole} in all, at any time)"
            raise MissingInput(f"{what}; {NEEDED} are needed", "give a longer --within, or ingest more events")


def _span(events: pl.DataFrame) -> tuple[datetime, datetime]:
    """The first instant, and the first after all events."""
    first = events["timestamp"].min()
    assert isinstance(first, datetime)
    return first, after(events)


def _moments(events: pl.DataFrame, within: timedelta, end: datetime) -> list[datetime]:
    """The moments of the snapshots, earliest first: the last is the test, the one before calibrates."""
    first, _ = _span(events)
    # A snapshot needs a horizon of past as well.
    room = end - first - 3 * within
    if room < within:
        raise MissingInput(
            f"the events span {(end - first) / timedelta(days=1):.1f} days; --within {_days(within)} needs at least "
            f"{_days(4 * within)}: one to look back on, and one each to learn from, calibrate and test",
            f"--within {_days((end - first) / 4)}, or ingest more of the past",
        )
    n = min(SNAPSHOTS, int(room / within))
    apart = min(max(room / n, within), max(_APART, within))
    newest = end - 3 * within
    return [newest - number * apart for number in reversed(range(n))] + [end - 2 * within, end - within]


def _days(span: timedelta) -> str:
    return f"{np.floor(span / timedelta(days=1) * 10) / 10:g}d"


def _examples(
    home: Home, events: pl.DataFrame, spec: Spec, target: Target, within: timedelta, at: datetime
) -> _Examples:
    told = snapshot(home, events, spec, at)
    did = happened(events, target.condition, at, at + within)
    wanted = told["user_id"].is_in(did.implode()).to_numpy()
    return _Examples(told["user_id"], told.drop("user_id").to_numpy(), wanted != target.absent)


def _together(parts: Sequence[_Examples]) -> _Examples:
    users = pl.concat([one.users for one in parts])
    rows, wanted = np.concatenate([one.rows for one in parts]), np.concatenate([one.wanted for one in parts])
    return _some(_Examples(users, rows, wanted), ROWS)


def _some(given: _Examples, most: int) -> _Examples:
    """All rows; of too many those of a share of the users, drawn by their place among all."""
    if len(given.users) <= most:
        return given
    numbers = given.users.rank("dense").to_numpy().astype(np.int64) - 1
    drawn = np.random.default_rng(0).random(int(numbers.max()) + 1) < most / len(numbers)
    kept = drawn[numbers]
    return _Examples(given.users.filter(pl.Series(kept)), given.rows[kept], given.wanted[kept])


def _algorithm(past: _Examples, threads: int) -> tuple[str, str]:
    """The simple one, unless trees have a clearly lower loss on users that were not learned from."""
    past = _some(past, COMPARED)
    numbers = past.users.rank("dense").to_numpy().astype(np.int64) - 1
    folds = numbers % FOLDS
    losses: dict[str, Values] = {name: np.zeros(len(folds)) for name in ("logistic", "trees")}
    for fold in range(FOLDS):
        out = folds == fold
        if past.wanted[~out].all() or not past.wanted[~out].any():
            return "logistic", "logistic: too few users of either outcome to compare it with trees"
        for name, found in losses.items():
            raw = _learner(name, past.rows[~out], past.wanted[~out], threads).raw(past.rows[out])
            found[out] = log_losses(sigmoid(raw), past.wanted[out])
    of_line, of_trees = losses["logistic"].mean(), losses["trees"].mean()
    # Rows of one user are not independent: users are what is drawn.
    saved = np.bincount(numbers, weights=losses["logistic"] - losses["trees"])
    reach = _Z * saved.std() * np.sqrt(len(saved))
    told = f"log loss of users that were not learned from: logistic {of_line:.4f}, trees {of_trees:.4f}"
    if saved.sum() > reach and of_line - of_trees > CLEARLY * of_line:
        return "trees", told
    return "logistic", told


def _learner(name: str, rows: Values, wanted: Flags, threads: int) -> Logistic | Trees:
    return boosted(rows, wanted, threads) if name == "trees" else Logistic.learned(rows, wanted, threads)


def _fitted(
    algorithm: str, past: _Examples, tuned: _Examples, spec: Spec, target: Target, within: timedelta, threads: int
) -> Propensity:
    learner = _learner(algorithm, past.rows, past.wanted, threads)
    stated: Mapping[str, Any] = {
        "event": target.text,
        "within_days": within / timedelta(days=1),
        "spec": spec.said(),
    }
    return Propensity(learner, Calibration.learned(learner.raw(tuned.rows), tuned.wanted), stated)
