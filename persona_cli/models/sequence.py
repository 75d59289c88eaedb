"""What comes next: a small causal transformer over each user's items in time, trained in torch, served by numpy."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from scipy import sparse

from persona_cli.errors import BadSettings, Unavailable
from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.stored import load_array, load_items, positions, save_array, save_items, with_columns
from persona_cli.models.topk import products
from persona_cli.models.transformer import latest, states
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
ALL_ITEMS, SAMPLE = 2048, 1024
"""Where negatives is "auto": up to so many items a step compares with all, from there on with so many."""
# Scores stay above 0, which would mean that the model says nothing.
_LEAST = np.float32(1e-30)


class Sequence:
    """Self-attention over the sequence of a user's items (SASRec, Kang & McAuley 2018), with the loss that it lacked.

        score_i = n_items · exp(logit_i) / Σ_j exp(logit_j),   logits by `models.transformer`

    the chance that item i comes next, in units of an even chance; 0 throughout for a user without a history. The
    `length` latest items are read in the order of `Histories.times`; where those are None, weaker ones first, since
    strengths fade. Trained by cross-entropy over all items or over a sample corrected for how it was drawn (Klenitskiy
    & Vasilev 2023; Petrov & Macdonald 2023), see `models.sequence_training`; the epoch is kept that ranks best the last
    items, kept out, of a tenth of the users. Items that a user has had are ranked like all others: masks are for who
    makes the lists.

    Training needs torch (the extra `deep`); it runs on a GPU where there is one. Scoring needs neither. The same seed,
    solver threads and machine give the same model.
    """

    name: ClassVar[str] = "sequence"
    exact: ClassVar[bool] = False
    ordered: ClassVar[bool] = True
    items: pl.Series
    """Items that some user's row holds, sorted (n_items,)."""
    arrays_: dict[str, Floats]
    """Parameters by name, as `transformer` reads them."""
    epochs_: int
    negatives_: int

    def __init__(
        self,
        dim: int = 64,
        blocks: int = 2,
        heads: int = 2,
        length: int = 100,
        dropout: float = 0.2,
        learning_rate: float = 0.002,
        epochs: int | str = "auto",
        negatives: int | str = "auto",
        seed: int = 0,
        cap: float = 1.0,
        solver_threads: int = 1,
    ) -> None:
        self.dim = dim
        self.blocks = blocks
        self.heads = heads
        self.length = length
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.negatives = negatives
        self.seed = seed
        self.cap = cap
        self.solver_threads = solver_threads

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        epochs, negatives = (settings.number_or_word(f"model.sequence.{name}") for name in ("epochs", "negatives"))
        return cls(
            settings.whole("model.sequence.dim"),
            settings.whole("model.sequence.blocks"),
            settings.whole("model.sequence.heads"),
            settings.whole("model.sequence.length"),
            settings.number("model.sequence.dropout"),
            settings.number("model.sequence.learning_rate"),
            epochs if isinstance(epochs, str) else int(epochs),
            negatives if isinstance(negatives, str) else int(negatives),
            settings.whole("model.sequence.seed"),
            settings.number("model.gram.cap"),
            settings.whole("compute.solver_threads"),
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            "dim": self.dim,
            "blocks": self.blocks,
            "heads": self.heads,
            "length": self.length,
            "dropout": self.dropout,
            "learning_rate": self.learning_rate,
            "epochs": self.epochs_,
            "negatives": self.negatives_,
            "seed": self.seed,
            "solver_threads": self.solver_threads,
        }

    def fit(self, training: Training) -> Self:
        began = time.monotonic()
        if self.dim % self.heads:
            raise BadSettings(
                f"model.sequence.heads is {self.heads}, which does not divide model.sequence.dim, {self.dim}",
                f"persona train --model sequence --set model.sequence.dim={self.heads * -(-self.dim // self.heads)}",
            )
        torch_training = _training_module()
        made = training.interactions
        strengths = made.strengths
        self.items = made.items[np.flatnonzero(np.bincount(strengths.indices, minlength=len(made.items)))]
        places = positions(made.items, self.items)
        rows = with_columns(strengths, places, len(self.items))
        times = None
        if made.times is not None:
            instants = sparse.csr_array((made.times, strengths.indices, strengths.indptr), shape=strengths.shape)
            times = with_columns(instants, places, len(self.items))
        n_items = len(self.items)
        self.epochs_ = torch_training.epochs_for(rows.nnz) if isinstance(self.epochs, str) else int(self.epochs)
        by_size = n_items if n_items <= ALL_ITEMS else SAMPLE
        self.negatives_ = by_size if isinstance(self.negatives, str) else int(self.negatives)
        recipe = torch_training.Recipe(
            self.dim,
            self.blocks,
            self.heads,
            self.length,
            self.dropout,
            self.learning_rate,
            self.epochs_,
            self.negatives_,
            self.seed,
            self.solver_threads,
        )
        self.arrays_ = torch_training.trained(rows, times, recipe)
        log.debug("sequence: trained in %.1f s", time.monotonic() - began)
        return self

    def scores(self, histories: Histories) -> Floats:
        known = np.flatnonzero(np.diff(histories.rows.indptr))
        scores = np.zeros(histories.rows.shape, dtype=np.float32)
        if not len(known):
            return scores
        times = None if histories.times is None else histories.times[known]
        found = states(self.arrays_, self.heads, latest(histories.rows[known], times, self.length))
        logits = products(found, self.arrays_["items"])  # (n_known, n_items)
        logits += self.arrays_["bias"]
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits *= np.float32(logits.shape[1]) / logits.sum(axis=1, keepdims=True)
        scores[known] = np.maximum(logits, _LEAST)
        return scores

    def save(self, folder: Path) -> None:
        save_items(folder, self.items)
        for name, array in self.arrays_.items():
            save_array(folder, name, array)

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        model = cls(**settings)
        model.epochs_, model.negatives_ = int(settings["epochs"]), int(settings["negatives"])
        model.items = load_items(folder)
        model.arrays_ = {name: load_array(folder, name) for name in names(model.blocks)}
        return model


def names(blocks: int) -> list[str]:
    """The names of the parameters."""
    layers = ("norm1", "qkv", "out", "norm2", "up", "down")
    inside = [f"{number}.{layer}" for number in range(blocks) for layer in layers]
    distances = [f"{number}.distance" for number in range(blocks)]
    return ["items", "bias", *distances, *(part for one in (*inside, "norm") for part in (one, f"{one}_shift"))]


def _training_module() -> Any:
    try:
        from persona_cli.models import sequence_training
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise Unavailable(
            "the sequence model is trained by torch, which is not installed", "pip install 'persona-cli[deep]'"
        ) from error
    return sequence_training
