"""Every dialect of `persona evaluate --compat` against the library that speaks it: the libraries as oracles.

    python benchmarks/compat_oracles.py [--peers DIR] [--users 2000]

Each library runs in an environment of its own, DIR/<name>/bin/python; one that is not there is skipped (implicit is a
dependency of persona, so it always runs). They were made with

    rectools      pip install rectools==0.19.0
    replay        pip install replay-rec==0.22.0
    lenskit       pip install lenskit==2025.8.1 torch          (a CPU build of torch will do)
    recommenders  pip install --no-deps recommenders==1.2.1; pip install "pandas<3" scikit-learn retrying pandera
    recbole       pip install --no-deps recbole==1.2.1; pip install torch pandas scipy scikit-learn tqdm pyyaml colorlog

Three cases: five users on whom the libraries disagree; random users with short lists, missing lists, lists nobody asked
for and tied scores; and the same with lists whose order is not that of their scores. Prints the largest difference of
each figure as a markdown table and exits with 1 if one is more than 1e-6.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOLERANCE = 1e-6
KS = (1, 5, 10)
FIVE = (
    {"u1": "abcde", "u2": "xaybz", "u3": "abcde", "u4": "xa"},
    {"u1": "a", "u2": "abc", "u3": "abcdefg", "u4": "ab", "u5": "q"},
)
Case = dict[str, Any]
"""lists: user → [[item, score], ...] in the order of ranks; answers: user → items."""
Found = dict[str, dict[str, float | None]]
"""Library, with its option if any → metric@k → value."""


def five_users() -> Case:
    lists = {user: [[item, 1.0 / rank] for rank, item in enumerate(items, 1)] for user, items in FIVE[0].items()}
    return {"lists": lists, "answers": {user: list(items) for user, items in FIVE[1].items()}}


def random_users(n_users: int, seed: int, by_score: bool) -> Case:
    """A tenth have no list, a tenth no answers, a fifth a short list; half of the lists have equal scores."""
    draw = random.Random(seed)
    items = [f"i{n:03d}" for n in range(60)]
    lists, answers = {}, {}
    for n in range(n_users):
        user = f"u{n:05d}"
        if draw.random() < 0.9:
            length = draw.randint(1, 9) if draw.random() < 0.2 else 11
            grain = 6 if draw.random() < 0.5 else 10**9
            entries = [(-draw.randint(1, grain) / grain, item) for item in draw.sample(items, length)]
            # Ties as persona breaks them: item id ascending.
            lists[user] = [[item, -score] for score, item in (sorted(entries) if by_score else entries)]
        if draw.random() < 0.9:
            answers[user] = draw.sample(items, draw.choice((1, 1, 2, 3, 5, 8, 13, 20)))
    return {"lists": lists, "answers": answers}


def rectools(case: Case) -> Found:
    import pandas as pd
    from rectools import metrics

    entries = [(user, item, rank) for user, own in case["lists"].items() for rank, (item, _) in enumerate(own, start=1)]
    reco = pd.DataFrame(entries, columns=["user_id", "item_id", "rank"])
    wanted = pd.DataFrame(_pairs(case), columns=["user_id", "item_id"])
    found: Found = {"RecTools": {}, "RecTools, divide_by_achievable": {}, "RecTools, divide_by_k": {}}
    for k in KS:
        plain = {
            "ndcg": metrics.NDCG(k), "recall": metrics.Recall(k), "precision": metrics.Precision(k),
            "map": metrics.MAP(k), "mrr": metrics.MRR(k), "hit_rate": metrics.HitRate(k),
        }  # fmt: skip
        given = metrics.calc_metrics(plain, reco, wanted)
        found["RecTools"] |= {f"{name}@{k}": float(given[name]) for name in plain}
        achievable = metrics.NDCG(k, divide_by_achievable=True)
        found["RecTools, divide_by_achievable"][f"ndcg@{k}"] = float(achievable.calc(reco, wanted))
        found["RecTools, divide_by_k"][f"map@{k}"] = float(metrics.MAP(k, divide_by_k=True).calc(reco, wanted))
    return found


def replay(case: Case) -> Found:
    import pandas as pd
    import polars as pl
    from replay import metrics

    entries = [(user, item, score) for user, own in case["lists"].items() for item, score in own]
    of = {
        "ndcg": metrics.NDCG, "recall": metrics.Recall, "precision": metrics.Precision,
        "map": metrics.MAP, "mrr": metrics.MRR, "hit_rate": metrics.HitRate,
    }  # fmt: skip
    recs = pd.DataFrame(entries, columns=["query_id", "item_id", "rating"])
    truth = pd.DataFrame(_pairs(case), columns=["query_id", "item_id"])
    found: dict[str, float | None] = {}
    for name, metric in of.items():
        values = list(metric(list(KS))(recs, truth).values())
        again = list(metric(list(KS))(pl.from_pandas(recs), pl.from_pandas(truth)).values())
        assert max(abs(a - b) for a, b in zip(values, again, strict=True)) < TOLERANCE, "pandas and polars differ"
        found |= {f"{name}@{k}": float(value) for k, value in zip(KS, values, strict=True)}
    return {"RePlay": found}


def lenskit(case: Case) -> Found:
    import numpy as np
    from lenskit.data import ItemList, ItemListCollection
    from lenskit.metrics import NDCG, RBP, Hit, Precision, Recall, RecipRank, RunAnalysis
    from lenskit.metrics.ranking import AveragePrecision

    outputs, test = ItemListCollection.empty(["user_id"]), ItemListCollection.empty(["user_id"])
    for user, items in case["answers"].items():
        own = [item for item, _ in case["lists"].get(user, ())]
        outputs.add(ItemList(item_ids=np.array(own, dtype=object), ordered=True), user_id=user)
        test.add(ItemList(item_ids=items), user_id=user)
    found: Found = {"LensKit": {}, "LensKit, list_summary()": {}}
    of = {
        "ndcg": NDCG, "recall": Recall, "precision": Precision, "map": AveragePrecision, "mrr": RecipRank,
        "hit_rate": Hit, "rbp": RBP,
    }  # fmt: skip
    for k in KS:
        metrics = {name: metric(k) for name, metric in of.items()}
        result = RunAnalysis(*metrics.values()).measure(outputs, test)
        means = result.list_metrics(fill_missing=False).mean()  # of pandas: skips NaN
        found["LensKit"] |= {f"{name}@{k}": float(means[metric.label]) for name, metric in metrics.items()}
        summary = result.list_summary()["mean"]
        for name in ("precision", "map"):
            found["LensKit, list_summary()"][f"{name}@{k}"] = float(summary[metrics[name].label])
    return found


def recommenders(case: Case) -> Found:
    import pandas as pd
    from recommenders.evaluation import python_evaluation as metrics

    entries = [(user, item, score) for user, own in case["lists"].items() for item, score in own]
    shown = pd.DataFrame(entries, columns=["userID", "itemID", "prediction"])
    wanted = pd.DataFrame([(*pair, 1.0) for pair in _pairs(case)], columns=["userID", "itemID", "rating"])
    of = {
        "ndcg": metrics.ndcg_at_k, "recall": metrics.recall_at_k, "precision": metrics.precision_at_k,
        "map": metrics.map_at_k,
    }  # fmt: skip
    return {"Recommenders": {f"{name}@{k}": float(of[name](wanted, shown, k=k)) for name in of for k in KS}}


def implicit(case: Case) -> Found:
    import numpy as np
    from implicit.evaluation import ranking_metrics_at_k
    from scipy import sparse

    users = sorted(case["answers"])
    place: dict[str, int] = {}
    for items in [*case["answers"].values(), *([item for item, _ in own] for own in case["lists"].values())]:
        for item in items:
            place.setdefault(item, len(place))
    row = {user: n for n, user in enumerate(users)}
    pairs = np.array([(row[user], place[item]) for user, item in _pairs(case)])
    test = sparse.csr_matrix((np.ones(len(pairs)), pairs.T), shape=(len(users), len(place)))

    class Lists:
        """A model that recommends the lists; like implicit's own, -1 where it has no more."""

        def recommend(self, ids: Any, histories: Any, N: int = 10) -> tuple[Any, Any]:
            best = np.full((len(ids), N), -1, dtype=np.int32)
            for n, user in enumerate(ids):
                own = [place[item] for item, _ in case["lists"].get(users[user], ())][:N]
                best[n, : len(own)] = own
            return best, np.zeros(best.shape, dtype=np.float32)

    found: dict[str, float | None] = {}
    for k in KS:
        given = ranking_metrics_at_k(Lists(), sparse.csr_matrix(test.shape), test, K=k, show_progress=False)
        found |= {f"{name}@{k}": given[name] for name in ("ndcg", "precision", "map")}
    return {"implicit": found}


def recbole(case: Case) -> Found:
    import types

    import numpy as np
    import torch

    # RecBole 1.2.1 was written for NumPy 1 and imports TensorBoard for logs; its metrics need neither.
    for old, new in {"float": float, "int": int, "float_": np.float64}.items():
        setattr(np, old, new)
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = object  # type: ignore[attr-defined]
    sys.modules["torch.utils.tensorboard"] = board
    for name, needed in {"thop": "profile", "texttable": "Texttable"}.items():
        stub = types.ModuleType(name)
        setattr(stub, needed, object)
        sys.modules.setdefault(name, stub)
    from recbole.evaluator import metrics

    depth = max(KS)
    rows = []
    for user, items in case["answers"].items():
        hits = [int(item in items) for item, _ in case["lists"].get(user, ())][:depth]
        rows.append([*hits, *[0] * (depth - len(hits)), len(items)])
    config = {"topk": list(KS), "metric_decimal_place": 12}
    shown = {"rec.topk": torch.tensor(rows)}
    of = {
        "ndcg": metrics.NDCG, "recall": metrics.Recall, "precision": metrics.Precision,
        "map": metrics.MAP, "mrr": metrics.MRR, "hit_rate": metrics.Hit,
    }  # fmt: skip
    found: dict[str, float | None] = {}
    for name, metric in of.items():
        values = metric(config).calculate_metric(shown)
        found |= {f"{name}@{k}": float(value) for k, value in zip(KS, values.values(), strict=True)}
    return {"RecBole": found}


ORACLES: dict[str, Callable[[Case], Found]] = {
    one.__name__: one for one in (rectools, replay, lenskit, recommenders, implicit, recbole)
}


def ours(case: Case, library: str) -> Found:
    import polars as pl

    from persona_cli.evaluation.compat import compat

    entries = [
        (user, item, rank, score)
        for user, own in case["lists"].items()
        for rank, (item, score) in enumerate(own, start=1)
    ]
    schema = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64, "score": pl.Float64}
    lists = pl.DataFrame(entries, schema=schema, orient="row").sample(fraction=1, shuffle=True, seed=0)
    answers = pl.DataFrame(_pairs(case), schema=["user_id", "item_id"], orient="row")
    found: Found = {}
    for one in compat(lists, answers, KS, [library]):
        found.setdefault(one["library"], {})[f"{one['metric']}@{one['k']}"] = one["value"]
    return found


def _pairs(case: Case) -> list[tuple[str, str]]:
    return [(user, item) for user, items in case["answers"].items() for item in items]


def _asked(python: str, library: str, case: Path) -> Found | str:
    """What the library says of the case in a process of its own; the last line of its error where it fails."""
    run = subprocess.run(
        [python, __file__, "--library", library, "--case", str(case)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        return (run.stderr.strip().splitlines() or ["no message"])[-1]
    answer: Found = json.loads(run.stdout.splitlines()[-1])
    return answer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Dialects of metrics against the libraries that speak them.")
    parser.add_argument("--peers", type=Path, help="folder with an environment for each library")
    parser.add_argument("--users", type=int, default=2000, help="users of the random cases")
    parser.add_argument("--library", choices=ORACLES, help=argparse.SUPPRESS)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    if given.library:
        warnings.simplefilter("ignore")
        print(json.dumps(ORACLES[given.library](json.loads(given.case.read_text()))))
        return 0
    cases = {
        "five users": five_users(),
        "random": random_users(given.users, 1, by_score=True),
        "out of order": random_users(given.users, 2, by_score=False),
    }
    failed = False
    print("| library | case | figures | largest difference | where |\n|---|---|---|---|---|")
    for library in ORACLES:
        peer = (given.peers or Path("peers")) / library / "bin" / "python"
        python = sys.executable if library == "implicit" else str(peer)
        if not Path(python).exists():
            print(f"| {library} | – | – | skipped | no environment |")
            continue
        for title, case in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "case.json"
                path.write_text(json.dumps(case))
                theirs = _asked(python, library, path)
            if isinstance(theirs, str):
                print(f"| {library} | {title} | – | failed | {theirs[:100]} |")
                failed = True
                continue
            mine = ours(case, library)
            places = {(name, metric) for name, values in theirs.items() for metric in values}
            assert places == {(name, metric) for name, values in mine.items() for metric in values}, library
            gaps = {at: abs((theirs[at[0]][at[1]] or 0.0) - (mine[at[0]][at[1]] or 0.0)) for at in sorted(places)}
            worst = max(gaps, key=lambda at: gaps[at])
            failed |= not gaps[worst] <= TOLERANCE  # NaN fails as well
            print(f"| {library} | {title} | {len(gaps)} | {gaps[worst]:.1e} | {': '.join(worst)} |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
