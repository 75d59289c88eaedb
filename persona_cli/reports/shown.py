"""An evaluation's result document as the sections of its page need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from persona_cli.reports import charts, pages, words
from persona_cli.reports.pages import Html

Entry = Mapping[str, Any]


class Shown:
    """Models and baselines apart, the metric that leads, the largest k."""

    def __init__(self, result: Entry) -> None:
        self.result = result
        self.models, self.baselines = words.models_first(result["models"])
        self.all = [*self.models, *self.baselines]
        muted = [entry["model"] for entry in self.baselines] if self.models else []
        self.looks = charts.looks([entry["model"] for entry in self.all], muted)
        self.metric = words.leading(result)
        self.k = max(result["k"])

    def keys(self, k: int) -> list[str]:
        """Metrics at k that some model states, in the order of the document."""
        found = dict.fromkeys(key for entry in self.all for key, one in entry["metrics"].items() if one is not None)
        return [key for key in found if key.partition("@")[2] == str(k)]

    def grouped(self, row: Callable[[Entry], list[object]]) -> list[list[object]]:
        heading: list[list[object]] = [["baselines"]] if self.models and self.baselines else []
        return [*map(row, self.models), *heading, *map(row, self.baselines)]

    def stating(self) -> list[Entry]:
        """Models with a leading figure, best first."""
        stated = [entry for entry in self.all if entry["metrics"].get(self.metric) is not None]
        return sorted(stated, key=lambda entry: (-entry["metrics"][self.metric]["value"], entry["model"]))


def interval(metric: str, found: Entry | None, signed: bool = False) -> Html:
    """A figure with its interval under it, as one cell."""
    if found is None:
        return pages.escaped("-")
    shown = pages.number(found["value"], words.value_text(metric, found["value"], signed))
    span = words.span_text(metric, found, signed)
    return pages.joined(shown, pages.small(span)) if span else shown


def lift_cell(lift: Entry | None, is_baseline: bool = False) -> Html:
    """A lift with its interval under it, as one cell."""
    if lift is None or is_baseline:
        return pages.escaped(words.lift_text(lift, is_baseline))
    shown = f"{words.percent(lift['value'])} %"
    return pages.joined(pages.number(lift["value"], shown), pages.small(words.lift_span(lift)))
