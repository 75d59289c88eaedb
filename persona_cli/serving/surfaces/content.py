"""`kind = "content"`: the list that `recommend` makes, as a decision."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from persona_cli.models.popular import CELL
from persona_cli.serving.recommend import recommend
from persona_cli.serving.rule_settings import on_surface
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.visitors import Visitors, chosen_names
from persona_cli.workspace.home import Home

KEY = "items"


def needs(home: Home, surface: Surface) -> set[str]:
    return {"items"}


def decide(home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
    """items (list of {item_id, score[, reasons, shares]}), policy, propensity, rules, model, base[, layers] (n).

    Those of whom too little is known for `min_confidence` get the popular list: n / (n + profiles.individual_from) of n
    events with an item. The surface's own `rules` go before `[rules]`. Raises what `recommend` raises.
    """
    home = replace(home, settings=on_surface(home.settings, surface.options["rules"]))
    half = max(home.settings.whole("profiles.individual_from"), 1)
    sure = visitors.items / (visitors.items + half) >= surface.options["min_confidence"]
    context = {name: value for name, value in visitors.context.items() if name in CELL}
    parts = []
    for who, model in ((sure, surface.options["model"]), (~sure, "popular")):
        if not who.any() and (model == "popular" or len(who)):
            continue
        made = recommend(
            home,
            users=visitors.users.filter(pl.Series(who)),
            top=surface.options["top"],
            model=model,
            as_of=visitors.as_of,
            context=context,
            explain=explain,
        )
        policy = "model" if model != "popular" else "default"
        parts += [block.with_columns(pl.lit(policy).alias("policy")) for block in made.blocks]
    rows = pl.concat(parts, how="diagonal_relaxed").sort("user_id")
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
        **{name: name for name in ("layers",) if name in rows.columns},
    )
