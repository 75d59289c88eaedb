"""Plan advice before its audit: a naive policy that guesses who would pay more, and advice from use.

    python benchmarks/plan_audit.py [--shared ../shared/data] [--seed 0]

telco        IBM's customers of a telephone company. Services are features, their number is counted against limits; a
             price list of four plans; what customers have now is drawn by chance. The naive policy fits what
             customers pay (MonthlyCharges, beyond what their services explain, and staying) by boosted trees from all
             columns, and offers the next dearer plan to the half that it takes for the more willing.
adversarial  5,000 made customers: a device goes with income and income with what somebody would pay; use goes with
             neither. The naive policy learns what was paid from device and use. In a second run the audit is not
             given the device, only income, which the policy never reads.

For each the tests of `persona decide plans --audit`: decisions that change when an attribute is exchanged, groups of
the same use with different advice, plans dearer than use supports, and what advice tells beyond use of attributes
that only the audit sees.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingRegressor

from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.plan import advice_on
from persona_cli.serving.surfaces.plan_audit import audit
from persona_cli.serving.surfaces.plan_usage import Use, forecast
from persona_cli.workspace.plan_declarations import PLAN

MONTHS = 6
SERVICES = ("OnlineSecurity", "OnlineBackup", "DeviceProtection", "TechSupport", "StreamingTV", "StreamingMovies")


def surface(plans: dict[str, Any]) -> Surface:
    options = {key: default for key, (default, _) in PLAN.items()} | {"plans": PLAN["plans"][1](plans)}
    return Surface("plans", "plan", options)


def ours(which: Surface, use: Use, current: np.ndarray) -> Any:
    """Our advice as a policy: it gets people with all their attributes, and reads their use alone."""

    def policy(people: pl.DataFrame) -> pl.DataFrame:
        advice = advice_on(which, use, forecast(use))
        best, _ = advice.chosen(current, which.options["min_confidence"])
        place = np.where(best >= 0, best, current)
        return pl.DataFrame({"plan": [advice.plans[p] for p in place], "price": [advice.prices[p] for p in place]})

    return policy


def naive(which: Surface, use: Use, model: Any, columns: list[str], cut: float) -> Any:
    """The plan that holds, or the next dearer one for whom the model takes for willing to pay."""
    advice = advice_on(which, use, forecast(use))
    need = advice.held.argmax(axis=1)

    def policy(people: pl.DataFrame) -> pl.DataFrame:
        willing = model.predict(matrix(people, columns)) > cut
        place = np.minimum(need + willing, len(advice.plans) - 1)
        return pl.DataFrame({"plan": [advice.plans[p] for p in place], "price": [advice.prices[p] for p in place]})

    return policy


def matrix(people: pl.DataFrame, columns: list[str]) -> np.ndarray:
    return people.select(
        pl.col(name).cast(pl.Float64)
        if people[name].dtype.is_numeric()
        else pl.col(name).rank("dense").cast(pl.Float64)
        for name in columns
    ).to_numpy()


def used(names: list[str], counts: np.ndarray) -> Use:
    """Use (n, K, M) by name."""
    n = len(counts)
    units = pl.Series([f"{k:05d}" for k in range(n)])
    told, fixed = np.zeros(len(names), dtype=bool), np.full((n, len(names)), np.nan)
    return Use(units, names, counts, np.full(n, MONTHS), counts.sum(axis=2), fixed, told)


def telco(file: Path, seed: int) -> tuple[pl.DataFrame, Surface, Use, Any, list[str], list[str]]:
    rows = pl.read_parquet(file)
    has = np.stack([(rows[name] == "Yes").to_numpy() for name in SERVICES], axis=1).astype(float)
    lines = np.where((rows["MultipleLines"] == "Yes").to_numpy(), 2.0, (rows["PhoneService"] == "Yes").to_numpy())
    rng = np.random.default_rng(seed)
    speed = np.where(
        (rows["InternetService"] == "No").to_numpy(),
        0,
        np.where((rows["InternetService"] == "DSL").to_numpy(), 40, 200),
    )
    traffic = rng.poisson(speed[:, None] * rng.gamma(20, 1 / 20, (rows.height, MONTHS)))
    names = ["lines", "streaming", "support", "traffic"]
    flat = np.stack([lines, has[:, 4:].sum(axis=1), has[:, :4].sum(axis=1)], axis=1)
    counts = np.concatenate([np.repeat(flat[:, :, None], MONTHS, axis=2), traffic[:, None, :]], axis=1)
    which = surface(
        {
            "phone": {"price": 20, "limits": {"traffic": 5}},
            "home": {"price": 45, "limits": {"traffic": 100}, "features": ["support"]},
            "fibre": {"price": 75, "limits": {"traffic": 1000}, "features": ["support"]},
            "all": {"price": 105, "features": ["support", "streaming"]},
        }
    )
    use = used(names, counts)
    columns = [name for name in rows.columns if name not in ("customerID", "MonthlyCharges", "TotalCharges", "Churn")]
    people = rows.select(*columns)
    services = matrix(rows, [*SERVICES, "InternetService", "PhoneService", "MultipleLines"])
    explained = HistGradientBoostingRegressor(random_state=seed).fit(services, rows["MonthlyCharges"]).predict(services)
    paid = rows["MonthlyCharges"].to_numpy() - explained + 20.0 * (rows["Churn"] == "No").to_numpy()
    model = HistGradientBoostingRegressor(max_iter=100, random_state=seed).fit(matrix(people, columns), paid)
    attributes = [
        "gender", "SeniorCitizen", "Partner", "Dependents", "tenure", "Contract", "PaperlessBilling", "PaymentMethod",
    ]  # fmt: skip
    return people, which, use, model, columns, attributes


def adversarial(seed: int, n: int = 5_000) -> tuple[pl.DataFrame, Surface, Use, Any, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    income = np.exp(rng.normal(10.3, 0.5, n))
    dear = rng.random(n) < 1 / (1 + np.exp(-3 * (np.log(income) - 10.3)))
    device = np.where(dear, "new model", "old model")
    calls = rng.poisson(np.exp(rng.normal(4, 1, n))[:, None] * rng.gamma(15, 1 / 15, (n, MONTHS))).astype(float)
    use = used(["api_call"], calls[:, None, :])
    which = surface(
        {
            "small": {"price": 9, "limits": {"api_call": 50}},
            "middle": {"price": 29, "limits": {"api_call": 300}},
            "large": {"price": 79, "limits": {"api_call": 3000}},
            "whole": {"price": 199},
        }
    )
    paid = 0.001 * income + 0.05 * calls.mean(axis=1) + rng.normal(0, 5, n)
    people = pl.DataFrame({"device": device, "income": income, "calls": calls.mean(axis=1)})
    columns = ["device", "calls"]
    model = HistGradientBoostingRegressor(max_iter=100, random_state=seed).fit(matrix(people, columns), paid)
    return people, which, use, model, columns, ["device", "income"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        "| data | policy | people | swapped: decisions changed | same use, other advice | dearer than use supports | ",
        end="",
    )
    print("told beyond use (p, Holm) | verdict | s |\n|" + "---|" * 9)
    file = given.shared / "telco-churn" / "customers.parquet"
    sets = [
        ("adversarial", adversarial(given.seed), ["income"], []),
        ("device hidden", adversarial(given.seed), ["income"], ["device"]),
    ]
    if file.exists():
        only = ["gender", "SeniorCitizen", "Partner", "Dependents"]
        sets.insert(0, ("telco", telco(file, given.seed), only, []))
    for name, (people, which, use, model, columns, attributes), only, hidden in sets:
        advice = advice_on(which, use, forecast(use))
        # Whatever plan people have: ours has something to say to most of them.
        current = np.random.default_rng(given.seed).integers(0, len(advice.plans), people.height)
        willing = model.predict(matrix(people, columns))
        people = people.with_columns(plan=pl.Series([advice.plans[p] for p in current]))
        counts = use.counts
        evidence = np.hstack([counts.mean(axis=2), counts.max(axis=2), counts.std(axis=2), use.times, current[:, None]])
        for label, policy in (
            ("naive", naive(which, use, model, columns, float(np.median(willing)))),
            ("ours", ours(which, use, current)),
        ):
            start = time.perf_counter()
            found = audit(
                policy,
                people,
                evidence,
                attributes=[one for one in attributes if one not in hidden],
                audit_only=only,
                prices={plan: one["price"] for plan, one in which.options["plans"].items()},
                supported=advice.supported(current),
                same=["plan"],
                seed=given.seed,
            )
            swaps = ", ".join(
                f"{'+'.join(o['attributes'])} {o['changed']:,}"
                for o in found["swap"]
                if o["changed"] and len(o["attributes"]) == 1
            )
            told = ", ".join(f"{o['attribute']} {o['p_holm']:.3f}" for o in found["proxy"])
            verdict = "**caught**" if found["findings"] else "passes"
            print(
                f"| {name} | {label} | {people.height:,} | {swaps or 0} | {found['same_use']['differ']:,} of "
                f"{found['same_use']['groups']:,} | {found['prices']['dearer_than_use']:,} | {told} | {verdict} | "
                f"{time.perf_counter() - start:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
