"""A user's time on pages divided into reading, glances and idle tabs, by the fit of dwell in force."""

from __future__ import annotations

import numpy as np
import polars as pl

from persona_cli.profiles import signal_fit
from persona_cli.profiles.dwell import probabilities
from persona_cli.workspace.settings import Settings

NAMES = ("engaged_ms", "bounce_ms", "idle_ms")


def attention(dwell: pl.Series, settings: Settings) -> pl.DataFrame:
    """`engaged_ms`, `bounce_ms`, `idle_ms` Int64 (n_users,) that add up to dwell_ms; null before there is a fit.

    `dwell` is the column `_dwell` of profiles. All events of a step count as long as their mean.
    """
    fit = signal_fit.load(settings.fitted).dwell if settings.fitted else None
    if fit is None:
        return pl.DataFrame({name: pl.Series([None] * len(dwell), dtype=pl.Int64) for name in NAMES})
    flat = pl.DataFrame({"owner": np.arange(len(dwell)), "_": dwell}).explode("_").drop_nulls("_").unnest("_")
    ms = flat["ms"].to_numpy()
    chance = probabilities(fit, ms / 1000 / np.maximum(flat["n"].to_numpy(), 1))
    bounce, idle = (np.rint(ms * chance[role]).astype(np.int64) for role in ("bounce", "idle"))
    engaged = ms - bounce - idle
    owner = flat["owner"].to_numpy()
    found = {}
    for name, part in zip(NAMES, (engaged, bounce, idle), strict=True):
        found[name] = np.zeros(len(dwell), dtype=np.int64)
        np.add.at(found[name], owner, part)
    return pl.DataFrame(found)
