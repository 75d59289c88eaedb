"""Experiments in force: lists and decisions of everybody asked, each person's by the variant they are in.

Without a running experiment what is made is what `serving` makes, and nothing else is read. With one, people are parted
by what their variants change (several experiments of different layers add up), each part is made under its own
settings, and the parts are put together again in the order of users, block by block.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import UsageError
from persona_cli.experiments.assignment import NOBODY, allotted, layer_key
from persona_cli.experiments.running import BANDIT, INTERLEAVE, Experiment, load, running
from persona_cli.experiments.standing import people
from persona_cli.experiments.variants import MODEL, RECOMMEND, settings_with, surface_with
from persona_cli.feedback.decisions import MERGED, loggable
from persona_cli.profiles.identity import assignment_ids, persons
from persona_cli.profiles.permitted import PERSONALIZATION, allowed, in_holdout
from persona_cli.workspace.home import Home

if TYPE_CHECKING:
    from persona_cli.serving.recommend import Recommendations
    from persona_cli.serving.surfaces import Surface
    from persona_cli.serving.surfaces.visitors import Visitors

_ORDER = ("user_id", "items", "model", "base", "stage", "layers", "rules", "variant", "share", "holdout", "consent")
"""Columns of a block of lists that are not appended."""


def in_force(home: Home, surface: str) -> list[Experiment]:
    """Experiments whose variants a surface now has: all that run but those of interleaved lists."""
    return [one for one in running(home, surface=surface) if one.kind != INTERLEAVE]


def assigned(home: Home, experiments: Sequence[Experiment], users: pl.Series) -> pl.DataFrame:
    """user_id, variant, share and overrides of each of `users` (n), in their order.

    `variant`: "EXPERIMENT:VARIANT" of each experiment that the person is in, sorted and joined by commas, else null;
    `share`: the chance to be in these, among those who are in the experiments; `overrides`: JSON of what they change.
    In none are the permanent holdout and people whom personalization or analytics do not cover.
    """
    ids = assignment_ids(home, users)
    open_ = loggable(home, users) & allowed(home, PERSONALIZATION, users).of(users) & ~in_holdout(home, users)
    may = open_.to_numpy().astype(bool)
    share, numbers = np.ones(len(users)), dict[str, NDArray[np.int64]]()
    known = {one.name: one for one in sorted(experiments, key=lambda one: one.name)}
    for name, experiment in known.items():
        number, chance = _drawn(home, experiment, ids, users)
        numbers[name] = np.where(may, number, NOBODY)
        share *= np.where(numbers[name] == NOBODY, 1.0, chance)
    drawn = pl.DataFrame(numbers)
    cells = drawn.unique()
    told = [_told(known, cell) for cell in cells.iter_rows(named=True)]
    cells = cells.with_columns(
        variant=pl.Series([text for text, _ in told], dtype=pl.String),
        overrides=pl.Series([text for _, text in told], dtype=pl.String),
    )
    rows = drawn.join(cells, on=list(numbers), how="left", maintain_order="left").select("variant", "overrides")
    found = rows.insert_column(0, users.alias("user_id")).with_columns(share=pl.Series(share))
    return found.with_columns(pl.when(pl.col("variant").is_not_null()).then("share"))


def _told(experiments: Mapping[str, Experiment], cell: Mapping[str, int]) -> tuple[str | None, str]:
    """The text of a combination of variants, and JSON of what they change together."""
    there = {name: experiments[name].variants[number] for name, number in cell.items() if number != NOBODY}
    overrides: dict[str, str] = {}
    for variant in there.values():
        overrides |= variant.overrides
    text = ",".join(f"{name}:{variant.name}" for name, variant in there.items())
    return text or None, json.dumps(overrides, sort_keys=True)


def _drawn(
    home: Home, experiment: Experiment, ids: pl.Series, users: pl.Series
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The variant of each person (n,), NOBODY for those in none, and the chance of it."""
    gone = [number for number, name in enumerate(experiment.names) if name in experiment.dropped]
    bandit = experiment.kind == BANDIT
    shares = experiment.current if bandit else experiment.shares
    number = allotted(
        ids,
        layer_key(home.salt, experiment.layer),
        bytes.fromhex(experiment.salt),
        shares,
        part=experiment.part,
        ramp=experiment.ramp,
        dropped=() if bandit else gone,
    )
    kept = next(one for one in range(len(shares)) if one not in gone)
    chances = np.array(shares)
    if not bandit and gone:
        chances[kept] += chances[gone].sum()
        chances[gone] = 0.0
    chance = chances[number]
    if bandit and (before := people(home, experiment)).height:
        numbers = {name: kept if one in gone else one for one, name in enumerate(experiment.names)}
        first = before.select(
            "user_id",
            first=pl.col("variant").replace_strict(numbers, default=None, return_dtype=pl.Int64),
            then=pl.Series([_share_then(experiment, *row) for row in before.select("variant", "at").iter_rows()]),
        )
        mine = persons(home).of(users).to_frame("user_id").join(first, on="user_id", how="left", maintain_order="left")
        stays = mine["first"].is_not_null().to_numpy() & (number != NOBODY)
        number = np.where(stays, mine["first"].fill_null(0).to_numpy(), number)
        chance = np.where(stays, mine["then"].fill_null(1.0).to_numpy(), chance)
    return number, chance


def _share_then(experiment: Experiment, variant: str, at: datetime) -> float:
    """The share that a variant had at a moment."""
    held = [one for one in experiment.allocations if one.at <= at] or experiment.allocations[:1]
    return held[-1].shares[experiment.names.index(variant)]


def members(home: Home, name: str, users: Sequence[str] | pl.Series) -> pl.DataFrame:
    """user_id, variant of one experiment (null: in none) and share of `users` (n), in their order.

    Lists that are interleaved have no variant of a person: whoever is in such an experiment is in MERGED.
    """
    experiment = load(home, name)
    asked = pl.Series("user_id", users, dtype=pl.String)
    found = assigned(home, [experiment], asked).drop("overrides")
    if not experiment.runs(datetime.now(UTC)):
        return found.with_columns(variant=pl.lit(None, pl.String), share=pl.lit(None, pl.Float64))
    if experiment.kind == INTERLEAVE:
        inside = pl.when(pl.col("variant").is_not_null())
        return found.with_columns(variant=inside.then(pl.lit(MERGED)), share=inside.then(1.0))
    return found.with_columns(pl.col("variant").str.slice(len(name) + 1))


def recommend(home: Home, *, experiments: bool = True, interleave: str | None = None, **asked: Any) -> Recommendations:
    """`serving.recommend.recommend`, with the experiments that run; blocks then tell `variant` and its `share`.

    A `model` that is named, lists as of another moment, and `experiments=False` are made without. `interleave` names an
    experiment of that kind: who is in it gets the lists of its two variants merged, every entry with its `team` ("a",
    "b", or null: credited to nobody), and is in no other. Raises what `recommend` raises, and UsageError where
    the experiment is no such, or does not run.
    """
    from persona_cli.serving.context import everyone
    from persona_cli.serving.recommend import in_segment
    from persona_cli.serving.recommend import recommend as serve

    plain = asked.get("model") is not None or asked.get("as_of") is not None
    if interleave is not None:
        live = [_interleaved(home, interleave, plain or not experiments)]
    else:
        live = in_force(home, RECOMMEND) if experiments and not plain else []
    if not live:
        return serve(home, **asked)
    users, segment, candidates = asked.get("users"), asked.pop("segment", None), asked.get("candidates")
    if users is None and isinstance(candidates, pl.DataFrame):
        users = candidates["user_id"]
    if segment is not None:
        users = in_segment(home, segment, users, None)
    users = (everyone(home) if users is None else users).unique().sort().alias("user_id")
    if not len(users):
        return serve(home, **{**asked, "users": users})
    labels = assigned(home, live, users)
    if interleave is not None:
        return _merged_lists(home, live[0], labels, serve, asked)
    made = []
    for text, part in labels.group_by("overrides"):
        overrides = json.loads(str(text[0]))
        under = replace(home, settings=settings_with(home.settings, overrides))
        theirs = {**asked, "users": part["user_id"].sort(), "model": overrides.get(MODEL)}
        made.append((theirs["users"], serve(under, **theirs)))
    steps = _steps([one.blocks for _, one in made])
    return _together(made, _labelled((_joined(parts) for parts in steps), labels))


def _together(made: Sequence[tuple[pl.Series, Recommendations]], blocks: Iterator[pl.DataFrame]) -> Recommendations:
    """What is said of parts of users together, with their `blocks` in the order of users."""
    from persona_cli.serving.recommend import Recommendations

    models = sorted({one.model for _, one in made})
    context = pl.concat(one.context.with_columns(users.alias("user_id")) for users, one in made)
    return Recommendations(
        " | ".join(models),
        sum(one.users for _, one in made),
        sum(one.holdout for _, one in made),
        blocks,
        context.sort("user_id").drop("user_id"),
    )


def _steps(streams: Sequence[Iterator[pl.DataFrame]]) -> Iterator[list[pl.DataFrame]]:
    """Blocks of several streams, each sorted by user: at every step from each all up to the same user.

    Each step has a frame of every stream, of no rows where a stream has none of these users.
    """
    held = [next(stream) for stream in streams]
    over = [False] * len(streams)
    while True:
        for place, stream in enumerate(streams):
            while not held[place].height and not over[place]:
                following = next(stream, None)
                over[place] = following is None
                held[place] = held[place] if following is None else following
        last = [block["user_id"][-1] for block in held if block.height]
        if not last:
            return
        bound = min(last)
        here = [int((block["user_id"] <= bound).sum()) for block in held]
        yield [block.head(rows) for block, rows in zip(held, here, strict=True)]
        held = [block.slice(rows) for block, rows in zip(held, here, strict=True)]


def _joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows of all parts in the order of users, with the columns of any."""
    block = pl.concat(parts, how="diagonal_relaxed").sort("user_id")
    fields = block.schema["items"].inner.fields  # type: ignore[attr-defined]
    if "propensity" in [field.name for field in fields]:  # a list that does not explore shows its best
        filled = pl.element().struct.with_fields(pl.field("propensity").fill_null(1.0))
        block = block.with_columns(pl.col("items").list.eval(filled))
    return _ordered(block)


def _labelled(blocks: Iterator[pl.DataFrame], labels: pl.DataFrame) -> Iterator[pl.DataFrame]:
    said = labels.select("user_id", "variant", "share")
    for block in blocks:
        yield _ordered(block.join(said, on="user_id", how="left", maintain_order="left"))


def _ordered(block: pl.DataFrame) -> pl.DataFrame:
    return block.select(name for name in _ORDER if name in block.columns)


def _interleaved(home: Home, name: str, otherwise: bool) -> Experiment:
    """The experiment whose lists are to be merged; UsageError where it cannot be."""
    found = load(home, name)
    if found.kind != INTERLEAVE:
        raise UsageError(
            f"{name} is of the kind {found.kind}, and its lists are not merged",
            f"leave --interleave away: persona recommend gives everybody the variant of {name}",
        )
    if not found.runs(datetime.now(UTC)):
        raise UsageError(f"the experiment {name!r} does not run any more", "persona experiment list")
    if otherwise:
        raise UsageError("--interleave merges lists of two models of now; leave --model, --as-of and --no-experiments")
    return found


def _merged_lists(
    home: Home, experiment: Experiment, labels: pl.DataFrame, serve: Callable[..., Recommendations], asked: Any
) -> Recommendations:
    """Merged lists of those in the experiment; everybody else gets what they get without it."""
    inside = labels.filter(pl.col("variant").is_not_null())["user_id"].sort()
    outside = labels.filter(pl.col("variant").is_null())["user_id"].sort()
    made: list[tuple[pl.Series, Recommendations]] = []
    streams: list[Iterator[pl.DataFrame]] = []
    if len(inside):
        pair = []
        for variant in experiment.variants:
            under = replace(home, settings=settings_with(home.settings, variant.overrides))
            pair.append(serve(under, **{**asked, "users": inside, "model": variant.overrides.get(MODEL)}))
        length = asked.get("top") or home.settings.whole("recommend.top")
        # Another list every day; of one day the same, however often it is asked for.
        salt = f"{experiment.salt}/{datetime.now(UTC):%Y-%m-%d}"
        text = pl.lit(f"{experiment.name}:{MERGED}")
        streams.append(
            _merge(parts, experiment.method, salt, length).with_columns(variant=text, share=pl.lit(1.0))
            for parts in _steps([one.blocks for one in pair])
        )
        made.append((inside, replace(pair[0], model=" + ".join(one.model for one in pair))))
    if len(outside):
        rest = recommend(home, **{**asked, "users": outside})
        streams.append(rest.blocks)
        made.append((outside, rest))
    return _together(made, (_joined(parts) for parts in _steps(streams)))


def _merge(parts: Sequence[pl.DataFrame], method: str, salt: str, length: int) -> pl.DataFrame:
    """Blocks of the same users merged: entries as the team's own list has them, with `team` and what its method needs.

    What is told of the list beside its entries is the first variant's, but for `model`, which names all.
    """
    from persona_cli.experiments.preference import LETTERS, interleave_lists, multileave_lists
    from persona_cli.serving.recommend import nested

    ids = pl.col("items").list.eval(pl.element().struct["item_id"])
    bare = [part.select("user_id", ids) for part in parts]
    # sorted by user, as all parts are
    if len(bare) == 2:
        merged = interleave_lists(bare[0], bare[1], method, salt, length)
    else:
        merged = multileave_lists(bare, salt, length)
    ends = np.concatenate(([0], np.cumsum(merged["items"].list.len().to_numpy().astype(np.int64))))
    told = [name for name in ("credit", "rank_a", "rank_b") if name in merged.columns]
    rows = merged.select("user_id", "items", "teams", *told).explode("items", "teams", *told, empty_as_null=False)
    rows = rows.rename({"items": "item_id", "teams": "team"})
    entries = []
    for block, team in zip(parts, LETTERS, strict=False):
        one = block.select("user_id", "items").explode("items", empty_as_null=False)
        entries.append(one.unnest("items").with_columns(source=pl.lit(team)))
    known = pl.concat(entries, how="diagonal_relaxed")
    first = known.group_by("user_id", "item_id").agg(first=pl.col("source").min())
    rows = rows.join(first, on=["user_id", "item_id"], how="left", maintain_order="left")
    rows = rows.with_columns(source=pl.coalesce("team", "first")).drop("first")
    rows = rows.join(known, on=["user_id", "item_id", "source"], how="left", maintain_order="left")
    more = [name for name in known.columns if name not in ("user_id", "item_id", "source")]
    items = nested([rows[name] for name in ("item_id", *more, "team", *told)], ends).alias("items")
    whole, others = parts[0], [f"model {number}" for number in range(1, len(parts))]
    for name, part in zip(others, parts[1:], strict=True):
        whole = whole.join(
            part.select("user_id", pl.col("model").alias(name)), "user_id", "left", maintain_order="left"
        )
    model = pl.concat_str("model", *others, separator=" + ")
    return whole.with_columns(model).drop(others).with_columns(items)


def deciding_on(home: Home, name: str) -> Callable[..., tuple[pl.DataFrame, Visitors]] | None:
    """`serving.surfaces.deciding.decisions` with the experiments that run on a surface; None where none does.

    Rows then tell `variant`, and their propensity is the chance of the variant times that of the choice within it.
    """
    experiments = in_force(home, name)
    if not experiments:
        return None

    from persona_cli.serving.context import everyone
    from persona_cli.serving.surfaces.deciding import decisions

    def decide(given: Home, surface: Surface, **asked: Any) -> tuple[pl.DataFrame, Visitors]:
        users, segment = asked.get("users"), asked.pop("segment", None)
        if segment is not None:
            from persona_cli.serving.recommend import in_segment

            users = in_segment(home, segment, users, None)
        users = (everyone(home) if users is None else users).unique().sort().alias("user_id")
        if not len(users):
            return decisions(given, surface, **{**asked, "users": users})
        labels = assigned(home, experiments, users)
        made = []
        for text, part in labels.group_by("overrides"):
            variant = surface_with(surface, json.loads(str(text[0])))
            made.append(decisions(given, variant, **{**asked, "users": part["user_id"].sort()}))
        rows = pl.concat((one for one, _ in made), how="diagonal_relaxed").sort("user_id")
        said = labels.select("user_id", "variant", "share")
        rows = rows.join(said, on="user_id", how="left", maintain_order="left")
        rows = rows.with_columns(propensity=pl.col("propensity") * pl.col("share").fill_null(1.0))
        last = [name for name in ("variant", "holdout", "consent") if name in rows.columns]
        return rows.select(pl.exclude("share", *last), *last), _visitors([one for _, one in made])

    return decide


def _visitors(parts: Sequence[Visitors]) -> Visitors:
    """Everybody of several groups, in the order of users."""
    rows = pl.concat((one.rows for one in parts), how="diagonal_relaxed")
    order = rows["user_id"].arg_sort()
    place = order.to_numpy()
    holdout, generic, kept = (
        np.concatenate([getattr(one, name) for one in parts])[place] for name in ("holdout", "generic", "kept")
    )
    rows = rows[order]
    return replace(parts[0], users=rows["user_id"], rows=rows, holdout=holdout, generic=generic, kept=kept)
