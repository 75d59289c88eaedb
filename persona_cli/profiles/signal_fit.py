"""What was learned of signals, and what it makes of time on pages and of ratings.

What `persona signals fit` learned, as an artifact: how often each signal was seen, and what dwell seconds mean.

    derived/signals/latest.json         the version in force, and its digest
    derived/signals/<version>/
        parameters.json                 dwell mixture and ratings (null: too little evidence), counts of event types
        targets.parquet                 kind, target, events, users, weights, means, sds: mixtures of single targets
        manifest.json                   hashes of the above

It holds sums over many people and no user's row.

A user's time on pages divided into reading, glances and idle tabs, by the fit of dwell in force.

Ratings by how far they lie above or below the user's own mean: half of the people give nothing under 4.

With `signals.center_ratings`, a rating r of user u speaks for its item as

    1 + (r - m_u) / s,   m_u = (Σ r + k m) / (n + k)

over the n ratings of u until the moment. The overall mean m, the spread s of ratings around their users' means, and the
weight k come from the last `persona signals fit`: k = within / between, the variance of a user's ratings over that of
users' means, is the credibility estimate of Bühlmann and Straub (Glaubwürdigkeit für Schadensätze, 1970). Before a fit
the user's own mean stands alone (k = 0) and s = 1. A history keeps sum and number of ratings, which are integers and
merge; what they speak is derived when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData, PersonaError
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.dwell import DwellFit, probabilities
from persona_cli.profiles.folds.attention import ACTIVE
from persona_cli.profiles.mixture import Floats, Mixture
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import FITTED_FOLDER, Home
from persona_cli.workspace.settings import Fitted, Settings

KEEP = 5
"""Versions that are kept."""
TARGETS: Mapping[str, Any] = {
    "kind": pl.String,
    "target": pl.String,
    "events": pl.Int64,
    "users": pl.Int64,
    **dict.fromkeys(("weights", "means", "sds"), pl.List(pl.Float64)),
}
_PARAMETERS, _TARGETS = "parameters.json", "targets.parquet"


@dataclass(frozen=True)
class SignalFit:
    """The parameters in force."""

    dwell: DwellFit | None
    source: str
    """What seconds were fitted: `dwell` events, or `gaps` to the next event."""
    counts: Mapping[str, int]
    """Events by event type."""
    targets: pl.DataFrame
    """Columns `TARGETS`, sorted by kind and target."""
    ratings: Mapping[str, float] | None = None
    """mean, unit and weight of `profiles.signal_fit`; None: too few ratings."""

    def engaged(self, seconds: Floats, items: pl.Series | None = None) -> Floats:
        """How likely each of the events (n,) was spent reading, by the fit of its item where it has one."""
        assert self.dwell is not None
        found = probabilities(self.dwell, seconds)["engaged"]
        own = self.targets.filter(pl.col("kind") == "item")
        if items is None or not own.height:
            return found
        place = items.replace_strict(
            own["target"], pl.Series(np.arange(own.height)), default=None, return_dtype=pl.Int64
        )
        there = place.is_not_null().to_numpy()
        if there.any():
            mixtures = own.select("weights", "means", "sds")[place.drop_nulls()]
            k = len(self.dwell.roles)
            columns = (mixtures[name].explode().to_numpy().reshape(-1, k) for name in mixtures.columns)
            found[there] = probabilities(self.dwell, seconds[there], Mixture(*columns))["engaged"]
        return found


def load(fitted: Fitted) -> SignalFit:
    """The artifact that settings name; BadData where its files are not the ones that the manifest describes."""
    return _load(fitted.folder, fitted.digest)


@lru_cache(maxsize=4)
def _load(folder: Path, digest: str) -> SignalFit:
    artifacts.verify(folder)
    try:
        said = json.loads((folder / _PARAMETERS).read_bytes())
        dwell = None if said["dwell"] is None else DwellFit.of(said["dwell"])
        targets = pl.read_parquet(folder / _TARGETS)
        found = SignalFit(dwell, said["source"], said["counts"], targets, said.get("ratings"))
    except (ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise BadData(f"{folder} is damaged ({error})", "persona signals fit") from error
    return found


def publish(home: Home, fit: SignalFit) -> tuple[Fitted, bool]:
    """Write a version and put it in force, unless the one in force says the same; answers it, and whether it is new."""
    above = home.path(*FITTED_FOLDER.split("/"))
    versions = sorted(int(path.name) for path in above.glob("[0-9]*") if path.name.isdigit())
    said: dict[str, Any] = {
        "dwell": fit.dwell and fit.dwell.said(),
        "source": fit.source,
        "counts": dict(sorted(fit.counts.items())),
    }
    said |= {"ratings": fit.ratings and dict(fit.ratings)}
    folder = above / str(versions[-1] + 1 if versions else 1)
    in_force = home.settings.fitted
    with artifacts.publish(folder) as beside:
        (beside / _PARAMETERS).write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        fit.targets.write_parquet(beside / _TARGETS)
        digest = _digest(said["dwell"], beside / _TARGETS)
        artifacts.write_manifest(beside, {"kind": "signals", "digest": digest})
    if in_force is not None and _same(in_force.folder, folder):
        artifacts.remove(folder)
        return in_force, False
    latest = {"version": int(folder.name), "digest": digest}
    artifacts.write_text(above / "latest.json", json.dumps(latest) + "\n")
    for old in versions[: -(KEEP - 1)]:
        artifacts.remove(above / str(old))
    return Fitted(folder, digest), True


def keep_fit_in_force(home: Home) -> None:
    """Remove every version but the one in force: a forgotten person is in the others."""
    above = home.path(*FITTED_FOLDER.split("/"))
    in_force = None if home.settings.fitted is None else home.settings.fitted.folder
    for path in above.glob("[0-9]*"):
        if path != in_force:
            artifacts.remove(path)


def _digest(dwell: Any, targets: Path) -> str:
    """Of what strengths follow from: not of the counts, of which only matters which signals have too few."""
    if dwell is None:
        return "without dwell"
    of = {name: dwell[name] for name in ("components", "resolution", "longest")}
    return hashlib.sha256(f"{json.dumps(of)} {artifacts.file_digest(targets)}".encode()).hexdigest()


def _same(one: Path, other: Path) -> bool:
    try:
        return bool(artifacts.read_manifest(one)["files"] == artifacts.read_manifest(other)["files"])
    except PersonaError:  # the one in force is damaged, which a new fit repairs
        return False


NAMES = ("engaged_ms", "bounce_ms", "idle_ms")


def attention(dwell: pl.Series, settings: Settings) -> pl.DataFrame:
    """`engaged_ms`, `bounce_ms`, `idle_ms` Int64 (n_users,) that add up to dwell_ms.

    `dwell` is the column `_dwell` of profiles. All events of a step count as long as their mean. Heartbeats, which are
    only sent while somebody is active, are engaged time; anything else is told apart by the fit, and null before there
    is one.
    """
    fit = load(settings.fitted).dwell if settings.fitted else None
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


SETTING = "signals.center_ratings"
RATED, RATINGS = "rated", "ratings"
"""Columns of history: sum of the ratings in thousandths, and how many."""
MOST = 1000.0
"""The overall mean weighs no more than so many ratings, also where all users have one mean."""


class Centring(NamedTuple):
    """What users' means are drawn to, and what distances from them are measured in."""

    mean: float
    unit: float
    weight: float
    """Of the overall mean, in ratings."""


ALONE = Centring(0.0, 1.0, 0.0)


def centring(settings: Settings) -> Centring:
    """The one of the last fit, where that saw enough ratings."""
    found = load(settings.fitted).ratings if settings.fitted else None
    return ALONE if found is None else Centring(found["mean"], found["unit"], found["weight"])


def spoken(history: pl.DataFrame, starts: NDArray[np.int64], how: Centring) -> Floats:
    """What the ratings of each history row speak for its item (n_rows,); `starts` are the first rows of the users."""
    sums, n = (history[name].to_numpy().astype(np.int64) for name in (RATED, RATINGS))
    lengths = np.diff(starts, append=len(n))
    own, number = np.add.reduceat(sums, starts), np.add.reduceat(n, starts)
    weight = np.maximum(number + how.weight, 1e-9)  # of a user without ratings nothing is read
    means = (own / 1000 + how.weight * how.mean) / weight
    return n + (sums / 1000 - n * np.repeat(means, lengths)) / how.unit


def estimated(users: pl.DataFrame) -> Centring | None:
    """By n, total and squares (Σ r, Σ r²) of the ratings of each user; None where they don't tell.

    They do where `SMALLEST_CELL` users have two ratings or more, and not all of them alike.
    """
    n, total, squares = (users[name].to_numpy().astype(np.float64) for name in ("n", "total", "squares"))
    if int((n >= 2).sum()) < SMALLEST_CELL:
        return None
    number, mean = n.sum(), total.sum() / n.sum()
    within = float((squares - total**2 / n).sum()) / (number - len(n))
    if within <= 1e-9:
        return None
    between = float((n * (total / n - mean) ** 2).sum()) - (len(n) - 1) * within
    between /= number - float((n**2).sum()) / number
    weight = MOST if between <= within / MOST else within / between
    return Centring(*(round(float(value), 6) for value in (mean, within**0.5, weight)))
