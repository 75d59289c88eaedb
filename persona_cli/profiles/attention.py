"""A user's time on pages divided into reading, glances and idle tabs, by the fit of dwell in force."""

from __future__ import annotations

import numpy as np
import polars as pl

from persona_cli.profiles import signal_fit
from persona_cli.profiles.dwell import probabilities
from persona_cli.profiles.folds.attention import ACTIVE
from persona_cli.workspace.settings import Settings

NAMES = ("engaged_ms", "bounce_ms", "idle_ms")


def attention(dwell: pl.Series, settings: Settings) -> pl.DataFrame:
    """`engaged_ms`, `bounce_ms`, `idle_ms` Int64 (n_users,) that add up to dwell_ms.

    `dwell` is the column `_dwell` of profiles. All events of a step count as long as their mean. Heartbeats, which are
    only sent while somebody is active, are engaged time; anything else is told apart by the fit, and null before there
    is one.
    """
    fit = signal_fit.load(settings.fitted).dwell if settings.fitted else None
    if fit is None:
        steps = pl.DataFrame({"_": dwell}).select(
            sure=pl.col("_").list.eval(pl.element().struct.field("step") == ACTIVE).list.all()
            & (pl.col("_").list.len() > 0),
            ms=pl.col("_").list.eval(pl.element().struct.field("ms")).list.sum(),
        )
        sure = pl.when("sure")
        return steps.select(
            engaged_ms=sure.then(pl.col("ms").cast(pl.Int64)),
            bounce_ms=sure.then(pl.lit(0, pl.Int64)),
            idle_ms=sure.then(pl.lit(0, pl.Int64)),
        )
    flat = pl.DataFrame({"owner": np.arange(len(dwell)), "_": dwell}).explode("_").drop_nulls("_").unnest("_")
    ms = flat["ms"].to_numpy()
    chance = probabilities(fit, ms / 1000 / np.maximum(flat["n"].to_numpy(), 1))
    told = ms * (flat["step"].to_numpy() != ACTIVE)
    bounce, idle = (np.rint(told * chance[role]).astype(np.int64) for role in ("bounce", "idle"))
    engaged = ms - bounce - idle
    owner = flat["owner"].to_numpy()
    found = {}
    for name, part in zip(NAMES, (engaged, bounce, idle), strict=True):
        found[name] = np.zeros(len(dwell), dtype=np.int64)
        np.add.at(found[name], owner, part)
    return pl.DataFrame(found)
