"""gowalla on 3,000 items: `persona evaluate --test` against the same figures from dense numpy, written independently.

    python benchmarks/gowalla_oracle.py [--items 3000] [--folder DIR]

The oracle shares no code with persona: it reads the published Parquet files, builds the matrices in float64, ranks with
a full sort and computes recall and NDCG user by user. Exits with 1 if a figure differs by more than 1e-6.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from convert import source

PERSONA = [sys.executable, "-m", "persona_cli"]
K = 20
TOLERANCE = 1e-6
BLOCK = 500
LAMBDA, LEFT, RIGHT, NEIGHBOURS = 40.0, 0.8, 0.3, 200


def subset(n_items: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Train and test pairs (user, item as text) of the items with the most users."""
    folder = source() / "gowalla"
    train, test = (pl.read_parquet(folder / f"{part}.parquet").cast(pl.String) for part in ("train", "test"))
    counts = train.group_by("item").len().sort(["len", "item"], descending=[True, False])
    kept = counts["item"][:n_items].implode()
    return train.filter(pl.col("item").is_in(kept)), test.filter(pl.col("item").is_in(kept))


def oracle(train: pl.DataFrame, test: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Mean recall and NDCG at 20 of each model over the users of `test`."""
    items = sorted(train["item"].unique())
    users = sorted(train["user"].unique())
    row, column = {u: n for n, u in enumerate(users)}, {i: n for n, i in enumerate(items)}
    x = np.zeros((len(users), len(items)))
    for user, item in train.iter_rows():
        x[row[user], column[item]] = 1.0
    quantised = np.floor(65536.0 * x / np.sqrt(np.maximum(x.sum(axis=1, keepdims=True), 1.0)))
    gram = quantised.T @ quantised / 2.0**32  # sums below 2^53: exact
    ridge = np.linalg.inv(gram + LAMBDA * np.eye(len(items)))
    ease = -ridge / np.diag(ridge)[None, :]
    np.fill_diagonal(ease, 0.0)
    degrees = x.sum(axis=0)
    knn = gram / degrees[:, None] ** LEFT / degrees[None, :] ** RIGHT
    np.fill_diagonal(knn, 0.0)
    for weights in knn:
        weights[np.argsort(-weights, kind="stable")[NEIGHBOURS:]] = 0.0
    answers: dict[str, set[str]] = {}
    for user, item in test.iter_rows():
        answers.setdefault(user, set()).add(item)
    discounts = 1.0 / np.log2(np.arange(2, K + 2))
    sums: dict[str, list[tuple[float, float]]] = {"ease": [], "knn": [], "popular": []}
    asked = sorted(answers)
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        histories = np.array([x[row[user]] if user in row else np.zeros(len(items)) for user in block])
        for name, weights in (("ease", ease), ("knn", knn), ("popular", None)):
            scores = np.tile(degrees, (len(block), 1)) if weights is None else histories @ weights
            # A user without a history gets the popular list from every model.
            scores = np.where(histories.any(axis=1, keepdims=True), scores, degrees[None, :])
            order = np.argsort(-np.where(histories > 0, -np.inf, scores), axis=1, kind="stable")[:, :K]
            for user, best in zip(block, order, strict=True):
                hits = np.array([items[place] in answers[user] for place in best])
                ideal = discounts[: min(K, len(answers[user]))].sum()
                sums[name].append((hits.sum() / len(answers[user]), float((hits * discounts).sum()) / ideal))
    means = {name: np.mean(values, axis=0) for name, values in sums.items()}
    return {name: {f"recall@{K}": float(mean[0]), f"ndcg@{K}": float(mean[1])} for name, mean in means.items()}


def persona(train: pl.DataFrame, test: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """What `persona evaluate --test` says."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    events = train.select(
        user_id="user", event_type=pl.lit("click"), item_id="item", timestamp=pl.lit("2000-01-01T00:00:00Z")
    )
    events.write_csv(folder / "events.csv")
    test.rename({"user": "user_id", "item": "item_id"}).write_csv(folder / "test.csv")
    workspace = str(folder / "workspace")
    subprocess.run([*PERSONA, "init", "--quiet", workspace], check=True)
    subprocess.run([*PERSONA, "ingest", "-w", workspace, "--quiet", str(folder / "events.csv")], check=True)
    settings = {"ease.lambda": LAMBDA, "knn.left": LEFT, "knn.right": RIGHT, "knn.neighbours": NEIGHBOURS}
    words = ["--model", "ease", "--model", "knn"]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [*PERSONA, "evaluate", "-w", workspace, "--test", str(folder / "test.csv"), *words, "--json"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {entry["model"]: entry["metrics"] for entry in found["models"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-gowalla-oracle")
    options = parser.parse_args()
    train, test = subset(options.items)
    print(f"{options.items:,} items, {train.height:,} train pairs, {test.height:,} test pairs")
    ours, theirs = persona(train, test, options.folder), oracle(train, test)
    print("| model | figure | persona | numpy | difference |\n|---|---|---|---|---|")
    worst = 0.0
    for name, figures in theirs.items():
        for figure, value in figures.items():
            difference = ours[name][figure]["value"] - value
            worst = max(worst, abs(difference))
            print(f"| {name} | {figure} | {ours[name][figure]['value']:.8f} | {value:.8f} | {difference:+.1e} |")
    sys.exit(f"differs by {worst:.1e}" if worst > TOLERANCE else 0)


if __name__ == "__main__":
    main()
