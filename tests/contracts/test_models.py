"""What every model promises, tested on every model there is: built in, made of others, or of an installed plug-in."""

from __future__ import annotations

from typing import Any

import pytest

from persona_cli.errors import Unavailable
from persona_cli.models import kinds
from persona_cli.models.base import Model
from persona_cli.models.testing import CHECKS, SETTINGS, WITHOUT_HISTORY

# Models that score everybody of a context, or of a group of twenty people or more, alike.
_GENERAL = ("popular", "cohort")
_SLOW = ("sequence",)


def made(name: str) -> Model:
    """An unfitted model by the default settings; a layered one is around knn."""
    return kinds.unfitted(name, SETTINGS, "knn" if name == "layered" else None)


def cases() -> list[Any]:
    return [
        pytest.param(name, check, id=f"{name}-{check.__name__}", marks=[pytest.mark.slow] if name in _SLOW else [])
        for name in kinds.MODELS
        for check in (WITHOUT_HISTORY if name in _GENERAL else CHECKS)
    ]


@pytest.mark.parametrize(("name", "check"), cases())
def test_contract(name: str, check: Any) -> None:
    try:
        check(lambda: made(name))
    except Unavailable as missing:  # an extra that is not installed here
        pytest.skip(missing.message)
