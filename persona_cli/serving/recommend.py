"""Lists for users: what is served, whom it is based on, and the frames that are written out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.events.catalogue import unavailable
from persona_cli.models import registry
from persona_cli.models.base import known, reads_order, reads_queries
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.ranking import Lists, Ranking, ranking
from persona_cli.models.registry import Saved
from persona_cli.profiles.identity import persons
from persona_cli.profiles.people import members
from persona_cli.profiles.permitted import PERSONALIZATION
from persona_cli.profiles.sync import behind
from persona_cli.serving.context import Audience, audience
from persona_cli.serving.rule_settings import rules_of
from persona_cli.serving.rules import Ruled, ruling
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

if TYPE_CHECKING:
    from persona_cli.serving.reasons import Reasons, Told

log = logging.getLogger("persona")
DIGITS = 5
"""Significant digits of a score in lists: shares of popularity are small, so places after the point would not do."""


@dataclass(frozen=True)
class Recommendations:
    """Lists to come, block by block, sorted by user."""

    model: str
    """What made them, as `layered/7`."""
    users: int
    holdout: int
    """How many of them are held out."""
    blocks: Iterator[pl.DataFrame]
    """user_id, items (list of {item_id, score[, propensity][, reasons, shares[, rules]]}), model, base, stage,
    holdout (true or null), and consent (false or null) where personalization does not cover somebody; before holdout,
    where asked to explain, layers, and where there are rules, rules: what gave way (list of texts, or null)."""
    context: pl.DataFrame
    """device and country that each list was made for, null where none was (n_users)."""


def recommend(
    home: Home,
    *,
    users: pl.Series | None = None,
    segment: str | None = None,
    candidates: pl.Series | pl.DataFrame | None = None,
    top: int | None = None,
    model: str | None = None,
    as_of: datetime | None = None,
    context: Mapping[str, str] | None = None,
    explain: bool = False,
    include_holdout: bool = False,
) -> Recommendations:
    """The `top` best items of every user (default: all who are known), best first.

    Of a `segment` of persona.toml, as it is at `as_of`, only the members get lists; of `users`, those who are members.
    Unknown users get the popular list, and so do those whom personalization does not cover. Nothing consumed, blocked
    or unavailable is in a list, and `[rules]` of persona.toml hold (`serving.rules`). `candidates` are the items to
    rank, or pairs (user_id, item_id), whose users are then
    those asked unless others are given. `model` is a reference such as `ease/3`; where it says nothing the popular list
    goes on. MissingInput where nothing was trained, nobody is known or no segment has that name.
    """
    saved = registry.load_model(home, model)
    if as_of is None and (reason := behind(home)) is not None:
        log.warning("the profiles are behind the events (%s); run: persona profile build", reason)
    if as_of is not None and saved.trained_until > as_of:
        log.warning(
            "%s was trained on events after %s; for a model of then: persona train --as-of", saved.reference, as_of
        )
    if users is None and isinstance(candidates, pl.DataFrame):
        users = candidates["user_id"]
    if segment is not None:
        users = in_segment(home, segment, users, as_of)
    reads = {"ordered": reads_order(saved.model), "queries": reads_queries(saved.model)}
    asked = audience(home, users, as_of, context, include_holdout, **reads)
    settings = saved.recipe(home.settings)
    popular, fill = filling(home, saved)
    rules = rules_of(home.settings)
    ruled = None if rules is None else ruling(home, rules, asked, as_of)
    made = ranking(
        saved.model,
        asked,
        top or settings.whole("recommend.top"),
        settings,
        fill=fill,
        only=candidates,
        never=unavailable(home, as_of),
        choosing=ruled,
    )
    labels = pl.DataFrame(
        {
            "user_id": asked.users,
            "model": pl.repeat(saved.reference, len(asked.users), eager=True),
            "base": bases(saved, popular, asked, settings),
            "stage": asked.stages(settings),
            "holdout": pl.Series(asked.holdout).replace_strict({True: True, False: None}, return_dtype=pl.Boolean),
        }
    )
    if asked.generic is not None:
        labels = labels.with_columns(consent=pl.Series(asked.generic).replace_strict({True: False, False: None}))
    reasons = None
    if explain:
        from persona_cli.serving.reasons import Reasons

        reasons = Reasons(home, saved, asked, settings, fill, ruled)
    blocks = _frames(made, labels, reasons)
    return Recommendations(saved.reference, len(asked.users), int(asked.holdout.sum()), blocks, asked.context)


def in_segment(home: Home, segment: str, users: pl.Series | None, as_of: datetime | None) -> pl.Series:
    """The members of a segment, or those of `users` who are; any id of a person stands for them."""
    found = members(home, segment, as_of=as_of, purpose=PERSONALIZATION)
    if users is not None:
        asked = users.unique().sort()
        found = asked.filter(persons(home, as_of).of(asked).is_in(found.implode()))
    if not len(found):
        log.warning("nobody %s is in the segment %s", "known" if users is None else "asked for", segment)
    return found


def filling(home: Home, saved: Saved) -> tuple[str, Popular | None]:
    """The popular list behind a model: its reference and, where the model has none inside, the list to fill with."""
    if saved.name == "popular":
        return saved.reference, None
    if isinstance(saved.model, Layered):
        return saved.parts["popular"], None
    found = registry.load_model(home, "popular")
    assert isinstance(found.model, Popular)
    return found.reference, found.model


def bases(saved: Saved, popular: str, asked: Audience, settings: Settings) -> pl.Series:
    """What each user's list stands on: the individual model, as `ease/3`, or the popular list (n_users,)."""
    individual = saved.parts.get("individual") if isinstance(saved.model, Layered) else saved.reference
    if individual is None or saved.name == "popular":
        return pl.repeat(popular, len(asked.users), eager=True).alias("base")
    histories = asked.histories(saved.model.items, settings)
    own = saved.model.weights(histories) > 0 if isinstance(saved.model, Layered) else known(saved.model, histories)
    personal = pl.DataFrame({"own": own})
    return personal.select(pl.when("own").then(pl.lit(individual)).otherwise(pl.lit(popular))).to_series().alias("base")


def _frames(made: Ranking, labels: pl.DataFrame, reasons: Reasons | None) -> Iterator[pl.DataFrame]:
    # Where nobody is asked there is one block of nobody, so that every format has its columns.
    nobody = Lists(0, np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0), dtype=np.float32))
    for lists in made.blocks if labels.height else [nobody]:
        told = None if reasons is None else reasons.of(lists, made.vocabulary)
        block = labels.slice(lists.start, len(lists.places))
        if told is not None:
            block = block.insert_column(block.columns.index("holdout"), told.layers)
        if isinstance(lists, Ruled):
            block = block.insert_column(block.columns.index("holdout"), _gave_way(lists))
        yield block.insert_column(1, _nested(lists, made.vocabulary, told))


def _gave_way(lists: Ruled) -> pl.Series:
    """What gave way in each list, in words; null where nothing did (n_users,)."""
    words = pl.Series([f"{name} gave way" for name in lists.names], dtype=pl.String)
    row, which = np.nonzero(lists.gave_way)
    said = pl.DataFrame({"row": row, "rules": words.gather(which)}).group_by("row", maintain_order=True).all()
    every = pl.DataFrame({"row": np.arange(len(lists.places))})
    return every.join(said, on="row", how="left", maintain_order="left")["rules"]


def _nested(lists: Lists, vocabulary: pl.Series, told: Told | None) -> pl.Series:
    """The lists as a column of lists of {item_id, score[, propensity][, reasons, shares[, rules]]} (n_users,)."""
    there = (lists.scores > -np.inf).ravel()
    columns: list[pl.Series] = [
        vocabulary.gather(lists.places.ravel()[there]).rename("item_id"),
        rounded(lists.scores.ravel()[there]).rename("score"),
    ]
    if isinstance(lists, Ruled) and lists.propensity is not None:
        columns.append(rounded(lists.propensity.ravel()[there]).rename("propensity"))
    if told is not None:
        columns += [told.words, told.shares, *([] if told.rules is None else [told.rules])]
    ends = np.concatenate(([0], np.cumsum(lists.lengths)))
    return nested(columns, ends).alias("items")


def nested(columns: list[pl.Series], ends: NDArray[np.int64]) -> pl.Series:
    """Consecutive rows of `columns` as lists of structs; `ends` (n_lists + 1,) says where each begins and ends."""
    entries = pl.DataFrame(columns).to_struct("entries").rechunk().to_arrow()
    # `pa.array` of a numpy array would load pandas, where it is installed.
    offsets = pa.Array.from_buffers(pa.int64(), len(ends), [None, pa.py_buffer(np.ascontiguousarray(ends, np.int64))])
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, entries)))


def rounded(scores: NDArray[Any]) -> pl.Series:
    """Scores to `DIGITS` significant digits, rounded in float64 so that they print short."""
    return pl.Series(scores.astype(np.float64)).to_frame("s").select(pl.col("s").round_sig_figs(DIGITS)).to_series()
