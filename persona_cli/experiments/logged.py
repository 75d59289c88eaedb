"""Off-policy evidence out of logged decisions: what was drawn by chance earned something, and says what others would.

Lists are ranked, so most of their entries say nothing of what another ranking would have earned: they were certain. The
entries that `rules.exploration` draws are the exception. Each was drawn from candidates with a propensity that was
logged, so those that another ranking would have put there stand for what it would earn *in such a slot*. The policy in
question is thus: take a drawn slot, and put there, each as likely, one of the items of MODEL's list (its k best for
that person, as of the decision, k the length of the served list) that the page does not show already. With |T| of
those, w = 1[shown in T] / |T| / propensity. Items of T that were no candidates cannot be drawn, and the mean weight
falls short of 1 by their share: SNIPS is of the others, DM and DR guess them by the reward model, IPS counts them as
nothing.

Elsewhere (variants of experiments, arms of surfaces) the policy in question is "always this arm", or given shares.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData, MissingInput, Refused
from persona_cli.events.catalogue import described, unavailable
from persona_cli.experiments import off_policy
from persona_cli.experiments.inference import Estimated
from persona_cli.feedback import decisions as decided
from persona_cli.feedback.outcomes import join
from persona_cli.models import registry
from persona_cli.models.base import reads_order, reads_queries
from persona_cli.models.ranking import as_frame, ranking
from persona_cli.models.registry import Saved
from persona_cli.profiles.permitted import ANALYTICS, person_events
from persona_cli.serving import GENERIC
from persona_cli.serving.context import audience
from persona_cli.serving.recommend import filling
from persona_cli.serving.rule_settings import on_surface, rules_of
from persona_cli.serving.rules import ruling
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
Reward = Literal["click", "conversion"]
REWARDS: dict[str, str] = {"click": "clicks", "conversion": "conversions"}
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_CATEGORIES = 20
"""The categories that the reward model tells apart, the most drawn."""
_ARMS = 50


class Drawn(NamedTuple):
    """Logged lists with entries drawn by chance, of people who are personalised."""

    decisions: pl.DataFrame
    """decision_id, at, person, stage, listed, moment (of the ranking call that serves it)."""
    entries: pl.DataFrame
    """Every entry of theirs: decision_id, item_id, position, propensity, drawn, seen, reward."""
    slots: pl.DataFrame
    """Those drawn and seen, sorted: slot, decision_id, item_id, position, propensity, reward, person, at, stage."""


class Entry(NamedTuple):
    """One policy, estimated; the estimates are None where the effective sample is too small for any."""

    name: str
    rows: int
    people: int
    ess: float
    largest: float
    mean_weight: float
    ips: Estimated | None
    snips: Estimated | None
    dm: Estimated | None
    dr: Estimated | None
    gain: Estimated | None
    """SNIPS less what was logged in the same rows."""
    logged: Estimated
    """The mean reward of the same rows as they were logged."""
    probabilities: pl.DataFrame
    """decision_id, propensity, probability (under the policy), reward of each row."""
    aside: int = 0
    """Drawn slots for which the policy has nothing that the page does not show already."""

    @property
    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        values = ("ips", "snips", "dm", "dr", "gain", "logged")
        plain = {name: value for name, value in self._asdict().items() if name not in (*values, "probabilities")}
        return plain | {name: value_record(getattr(self, name)) for name in values}


def value_record(value: Estimated | None) -> dict[str, float | None] | None:
    if value is None:
        return None
    return {name: None if np.isnan(one) else one for name, one in value._asdict().items()}


def drawn_slots(
    home: Home,
    surface: str = decided.LISTS,
    reward: Reward = "click",
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
) -> Drawn:
    """The drawn entries of lists of a surface made from `since` on and before `until`, with what was earned by `as_of`.

    Where impressions of the surface are sent, entries count that were seen by an impression (a click alone would let in
    only those that earned); merged lists of interleaving are left out. MissingInput where nothing was drawn.
    """
    found = join(home, since, until, as_of)
    made = decided.read(home, since=since, until=until, as_of=as_of)
    made = made.filter(pl.col("surface") == surface, pl.col("choice").is_null(), pl.col("items").list.len() > 0)
    runs = made.select("decision_id", "run").collect()
    rows = found.decisions.join(runs, on="decision_id").filter(
        ~pl.col("holdout").fill_null(False), pl.col("stage").fill_null("") != GENERIC
    )
    entries = found.items.join(rows.select("decision_id", "tracked"), on="decision_id").select(
        "decision_id",
        "item_id",
        "position",
        pl.col("propensity").fill_null(1.0),
        drawn=pl.col("propensity").fill_null(1.0) < 1,
        seen=~pl.col("tracked") | (pl.col("impressions") > 0),
        reward=(pl.col(REWARDS[reward]) > 0).cast(pl.Float64),
    )
    explored = entries.filter("drawn").select("decision_id").unique()
    rows = rows.join(explored, on="decision_id", how="semi").sort("at", "decision_id")
    if not rows.height:
        lists = f"{runs.height:,} lists of {surface!r} are logged, and no entry of them was drawn by chance"
        raise MissingInput(
            lists if runs.height else f"no list of {surface!r} is logged in that time",
            "in persona.toml: [rules] exploration = { share = 0.1 }; then persona recommend --log",
        )
    # One ranking call serves all decisions of a run, else of an hour: with what was known when the first was made.
    batch = pl.coalesce("run", pl.col("at").dt.truncate("1h").cast(pl.String))
    rows = rows.with_columns(moment=pl.col("at").min().over(batch)).rename({"user_id": "person"})
    rows = rows.select("decision_id", "at", "person", "stage", "listed", "moment")
    entries = entries.join(rows.select("decision_id"), on="decision_id", how="semi")
    if not entries.filter("drawn", "seen").height:
        raise MissingInput(
            f"{rows.height:,} lists of {surface!r} have drawn entries, and none of these was seen by an impression, "
            "which are sent for others",
            "send impressions of these lists, with their decision_id",
        )
    slots = entries.filter("drawn", "seen").join(rows.select("decision_id", "person", "at", "stage"), on="decision_id")
    slots = slots.sort("at", "decision_id", "position").drop("drawn", "seen").with_row_index("slot")
    return Drawn(rows, entries, slots.with_columns(pl.col("slot").cast(pl.Int64)))


def of_model(
    home: Home,
    drawn: Drawn,
    model: str | None,
    *,
    rules: Mapping[str, Any] | None = None,
    explored: float = 0.0,
    force: bool = False,
) -> Entry:
    """What an item of a model's list would earn in a drawn slot; see the module.

    `rules` go over those of persona.toml. With `explored` over 0 so large a share of the entries is drawn as it was in
    the log. A warning is logged where the model learned from events after the decisions. Raises MissingInput for a
    model that is not there, BadSettings for rules that cannot be.
    """
    saved = registry.load_model(home, model)
    late = int((drawn.decisions["moment"] < saved.trained_until).sum())
    if late:
        log.warning(
            "%s was trained on events after %s of these %s decisions, perhaps on what became of them: it looks better "
            "than it is; for a model of then: persona train --as-of",
            saved.reference,
            f"{late:,}",
            f"{drawn.decisions.height:,}",
        )
    settings = on_surface(home.settings, {**(rules or {}), "rules.exploration.share": 0.0})
    asked = _asked(drawn, _lists(home, drawn, saved, settings))
    there = asked["slot"].unique().sort()
    slots = drawn.slots.filter(pl.col("slot").is_in(there.implode()))
    if not slots.height:
        raise Refused(
            f"every item of {saved.reference}'s lists stands on the page already, so drawn entries say nothing of it"
        )
    row = np.searchsorted(there.to_numpy(), asked["slot"].to_numpy()).astype(np.int64)
    share = (1.0 - explored) / np.bincount(row)[row]
    shown = asked["shown"].to_numpy()
    propensity = slots["propensity"].to_numpy()
    target = np.bincount(row[shown], share[shown], slots.height) + explored * propensity
    people = slots["person"].rank("dense").cast(pl.Int64).to_numpy()
    reward = slots["reward"].to_numpy()

    def modelled() -> off_policy.Modelled:
        features = _features(home, drawn, slots)
        theirs = _features(home, drawn, asked.join(slots.drop("item_id"), on="slot", how="left", maintain_order="left"))
        found = off_policy.cross_fitted_pairs(features, reward, theirs, row, share, people)
        return found._replace(v=found.v + explored * found.q)  # what was drawn stands for all that could have been

    found = estimated(saved.reference, slots["decision_id"], reward, propensity, target, people, modelled, force)
    return found._replace(aside=drawn.slots.height - slots.height)


def estimated(
    name: str,
    ids: pl.Series,
    reward: Floats,
    propensity: Floats,
    target: Floats,
    people: Ints,
    modelled: Callable[[], off_policy.Modelled],
    force: bool = False,
) -> Entry:
    """All estimates of a policy by its probabilities (n,) of what was logged; people are the clusters.

    `modelled` fits the reward model; of fewer people than folds there is none, and neither DM nor DR.
    """
    found = off_policy.weights(propensity, target)
    n = len(np.unique(people))
    entry = Entry(
        name, len(reward), n, found.ess, found.largest, found.mean, None, None, None, None, None,
        off_policy.ips(reward, np.ones(len(reward)), people),
        pl.DataFrame({"decision_id": ids, "propensity": propensity, "probability": target, "reward": reward}),
    )  # fmt: skip
    if not found.ess or (found.ess < off_policy.SMALLEST_ESS and not force):
        return entry
    direct = doubly = None
    try:
        by = modelled()
    except BadData:
        log.info("%s: too few people for a reward model, so neither DM nor DR", name)
    else:
        direct, doubly = off_policy.dm(by.v, people), off_policy.dr(reward, found.w, by.q, by.v, people)
    return entry._replace(
        ips=off_policy.ips(reward, found.w, people),
        snips=off_policy.snips(reward, found.w, people),
        dm=direct,
        dr=doubly,
        gain=off_policy.gain(reward, found.w, people),
    )


def served(drawn: Drawn) -> Estimated:
    """What was earned by an entry that was ranked, not drawn, on the same pages: a plain mean."""
    ranked = drawn.entries.filter(~pl.col("drawn"), pl.col("seen"))
    ranked = ranked.join(drawn.decisions.select("decision_id", "person"), on="decision_id")
    people = ranked["person"].rank("dense").cast(pl.Int64).to_numpy()
    return off_policy.ips(ranked["reward"].to_numpy(), np.ones(ranked.height), people)


def _lists(home: Home, drawn: Drawn, saved: Saved, settings: Settings) -> pl.DataFrame:
    """decision_id, item_id of the model's list for each decision, as long as the served one, nothing drawn."""
    _, fill = filling(home, saved)
    rules = rules_of(settings)
    recipe = saved.recipe(settings)
    parts = []
    for (moment,), group in drawn.decisions.group_by("moment", maintain_order=True):
        assert isinstance(moment, datetime)
        ordered, queries = reads_order(saved.model), reads_queries(saved.model)
        asked = audience(home, group["person"].unique(), moment, ordered=ordered, queries=queries)
        made = ranking(
            saved.model,
            asked,
            int(group["listed"].max()),  # type: ignore[arg-type]
            recipe,
            fill=fill,
            never=unavailable(home, moment),
            choosing=None if rules is None else ruling(home, rules, asked, moment),
        )
        for lists in made.blocks:
            rows = as_frame(lists, made.vocabulary, asked.users).rename({"user_id": "person"})
            theirs = group.select("decision_id", "person", "listed").join(rows, on="person")
            parts.append(theirs.filter(pl.col("rank") <= pl.col("listed")).select("decision_id", "item_id"))
    return pl.concat(parts)


def _asked(drawn: Drawn, lists: pl.DataFrame) -> pl.DataFrame:
    """slot, item_id, shown: what of the model's list could stand in each drawn slot, and which of it was drawn there.

    That is what no ranked entry and no entry drawn earlier shows already. Sorted by slot, item_id.
    """
    entries = drawn.entries.select("decision_id", "item_id", "drawn", stands="position")
    mine = lists.join(entries, on=["decision_id", "item_id"], how="left")
    pairs = drawn.slots.select("slot", "decision_id", "position").join(mine, on="decision_id")
    free = pl.col("stands").is_null() | (pl.col("drawn") & (pl.col("stands") >= pl.col("position")))
    shown = (pl.col("stands") == pl.col("position")).fill_null(False)
    return pairs.filter(free).select("slot", "item_id", shown=shown).sort("slot", "item_id")


def _features(home: Home, drawn: Drawn, rows: pl.DataFrame) -> Floats:
    """What the reward model reads of rows (person, stage, position, item_id), known before the first decision (n, d).

    Position; events of the item and of the person, as logarithms; stage; category.
    """
    first = drawn.decisions["moment"].min()
    assert isinstance(first, datetime)
    events = person_events(home, first, purpose=ANALYTICS).select(person="user_id", item_id="item_id")
    by_item = events.group_by("item_id").agg(popular=pl.len())
    by_person = events.group_by("person").agg(active=pl.len())
    found = rows.lazy().join(by_item, on="item_id", how="left", maintain_order="left")
    found = found.join(by_person, on="person", how="left", maintain_order="left")
    catalogue = described(home, first)
    columns = [
        pl.col("position").cast(pl.Float64),
        pl.col("popular").fill_null(0).log1p(),
        pl.col("active").fill_null(0).log1p(),
        *((pl.col("stage") == one).fill_null(False).cast(pl.Float64).alias(one) for one in ("context", "cohort")),
    ]
    if catalogue is not None:
        known = catalogue.select("item_id", "category")
        found = found.join(known.lazy(), on="item_id", how="left", maintain_order="left")
        often = drawn.slots.join(known, on="item_id").drop_nulls("category").group_by("category").len()
        names = often.sort(["len", "category"], descending=[True, False])["category"].head(_CATEGORIES)
        columns += [
            (pl.col("category") == name).fill_null(False).cast(pl.Float64).alias(f"category/{place}")
            for place, name in enumerate(names)
        ]
    return np.asarray(found.select(columns).collect().to_numpy(), dtype=np.float64)


class Arms(NamedTuple):
    """Logged decisions, one of a few arms each, drawn by chance."""

    ids: pl.Series
    names: tuple[str, ...]
    arm: Ints
    """Place in `names` (n,)."""
    propensity: Floats
    reward: Floats
    people: Ints
    features: Floats
    at: pl.Series
    seconds: Floats
    """From the decision to its reward; infinite without one (n,)."""


def arms(
    home: Home,
    surface: str,
    reward: Reward = "click",
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
) -> Arms:
    """Decisions of a surface that were drawn: by variant of an experiment where they have one, else by their choice.

    MissingInput where none was drawn, Refused where their choices are too many to be arms.
    """
    found = join(home, since, until, as_of).decisions.filter(pl.col("surface") == surface)
    chosen = pl.coalesce(pl.col("choice").str.json_path_match("$.arm"), "choice")
    made = decided.read(home, since=since, until=until, as_of=as_of).select("decision_id", chosen=chosen).collect()
    rows = found.join(made, on="decision_id").with_columns(arm=pl.coalesce("variant", "chosen"))
    there = pl.col("arm").is_not_null() & (pl.col("propensity") < 1) & ~pl.col("holdout").fill_null(False)
    rows = rows.filter(there, ~pl.col("tracked") | (pl.col("impressions") > 0)).sort("at", "decision_id")
    if not rows.height:
        raise MissingInput(
            f"of {found.height:,} logged decisions of {surface!r} none was drawn among variants or arms"
            if found.height
            else f"no decision of {surface!r} is logged in that time",
            "persona experiment start; of lists that explore: persona evaluate --off-policy MODEL",
        )
    names = rows["arm"].unique().sort()
    if len(names) > _ARMS:
        raise Refused(f"the decisions of {surface!r} have {len(names):,} different choices, too many to be arms")
    first = rows["at"].min()
    assert isinstance(first, datetime)
    active = person_events(home, first, purpose=ANALYTICS).group_by("user_id").agg(active=pl.len()).collect()
    rows = rows.join(active, on="user_id", how="left", maintain_order="left")
    stages = ((pl.col("stage") == one).fill_null(False).cast(pl.Float64).alias(one) for one in ("context", "cohort"))
    features = rows.select(pl.col("active").fill_null(0).log1p(), *stages).to_numpy()
    return Arms(
        rows["decision_id"],
        tuple(names),
        names.search_sorted(rows["arm"]).cast(pl.Int64).to_numpy(),
        rows["propensity"].to_numpy(),
        (rows[REWARDS[reward]] > 0).cast(pl.Float64).to_numpy(),
        rows["user_id"].rank("dense").cast(pl.Int64).to_numpy(),
        np.asarray(features, dtype=np.float64),
        rows["at"],
        rows[f"{reward}_seconds"].fill_null(np.inf).to_numpy(),
    )


def of_shares(found: Arms, name: str, shares: Floats, force: bool = False) -> Entry:
    """A policy that draws the arms by `shares` (k,), or (n, k) where they change from decision to decision."""
    policy = np.broadcast_to(shares, (len(found.arm), len(found.names)))
    target = policy[np.arange(len(found.arm)), found.arm]

    def modelled() -> off_policy.Modelled:
        return off_policy.cross_fitted(found.features, found.arm, found.reward, policy, found.people)

    return estimated(name, found.ids, found.reward, found.propensity, target, found.people, modelled, force)


def always(found: Arms, force: bool = False) -> list[Entry]:
    """Each arm, if everybody always got it."""
    each = np.eye(len(found.names))
    return [of_shares(found, name, each[place], force) for place, name in enumerate(found.names)]
