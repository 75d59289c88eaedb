"""How sure it is that what a surface would choose for a person is right, by how much is known of the person.

    by evidence    n / (n + m)                       where nothing was learned; m is the kind's own
    calibrated     a curve of n, learned from held-out behaviour (`persona surface calibrate`, `feedback.calibrating`)

The curve is of bins of people who are alike in n, each of `SMALLEST_CELL` people or more, at most `BINS` of about equal
size. The shares of those for whom the choice was right are made to rise by isotonic regression (Ayer et al. 1955). A
step of few people may be chance: what was pooled is drawn towards the share of all, as if `SMALLEST_CELL` more people
were as all are, and made to rise again. Between the bins' means the curve is linear in log(1 + n), beyond them flat.

    derived/confidence/<surface>.json     the curve, and how far off both ways are for people it did not learn from
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.serving.surfaces import Surface
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

FOLDER = ("derived", "confidence")
FORMAT = 1
BINS = 20
"""Of a curve at the most; and `CHECKED` where it is checked."""
CHECKED = 10
DIGITS = 4
FOLLOWS = {
    "content": ("top", "model", "rules"),
    "ui": ("entries", "panels", "events", "half_life_days", "prior_uses", "cohort", "threshold"),
    "feature": ("items",),
}
"""Kinds that have a `min_confidence`, and the options that a curve follows from."""
log = logging.getLogger("persona")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Curve(NamedTuple):
    """How often a surface was right by evidence."""

    at: Floats
    """Evidence of each bin: exp of the mean log(1 + n), less 1; rising (n_bins,)."""
    confidence: Floats
    """Never falling, from 0 to 1 (n_bins,)."""
    people: Ints
    right: Ints
    """For how many of them the choice was right (n_bins,)."""

    def of(self, n: Floats) -> Floats:
        """The confidence of people of whom so much is known (n,)."""
        found: Floats = np.interp(np.log1p(n), np.log1p(self.at), self.confidence)
        return found


class Sure(NamedTuple):
    """What a surface may know of its own certainty."""

    confidence: Floats
    """0 to 1 (n,)."""
    calibrated: bool


def isotonic(values: Floats, weights: Floats) -> Floats:
    """The never falling sequence nearest to `values` by weighted squares (n,): pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight and length, means rising
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, size, length = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, sized, long = blocks.pop()
            mean = (before * sized + mean * size) / (sized + size)
            size, length = sized + size, long + length
        blocks.append((mean, size, length))
    found: Floats = np.repeat([mean for mean, *_ in blocks], [length for *_, length in blocks]).astype(np.float64)
    return found


def bins(n: Floats, most: int = BINS) -> Ints:
    """The bin of each person (n,), from 0, rising with the evidence; people of equal evidence are in one.

    At most `most` of about equal size, none of fewer than `SMALLEST_CELL` people unless there are fewer altogether.
    """
    values, which, sizes = np.unique(n, return_inverse=True, return_counts=True)
    least = max(SMALLEST_CELL, math.ceil(len(n) / most))
    number, filled, of = 0, 0, np.zeros(len(values), dtype=np.int64)
    for place, size in enumerate(sizes):
        if filled >= least:
            number, filled = number + 1, 0
        of[place] = number
        filled += int(size)
    if number and filled < SMALLEST_CELL:
        of[of == number] = number - 1
    return of[which]


def curve_of(n: Floats, right: Flags) -> Curve:
    """The curve of people with this evidence, and whether the choice was right for each (n,); n > 0."""
    of = bins(n)
    people = np.bincount(of)
    hits = np.bincount(of, right).astype(np.int64)
    weights = people.astype(np.float64)
    pooled = isotonic(hits / people, weights)
    block = np.cumsum(np.diff(pooled, prepend=pooled[0]) > 0)
    sizes = np.bincount(block, people)[block]
    drawn = (pooled * sizes + SMALLEST_CELL * right.mean()) / (sizes + SMALLEST_CELL)
    at = np.expm1(np.bincount(of, np.log1p(n)) / people)
    return Curve(at, isotonic(drawn, weights), people, hits)


def by_evidence(n: Floats, half: float) -> Floats:
    """n / (n + m): sure of nothing without evidence, half sure at m (n,)."""
    found: Floats = n / (n + half)
    return found


def confidence(home: Home, surface: Surface, n: Floats, half: float) -> Sure:
    """How sure a surface is of its choices for people of whom so much is known (n,).

    By its curve, where one was learned for the surface as it is. A surface that was changed since is told of; the
    arms of a bandit that change what a curve follows from have none. BadData where the file is damaged.
    """
    kept = read(home, surface.name)
    if kept is None:
        return Sure(by_evidence(n, half), False)
    if kept["digest"] == digest_of(surface.kind, surface.options):
        return Sure(points(kept).of(n), True)
    declared = home.settings.values["surface"].get(surface.name)
    if declared is not None and kept["digest"] != digest_of(declared["kind"], declared):
        log.warning(
            "[surface.%s] is another than was calibrated: its confidence is n / (n + m) until persona surface "
            "calibrate %s",
            surface.name,
            surface.name,
        )
    return Sure(by_evidence(n, half), False)


def said_of(sure: Sure, personal: Flags) -> dict[str, pl.Series]:
    """The column `confidence` of decisions, where it is calibrated: null of those who get the default anyway (n,)."""
    if not sure.calibrated:
        return {}
    known = pl.when(pl.Series(personal)).then(pl.Series(sure.confidence).round(DIGITS))
    return {"confidence": pl.select(known.alias("confidence")).to_series()}


def digest_of(kind: str, options: Mapping[str, Any]) -> str:
    """Of what a curve follows from."""
    said = [kind, {name: options.get(name) for name in FOLLOWS.get(kind, ())}]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def path_of(home: Home, name: str) -> Path:
    return home.path(*FOLDER, f"{name}.json")


def read(home: Home, name: str) -> dict[str, Any] | None:
    """What was learned for a surface; None where nothing was. BadData where the file is damaged."""
    path = path_of(home, name)
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        curve = points(found)
        rising = (np.diff(curve.at) >= 0).all() and (np.diff(curve.confidence) >= 0).all()
        if not (found["format"] == FORMAT and isinstance(found["digest"], str) and len(curve.at) and rising):
            raise ValueError("it holds no curve")
        return found
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} is damaged ({error})", f"persona surface calibrate {name}") from error


def keep(home: Home, name: str, found: Mapping[str, Any]) -> Path:
    """Write it in the place of what was there, at once."""
    path = path_of(home, name)
    artifacts.write_text(path, json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def points(found: Mapping[str, Any]) -> Curve:
    """The curve in a document."""
    rows = found["bins"]
    at, rising = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("at", "confidence"))
    people, right = (np.array([row[name] for row in rows], dtype=np.int64) for name in ("people", "right"))
    return Curve(at, rising, people, right)


def as_rows(curve: Curve) -> list[dict[str, Any]]:
    """The same as JSON types. Of the evidence only means: its ends would be those of single people."""
    return [
        {
            "at": round(float(curve.at[place]), 6),
            "people": int(curve.people[place]),
            "right": int(curve.right[place]),
            "confidence": round(float(curve.confidence[place]), 6),
        }
        for place in range(len(curve.at))
    ]


def calibration(n: Floats, right: Flags, told: Mapping[str, Floats]) -> dict[str, Any]:
    """How far chances `told` by name (n,) are from what happened, by bins of evidence.

    error: of each name, Σ_b people_b / people · |mean chance - share right|, the expected calibration error; by_chance:
    what chances that are exactly right would show of so many people, by the mean deviation of a binomial share:
    Σ_b people_b / people · √(2 p (1 - p) / (π people_b)); bins: at, people, right and the mean chance of each name.
    """
    of = bins(n, CHECKED)
    people = np.bincount(of)
    share, at = np.bincount(of, right) / people, np.expm1(np.bincount(of, np.log1p(n)) / people)
    means = {name: np.bincount(of, chance) / people for name, chance in told.items()}
    weight = people / len(n)
    noise = np.sqrt(2 * share * (1 - share) / (np.pi * people))
    return {
        "error": {name: round(float(weight @ np.abs(mean - share)), 6) for name, mean in means.items()},
        "by_chance": round(float(weight @ noise), 6),
        "bins": [
            {
                "at": round(float(at[one]), 6),
                "people": int(people[one]),
                "right": round(float(share[one]), 6),
                **{name: round(float(mean[one]), 6) for name, mean in means.items()},
            }
            for one in range(len(people))
        ],
    }
