"""The metric reference, docs/metrics.md, written from the registry that the metrics are computed by.

python docs/generate_metrics.py            write docs/metrics.md
python docs/generate_metrics.py --check    exit 10 if it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from written import write

from persona_cli.evaluation.beyond import BEYOND
from persona_cli.evaluation.coded import Metric
from persona_cli.evaluation.metrics import METRICS
from persona_cli.evaluation.ties import TIES

TARGET = Path(__file__).with_name("metrics.md")
HEAD = """# Metrics

Written by `make docs` from the registry of the metrics; do not edit it here. How events are divided and what a right
answer is: [evaluation](evaluation.md).

## Conventions

- *Lists*: `user_id`, `item_id`, `rank` from 1, `score`. An item and a rank stand once in a user's list; anything else
  is an error, never counted twice. `@k` looks at ranks 1 to k; a place that a list leaves empty holds nothing.
- *Relevant items*: the user's right answers, each once; *hits*: those that the list holds. In formulas both stand for
  their number. Ids are text and compared exactly.
- *Users of accuracy*: every user with at least one right answer. A missing list scores 0, and so does what a short list
  lacks, so a model gains nothing by serving only the users it is sure of. Lists of users without right answers are
  ignored.
- *Users of everything else*: every user with a list, except where a definition says otherwise.
- *Candidates*: all items that can be recommended. Nothing is sampled among them.
- *Ties*: lists are ordered by score, equal scores by `item_id`. Lists one longer than the largest k show ties across
  the cut.
- *Per user*: the metric is the mean over users of a value that each user has, so it has an interval over users. The
  others are of all lists together; popularity lift, a ratio of two means over users, has an interval too.
- *Not stated*: a metric that lacks what it needs (no catalogue, no scores, no history) is `null`, never 0 and never
  NaN.
"""
SECTIONS = {
    "Accuracy": "Do lists hold what the users went on to want?",
    "Ties": "How much of the figure was decided by the names of items?",
    "Beyond accuracy": "What else are lists like: whom do they show, how varied, new, surprising and honest are they?",
}


def section_of(name: str) -> str:
    return "Beyond accuracy" if name in BEYOND else "Ties" if name in TIES else "Accuracy"


def title_of(name: str) -> str:
    return f"{name}@k"


def reference(metrics: Mapping[str, Metric]) -> str:
    parts = [HEAD, "\n## All of them\n\n", *overview(metrics)]
    for section, about in SECTIONS.items():
        names = [name for name in metrics if section_of(name) == section]
        parts.append(f"\n## {section}\n\n{about}\n")
        parts.extend(entry(name, metrics[name]) for name in names)
    return "".join(parts)


def overview(metrics: Mapping[str, Metric]) -> Iterable[str]:
    yield "| Metric | Range | Better | Per user |\n|---|---|---|---|\n"
    for section in SECTIONS:
        for name, metric in metrics.items():
            if section_of(name) == section:
                link = f"[{title_of(name)}](#{anchor(title_of(name))})"
                yield f"| {link} | {metric.range} | {metric.better} | {'yes' if metric.per_user else 'no'} |\n"


def entry(name: str, metric: Metric) -> str:
    # A formula stands in a block of its own: it holds signs that Markdown would read.
    return (
        f"\n### {title_of(name)}\n\n{sentence(metric.definition)}\n\n```text\n{metric.formula}\n```\n\n"
        f"- Range: {metric.range}\n- Better: {metric.better}\n- Per user: {'yes' if metric.per_user else 'no'}\n"
        f"- Source: {metric.source}\n"
    )


def sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def anchor(title: str) -> str:
    """The link to a heading, as GitHub makes it: letters, digits, `_` and `-` stay."""
    return "".join(sign for sign in title.lower().replace(" ", "-") if sign.isalnum() or sign in "_-")


if __name__ == "__main__":
    sys.exit(write(__doc__, TARGET, lambda _: reference(METRICS)))
