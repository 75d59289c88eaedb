"""A weighted sum of few models, each brought to the scale of the user's own best items first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import BadSettings
from persona_cli.models.base import Floats, Histories, Model, Training
from persona_cli.models.layered import top_means
from persona_cli.models.stored import positions, union
from persona_cli.workspace.settings import Settings


class Blend:
    """Weighted CombSUM (Fox & Shaw 1994) of models, with scores in units of the user's own top 20.

        score = Σ_m w_m · s_m / mean of the user's best 20 of s_m that are not in the history

    Scales of models differ by orders of magnitude and from user to user, so they are divided out before the sum. A
    model that says nothing of a user takes no part for that user. `of` are names with weights, as `als:0.5`; without a
    weight 1.
    """

    name: ClassVar[str] = "blend"
    exact: bool
    items: pl.Series
    """Items of any of the models, sorted (n_items,)."""

    def __init__(self, parts: Mapping[str, Model], of: Sequence[str]) -> None:
        """`parts`: the model of each name in `of`."""
        self._parts = dict(parts)
        self.of = list(of)

    @staticmethod
    def inside(settings: Settings) -> list[str]:
        return list(weights_of(settings.texts("model.blend.of")))

    @classmethod
    def from_settings(cls, settings: Settings, parts: Mapping[str, Model]) -> Self:
        return cls(parts, settings.texts("model.blend.of"))

    def settings(self) -> Mapping[str, Any]:
        return {"of": self.of}

    def fit(self, training: Training) -> Self:
        for model in self._parts.values():
            model.fit(training)
        return self.joined()

    def joined(self) -> Self:
        """Take the models as they are: fitted already, or loaded."""
        models = list(self._parts.values())
        self.exact = all(model.exact for model in models)
        self.items = reduce(union, (model.items for model in models))
        self._places = {name: positions(model.items, self.items) for name, model in self._parts.items()}
        self._columns = {name: positions(self.items, model.items) for name, model in self._parts.items()}
        return self

    def parts(self) -> Mapping[str, Model]:
        return dict(self._parts)

    def scores(self, histories: Histories) -> Floats:
        scores = np.zeros((len(histories.events), len(self.items)), dtype=np.float32)
        for name, weight in weights_of(self.of).items():
            model = self._parts[name]
            told = histories.over(self._columns[name], len(model.items))
            own = model.scores(told)
            own = own if own.flags.writeable else own.copy()
            scale: NDArray[np.float64] = top_means(own, told.rows.astype(bool))
            own *= np.divide(weight, scale, out=np.zeros_like(scale), where=scale > 0).astype(np.float32)[:, None]
            scores[:, self._places[name]] += own
        return scores

    def save(self, folder: Path) -> None:
        """Nothing of its own: the models are versions that the manifest names, the weights are a setting."""

    @classmethod
    def load(cls, folder: Path, settings: Mapping[str, Any], parts: Mapping[str, Model]) -> Self:
        return cls(parts, settings["of"]).joined()


def weights_of(of: Sequence[str]) -> dict[str, float]:
    """Name → weight of each entry such as `als:0.5`; BadSettings for anything else."""
    found: dict[str, float] = {}
    for entry in of:
        name, colon, weight = entry.partition(":")
        try:
            found[name] = float(weight) if colon else 1.0
        except ValueError:
            found[name] = 0.0
        if not found[name] > 0 or name in ("blend", "layered"):
            raise BadSettings(
                f"model.blend.of holds {entry!r}; expected a model and a weight above 0, such as als:0.5",
                'persona train --model blend --set model.blend.of=["spectral","als:0.5"]',
            )
    if len(found) < 2 or len(found) < len(of):
        raise BadSettings(
            f"model.blend.of is {list(of)!r}; expected two models or more, each once",
            'persona train --model blend --set model.blend.of=["spectral","als:0.5"]',
        )
    return found
