"""Event logs as they come, and evaluations of them that leak: what the leakage alarm is tried on.

`world(seed)` draws the ways of a log (`Ways`) and the log itself: items with Zipf popularity that drifts, bursts and
falls, born before and during the log; users with tastes who join (after the cut too), come in sessions by a weekly
rhythm, repeat themselves or not, and leave. `clean(world)` evaluates honest contenders on it as `persona evaluate`
does. Each of `PLANTS` turns that evaluation into one that leaks, by a way and a strength that it draws:

    future popularity    a popular model that counts events after the cut: only those, or mixed with the past, all of
                         them or a share of 50 % to 100 %, with a half-life of 25 % to 100 % of the time after the cut;
                         or knn or ease, fitted on recent days, of which at least half are after the cut
    duplicated events    5 % to 30 % of the events are there twice, and copies of later ones stand before the cut: those
                         after it shifted by one offset of up to 45 days, all shifted by 1 to 14 hours (a log read in
                         part twice, once in another time zone), all truncated to midnight or to the hour, those after
                         it under the same time but on the train side, or (15 % to 30 %) scattered over the past
    target in profile    the answers of 5 % to 100 % of the users asked are in the histories that they are scored from,
                         or in the train matrix with their own times; or an attribute of 50 % to 100 % of the users
                         encodes one of their answers (its category, or a hash of it)
    item before birth    1 to 40 items that were born after the cut are in the lists of a model that knows them
    canary users         users without an event before the cut are scored from 30 % to 100 % of what they did after it

Nothing here knows how a leak is found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.evaluation import exams, splits
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.judging import asked
from persona_cli.models.base import Floats, Histories, Interactions, Training
from persona_cli.models.ease import Ease
from persona_cli.models.interactions import interactions
from persona_cli.models.knn import Knn
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepared
from persona_cli.models.ranking import rank
from persona_cli.profiles.history import fold_history
from persona_cli.workspace.settings import load

SETTINGS = load(None, {}).with_flags({"compute.threads": 1})
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
DEPTH = 21
Draws = np.random.Generator
DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Ways:
    """How a log comes about."""

    n_users: int
    n_items: int
    days: int
    events_a_user: float
    zipf: float
    drift: float
    """Standard deviation of a log-popularity's walk over the whole log."""
    bursts: float
    """Share of the items that burst once."""
    born: float
    """Share of the items born during the log."""
    joining: float
    """Share of the users who join during the log."""
    clusters: int
    taste: float
    """How much more a user likes the own cluster's items: factor e^taste."""
    repeats: float | None
    """Share of events that repeat an own earlier one; None: nobody has an item twice."""
    consumed: str
    """Whose events take the item out of later lists: all, purchases, none."""
    resolution: float
    """Seconds to which times are known."""
    countries: int
    country_taste: float
    """Share of the users whose country is that of their cluster."""
    doubled: float
    """Share of events that are in the log twice, at the same time: as real logs have them."""
    automatic: float
    """Share of the users with an event at the same second every day: an alarm clock, a subscription."""
    test_share: float


@dataclass(frozen=True)
class World:
    """A clean log and its cut."""

    seed: int
    ways: Ways
    events: pl.DataFrame
    """Rows of `profiles.history.signal_events`."""
    births: pl.DataFrame
    """item_id, first: when the catalogue got it (UTC)."""
    cluster: pl.DataFrame
    """item_id, cluster: its category."""
    cut: datetime

    def draws(self, purpose: int) -> Draws:
        return np.random.default_rng([self.seed, purpose])


@dataclass(frozen=True)
class Case:
    """One evaluation, with all that a detector may look at."""

    plant: str | None
    how: str
    events: pl.DataFrame = field(repr=False)
    exam: Exam = field(repr=False)
    lists: Mapping[str, pl.DataFrame] = field(repr=False)
    popular: pl.DataFrame = field(repr=False)
    controls: Mapping[str, pl.DataFrame] = field(repr=False)
    known: Interactions = field(repr=False)
    births: pl.DataFrame = field(repr=False)
    contexts: pl.DataFrame = field(repr=False)


def ways(draws: Draws) -> Ways:
    """Options of a world: every one may be mild or strong."""
    repeats = None if draws.random() < 0.4 else float(draws.uniform(0.02, 0.5))
    return Ways(
        n_users=int(np.exp(draws.uniform(np.log(500), np.log(1500)))),
        n_items=int(draws.integers(200, 401)),
        days=int(draws.integers(40, 151)),
        events_a_user=float(draws.uniform(20, 40)),
        zipf=float(draws.uniform(0.5, 1.1)),
        drift=float(draws.uniform(0.3, 1.2)),
        bursts=float(draws.uniform(0.0, 0.3)),
        born=float(draws.uniform(0.12, 0.4)),
        joining=float(draws.uniform(0.25, 0.6)),
        clusters=int(draws.integers(3, 11)),
        taste=float(draws.uniform(0.5, 2.5)),
        repeats=repeats,
        consumed=str(draws.choice(["all", "purchases", "none"], p=[0.5, 0.2, 0.3])),
        resolution=float(draws.choice([1e-6, 1.0, 60.0], p=[0.3, 0.5, 0.2])),
        countries=int(draws.integers(1, 7)),
        country_taste=float(draws.choice([0.0, draws.uniform(0.2, 0.9)])),
        doubled=float(draws.choice([0.0, draws.uniform(0.0, 0.03)], p=[0.6, 0.4])),
        automatic=float(draws.choice([0.0, draws.uniform(0.0, 0.03)], p=[0.7, 0.3])) if repeats is not None else 0.0,
        test_share=float(draws.uniform(0.12, 0.3)),
    )


def world(seed: int, **given: Any) -> World:
    """The log of a seed; `given` fixes some of its ways."""
    draws = np.random.default_rng(seed)
    how = dataclasses.replace(ways(draws), **given)
    item_cluster = draws.integers(0, how.clusters, how.n_items)
    born = np.where(draws.random(how.n_items) < how.born, draws.uniform(0, how.days, how.n_items), -1.0)  # days
    # Some soon after the cut, which is somewhere before the last `test_share` of the days: activity grows.
    born[:8] = how.days * (1 - draws.uniform(0.1, 0.7, 8) * how.test_share)
    user, seconds, cluster = _visits(how, draws)
    item = _choices(how, draws, seconds / DAY, cluster[user], item_cluster, born)
    order = np.lexsort((item, seconds, user))
    user, seconds, item = user[order], seconds[order], item[order]
    if how.repeats is None:
        kept = np.unique(user * how.n_items + item, return_index=True)[1]
        user, seconds, item = user[kept], seconds[kept], item[kept]
    else:
        item = item[_own_earlier(user, how.repeats, draws)]
    user, seconds, item = _automatic(how, draws, user, seconds, item)
    events = _frame(how, draws, user, seconds, item, cluster)
    twice = events.filter(pl.Series(draws.random(events.height) < how.doubled))
    events = pl.concat([events, twice]).sort("timestamp", "user_id", "item_id", "event_type")
    item_ids = pl.Series("item_id", [f"i{n:03}" for n in range(how.n_items)])
    # A row comes into the catalogue some hours before anybody can want the item.
    first = [START + timedelta(days=float(day) - 0.5) if day >= 0 else START - timedelta(days=200) for day in born]
    births = pl.DataFrame({"item_id": item_ids, "first": pl.Series(first, dtype=pl.Datetime("us", "UTC"))})
    cut = splits.time_cut(events, how.test_share).cut
    assert cut is not None
    return World(seed, how, events, births, pl.DataFrame({"item_id": item_ids, "cluster": item_cluster}), cut)


def _visits(how: Ways, draws: Draws) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """user and time (seconds since the start) of each event, and the cluster of each user."""
    late = draws.random(how.n_users) < how.joining
    join = np.where(late, draws.uniform(0, how.days * 0.99, how.n_users), 0.0)
    stay = np.where(draws.random(how.n_users) < 0.6, how.days, draws.exponential(how.days / 2, how.n_users))
    leave = np.minimum(join + stay + 0.5, how.days)
    activity = draws.lognormal(0.0, 0.8, how.n_users)
    expected = how.events_a_user * activity / activity.mean() * (0.3 + 0.7 * (leave - join) / how.days)
    length = 1 + draws.geometric(0.45, size=(how.n_users, 64)).clip(max=8)  # events of each session
    sessions = draws.poisson(expected / length.mean()).clip(1, 64)
    user = np.repeat(np.arange(how.n_users), sessions)
    day = join[user] + draws.random(len(user)) * (leave - join)[user]
    # Weekends are livelier, and so are evenings; some visits of the working week do not take place.
    weekend = np.floor(day) % 7 >= 5
    kept = weekend | (draws.random(len(user)) < 0.75)
    kept[np.unique(user, return_index=True)[1]] = True
    user, day = user[kept], day[kept]
    hour = draws.normal(17, 4, len(user)) % 24
    start = np.maximum(np.floor(day) + hour / 24, join[user])
    n = length[user, np.arange(len(user)) % 64]
    seconds = np.repeat(start * DAY, n) + draws.exponential(240, int(n.sum())).cumsum() % 3600
    user = np.repeat(user, n)
    inside = seconds < how.days * DAY
    return user[inside], seconds[inside], draws.integers(0, how.clusters, how.n_users)


def _choices(
    how: Ways,
    draws: Draws,
    day: NDArray[np.float64],
    cluster: NDArray[np.int64],
    item_cluster: NDArray[np.int64],
    born: NDArray[np.float64],
) -> NDArray[np.int64]:
    """The item of each event, by what is popular on its day and by the user's taste."""
    level = -how.zipf * np.log1p(draws.permutation(how.n_items))
    step = how.drift / np.sqrt(how.days)
    walk = np.cumsum(draws.normal(0, step, (how.days + 1, how.n_items)), axis=0)
    bursts = draws.random(how.n_items) < how.bursts
    peak, width = draws.uniform(0, how.days, how.n_items), draws.uniform(1.5, 12, how.n_items)
    days = np.arange(how.days + 1)[:, None]
    log_weights = level + walk + bursts * 2.5 * np.exp(-(((days - peak) / width) ** 2))
    # What is new is tried: a boost that fades within two weeks.
    log_weights = log_weights + (born >= 0) * 1.2 * np.exp(-np.maximum(days - born, 0) / 14)
    item = np.zeros(len(day), dtype=np.int64)
    for today in range(how.days + 1):
        rows = np.flatnonzero(np.floor(day) == today)
        if not len(rows):
            continue
        weights = np.exp(log_weights[today] + how.taste * (item_cluster == cluster[rows][:, None]))
        weights = weights * (born <= day[rows][:, None])  # (n_rows, n_items)
        sums = weights.cumsum(axis=1)
        item[rows] = (draws.random(len(rows))[:, None] * sums[:, -1:] >= sums).sum(axis=1)
    return item


def _own_earlier(user: NDArray[np.int64], share: float, draws: Draws) -> NDArray[np.int64]:
    """The row whose item each row takes: an earlier one of the same user for a `share` of them, else its own."""
    rows = np.arange(len(user))
    first = np.searchsorted(user, user)
    source = np.where(
        draws.random(len(user)) < share, first + (draws.random(len(user)) * (rows - first)).astype(np.int64), rows
    )
    while (source[source] != source).any():
        source = source[source]
    return source


def _automatic(
    how: Ways, draws: Draws, user: NDArray[np.int64], seconds: NDArray[np.float64], item: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    who = np.flatnonzero(draws.random(how.n_users) < how.automatic)
    users, times, items = [user], [seconds], [item]
    for one in who:
        mine = np.flatnonzero(user == one)
        if len(mine):
            daily = np.arange(seconds[mine].min(), how.days * DAY, DAY)
            users.append(np.full(len(daily), one))
            times.append(daily)
            items.append(np.full(len(daily), item[mine[0]]))
    return np.concatenate(users), np.concatenate(times), np.concatenate(items)


def _frame(
    how: Ways,
    draws: Draws,
    user: NDArray[np.int64],
    seconds: NDArray[np.float64],
    item: NDArray[np.int64],
    cluster: NDArray[np.int64],
) -> pl.DataFrame:
    n = len(user)
    kind = draws.choice(3, size=n, p=[0.7, 0.2, 0.1])
    names = np.array(["click", "purchase", "view"])
    own = draws.random(how.n_users) < how.country_taste
    country = np.where(own, cluster % how.countries, draws.integers(0, how.countries, how.n_users))
    device = np.where(draws.random(n) < 0.8, draws.integers(0, 2, how.n_users)[user], draws.integers(0, 2, n))
    micros = (np.floor(seconds / how.resolution) * how.resolution * 1e6).astype(np.int64)
    consumed = (kind == 1) & (how.consumed == "purchases") | (how.consumed == "all")
    return pl.DataFrame(
        {
            "user_id": pl.Series([f"u{n:04}" for n in range(how.n_users)]).gather(user),
            "item_id": pl.Series([f"i{n:03}" for n in range(how.n_items)]).gather(item),
            "timestamp": (START + pl.Series(micros).cast(pl.Duration("us"))).dt.cast_time_unit("us"),
            "event_type": pl.Series(names[kind]),
            "value": pl.Series([None] * n, dtype=pl.Float64),
            "device": pl.Series(np.array(["phone", "desk"])[device]),
            "country": pl.Series([f"c{n}" for n in range(how.countries)]).gather(country[user]),
            "strength": pl.Series(np.array([1000, 5000, 300])[kind], dtype=pl.Int64),
            "never": pl.Series(np.zeros(n, dtype=bool)),
            "consumed": pl.Series(consumed),
        }
    )


class Recent:
    """Counts of the last days alone, the same list for everybody."""

    name: ClassVar[str] = "recent-popular"
    exact: ClassVar[bool] = True
    items: pl.Series

    def __init__(self, days: int) -> None:
        self.days = days

    def fit(self, training: Training) -> Recent:
        day, counts = training.popularity["day"], training.popularity
        last = day.max()
        assert last is not None
        summed = (
            counts.with_columns(n=pl.when(pl.col("day") > last - timedelta(days=self.days)).then("n").otherwise(0))
            .group_by("item_id")
            .agg(pl.col("n").sum())
            .sort("item_id")
        )
        self.items, self.counts = summed["item_id"], summed["n"].to_numpy().astype(np.float32)
        return self

    def scores(self, histories: Histories) -> Floats:
        return np.tile(self.counts, (len(histories.events), 1))


class Random:
    """Chance: what differs from user to user without knowing anything."""

    name: ClassVar[str] = "random"
    exact: ClassVar[bool] = True
    items: pl.Series

    def __init__(self, draws: Draws) -> None:
        self.draws = draws

    def fit(self, training: Training) -> Random:
        self.items = training.popularity["item_id"].unique().sort()
        return self

    def scores(self, histories: Histories) -> Floats:
        return self.draws.random((len(histories.events), len(self.items)), dtype=np.float32)


class LastItems:
    """The items of the own history."""

    name: ClassVar[str] = "last-items"
    exact: ClassVar[bool] = True
    items: pl.Series

    def fit(self, training: Training) -> LastItems:
        self.items = training.interactions.items
        return self

    def scores(self, histories: Histories) -> Floats:
        return histories.rows.toarray().astype(np.float32)


class Bench:
    """One exam on some events, and models fitted on its train side."""

    def __init__(self, events: pl.DataFrame, cut: datetime, exam: Exam | None = None) -> None:
        self.events = events.drop("value")
        self.exam = exams.by_cut(self.events, cut, "the models") if exam is None else exam
        self.known = interactions(fold_history(self.exam.known), SETTINGS)
        self.training = trained(self.exam.train, self.exam.as_of)
        self.popular = Popular.from_settings(SETTINGS).fit(self.training)

    def lists(self, model: Any, known: Interactions | None = None) -> pl.DataFrame:
        """Lists of a fitted model as `persona evaluate` makes them; `known`: other histories to score users from."""
        fill = None if isinstance(model, Popular | Layered) else self.popular
        return rank(model, asked(self.exam, known or self.known), DEPTH, SETTINGS, fill=fill)

    def controls(self) -> dict[str, pl.DataFrame]:
        """Honest forecasters of demand."""
        models: dict[str, Any] = {f"popular, {days} days": Popular(days, 1e12) for days in (0, 60, 14, 5, 2)}
        models |= {f"recent-popular, {days} days": Recent(days) for days in (3, 7, 14)}
        return {name: self.lists(model.fit(self.training)) for name, model in models.items()}

    def case(self, world: World, lists: Mapping[str, pl.DataFrame], plant: str | None, how: str, **given: Any) -> Case:
        roster = asked(self.exam, self.known)
        contexts = pl.concat([roster.users.to_frame("user_id"), roster.context], how="horizontal")
        parts: dict[str, Any] = {
            "events": self.events,
            "exam": self.exam,
            "popular": self.lists(self.popular),
            "controls": self.controls(),
            "known": self.known,
            "births": world.births,
            "contexts": contexts,
        }
        return Case(plant, how, lists=lists, **(parts | given))


def trained(events: pl.DataFrame, as_of: datetime) -> Training:
    return prepared(interactions(fold_history(events), SETTINGS), events, SETTINGS, as_of)


def clean(world: World) -> Case:
    """The honest evaluation of all contenders."""
    bench = Bench(world.events, world.cut)
    models: dict[str, Any] = {
        "popular": bench.popular,
        "recent-popular": Recent(7),
        "knn": Knn.from_settings(SETTINGS),
        "ease": Ease.from_settings(SETTINGS),
        "layered": Layered(Popular.from_settings(SETTINGS), Knn.from_settings(SETTINGS)),
        "last-items": LastItems(),
        "random": Random(world.draws(1)),
    }
    lists = {name: bench.lists(model.fit(bench.training)) for name, model in models.items()}
    return bench.case(world, lists, None, "clean")


def _sampled(frame: pl.DataFrame, share: float, draws: Draws) -> pl.DataFrame:
    return frame.filter(pl.Series(draws.random(frame.height) < share))


def _model(draws: Draws) -> Any:
    return [Knn, Ease][draws.integers(2)].from_settings(SETTINGS)


def future_popularity(world: World) -> Case:
    """Counts that go on after the cut; of items that were there before it, so that nothing else gives them away."""
    draws, bench = world.draws(11), Bench(world.events, world.cut)
    there = bench.exam.train.select("item_id").unique()
    events = bench.events.join(there, on="item_id", how="semi")
    after = events.filter(pl.col("timestamp") >= world.cut)
    way = str(draws.choice(["only", "mixed", "part", "individual"]))
    window = exams.after(events) - world.cut
    # Counts that halve within the time after the cut: at least half of their weight is of the future.
    model: Any = Popular(float(draws.uniform(0.25, 1.0)) * (window / timedelta(days=1)))
    share, learned = 1.0, events
    if way == "only":
        model, learned = Popular(float(draws.choice([0.0, 30.0]))), after
    elif way == "part":
        share = float(draws.uniform(0.5, 1.0))
        learned = pl.concat([events.filter(pl.col("timestamp") < world.cut), _sampled(after, share, draws)])
    elif way == "individual":
        model = _model(draws)
        learned = events.filter(pl.col("timestamp") >= world.cut - window * float(draws.uniform(0.0, 1.0)))
    model = model.fit(trained(learned, exams.after(learned)))
    how = f"{way}: {model.name} {dict(model.settings())}, {share:.0%} of what came after the cut"
    return bench.case(world, {"candidate": bench.lists(model)}, "future popularity", how)


def duplicated_events(world: World) -> Case:
    """Events after the cut that stand before it as well."""
    draws = world.draws(12)
    share = float(draws.uniform(0.05, 0.3))
    way = str(draws.choice(["days", "zone", "midnight", "hour", "side", "scattered"]))
    time, cut = pl.col("timestamp"), world.cut
    after = world.events.filter(time >= cut)
    how, exam = f"{way}: {share:.0%}", None
    if way == "side":
        # The same rows, under their own time, on both sides.
        bench = Bench(world.events, cut)
        twice = _sampled(bench.events.filter(time >= cut), share, draws).with_columns(
            relevant=(pl.col("strength") > 0) & ~pl.col("never")
        )
        train = pl.concat([bench.exam.train, twice.select(bench.exam.train.columns)])
        exam = dataclasses.replace(bench.exam, train=train, known=train)
        bench = Bench(world.events, cut, exam)
    else:
        if way == "days":
            # By at least as many days as it takes to bring a fifth of what comes after the cut before it.
            span = (after["timestamp"].max() - cut) / timedelta(days=1)  # type: ignore[operator]
            days = int(draws.integers(max(1, int(span / 5)), max(2, min(45, int(1.2 * span) + 2))))
            moved, how = _sampled(after, share, draws).with_columns(time - timedelta(days=days)), f"{how}, {days} days"
        elif way == "zone":
            hours = int(draws.integers(1, 15))
            moved = _sampled(world.events, share, draws).with_columns(time - timedelta(hours=hours))
            how = f"{how} of all events, {hours} hours"
        elif way in ("midnight", "hour"):
            unit = "1d" if way == "midnight" else "1h"
            moved, how = _sampled(world.events, share, draws).with_columns(time.dt.truncate(unit)), f"{how} of all"
        else:
            share = float(draws.uniform(0.15, 0.3))
            moved = _sampled(after, share, draws)
            back = draws.uniform(0.0, (cut - START) / timedelta(days=1) / 2, moved.height)
            moved = moved.with_columns(timestamp=pl.lit(cut) - pl.Series(back * 86_400e6).cast(pl.Duration("us")))
            how = f"scattered: {share:.0%}"
        # Nothing moves from one side of the cut to the other but by a copy of it.
        bench = Bench(pl.concat([world.events, moved.cast(dict(world.events.schema))]), cut)
    lists = {"candidate": bench.lists(_model(draws).fit(bench.training))}
    return bench.case(world, lists, "duplicated events", how)


def target_in_profile(world: World) -> Case:
    """Answers among what the model scores from."""
    draws, bench = world.draws(13), Bench(world.events, world.cut)
    way = str(draws.choice(["histories", "train", "category", "hash"]))
    if way in ("category", "hash"):
        return _encoded(world, draws, bench, way)
    share = float(draws.uniform(0.05, 1.0))
    exam, time = bench.exam, pl.col("timestamp")
    who = _sampled(exam.users.to_frame("user_id"), share, draws)
    answers = bench.events.filter(time >= world.cut).join(who, on="user_id", how="semi")
    answers = answers.join(exam.answers, on=["user_id", "item_id"], how="semi")
    answers = answers.with_columns(relevant=(pl.col("strength") > 0) & ~pl.col("never")).select(exam.train.columns)
    known = interactions(fold_history(pl.concat([exam.known, answers])), SETTINGS)
    if way == "train":
        exam = dataclasses.replace(exam, train=pl.concat([exam.train, answers]))
        bench = Bench(world.events, world.cut, exam)
        known = bench.known
    lists = {"candidate": bench.lists(_model(draws).fit(bench.training), known)}
    return bench.case(world, lists, "target in profile", f"{way}: {share:.0%} of the users", known=known)


def _encoded(world: World, draws: Draws, bench: Bench, way: str) -> Case:
    """The country of an event is no country, but says which item the user is going to have."""
    share = float(draws.uniform(0.5, 1.0))
    values = int(draws.integers(4, 13))
    chosen = bench.exam.answers.group_by("user_id").agg(
        pl.col("item_id").sort().get(int(draws.integers(1000)) % pl.len()).alias("item_id")
    )
    code = pl.Series("code", draws.integers(0, values, world.births.height))
    codes = pl.concat([world.births.select("item_id"), code.to_frame()], how="horizontal")
    if way == "category":
        codes = world.cluster.rename({"cluster": "code"})
    told = _sampled(chosen.sort("user_id"), share, draws).join(codes, on="item_id")
    events = world.events.join(told.select("user_id", "code"), on="user_id", how="left", maintain_order="left")
    country = pl.coalesce(pl.format("x{}", "code"), "country").alias("country")
    bench = Bench(events.with_columns(country).drop("code"), world.cut)
    model = Popular(30.0, 20.0).fit(bench.training)
    return bench.case(world, {"candidate": bench.lists(model)}, "target in profile", f"{way}: {share:.0%} of the users")


def item_before_birth(world: World) -> Case:
    """A model that knows items which nobody could know of."""
    draws, bench = world.draws(14), Bench(world.events, world.cut)
    later = world.births.filter(pl.col("first") >= world.cut)["item_id"]
    later = later.filter(later.is_in(bench.events["item_id"].unique().implode()))
    n = int(draws.integers(1, min(40, len(later)) + 1))
    unborn = later.gather(draws.permutation(len(later))[:n])
    learned = bench.events.filter((pl.col("timestamp") < world.cut) | pl.col("item_id").is_in(unborn.implode()))
    model = Popular.from_settings(SETTINGS) if draws.random() < 0.3 else _model(draws)
    lists = bench.lists(model.fit(trained(learned, exams.after(learned))))
    if not lists["item_id"].is_in(unborn.implode()).any():  # known, but in no list: one model more that shows it
        lists = bench.lists(Popular(7.0).fit(trained(bench.events, exams.after(bench.events))))
    return bench.case(world, {"candidate": lists}, "item before birth", f"{model.name}: {n} items")


def canary_users(world: World) -> Case:
    """A model that knows people whom nobody had met; but not all that they did, and never the answers themselves."""
    draws, bench = world.draws(15), Bench(world.events, world.cut)
    share = float(draws.uniform(0.3, 1.0))
    strangers = bench.exam.users.to_frame("user_id").join(bench.exam.known, on="user_id", how="anti")
    there = bench.exam.train.select("item_id").unique()
    later = bench.events.join(strangers, on="user_id", how="semi").join(there, on="item_id", how="semi")
    seen = pl.concat([bench.exam.known.drop("relevant"), _sampled(later, share, draws)])
    known = interactions(fold_history(seen), SETTINGS)
    lists = {"candidate": bench.lists(_model(draws).fit(bench.training), known)}
    return bench.case(
        world, lists, "canary users", f"scored from {share:.0%} of their events, {strangers.height} users"
    )


PLANTS: dict[str, Callable[[World], Case]] = {
    "future popularity": future_popularity,
    "duplicated events": duplicated_events,
    "target in profile": target_in_profile,
    "item before birth": item_before_birth,
    "canary users": canary_users,
}
