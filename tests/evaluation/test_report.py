"""What people read: one row a model, intervals and lift, within 100 columns."""

from __future__ import annotations

from typing import Any

from persona_cli.evaluation.report import WIDTH, aligned, lift_text, page, records

METRICS = ("recall", "precision", "ndcg", "map", "mrr", "hit_rate")


def entry(name: str, value: float, base: str | None = None, later: bool = False) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        f"{metric}@{k}": {"value": value, "low": value - 0.01, "high": value + 0.02}
        for k in (10, 20)
        for metric in METRICS
    }
    for k in (10, 20):
        metrics |= {f"coverage@{k}": {"value": 0.5, "low": None, "high": None}}
        metrics |= {f"novelty@{k}": {"value": 7.0, "low": 6.9, "high": 7.2}, f"tie_share@{k}": None}
    lift = {name: {"value": 1.234, "low": 0.5, "high": None} for name in metrics if "ndcg" in name}
    return {
        "model": name,
        "base": base,
        "chosen": ["individual"],
        "chosen_with_later_data": later,
        "metrics": metrics,
        "lift": {} if name == "popular" else lift,
    }


def result(**more: Any) -> dict[str, Any]:
    return {
        "split": {"kind": "time", "headline": "time split: trained before then"},
        "users": 1234,
        "test_pairs": 5678,
        "items": 910,
        "train_events": 11_213,
        "k": [10, 20],
        "notes": ["a note"],
        "models": [entry("layered", 0.25, "ease", later=True), entry("popular", 0.1)],
        **more,
    }


def test_the_page_reads_well_at_100_columns() -> None:
    lines = page(result())
    assert lines[0] == "time split: trained before then"
    assert lines[1] == "1,234 users asked, 5,678 right answers, 910 items, 11,213 events to learn from"
    assert lines[2] == "a note"
    assert max(map(len, lines)) <= WIDTH
    reason = " ".join(["why"] * 60)
    long = page(result(split={"headline": reason}))
    assert max(map(len, long)) <= WIDTH and " ".join(line.strip() for line in long[:3]) == reason
    rows = [line for line in lines if line.startswith("layered (ease) *")]
    assert len(rows) == 4  # two tables for each k
    assert "0.2500 ±0.0150" in rows[0] and "+123 % (+50…?)" in rows[0]
    assert "7.00" in rows[1] and rows[1].endswith("-")
    assert any(line.startswith("* chosen with data from after the cut: individual.") for line in lines)


def test_nothing_is_marked_without_reason() -> None:
    lines = page(result(models=[entry("ease", 0.2), entry("popular", 0.1)]))
    assert not any("*" in line for line in lines)


def test_the_online_section_says_why_not() -> None:
    section = {"users": {"personalised": 30, "holdout": 2}, "why": "not yet: few", "compared": False}
    lines = page(result(online=section))
    assert lines[-2:] == ["online: 30 personalised users, 2 in the permanent holdout", "not yet: few"]


def test_records_are_flat() -> None:
    found = records(result())
    assert {record["model"] for record in found} == {"layered", "popular"}
    first = next(record for record in found if record["metric"] == "ndcg" and record["k"] == 20)
    assert (first["value"], first["lift"], first["lift_high"]) == (0.25, 1.234, None)
    assert len({tuple(record) for record in found}) == 1  # every record has the same fields


def test_lifts_in_words() -> None:
    assert lift_text({"value": 0.05, "low": -0.012, "high": 0.2}) == "+5.0 % (-1.2…+20)"
    assert lift_text(None) == "popular has none" and lift_text(None, is_baseline=True) == "-"
    assert aligned([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc   d"]
