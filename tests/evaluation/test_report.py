"""What people read: one row a model, intervals and lift, within 100 columns."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from persona_cli.evaluation.report import page, parts, records
from persona_cli.reports.parts import WIDTH, Part, aligned, as_lines, as_renderables
from persona_cli.reports.words import lift_text, p_text, rounded, visible

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
    assert len(rows) == 3  # one for each k, and what lists are like beyond accuracy
    assert "0.2500±0.0150" in rows[0] and rows[0].endswith("+123 % (+50…?)")
    assert rows[2].split()[-4:] == ["0.2500", "0.2500", "0.5000", "7.00"]
    assert not any("ties" in line for line in lines)  # nothing is stated about them
    assert any(line.startswith("* chosen with data from after the cut: individual.") for line in lines)


def test_nothing_is_marked_without_reason() -> None:
    lines = page(result(models=[entry("ease", 0.2), entry("popular", 0.1)]))
    assert not any("*" in line for line in lines)


def test_the_online_section_says_why_not() -> None:
    section = {"users": {"personalised": 30, "holdout": 2}, "why": "not yet: few", "compared": False}
    lines = page(result(online=section))
    assert lines[-2:] == ["online: 30 personalised users, 2 in the permanent holdout", "not yet: few"]


def full(name: str = "ease") -> dict[str, Any]:
    """A document with every optional section."""
    own = [entry(name, 0.25), entry("knn", 0.12) | {"within_noise_of": "recent-popular"}]
    baselines = [entry(other, 0.1) | {"baseline": True} for other in ("popular", "recent-popular")]
    own[0]["metrics"]["tie_share@20"] = {"value": 0.03, "low": None, "high": None}
    own[0]["metrics"]["ndcg_ties@20"] = {"value": 0.24, "low": 0.2, "high": 0.3}
    compared = {"metric": "ndcg@20", "p": 0.0, "margin": 0.01, "no_worse": True}
    worse = {"model": name, "rest": 0.26, "value": {"value": 0.2, "low": 0.1, "high": 0.3}}
    return result(
        models=[*own, *baselines],
        leading="ndcg@20",
        comparisons=[
            {**compared, "model": name, "against": "knn", "difference": {"value": 0.1, "low": 0.05, "high": 0.2}}
            | {"lift": {"value": 0.041, "low": 0.02, "high": 0.062}, "p_holm": 0.0003, "verdict": "better"}
            | {"users_needed": None},
            {
                **compared,
                "model": "knn",
                "against": "popular",
                "difference": {"value": 0.02, "low": -0.01, "high": 0.05},
            }
            | {"lift": None, "p_holm": 0.2, "verdict": "within noise", "users_needed": 12345},
        ],
        served_worse=[
            {**worse, "segmentation": "account_age", "group": "new", "users": 65, "p_holm": 0.012}
            | {"difference": {"value": -0.06, "low": -0.1, "high": -0.02}},
            {**worse, "segmentation": "device", "group": "mobile", "users": 432, "p_holm": 0.9}
            | {"difference": {"value": -0.01, "low": -0.1, "high": 0.08}},
        ],
        slices=[{"expression": "device = 'mobile'", "users": 593, "models": [own[0]]}],
        leakage={"leaked": False, "checks": [{"name": "canary", "status": "ok", "detail": "none of 20"}] * 3},
        inflation={"model": name, "metric": "ndcg@20", "time": 0.25, "random": 0.33, "inflation": 0.32},
        cuts=[
            {"headline": "", "cut": f"2026-0{month}-01T00:00:00Z", "users": 100, "models": [own[0], own[1]]}
            for month in (1, 2, 3)
        ],
        trend=[{"model": name, "metric": "ndcg@20", "slope": {"value": 0.01, "low": 0.001, "high": 0.019}}],
        compat=[
            {"library": library, "version": "1.2", "metric": "ndcg", "k": 20, "model": model}
            | {"value": 0.19, "ours": 0.25, "why": "another ideal" if library == "theirs" else ""}
            for library in ("theirs", "others")
            for model in (name, "knn")
        ],
    )


def test_a_full_page_from_top_to_bottom() -> None:
    lines = page(full())
    assert max(map(len, lines)) <= WIDTH

    def after(*wanted: str) -> None:
        """Each of these is the beginning of a line, in this order."""
        place = 0
        for text in wanted:
            place = next((n for n in range(place, len(lines)) if lines[n].startswith(text)), -1) + 1
            assert place, text

    after(
        "time split",
        "1,234 users asked",
        "leakage: 3 checks, none found",
        "a random split would have shown NDCG@20 0.3300 for ease instead of 0.2500 (+32 %)",
        "a note",
        "@10",
        "ease",
        "knn ≈",
        "baselines",
        "popular",
        "@20",
        "@20",
        "≈ cannot be told apart from the best baseline, recent-popular, on NDCG@20",
        "ease is better than knn: NDCG@20 +4.1 % (+2.0…+6.2), p 0.0003",
        "knn and popular cannot be told apart: NDCG@20 +0.0200 (-0.0100…+0.0500), p 0.200; knn is no more",
        "served worse by",
        "ease             account age: new     65   0.2000    0.2600  -0.0600±0.0400  0.012",
        "cut, NDCG@20",
        "2026-01-01 00:00:00    100  0.2500±0.0150",
        "ease: NDCG@20 changes by +0.0100 (+0.0010…+0.0190) a cut",
        "only device = 'mobile': 593 users",
        "the same lists as other libraries print them",
        "                here  theirs 1.2  others 1.2",
        "NDCG@20 ease  0.2500      0.1900      0.1900",
        "NDCG@20 knn   0.2500      0.1900      0.1900",
        "theirs NDCG: another ideal",
    )
    assert "about 12,000 users would be needed" in " ".join(line.strip() for line in lines)
    assert sum("another ideal" in line for line in lines) == 1
    assert not any("mobile" in line and "served" in line for line in lines)
    headed = next(line for line in lines if "ties averaged" in line)
    assert "ties" in headed


def test_a_leak_and_its_reason_come_before_any_figure() -> None:
    found = {"name": "duplicates", "status": "leak", "detail": "17 events have a copy after the cut"}
    skipped = {"name": "births", "status": "skipped", "detail": ""}
    lines = page(result(leakage={"leaked": True, "checks": [found, skipped]}))
    assert lines[2:4] == [
        "LEAKAGE: 1 of 1 checks found a leak; do not trust these figures",
        "duplicates: 17 events have a copy after the cut",
    ]
    clean = page(result(leakage={"leaked": False, "checks": [skipped | {"detail": "no births are known"}]}))
    assert clean[2:4] == ["leakage: 0 checks, none found", "not checked: births (no births are known)"]


def test_nobody_is_served_worse_beyond_noise() -> None:
    document = full()
    document["served_worse"][0] |= {"worse": False}  # as stated, whatever its p
    assert not any(line.startswith("served worse by") for line in page(document))
    document["served_worse"] = document["served_worse"][1:]
    assert "served worse: no group beyond noise (looked at: device)" in page(document)


def test_lists_without_a_workspace_have_no_lift() -> None:
    lines = page(result(models=[entry("theirs", 0.25) | {"lift": {}}]))
    assert next(line for line in lines if line.startswith("theirs")).endswith(" -")


def test_terminals_show_the_same_parts() -> None:
    text = io.StringIO()
    Console(file=text, width=120).print(*as_renderables(parts(full("ea\x1b[31mse")), visible))
    shown = text.getvalue()
    assert "\x1b" not in shown and "ea\\x1b[31mse" in shown
    words = {word for line in page(full("ea\\x1b[31mse")) for word in line.split()}
    assert words <= set(shown.split())


def test_a_wide_table_is_broken_into_blocks_of_columns() -> None:
    part = Part(columns=["", "aaaa", "bbbb", "cccc"], rows=[["x", "1", "2", "3"], ["heading that is long"]])
    assert as_lines([part], width=13) == [
        "   aaaa  bbbb",
        "x     1     2",
        "heading that is long",
        "",
        "   cccc",
        "x     3",
        "heading that is long",
    ]


def test_records_are_flat() -> None:
    found = records(result())
    assert {record["model"] for record in found} == {"layered", "popular"}
    first = next(record for record in found if record["metric"] == "ndcg" and record["k"] == 20)
    assert (first["value"], first["lift"], first["lift_high"]) == (0.25, 1.234, None)
    assert len({tuple(record) for record in found}) == 1  # every record has the same fields
    assert {record["model"] for record in found if record["baseline"]} == {"popular"}
    flagged = records(result(models=[entry("popular", 0.1) | {"baseline": False}]))
    assert not any(record["baseline"] for record in flagged)


def test_lifts_in_words() -> None:
    assert lift_text({"value": 0.05, "low": -0.012, "high": 0.2}) == "+5.0 % (-1.2…+20)"
    assert lift_text(None) == "popular has none" and lift_text(None, is_baseline=True) == "-"
    assert [p_text(p) for p in (None, 0.00001, 0.00034, 0.0123)] == ["-", "< 0.0001", "0.0003", "0.012"]
    assert [rounded(count) for count in (7, 118_300, 12_345)] == ["7", "120,000", "12,000"]
    assert aligned([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc   d"]
