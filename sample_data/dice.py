"""Choices by chance that come out alike on every machine."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any


class Dice:
    """Random choices by whole-number weights, from `random()` alone."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def below(self, bound: int) -> int:
        return int(self.random() * bound)

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def chance(self, percent: float) -> bool:
        return self.random() * 100 < percent

    def one(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def weighted(self, weights: Sequence[int]) -> int:
        """An index, with probability in proportion to its weight."""
        sums = list(accumulate(weights))
        return bisect_right(sums, self.below(sums[-1]))

    def quantile(self, table: Sequence[int]) -> int:
        return table[self.below(len(table))] + self.below(3)
