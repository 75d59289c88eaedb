"""The metric reference is what the registry says, and no metric is without definition, formula, range and source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts import DOCS, assert_current, assert_notices

from persona_cli.evaluation.metrics import METRICS

REFERENCE = DOCS / "metrics.md"


def test_the_reference_is_current() -> None:
    assert_current("generate_metrics.py")


def test_the_check_notices_a_reference_that_is_out_of_date(tmp_path: Path) -> None:
    assert_notices(tmp_path, "generate_metrics.py", "metrics.md", REFERENCE.read_text().replace("log2", "ln"))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_all_that_there_is_to_say(name: str) -> None:
    metric = METRICS[name]
    for field in ("definition", "formula", "range", "source"):
        words = getattr(metric, field)
        assert len(words.split()) >= 2, field
        assert words == words.strip() and not words.endswith("."), field
    assert metric.better in ("higher", "lower", "nearer 0")
    assert re.search(r"\b(1[89]|20)\d\d\b", metric.source), "a source has its year"


def test_every_metric_has_a_heading_and_every_link_leads_to_one() -> None:
    page = REFERENCE.read_text()
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert sorted(headings) == sorted(f"{name}@k" for name in METRICS)
    anchors = {heading.replace("@", "") for heading in headings}
    assert sorted(re.findall(r"\]\(#([^)]+)\)", page)) == sorted(anchors)


def test_what_each_metric_is_stands_in_the_reference() -> None:
    page = REFERENCE.read_text()
    for metric in METRICS.values():
        for words in (metric.definition[1:], metric.formula, f"- Range: {metric.range}", metric.source):
            assert words in page
