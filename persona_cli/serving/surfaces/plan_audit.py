"""Is a policy of plan advice fair? Tests of what it does, not of what it says: of ours and of any other.

swap        Every attribute that is not use is exchanged between people, each alone and all at once: no decision may
            change.
same use    People of the same use and the same current plan get the same advice.
prices      Every price is the one of the published list; nobody is led to a dearer plan than use supports.
proxy       How well advice tells an attribute that nobody may use: the mutual information of both (bits; p by permuting
            the attribute), which is told and is no finding, since use itself may differ by that attribute. What advice
            tells beyond use is one: the attribute and the advice less what use predicts of each (out of five folds, by
            boosted trees) must not go together (generalised covariance measure: Shah and Peters, Annals of Statistics
            48, 2020; the largest |t| over values and plans, p by flipping signs; Holm over attributes).

One person an account is looked at in the proxy test; values of fewer than `SMALLEST_CELL` people count as one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.events.catalogue import current as current_rows
from persona_cli.profiles import SMALLEST_CELL
from persona_cli.profiles.features import Floats
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import ANALYTICS, allowed
from persona_cli.profiles.stated import ATTRIBUTES
from persona_cli.reports.parts import Part
from persona_cli.serving.context import everyone
from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.plan import advice_on, decide, needs, places, taken
from persona_cli.serving.surfaces.plan_usage import forecast, units_of, usage
from persona_cli.serving.surfaces.visitors import CONTEXT, visitors
from persona_cli.workspace import artifacts, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.plan_declarations import PROTECTED

Policy = Callable[[pl.DataFrame], pl.DataFrame]
"""People and all that is known of them → plan and price of each, aligned."""
Ints = NDArray[np.int64]
LEVEL = 0.01
"""Of audits of a policy that does nothing wrong one in a hundred has a finding of the proxy test."""
DRAWS = 999
_MOST = 20_000
_BINS = 4
_FOLDS = 5


def audit(
    policy: Policy,
    people: pl.DataFrame,
    use: Floats,
    *,
    attributes: Sequence[str],
    audit_only: Sequence[str] = (),
    prices: Mapping[str, float],
    supported: Floats,
    same: Sequence[str] = (),
    alone: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What the tests say of a policy: {people, swap, same_use, prices, proxy, findings}.

    people (n rows): columns that the policy may read, `attributes` and `audit_only` among them; use (n, d): all that
    advice may follow from, beside the columns `same` (the current plan); supported (n,): the highest price that use
    supports; alone (n,): who stands for their account in the proxy test (default: all).
    """
    base = policy(people)
    n = people.height
    swaps = [_swap(policy, people, base, [name]) for name in attributes]
    if len(attributes) > 1:
        swaps.append(_swap(policy, people, base, list(attributes)))
    key = pl.DataFrame(np.round(use, 9), schema=[f"use {k}" for k in range(use.shape[1])], orient="row")
    key = key.with_columns(people[name].alias(f"same {name}") for name in same).with_columns(plan=base["plan"])
    groups = key.group_by(pl.all().exclude("plan")).agg(people=pl.len(), plans=pl.col("plan").n_unique())
    twins = groups.filter(pl.col("people") > 1)
    same_use = {"groups": twins.height, "differ": int((twins["plans"] > 1).sum())}
    listed = base["plan"].replace_strict(dict(prices), default=None, return_dtype=pl.Float64)
    priced = base["price"].is_not_null()
    off = (priced & ~(base["price"] == listed).fill_null(False)).sum()
    dearer = int(((base["price"].fill_null(0.0).to_numpy() > supported + 1e-9) & priced.to_numpy()).sum())
    paid = {"off_the_list": int(off), "dearer_than_use": dearer}
    rows = np.flatnonzero(np.ones(n, dtype=bool) if alone is None else alone)
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST])
    proxies = _proxies(people[rows], base["plan"].gather(rows), use[rows], audit_only, seed)
    found = [
        f"{one['changed']:,} of {n:,} decisions change when {' and '.join(one['attributes'])} is exchanged"
        for one in swaps[: len(attributes)]
        if one["changed"]
    ]
    found += [f"{same_use['differ']:,} groups of people of the same use get different advice"] * bool(
        same_use["differ"]
    )
    found += [f"{off:,} prices are not those of the published list"] * bool(off)
    found += [f"{dearer:,} people are led to a dearer plan than their use supports"] * bool(dearer)
    found += [
        f"advice tells {one['attribute']} beyond what use does (p = {one['p_beyond_use']:.3f})"
        for one in proxies
        if one["finding"]
    ]
    return {
        "people": n, "advised": int(priced.sum()), "swap": swaps, "same_use": same_use, "prices": paid,
        "proxy": proxies, "level": LEVEL, "draws": DRAWS, "seed": seed, "findings": found,
    }  # fmt: skip


def _swap(policy: Policy, people: pl.DataFrame, base: pl.DataFrame, names: list[str]) -> dict[str, Any]:
    """Decisions that change when each person has the attributes of somebody who stands far off in their order."""
    exchanged = people
    for name in names:
        order = people[name].arg_sort(nulls_last=True).to_numpy()
        given = np.empty(len(order), dtype=np.int64)
        given[order] = np.roll(order, len(order) // 2)
        exchanged = exchanged.with_columns(people[name].gather(given).alias(name))
    moved = pl.Series([False]).new_from_index(0, people.height)
    for name in names:
        moved = moved | people[name].ne_missing(exchanged[name])
    other = policy(exchanged)
    changed = base["plan"].ne_missing(other["plan"]) | base["price"].ne_missing(other["price"])
    return {"attributes": names, "exchanged": int(moved.sum()), "changed": int(changed.sum())}


def _proxies(
    people: pl.DataFrame, plan: pl.Series, use: Floats, names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in names:
        there = people[name].is_not_null().to_numpy()
        values, labels = _coded(people[name].filter(pl.Series(there)))
        advice, plans = _coded(plan.fill_null("none").filter(pl.Series(there)))
        one: dict[str, Any] = {"attribute": name, "people": int(there.sum()), "values": labels}
        if len(labels) < 2 or len(plans) < 2 or there.sum() < 4 * SMALLEST_CELL:
            nothing = {"bits": 0.0, "p": 1.0, "correlation": 0.0, "p_beyond_use": 1.0}
            why = "advice or attribute does not vary, or too few people"
            found.append(one | nothing | {"note": why})
            continue
        bits, p = _information(values, advice, seed)
        correlation, beyond = _beyond_use(values, advice, use[there], seed)
        found.append(one | {"bits": bits, "p": p, "correlation": correlation, "p_beyond_use": beyond})
    # Holm: the smallest p must pass LEVEL / m, the next LEVEL / (m - 1), …
    order = sorted(range(len(found)), key=lambda k: (found[k]["p_beyond_use"], found[k]["attribute"]))
    largest = 0.0
    for place, k in enumerate(order):
        largest = max(largest, min(1.0, found[k]["p_beyond_use"] * (len(order) - place)))
        found[k] |= {"p_holm": largest, "finding": largest <= LEVEL}
    return found


def _coded(values: pl.Series) -> tuple[Ints, list[str]]:
    """Values (n,) by number: figures by quarters, small groups as one; and what the numbers mean."""
    if values.dtype.is_numeric() and values.n_unique() > 2 * _BINS:
        cuts = np.unique(np.quantile(values.to_numpy(), np.arange(1, _BINS) / _BINS))
        return np.searchsorted(cuts, values.to_numpy(), side="right").astype(np.int64), [
            *(f"below {cut:g}" for cut in cuts), f"from {cuts[-1]:g}",
        ]  # fmt: skip
    texts = values.cast(pl.String)
    counts = texts.value_counts(sort=False, name="n")
    large = sorted(counts.filter(pl.col("n") >= SMALLEST_CELL)[texts.name].to_list())
    labels = [*large, "others"] if len(large) < counts.height else large
    codes = {name: place for place, name in enumerate(large)}
    return np.array([codes.get(one, len(large)) for one in texts], dtype=np.int64), labels


def _information(values: Ints, advice: Ints, seed: int) -> tuple[float, float]:
    """Mutual information in bits, and its p by permutation."""
    A = int(advice.max()) + 1
    V = int(values.max()) + 1

    def bits(mine: Ints) -> float:
        joint = np.bincount(mine * A + advice, minlength=V * A).reshape(V, A) / len(advice)
        apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
        there = joint > 0
        return float((joint[there] * np.log2(joint[there] / apart[there])).sum())

    rng = np.random.default_rng(seed)
    told = bits(values)
    larger = sum(bits(rng.permutation(values)) >= told - 1e-12 for _ in range(DRAWS))
    return round(max(told, 0.0), 6), (1 + larger) / (DRAWS + 1)


def _beyond_use(values: Ints, advice: Ints, use: Floats, seed: int) -> tuple[float, float]:
    """The largest correlation of what use leaves of a value and of a plan, and its p by flipping signs."""
    left = [_left(use, codes, seed) for codes in (values, advice)]
    products = (left[0][:, :, None] * left[1][:, None, :]).reshape(len(values), -1)  # (n, V A)
    size = np.sqrt((products**2).sum(axis=0))
    products = products[:, size > 1e-9] / size[size > 1e-9]
    if not products.shape[1]:
        return 0.0, 1.0
    told = np.abs(products.sum(axis=0)).max()
    rng = np.random.default_rng(seed)
    larger = 0
    for _ in range(DRAWS // 111):
        signs = rng.integers(0, 2, (111, len(values)), dtype=np.int8) * 2.0 - 1.0
        larger += int((np.abs(signs @ products).max(axis=1) >= told - 1e-9).sum())
    return round(float(told / np.sqrt(len(values))), 4), (1 + larger) / (DRAWS + 1)


def _left(use: Floats, codes: Ints, seed: int) -> Floats:
    """Indicators of each code less what use predicts of them, out of fold (n, n_codes)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    n, K = len(codes), int(codes.max()) + 1
    fold = np.random.default_rng(seed).permutation(np.arange(n) % _FOLDS)
    chance = np.zeros((n, K))
    for one in range(_FOLDS):
        train, test = fold != one, fold == one
        seen = np.unique(codes[train])
        if len(seen) == 1:
            chance[test, seen[0]] = 1.0
            continue
        trees = HistGradientBoostingClassifier(
            max_iter=60, min_samples_leaf=10, early_stopping=False, random_state=seed
        )
        rows = np.ix_(test, seen)
        chance[rows] = trees.fit(use[train], codes[train]).predict_proba(use[test])
    found: Floats = (codes[:, None] == np.arange(K)[None, :]) - chance
    return found


def audit_surface(
    home: Home, surface: Surface, *, at: datetime, attributes: pl.DataFrame | None = None, seed: int = 0
) -> dict[str, Any]:
    """`audit` of a surface for all whom personalization and analytics cover.

    `attributes` (user_id and what only the audit may see) is looked at and kept nowhere. What `audit_only` names and
    the file does not have is read from the properties of users. UsageError for a surface of another kind; MissingInput
    where nobody is known.
    """
    if surface.kind != "plan":
        raise UsageError(f"--audit is for surfaces of kind plan, and {surface.name} is of kind {surface.kind}")
    surface = replace(surface, options={**surface.options, "roles": ()})  # roles say who is told, not what
    users = everyone(home, None)
    users = users.filter(allowed(home, ANALYTICS).of(users))
    asked = visitors(home, {*needs(home, surface), *ATTRIBUTES}, at=at, users=users)
    units = units_of(home, None)
    use = usage(home, surface, units, None, asked.moment)
    row, _ = places(asked, units, use)
    advice = taken(advice_on(surface, use, forecast(use)), row)
    told = _audit_only(home, surface, asked.users, attributes)
    only = [name for name in told.columns if name != "user_id"]
    people = asked.rows.drop([name for name in only if name in asked.rows.columns]).hstack(told.select(only))
    own = ("plan", "role", "person", "user_id", "stage", "items")
    swapped = [name for name in (*CONTEXT, *ATTRIBUTES) if name in people.columns and name not in (*own, *only)]

    def policy(rows: pl.DataFrame) -> pl.DataFrame:
        made = decide(home, surface, replace(asked, rows=rows))["choice"].struct
        return pl.DataFrame({"plan": made.field("plan"), "price": made.field("price")})

    options = surface.options
    prices = {name: plan["price"] for name, plan in options["plans"].items()}
    place = pl.Series(advice.plans)
    now = people["plan"].replace_strict(place, np.arange(len(place)), default=-1, return_dtype=pl.Int64).fill_null(-1)
    matrix = _matrix(use.counts, use.times, use.fixed)[np.maximum(row, 0)]
    known = now.to_numpy()
    chosen = np.hstack([np.where(row[:, None] >= 0, matrix, -1.0), known[:, None].astype(np.float64)])
    first = pl.DataFrame({"row": row}).select(pl.col("row").is_first_distinct() & (pl.col("row") >= 0)).to_series()
    alone = first.to_numpy() & asked.personal
    found = audit(
        policy, people, np.where(asked.personal[:, None], chosen, -2.0),
        attributes=[*swapped, "role", *only], audit_only=only, prices=prices, supported=advice.supported(known),
        same=["plan"], alone=alone, seed=seed,
    )  # fmt: skip
    reads = {name: spec["count"] for name, spec in options["uses"].items()}
    given = {"surface": surface.name, "at": at.isoformat(timespec="seconds"), "currency": options["currency"]}
    return given | {"plans": options["plans"], "counted": reads, "refused": PROTECTED} | found


def _matrix(counts: Floats, times: Floats, fixed: Floats) -> Floats:
    """What advice may follow from, of each unit (n, d): months, mean and largest month by use, events, what is said."""
    x = np.log1p(np.where(np.isnan(counts), 0.0, counts))
    there = ~np.isnan(counts)
    T = np.maximum(there.sum(axis=2), 1)
    mean = x.sum(axis=2) / T
    spread = np.sqrt((np.where(there, x - mean[:, :, None], 0.0) ** 2).sum(axis=2))
    months = there[:, :1, :].sum(axis=2)
    return np.hstack(
        [months, mean, spread, x.max(axis=2, initial=0.0), np.log1p(times), np.nan_to_num(fixed, nan=-1.0)]
    )


def _audit_only(home: Home, surface: Surface, users: pl.Series, given: pl.DataFrame | None) -> pl.DataFrame:
    """user_id and what only the audit may see, aligned with `users`."""
    rows = users.to_frame("user_id")
    if given is not None:
        who = persons(home)
        told = given.with_columns(who.of(given["user_id"]).alias("user_id")).unique(
            "user_id", keep="first", maintain_order=True
        )
        rows = rows.join(told, on="user_id", how="left", maintain_order="left")
    missing = [name for name in surface.options["audit_only"] if name not in rows.columns]
    if missing and tables.exists(home, "users"):
        held = current_rows(home, "users").select(
            "user_id", *(pl.col("props").str.json_path_match(f"$['{name}']").alias(name) for name in missing)
        )
        held = held.with_columns(persons(home).of(held["user_id"]).alias("user_id")).unique(
            "user_id", keep="first", maintain_order=True
        )
        rows = rows.join(held, on="user_id", how="left", maintain_order="left")
    return rows.with_columns(_figures(rows[name]) for name in rows.columns if name != "user_id")


def _figures(values: pl.Series) -> pl.Series:
    """Texts that are all numbers as numbers."""
    if values.dtype != pl.String:
        return values
    numbers = values.cast(pl.Float64, strict=False)
    return numbers if numbers.null_count() == values.null_count() and not values.is_null().all() else values


def read_attributes(path: Path) -> pl.DataFrame:
    """user_id and at least one attribute, of CSV (also .gz) or Parquet; MissingInput, BadData."""
    if not path.is_file():
        raise MissingInput(f"{path}: no such file")
    try:
        parquet = path.suffix in (".parquet", ".pq")
        rows = pl.read_parquet(path) if parquet else pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadData(
            f"{path}: expected CSV or Parquet with a column user_id ({str(error).splitlines()[0]})"
        ) from error
    if "user_id" not in rows.columns or rows.width < 2:
        raise BadData(f"{path}: has {', '.join(rows.columns)}; expected user_id and the attributes to audit by")
    return rows.with_columns(pl.col("user_id").cast(pl.String)).drop_nulls("user_id")


def write(home: Home, found: Mapping[str, Any], run: str) -> Path:
    """The report as reports/plan-audit-SURFACE-RUN/ (audit.json, index.html): the folder. No person is named in it."""
    from persona_cli.reports.parts import html

    folder = home.path("reports", f"plan-audit-{found['surface']}-{run}")
    with artifacts.publish(folder) as made:
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        (made / "audit.json").write_text(text, encoding="utf-8")
        page = html(f"Audit of the plan advice of {found['surface']}", parts(found), f"run {run}, {found['at']}")
        (made / "index.html").write_text(page, encoding="utf-8")
    return folder


def parts(found: Mapping[str, Any]) -> list[tuple[str, Part]]:
    """The report for people: heading and what stands under it."""
    verdict = found["findings"] or ["Nothing was found."]
    swaps = [[", ".join(one["attributes"]), f"{one['exchanged']:,}", f"{one['changed']:,}"] for one in found["swap"]]
    proxies = [
        [
            one["attribute"], f"{one['people']:,}", f"{one['bits']:.4f}", f"{one['p']:.3f}",
            f"{one['correlation']:.3f}", f"{one['p_beyond_use']:.3f}", f"{one['p_holm']:.3f}",
        ]
        for one in found["proxy"]
    ]  # fmt: skip
    same, paid = found["same_use"], found["prices"]
    none = "No attribute was given that only the audit may see (--attributes, audit_only): this test did not run."
    return [
        ("Findings", Part(verdict, after=[f"{found['people']:,} people, {found['advised']:,} with a plan."])),
        (
            "Exchanged attributes",
            Part(["Decisions that change; 0 is right."], ["attribute", "exchanged", "changed"], swaps),
        ),
        (
            "Same use, published prices",
            Part(
                [
                    f"{same['groups']:,} groups of people of one use and plan; in {same['differ']:,} advice differs.",
                    f"{paid['off_the_list']:,} prices are not on the list; {paid['dearer_than_use']:,} plans are "
                    "dearer than use supports.",
                ]
            ),
        ),
        (
            "What advice tells of people",
            Part(
                [
                    "Bits that advice tells of an attribute, and what is left beyond use (the largest correlation). "
                    f"Beyond use it is a finding from p = {LEVEL} on, corrected for several attributes."
                ]
                if proxies
                else [none],
                ["attribute", "people", "bits", "p", "beyond use", "p beyond", "p (Holm)"] if proxies else [],
                proxies,
            ),
        ),
        ("Never read", Part([f"{group}: {names}" for group, names in found.get("refused", {}).items()])),
    ]
