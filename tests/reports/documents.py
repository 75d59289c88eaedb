"""A result document with every section, small figures that are easy to find again, and hostile names on demand."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

HOSTILE = "<script>alert('x')</script>\"&\u202egp"
BASELINES = ("popular", "random")


def interval(value: float, reach: float = 0.0125) -> dict[str, float]:
    return {"value": value, "low": round(value - reach, 6), "high": round(value + reach, 6)}


def model(name: str, value: float, **more: Any) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for k in (5, 10):
        metrics |= {f"{metric}@{k}": interval(value) for metric in ("recall", "ndcg", "map", "hit_rate")}
        metrics |= {f"coverage@{k}": {"value": 0.5 + value, "low": None, "high": None}, f"freshness@{k}": None}
    return {
        "model": name,
        "version": None,
        "base": None,
        "settings": {f"model.{name}.size": 7},
        "chosen": [],
        "chosen_with_later_data": False,
        "baseline": name in BASELINES,
        "metrics": metrics,
        "lift": {} if name == "popular" else {"ndcg@10": interval(1.5), "ndcg@5": interval(0.75)},
        **more,
    }


def bare(name: str = "ease") -> dict[str, Any]:
    """What was there before any of the optional sections."""
    return {
        "run": "20260301T120000-abcdef",
        "split": {"kind": "time", "headline": "time split: trained before 2026-03-01"},
        "users": 1234,
        "test_pairs": 5678,
        "items": 910,
        "train_events": 11_213,
        "k": [5, 10],
        "as_of": "2026-03-01T00:00:00Z",
        "refit": True,
        "notes": ["a note of the run"],
        "models": [model(name, 0.2468), model("knn", 0.2357), model("popular", 0.1111), model("random", 0.0123)],
    }


def full(name: str = "ease") -> dict[str, Any]:
    """Every optional section; `name` stands wherever a document can carry a name of somebody else's choice."""
    result = bare(name)
    for entry in result["models"]:
        value = entry["metrics"]["ndcg@10"]["value"]
        entry["curve"] = {"ndcg": [[1, value / 2], [5, value / 1.2], [10, value]]}
        entry["segments"] = {"activity": [{"group": name, "users": 321, **interval(value)}]}
        entry["calibration"] = [
            {"low": 0.1, "high": 0.2, "entries": 4321, "hit_rate": 0.0345, "hit_low": 0.03, "hit_high": 0.04},
            {"low": 0.2, "high": 0.3, "entries": 4320, "hit_rate": 0.0567, "hit_low": 0.05, "hit_high": 0.06},
        ]
        entry["within_noise_of"] = "popular" if entry["model"] == "knn" else None
    compared = {"metric": "ndcg@10", "p": 0.0001, "margin": 0.01}
    worse = {"model": name, "value": interval(0.1357), "rest": 0.2579, "difference": interval(-0.1222)}
    return result | {
        "leading": "ndcg@10",
        "comparisons": [
            {**compared, "model": name, "against": "knn", "difference": interval(0.0111), "lift": interval(0.047)}
            | {"p_holm": 0.0003, "verdict": "better", "no_worse": True, "users_needed": None},
            {**compared, "model": "knn", "against": "popular", "difference": interval(0.002), "lift": None}
            | {"p_holm": 0.4321, "verdict": "within noise", "no_worse": True, "users_needed": 12345},
        ],
        "served_worse": [
            {**worse, "segmentation": "account_age", "group": name, "users": 65, "p_holm": 0.012},
            {**worse, "segmentation": "device", "group": "mobile", "users": 432, "p_holm": 0.9},
        ],
        "slices": [
            {"expression": f"device = '{name}'", "users": 222, "models": [{"model": name, "metrics": {}}]},
        ],
        "leakage": {
            "leaked": False,
            "checks": [
                {"name": "canary users", "status": "ok", "detail": "none of 20 canaries is known"},
                {"name": "birth of items", "status": "skipped", "detail": f"no time of birth: {name}"},
            ],
        },
        "inflation": {"model": name, "metric": "ndcg@10", "time": 0.2468, "random": 0.3456, "inflation": 0.4003},
        "cuts": [
            {"headline": "…", "cut": f"2026-0{month}-01T00:00:00Z", "users": 700 + month}
            | {"models": [{"model": name, "metrics": {"ndcg@10": interval(0.2 + month / 100)}}]}
            for month in (1, 2, 3)
        ],
        "trend": [{"model": name, "metric": "ndcg@10", "slope": interval(0.01, 0.005)}],
        "compat": [
            {"library": "theirs", "version": "1.2", "metric": "ndcg", "k": 10, "model": name}
            | {"value": 0.1928, "ours": 0.2468, "why": f"another ideal list, {name}"}
        ],
        "online": {
            "users": {"personalised": 2400, "holdout": 130},
            "why": "more users are needed",
            "note": "not answers to lists",
            "compared": True,
            "value_events": [name],
            "measures": {"events": {"personalised": 22.5, "holdout": 21.25, "difference": interval(1.25)}},
        },
    }


class Reader(HTMLParser):
    """Reads a page as a browser would, and fails where elements are not well nested."""

    EMPTY = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.exact: list[float] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "data":
            self.exact.append(float(dict(attrs)["value"] or ""))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
