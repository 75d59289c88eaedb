"""The contract tests have teeth: each model here breaks one promise, and the check for it says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest

from persona_cli.models import testing
from persona_cli.models.base import Floats, Histories, Training
from persona_cli.models.knn import Knn
from persona_cli.models.testing import CHECKS


class Whole(Knn):
    """Breaks nothing."""


class Nameless(Knn):
    name = ""


class Deaf(Knn):
    def scores(self, histories: Histories) -> Floats:
        return np.tile(np.arange(len(self.items), 0, -1, dtype=np.float32), (len(histories.events), 1))


class Double(Knn):
    def scores(self, histories: Histories) -> Floats:
        return super().scores(histories).astype(np.float64)  # type: ignore[return-value]


class Undefined(Knn):
    def scores(self, histories: Histories) -> Floats:
        degrees = np.asarray(histories.rows.sum(axis=1), dtype=np.float32)
        with np.errstate(invalid="ignore"):
            return super().scores(histories) / degrees[:, None]


class Writing(Knn):
    def scores(self, histories: Histories) -> Floats:
        histories.rows.data[:] = 0
        return super().scores(histories)


class Unsorted(Knn):
    def fit(self, training: Training) -> Unsorted:
        super().fit(training)
        self.items = self.items.reverse()
        return self


class Guessing(Knn):
    def scores(self, histories: Histories) -> Floats:
        return super().scores(histories) + np.arange(len(histories.events), dtype=np.float32)[:, None]


class Counting(Knn):
    def scores(self, histories: Histories) -> Floats:
        return super().scores(histories) + histories.events.astype(np.float32)[:, None]


class Comparing(Knn):
    """Ranks users against each other."""

    def scores(self, histories: Histories) -> Floats:
        scores = super().scores(histories)
        return scores - scores.mean(axis=0, dtype=np.float32) if len(scores) else scores


class Remembering(Knn):
    def fit(self, training: Training) -> Remembering:
        past = getattr(self, "weights_", None)
        super().fit(training)
        if past is not None:
            self.weights_.data += np.float32(past.nnz)
        return self


class Sequential(Knn):
    """What it learns depends on the order of the rows."""

    def fit(self, training: Training) -> Sequential:
        super().fit(training)
        assert training.events is not None
        self.weights_.data *= np.float32(1 + (training.events["item_id"][0] == "i02"))
        return self


class Inexact(Knn):
    exact = False


class Threaded(Knn):
    @classmethod
    def from_settings(cls, settings: Any) -> Threaded:
        return cls(neighbours=settings.whole("compute.threads"))


class Hashing(Knn):
    def fit(self, training: Training) -> Hashing:
        super().fit(training)
        self.weights_.data[0] = hash("an item") % 1000
        return self


class Forgetful(Knn):
    @classmethod
    def load(cls, folder: Path, settings: Any) -> Forgetful:
        return super().load(folder, {**settings, "neighbours": 1})


class Vague(Knn):
    def settings(self) -> Any:
        return {**super().settings(), "left": "auto"}


class Pickled(Knn):
    def save(self, folder: Path) -> None:
        super().save(folder)
        np.save(folder / "more.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


class Heedless(Knn):
    def save(self, folder: Path) -> None:
        super().save(folder)
        np.save(folder / "z.npy", np.zeros(100))


def failing(kind: type[Knn]) -> dict[str, str]:
    """Check → what it says of this model."""
    found = {}
    for check in CHECKS:
        try:
            check(kind)
        except SkipTest:
            continue
        except Exception as error:
            found[check.__name__] = str(error)
    return found


def test_a_model_that_keeps_the_contract_passes_every_check() -> None:
    assert failing(Whole) == {}


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (Nameless, "is_a_model", "its name is ''"),
        (Deaf, "known_answer", "gets i00 first and not i01"),
        (Double, "scores_are_single_precision_and_finite", "float32"),
        (Undefined, "scores_are_single_precision_and_finite", "NaN or infinite"),
        (Writing, "what_is_given_and_answered_stays", "changed the histories"),
        (Unsorted, "vocabulary_is_sorted", "not sorted"),
        (Guessing, "empty_users_are_alike", "differ in scores"),
        (Counting, "unknown_items_say_nothing", "unknown items"),
        (Comparing, "identical_users_are_alike", "other scores"),
        (Remembering, "refit_is_a_fresh_fit", "fitted a second time"),
        (Sequential, "order_of_the_input_does_not_matter", "of shuffled input"),
        (Threaded, "threads_change_nothing", "changes what is saved"),
        (Hashing, "another_process_learns_the_same", "learns another model"),
        (Forgetful, "another_process_loads_the_same", "states other settings"),
        (Vague, "settings_are_stated", '"auto"'),
        (Pickled, "files_are_plain", "pickle"),
        (Heedless, "a_damaged_file_is_named", "loaded all the same"),
    ],
)
def test_a_broken_promise_is_found(kind: type[Knn], check: str, said: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=said):
        next(one for one in CHECKS if one.__name__ == check)(kind)


def test_what_does_not_follow_from_sums_is_not_asked_to_be_subtracted_from() -> None:
    with pytest.raises(SkipTest, match="not exact"):
        testing.subtracted_is_refitted(Inexact)


def test_every_check_says_what_it_asks() -> None:
    assert all(check.__doc__ for check in CHECKS)
