"""How experiments stand: who was seen in which variant, who in two, and what a bandit allocates next.

All of it is read from the decisions that were logged, of people whom analytics cover, by who they are now: where ids
turned out to be one person, the first variant seen is theirs, and whoever was seen in two is a crossover.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import UsageError
from persona_cli.experiments import allocation
from persona_cli.experiments.running import AB, BANDIT, INTERLEAVE, Experiment, change, load
from persona_cli.feedback import decisions as logged
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.identity import persons
from persona_cli.workspace import locks
from persona_cli.workspace.home import Home

if TYPE_CHECKING:
    from persona_cli.experiments.metrics import Metric


def seen(home: Home, experiment: Experiment, until: datetime | None = None) -> pl.LazyFrame:
    """user_id (the person), at, variant (its name alone) of every decision logged in an experiment; in no order."""
    rows = logged.read(home, since=experiment.started, until=until)
    pattern = f"(?:^|,){re.escape(experiment.name)}:([^,]+)"
    rows = rows.filter(pl.col("variant").is_not_null())
    found = rows.select("user_id", "at", pl.col("variant").str.extract(pattern, 1))
    return found.filter(pl.col("variant").is_not_null()).with_columns(persons(home).resolved(pl.col("user_id")))


def people(home: Home, experiment: Experiment, until: datetime | None = None) -> pl.DataFrame:
    """user_id, variant and at of the first decision of each person, sorted by user_id (n_people)."""
    rows = seen(home, experiment, until).sort("user_id", "at", "variant")
    return rows.unique("user_id", keep="first", maintain_order=True).select("user_id", "variant", "at").collect()


def crossovers(home: Home, experiment: Experiment | str, until: datetime | None = None) -> pl.DataFrame:
    """People seen in more than one variant: user_id, variants (in the order seen), first_at (of the second variant),
    decisions, after_drop (all but one of them were dropped, so that it was to be). Sorted by user_id.
    """
    one = load(home, experiment) if isinstance(experiment, str) else experiment
    first = seen(home, one, until).group_by("user_id", "variant").agg(at=pl.col("at").min(), decisions=pl.len())
    by_person = first.sort("user_id", "at", "variant").group_by("user_id", maintain_order=True)
    dropped = list(one.dropped)
    found = by_person.agg(
        variants=pl.col("variant"),
        first_at=pl.col("at").get(1, null_on_oob=True),
        decisions=pl.col("decisions").sum().cast(pl.Int64),
        after_drop=(~pl.col("variant").is_in(dropped)).sum() <= 1,
    )
    return found.filter(pl.col("variants").list.len() > 1).sort("user_id").collect()


def state(home: Home, experiment: Experiment, at: datetime | None = None) -> dict[str, Any]:
    """What `persona experiment show` tells: the declaration, people by variant, crossovers, and whether shares fit.

    People are None where they are fewer than `SMALLEST_CELL`.
    """
    from persona_cli.experiments.power import srm

    moment = at or datetime.now(UTC)
    theirs = people(home, experiment)
    counts = dict(theirs.group_by("variant").len().iter_rows())
    both = crossovers(home, experiment)
    names = (logged.MERGED,) if experiment.kind == INTERLEAVE else experiment.names
    numbers = [int(counts.get(name, 0)) for name in names]
    found: dict[str, Any] = {
        "name": experiment.name,
        "kind": experiment.kind,
        "surface": experiment.surface,
        "state": "running" if experiment.runs(moment) else "stopped",
        "started": experiment.started.isoformat(timespec="seconds"),
        "stopped": None if experiment.stopped is None else experiment.stopped.isoformat(timespec="seconds"),
        "metric": experiment.metric,
        "guardrails": list(experiment.guardrails),
        "layer": experiment.layer,
        "from": experiment.part.begin,
        "to": experiment.part.end,
        "ramp": experiment.ramp,
        "planned_units": experiment.planned_units,
        "looks": experiment.looks,
        "people": sum(numbers),
        "crossovers": int((~both["after_drop"]).sum()),
        "moved_by_drop": int(both["after_drop"].sum()),
        "srm_p": None,
        "variants": [
            {
                "name": variant.name,
                "overrides": variant.overrides,
                "planned": planned,
                "share": share,
                "dropped": variant.name in experiment.dropped,
                "people": None if 0 < counts.get(variant.name, 0) < SMALLEST_CELL else counts.get(variant.name, 0),
            }
            for variant, planned, share in zip(experiment.variants, experiment.shares, experiment.current, strict=True)
        ],
    }
    if experiment.kind == INTERLEAVE:
        for one in found["variants"]:
            del one["people"]
    elif experiment.kind == AB and sum(numbers) >= SMALLEST_CELL and not experiment.dropped:
        found["srm_p"] = float(srm(numbers, experiment.shares).p)
    return found


def rewards(home: Home, experiment: Experiment, until: datetime, days: float | None = None) -> pl.DataFrame:
    """user_id, variant, at, reward of each person whose window is over, sorted by user_id: what the metric of the
    experiment says of them, more being better, or, where it has none, whether they clicked on what was decided.

    The window is `days` from the first decision for a person (default: the metric's, else decisions.window_days), and
    nobody counts before it is over: who answers at once would else count before those who do not answer at all.
    """
    from persona_cli.experiments.metrics import named

    metric = named(home, [experiment.metric])[0] if experiment.metric else None
    if days is None:
        days = metric.window_days if metric is not None else None
    length = home.settings.number("decisions.window_days") if days is None else days
    if not length > 0:
        raise UsageError(f"a window of {length:g} days, in which nobody can do anything; expected more than 0")
    window = timedelta(days=length)
    theirs = people(home, experiment, until).filter(pl.col("at") + window <= until)
    if metric is None:
        return theirs.with_columns(reward=_clicked(home, experiment, theirs, window, until))
    return _worth(home, metric._replace(window_days=length, before_days=0.0), theirs, until)


def _clicked(home: Home, experiment: Experiment, theirs: pl.DataFrame, window: timedelta, until: datetime) -> pl.Expr:
    """1 for a person of `theirs` who clicked on a decision of the surface within the window, else 0."""
    from persona_cli.feedback.outcomes import join

    made = join(home, experiment.started, until, until).decisions
    made = made.filter((pl.col("clicks") > 0) & pl.col("surface").eq(experiment.surface))
    clicked = made.select("user_id", clicked_at=pl.col("at") + pl.duration(seconds="click_seconds"))
    within = theirs.join(clicked, on="user_id").filter(
        pl.col("clicked_at") >= pl.col("at"), pl.col("clicked_at") < pl.col("at") + window
    )
    return pl.col("user_id").is_in(within["user_id"].unique().implode()).cast(pl.Float64)


def _worth(home: Home, metric: Metric, theirs: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """`theirs` with the metric of each; left out are those who have none: nothing below a ratio, no score."""
    from persona_cli.experiments.measuring import capped
    from persona_cli.experiments.metrics import units
    from persona_cli.experiments.verdicts import UP

    question = metric.question(0)
    frame, _ = capped(units(home, [metric], theirs, until), [question])
    value = frame[question.columns[0]].cast(pl.Float64)
    if question.kind == "ratio":
        below = frame[question.columns[1]]
        value = pl.select(pl.when(below > 0).then(value / below)).to_series()
    if question.direction != UP:
        value = 1 - value if question.kind == "proportion" else -value
    return theirs.with_columns(reward=value).drop_nulls("reward")


def arms(experiment: Experiment, rewarded: pl.DataFrame) -> allocation.Arms:
    """Sums of rewards by variant (k,), each period between allocations worth `discount` of the next."""
    starts = np.array([one.at.timestamp() for one in experiment.allocations])
    periods, k = len(starts), len(experiment.variants)
    seconds = rewarded["at"].dt.epoch("us").to_numpy() / 1e6
    period = np.clip(np.searchsorted(starts, seconds, side="right") - 1, 0, periods - 1)
    numbers = {name: number for number, name in enumerate(experiment.names)}
    variant = rewarded["variant"].replace_strict(numbers, default=None, return_dtype=pl.Int64)
    known = variant.is_not_null().to_numpy()
    where = variant.fill_null(0).to_numpy()[known]
    reward = rewarded["reward"].to_numpy().astype(np.float64)[known]
    total: allocation.Arms | None = None
    for one in range(periods):
        inside = period[known] == one
        added = allocation.arms_of(where[inside], reward[inside], k)
        total = added if total is None else total.aged(experiment.discount).plus(added)
    assert total is not None
    return total


def reallocate(
    home: Home, name: str, *, days: float | None = None, at: datetime | None = None, wait: float = 0.0
) -> tuple[Experiment, allocation.Arms]:
    """A bandit's shares of new people by what those before them brought; and the sums they follow from.

    Raises UsageError where the experiment is no bandit. Nobody who was in a variant moves.
    """
    moment = at or datetime.now(UTC)
    # Held so that nobody is assigned by the old shares and logged after the new ones.
    with locks.hold(home, "tables", f"experiment update {name}", wait):
        found = load(home, name)
        if found.kind != BANDIT:
            raise UsageError(f"{name} is of the kind {found.kind}: only a bandit's shares follow from outcomes")
        rewarded = rewards(home, found, moment, days)
        sums = arms(found, rewarded)
        gone: NDArray[np.bool_] = np.array([one in found.dropped for one in found.names])
        binary = bool(rewarded["reward"].is_in([0.0, 1.0]).all())
        if found.policy == "ucb1" and not bool(rewarded["reward"].is_between(0.0, 1.0).all()):
            raise UsageError(
                f"ucb1 allocates by rewards from 0 to 1, and {found.metric} has others",
                "start a bandit with --policy thompson, or one whose metric is a share",
            )
        shares = allocation.shares(
            sums, "ucb1" if found.policy == "ucb1" else "thompson", "binary" if binary else "number",
            floor=found.floor, dropped=gone,
        )  # fmt: skip
        return change(home, name, shares=[float(share) for share in shares], at=moment, wait=wait), sums


def update(
    home: Home,
    name: str,
    *,
    ramp: float | None = None,
    drop: Sequence[str] = (),
    days: float | None = None,
    at: datetime | None = None,
    wait: float = 0.0,
) -> tuple[Experiment, allocation.Arms | None]:
    """A larger ramp and variants to drop, where given; a bandit then allocates anew, by sums that come with it. Raises
    what `change` raises, and UsageError where nothing of it is asked of an experiment that is no bandit."""
    found = load(home, name)
    if found.kind != BANDIT and ramp is None and not drop:
        raise UsageError(
            f"nothing of {name} follows from outcomes: it is of the kind {found.kind}",
            "persona experiment update NAME --ramp SHARE, or --drop VARIANT",
        )
    if ramp is not None or drop or found.stopped is not None:
        found = change(home, name, ramp=ramp, drop=drop, at=at, wait=wait)
    return reallocate(home, name, days=days, at=at, wait=wait) if found.kind == BANDIT else (found, None)
