"""`kind = "content"`: the list that `recommend` makes, as a decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from persona_cli.models.popular import CELL
from persona_cli.serving.recommend import recommend
from persona_cli.serving.rule_settings import on_surface, rules_of
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.confidence import Floats, Ints, confidence, said_of
from persona_cli.serving.surfaces.visitors import Flags, Visitors, chosen_names
from persona_cli.workspace.home import Home

KEY = "items"


def needs(home: Home, surface: Surface) -> set[str]:
    return {"items"}


def decide(home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """items (list of {item_id, score[, propensity][, reasons, shares]}), policy, propensity, rules, model, base,
    evidence[, layers][, confidence] (n).

    Those of whom too little is known for `min_confidence` get the popular list or, where the surface is to be careful
    by "fewer", so much less of their own: top · confidence / min_confidence entries, one at least. The surface's own
    `rules` go before `[rules]`. Raises what `recommend` raises.
    """
    home = replace(home, settings=on_surface(home.settings, surface.options["rules"]))
    half = max(home.settings.whole("profiles.individual_from"), 1)
    evidence = visitors.items.astype(np.float64)
    certainty = confidence(home, surface, evidence, half)
    sure = certainty.confidence >= surface.options["min_confidence"]
    top = surface.options["top"] or home.settings.whole("recommend.top")
    fewer = visitors.personal & ~sure if surface.options["careful"] == "fewer" else np.zeros(len(sure), dtype=bool)
    lengths = np.where(fewer, lengths_of(certainty.confidence, surface.options["min_confidence"], top), top)
    context = {name: value for name, value in visitors.context.items() if name in CELL}
    parts = []
    for who, model, length in _groups(home, surface, sure | fewer, lengths, top):
        if not who.any() and (model == "popular" or len(who)):
            continue
        made = recommend(
            home,
            users=visitors.users.filter(pl.Series(who)),
            top=length,
            model=model,
            as_of=visitors.as_of,
            context=context,
            explain=explain,
        )
        policy = "model" if model != "popular" else "default"
        parts += [block.with_columns(pl.lit(policy).alias("policy")) for block in made.blocks]
    rows = pl.concat(parts, how="diagonal_relaxed").sort("user_id")
    if fewer.any():
        rows = rows.with_columns(pl.col(KEY).list.head(pl.lit(pl.Series(lengths))))
    explored = "propensity" in rows[KEY].explode().struct.fields
    ruled = pl.col("rules").fill_null([]) if "rules" in rows.columns else pl.lit([], pl.List(pl.String))
    careful = chosen_names((visitors.personal & ~sure)[:, None], ["min_confidence"])
    return rows.select(
        KEY,
        policy=pl.when(pl.Series(visitors.personal)).then("policy").otherwise(pl.lit("default")),
        propensity=pl.lit(None if explored else 1.0, pl.Float64),  # of a list that explores each item has its own
        rules=pl.concat_list(ruled, careful),
        model="model",
        base="base",
        evidence=pl.Series(evidence),
        **{name: name for name in ("layers",) if name in rows.columns},
        **said_of(certainty, visitors.personal),
    )


def lengths_of(confidence: Floats, least: float, top: int) -> Ints:
    """Entries of the lists of those who are less sure than `least` (n,): top · confidence / least, one at least."""
    shares = confidence / least if least > 0 else np.ones(len(confidence))
    # A part in 10^9 is rounding: 10 · 0.06 / 0.2 is 3.
    return np.clip(np.floor(top * shares * (1 + 1e-9)), 1, top).astype(np.int64)


def _groups(
    home: Home, surface: Surface, own: Flags, lengths: Ints, top: int
) -> Iterator[tuple[Flags, str | None, int]]:
    """Who is listed together (n,), by which model and how many entries.

    Rules hold for a list as a whole, so under rules a shorter one is made as such; else it is the head of a longer one.
    """
    model = surface.options["model"]
    if rules_of(home.settings) is None:
        yield own, model, top
    else:
        for length in sorted({top, *lengths[own].tolist()}, reverse=True):
            yield own & (lengths == length), model, length
    yield ~own, "popular", top
