"""Models beside the libraries that offer the same, on the same data in one run: seconds to fit, Recall@20 and NDCG@20.

    python benchmarks/peers.py [--sets ml-1m-ultragcn,gowalla] [--only als,knn,hybrid,spectral,whole] [--users 5000]
                               [--factors 64] [--epochs 5] [--threads 2] [--data DIR]

All items are ranked, training pairs excluded, by both sides from the same matrix. Where definitions differ persona's
model runs twice: with the peer's definition, where quality has to be equal, and by its own rules. Ratios are persona's
seconds over the peer's (processor seconds in brackets: another process beside it counts less there).

    als        implicit's AlternatingLeastSquares with the same factors, iterations, weight and penalty
    knn        implicit's CosineRecommender and BM25Recommender with as many neighbours; persona's side builds the Gram,
               which a workspace keeps up to date and which is built once for all models
    hybrid     LightFM's WARP with the same factors and epochs, no item features, one thread
    spectral   the leading singular vectors by scipy's `svds` (PureSVD, Cremonesi et al. 2010), from the same rows
    whole      all of `spectral`, its settings chosen on cuts, beside the same `svds`
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convert
import numpy as np
from quality import Split
from scipy import sparse
from threadpoolctl import threadpool_limits

from persona_cli.models.als import Als
from persona_cli.models.base import Histories
from persona_cli.models.eigen import leading
from persona_cli.models.gram import build_gram
from persona_cli.models.hybrid import Hybrid
from persona_cli.models.knn import Knn
from persona_cli.models.spectral import Spectral
from persona_cli.models.stored import positions
from persona_cli.models.topk import topk
from persona_cli.workspace.settings import load

K = 20
BLOCK = 1000
HEAD = "| set | model | peer | fit, s | peer, s | ratio | recall@20 | peer | NDCG@20 | peer |"
SETTINGS = load(None, {})
# Places of the K best items of each user asked (n_users, K).
Lists = np.ndarray


@dataclasses.dataclass
class Run:
    """One side: seconds of its fit by the clock and by the processor, and its lists."""

    seconds: float
    processor: float
    lists: Lists


def timed(fit: Callable[[], Any], rank: Callable[[Any], Lists]) -> Run:
    began, processor = time.perf_counter(), time.process_time()
    fitted = fit()
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    return Run(seconds, processor, rank(fitted))


def judged(lists: Lists, wanted: sparse.csr_array) -> tuple[float, float]:
    """Mean recall and NDCG at K over users who all have something to find."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    hits = np.asarray(wanted[np.repeat(np.arange(len(lists)), K), lists.ravel()]).reshape(lists.shape) > 0
    lengths = np.diff(wanted.indptr)
    ideal = np.cumsum(discounts)[np.minimum(lengths, K) - 1]
    return float((hits.sum(axis=1) / lengths).mean()), float(((hits * discounts).sum(axis=1) / ideal).mean())


class Bench:
    """One set and what all comparisons on it share."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.split = Split.read(options.data / name)
        everybody = np.flatnonzero(np.diff(self.split.wanted.indptr))
        self.users = np.sort(np.random.default_rng(1).permutation(everybody)[: options.users or None])
        self.known = sparse.csr_matrix(self.split.known)

    def row(self, model: str, peer: str, ours: Run, theirs: Run) -> None:
        wanted = self.split.wanted[self.users]
        (recall, gain), (their_recall, their_gain) = judged(ours.lists, wanted), judged(theirs.lists, wanted)
        ratio = f"{ours.seconds / theirs.seconds:.2f} ({ours.processor / theirs.processor:.2f})"
        cells = [self.name, model, peer, f"{ours.seconds:.1f}", f"{theirs.seconds:.1f}", ratio]
        cells += [f"{figure:.4f}" for figure in (recall, their_recall, gain, their_gain)]
        print(f"| {' | '.join(cells)} |", flush=True)

    def ours(self, fit: Callable[[], Any]) -> Run:
        return timed(fit, self.rank)

    def rank(self, model: Any) -> Lists:
        """persona's lists, as places in the set's vocabulary."""
        places = positions(self.split.items, model.items)
        back = positions(model.items, self.split.items)
        return self.blocks(lambda block: self._scores(model, self.split.histories(block), places, back))

    @staticmethod
    def _scores(model: Any, histories: Histories, places: np.ndarray, back: np.ndarray) -> np.ndarray:
        made = model.scores(histories.over(places, len(back)))
        scores = np.full((len(made), len(places)), -np.inf, dtype=np.float32)
        scores[:, back] = made
        return scores

    def blocks(self, scores_of: Callable[[np.ndarray], np.ndarray]) -> Lists:
        """The best K of scores (n_block, n_items) that are not known, block by block of users."""
        found = []
        for start in range(0, len(self.users), BLOCK):
            block = self.users[start : start + BLOCK]
            scores, known = scores_of(block), self.split.known[block]
            scores[np.repeat(np.arange(len(block)), np.diff(known.indptr)), known.indices] = -np.inf
            found.append(topk(scores, K)[0])
        return np.concatenate(found)

    def als(self) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        factors, threads = self.options.factors, self.options.threads
        training = self.split.training()
        same = Als(factors, user_exponent=0, item_exponent=0, threads=threads)
        equal = self.ours(lambda: same.fit(training))
        rule = self.ours(lambda: Als(factors, threads=threads).fit(training))

        def fit() -> Any:
            peer = AlternatingLeastSquares(
                factors=factors,
                regularization=same.penalty_,
                iterations=same.iterations,
                num_threads=threads,
                random_state=same.seed,
            )
            confidence = self.known.copy()
            confidence.data = 1 + np.float32(same.alpha_) * confidence.data
            peer.fit(confidence, show_progress=False)
            return peer

        with threadpool_limits(1, user_api="blas"):
            theirs = timed(fit, lambda peer: peer.recommend(self.users, self.known[self.users], N=K)[0])
        self.row("als, peer's weights", "implicit ALS", equal, theirs)
        self.row("als", "implicit ALS", rule, theirs)

    def knn(self) -> None:
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

        def peer(kind: Any) -> Run:
            return timed(lambda: fitted(kind), lambda one: one.recommend(self.users, self.known[self.users], N=K)[0])

        def fitted(kind: Any) -> Any:
            made = kind(K=200, num_threads=self.options.threads)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it converts a matrix of its own
                made.fit(self.known, show_progress=False)
            return made

        def ours(model: Knn, exponent: float) -> Knn:
            training = self.split.training()
            settings = SETTINGS.with_flags({"model.gram.user_exponent": exponent})
            return model.fit(dataclasses.replace(training, gram=build_gram(training.interactions, settings)))

        cosine = peer(CosineRecommender)
        self.row(
            "knn, cosine",
            "implicit cosine",
            self.ours(lambda: ours(Knn(200, 0.5, 0.5, self.options.threads), 0.0)),
            cosine,
        )
        self.row(
            "knn",
            "implicit BM25",
            self.ours(lambda: ours(Knn(200, threads=self.options.threads), 0.5)),
            peer(BM25Recommender),
        )

    def hybrid(self) -> None:
        from lightfm import LightFM

        factors, epochs = self.options.factors, self.options.epochs
        entries = self.known.tocoo()

        def fit() -> Any:
            model = LightFM(no_components=factors, loss="warp", random_state=0)
            return model.fit(entries, epochs=epochs, num_threads=1)

        def predicted(model: Any, block: np.ndarray) -> np.ndarray:
            items = np.arange(self.known.shape[1], dtype=np.int32)
            rows = [np.repeat(block, len(items)).astype(np.int32), np.tile(items, len(block))]
            return np.asarray(model.predict(*rows, num_threads=self.options.threads)).reshape(len(block), -1)

        theirs = timed(fit, lambda model: self.blocks(lambda block: predicted(model, block)))
        ours = self.ours(lambda: Hybrid(factors, epochs).fit(self.split.training()))
        self.row(f"hybrid, {epochs} epochs", "LightFM", ours, theirs)

    def spectral(self, whole: bool = False) -> None:
        from scipy.sparse.linalg import svds

        rows, factors = self.normalised(), self.options.factors
        threads = self.options.threads

        def projected(vectors: np.ndarray) -> Lists:
            return self.blocks(lambda block: (self.known[block] @ vectors) @ vectors.T)

        with threadpool_limits(threads, user_api="blas"):
            theirs = timed(lambda: svds(rows, factors, random_state=0)[2].T, projected)
        if whole:
            ours = self.ours(lambda: Spectral(solver_threads=threads).fit(self.split.training()))
        else:
            ours = timed(lambda: leading(rows, factors, threads).vectors, projected)
        self.row("spectral" if whole else "spectral, eigenvectors", "scipy svds", ours, theirs)

    def whole(self) -> None:
        self.spectral(whole=True)

    def normalised(self) -> sparse.csr_array:
        """D_u^-½ X D_i^-½, float32 (n_users, n_items)."""
        known = self.split.known
        users, items = np.diff(known.indptr), np.bincount(known.indices, minlength=known.shape[1])
        data = known.data / np.sqrt(np.repeat(users, users) * items[known.indices])
        return sparse.csr_array((data.astype(np.float32), known.indices, known.indptr), shape=known.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="ml-1m-ultragcn,gowalla")
    parser.add_argument("--only", default="als,knn,hybrid,spectral")
    parser.add_argument("--users", type=int, default=5000, help="users asked, at random; 0: all")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=convert.source())
    options = parser.parse_args()
    print(HEAD + "\n|" + "---|" * (HEAD.count("|") - 1))
    for name in options.sets.split(","):
        bench = Bench(name, options)
        for model in options.only.split(","):
            getattr(bench, model)()


if __name__ == "__main__":
    main()
