"""What `persona signals fit` learned, as an artifact: how often each signal was seen, and what dwell seconds mean.

    derived/signals/latest.json         the version in force, and its digest
    derived/signals/<version>/
        parameters.json                 dwell mixture and ratings (null: too little evidence), counts of event types
        targets.parquet                 kind, target, events, users, weights, means, sds: mixtures of single targets
        manifest.json                   hashes of the above

It holds sums over many people and no user's row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from persona_cli.errors import BadData, PersonaError
from persona_cli.profiles.dwell import DwellFit, probabilities
from persona_cli.profiles.mixture import Floats, Mixture
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import FITTED_FOLDER, Home
from persona_cli.workspace.settings import Fitted

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
    """mean, unit and weight of `profiles.ratings`; None: too few ratings."""

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
