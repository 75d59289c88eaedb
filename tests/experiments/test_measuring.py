"""From a file of units to a verdict: figures against scipy and numpy, what is left out, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from persona_cli.errors import BadData, MissingInput, Refused, UsageError
from persona_cli.experiments import units
from persona_cli.experiments.inference import of_values
from persona_cli.experiments.measuring import Measured, measure, moments
from persona_cli.experiments.verdicts import BETTER, UNKNOWN, WORSE, Design, Question

DATA = Path(os.environ.get("PERSONA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
COOKIES = DATA / "cookie-cats" / "users.parquet"


def log(n: int = 4000, seed: int = 1, lift: float = 0.2) -> pl.DataFrame:
    """One row a user: u, arm, bought, spent, past, clicks, views, score, land."""
    rng = np.random.default_rng(seed)
    arm = rng.permutation(np.arange(n) % 2)
    taste = rng.gamma(2.0, 5.0, n)
    views = 1 + rng.poisson(8, n)
    return pl.DataFrame(
        {
            "u": [f"u{i:05d}" for i in range(n)],
            "arm": np.where(arm == 1, "b", "a"),
            "bought": rng.random(n) < 0.2 * (1 + lift * arm),
            "spent": taste * (1 + lift * arm) + rng.gamma(1.0, 2.0, n),
            "past": taste + rng.gamma(1.0, 2.0, n),
            "clicks": rng.binomial(views, 0.3 * (1 + lift * arm)),
            "views": views,
            "score": rng.integers(0, 11, n),
            "land": np.array(["DE", "AT", "CH"])[rng.integers(0, 3, n)],
        }
    )


def measured(
    frame: pl.DataFrame, folder: Path, values: list[str], kinds: tuple[str, ...] = (), **more: object
) -> Measured:
    path = folder / "log.parquet"
    frame.write_parquet(path)
    columns = {name: more.pop(name, ()) for name in ("denominators", "befores", "denominators_before", "down")}
    design = {name: more.pop(name) for name in ("alpha", "correction", "peek", "planned", "shares") if name in more}
    how = {name: more.pop(name) for name in ("segment", "winsor", "control", "unit") if name in more}
    asked = units.asked(values, kinds, **columns)  # type: ignore[arg-type]
    read = units.read(path, asked, "arm", **{"unit": "u", **how})  # type: ignore[arg-type]
    segment = "segment" if "segment" in how else None
    return measure(
        read.frame, read.questions, Design(read.variants, **design), given=read.given, segment=segment,  # type: ignore[arg-type]
        notes=read.notes, **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.skipif(not COOKIES.exists(), reason="needs cookie-cats")
def test_cookie_cats() -> None:
    asked = units.asked(["retention_1", "retention_7", "sum_gamerounds"])
    read = units.read(COOKIES, asked, "test_version", unit="userid", control="gate_30")
    found = measure(read.frame, read.questions, Design(read.variants))
    day, week, rounds = found.findings
    assert (day.p, week.p) == pytest.approx((0.0744097, 0.00155425), rel=3e-6)
    assert found.srm_p == pytest.approx(0.00861, abs=5e-6) and found.srm == "warns"
    assert (found.counts, day.kind, rounds.kind) == ((44700, 45489), "proportion", "mean")
    assert (day.verdict, week.verdict) == (UNKNOWN, WORSE)
    assert "not enough to tell" in day.words and "worse" in week.words
    assert week.p_corrected == pytest.approx(3 * 0.00155425, rel=3e-6) and "x 3" in "\n".join(found.chain)


def test_one_row_a_user_is_what_scipy_says(tmp_path: Path) -> None:
    frame = log()
    found = measured(frame, tmp_path, ["bought", "spent"])
    a, b = (frame.filter(arm=name) for name in "ab")
    oracle = stats.ttest_ind(b["spent"], a["spent"], equal_var=False)
    spent = found.findings[1]
    assert spent.p == pytest.approx(oracle.pvalue, rel=1e-9)
    interval = oracle.confidence_interval()
    assert (spent.low, spent.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert spent.relative == pytest.approx(b["spent"].mean() / a["spent"].mean() - 1)
    assert spent.verdict == BETTER and spent.words.endswith("enough to ship")
    assert found.findings[0].kind == "proportion" and found.findings[0].value == pytest.approx(b["bought"].mean())


def test_less_can_be_better(tmp_path: Path) -> None:
    found = measured(log(), tmp_path, ["spent"], down=["spent"])
    assert found.findings[0].verdict == WORSE and found.findings[0].words.endswith("worse")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_rows_of_a_user_add_up_in_any_order(tmp_path_factory: pytest.TempPathFactory, seed: int, most: int) -> None:
    """A user's value cut into pieces, shuffled, and stored in row groups gives the same figures."""
    folder, rng, frame = tmp_path_factory.mktemp("log"), np.random.default_rng(seed), log(300, seed=3)
    whole = measured(frame, folder, ["clicks"], denominators=["views"])
    rows = frame.select("u", "arm", "clicks", "views", times=pl.Series(rng.integers(1, most + 1, frame.height)))
    left, pieces = rows, []
    for _ in range(most):
        more = left["times"] > 1
        piece = left.with_columns(
            pl.when(more).then(pl.col("clicks", "views") // 2).otherwise(pl.col("clicks", "views"))
        )
        pieces.append(piece)
        rest = left.with_columns(left["clicks"] - piece["clicks"], left["views"] - piece["views"], pl.col("times") - 1)
        left = rest.filter(more)
    shuffled = pl.concat(pieces).sample(fraction=1.0, shuffle=True, seed=seed % 1000)
    again = measured(shuffled, folder, ["clicks"], denominators=["views"])
    assert again.counts == whole.counts
    assert again.findings[0][6:19] == pytest.approx(whole.findings[0][6:19], rel=1e-9)


def test_the_time_before_takes_variance_away(tmp_path: Path) -> None:
    frame = log()
    plain = measured(frame, tmp_path, ["spent"]).findings[0]
    found = measured(frame, tmp_path, ["spent"], befores=["past"]).findings[0]
    y, x, t = frame["spent"].to_numpy(), frame["past"].to_numpy(), (frame["arm"] == "b").to_numpy()
    theta = np.cov(y, x)[0, 1] / x.var(ddof=1)
    left = y - theta * (x - x.mean())
    assert found.difference == pytest.approx(left[t].mean() - left[~t].mean(), rel=2e-3)
    assert found.variance_cut == pytest.approx(1 - np.corrcoef(y, x)[0, 1] ** 2 - 0, abs=1) and found.variance_cut > 0.5
    assert found.se == pytest.approx(plain.se * (1 - found.variance_cut) ** 0.5)
    # who has no past is as everybody, and the number of a user's rows does not change the past
    holes = frame.with_columns(past=pl.when(pl.col("u").str.ends_with("7")).then(None).otherwise(pl.col("past")))
    assert 0.3 < measured(holes, tmp_path, ["spent"], befores=["past"]).findings[0].variance_cut < found.variance_cut
    twice = pl.concat([frame, frame.filter(pl.col("bought")).with_columns(spent=pl.lit(0.0))])
    again = measured(twice, tmp_path, ["spent"], befores=["past"]).findings[0]
    assert again[6:19] == pytest.approx(found[6:19], rel=1e-9)


def test_scores_quantiles_and_cut_values(tmp_path: Path) -> None:
    frame = log()
    score, most, spent = measured(
        frame, tmp_path, ["score", "views", "spent"], ("nps", "quantile:0.9", "mean")
    ).findings
    b = frame.filter(arm="b")
    expected = 100 * ((b["score"] >= 9).mean() - (b["score"] <= 6).mean())
    assert score.value == pytest.approx(expected) and "points" in score.words and np.isnan(score.relative)
    assert most.value == b["views"].sort()[int(np.ceil(0.9 * b.height)) - 1]
    cut = measured(frame, tmp_path, ["spent"], winsor=0.9)
    top = np.quantile(frame["spent"], 0.9, method="inverted_cdf")
    assert cut.findings[0].value == pytest.approx(np.minimum(b["spent"], top).mean())
    assert cut.findings[0].value < spent.value
    assert any("cut" in note for note in cut.notes)


def test_a_quantile_of_events_knows_that_a_user_has_several(tmp_path: Path) -> None:
    rng, frame = np.random.default_rng(5), log(600)
    slow = dict(zip(frame["u"], rng.gamma(4.0, 50.0, 600), strict=True))
    events = pl.concat([frame.select("u", "arm")] * 10).with_columns(
        ms=pl.Series([slow[u] * f for u, f in zip(list(frame["u"]) * 10, rng.uniform(0.9, 1.1, 6000), strict=True)])
    )
    found = measured(events, tmp_path, ["ms"], ("quantile:0.5",)).findings[0]
    alone = measured(events, tmp_path, ["ms"], ("quantile:0.5",), unit=None).findings[0]
    assert found.value == alone.value and found.se > 2 * alone.se


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    frame = log(1000)
    crossed = pl.concat(
        [frame, frame.head(30).with_columns(arm=pl.when(pl.col("arm") == "a").then(pl.lit("b")).otherwise(pl.lit("a")))]
    )
    found = measured(crossed, tmp_path, ["spent"])
    assert sum(found.counts) == 970 and any(note.startswith("30 units (3.00%)") for note in found.notes)
    for nothing in (None, float("nan")):
        holes = frame.with_columns(spent=pl.when(pl.col("u") < "u00100").then(nothing).otherwise(pl.col("spent")))
        found = measured(holes, tmp_path, ["spent", "bought"])
        spent, bought = found.findings
        assert (spent.n + spent.n_control, bought.n + bought.n_control) == (900, 1000)
        assert any("100 units have no value" in note for note in found.notes)
        assert spent.value == pytest.approx(
            frame.filter((pl.col("u") >= "u00100") & (pl.col("arm") == "b"))["spent"].mean()
        )


def test_what_nobody_has_is_no_finding(tmp_path: Path) -> None:
    frame = log().with_columns(nothing=pl.lit(0), all=pl.lit(1))
    found = measured(frame, tmp_path, ["nothing", "all"])
    assert [one.words for one in found.findings] == [
        "nothing: nobody has any of it in b or in a: nothing to tell yet",
        "all: everybody has 1 in b or in a: nothing to tell yet",
    ]
    assert [one.p for one in found.findings] == [1, 1] and found.chain == ()


def test_looking_often_costs_width(tmp_path: Path) -> None:
    frame = log(4000)
    fixed, *looks = (
        measured(frame, tmp_path, ["spent"], **more).findings[0]  # type: ignore[arg-type]
        for more in ({}, {"peek": "horizon", "planned": 4000}, {"peek": "open", "planned": 4000})
    )
    width = fixed.high - fixed.low
    assert [(one.high - one.low) / width for one in looks] == pytest.approx([1.144, 1.53], abs=0.03)
    relative = fixed.relative_high - fixed.relative_low
    assert [(one.relative_high - one.relative_low) / relative for one in looks] == pytest.approx(
        [1.144, 1.53], abs=0.05
    )
    assert all(one.p > fixed.p for one in looks)
    over = measured(frame, tmp_path, ["spent"], peek="horizon", planned=1000).findings[0]
    assert over.p == 1 and over.verdict == UNKNOWN, "the plan is over"


def test_broken_shares_are_refused(tmp_path: Path) -> None:
    frame = log(4000)
    fewer = frame.filter((pl.col("arm") == "a") | (pl.int_range(pl.len()) % 5 > 0))
    with pytest.raises(Refused, match="not those planned"):
        measured(fewer, tmp_path, ["spent"])
    assert measured(fewer, tmp_path, ["spent"], force=True).srm == "blocks"
    n = [fewer.filter(arm=name).height for name in "ab"]
    planned = measured(fewer, tmp_path, ["spent"], shares=(n[0] / sum(n), n[1] / sum(n)))
    assert planned.srm == "ok"
    with pytest.raises(Refused, match="19 units"):
        measured(pl.concat([frame.filter(arm="a"), frame.filter(arm="b").head(19)]), tmp_path, ["spent"])


def test_segments_are_drawn_together_and_small_ones_stay_hidden(tmp_path: Path) -> None:
    frame = log(6000)
    lands = pl.when(pl.col("u") < "u00030").then(pl.lit("LI")).otherwise(pl.col("land"))
    found = measured(frame.with_columns(land=lands), tmp_path, ["spent"], segment="land")
    assert [one.segment for one in found.segments] == ["AT", "CH", "DE"]
    effects, drawn = ([getattr(one, name) for one in found.segments] for name in ("effect", "shrunk"))
    assert max(drawn) - min(drawn) <= max(effects) - min(effects)
    for one in found.segments:
        a, b = (frame.with_columns(land=lands).filter(land=one.segment, arm=arm)["spent"].mean() for arm in "ab")
        assert one.effect == pytest.approx(b / a - 1)


def test_sums_keep_digits_beside_a_large_mean() -> None:
    rng = np.random.default_rng(2)
    values = 1e9 + rng.normal(0, 1, (2000, 2))
    frame = pl.DataFrame({"variant": np.arange(2000) % 2, "x": values[:, 0], "y": values[:, 1]})
    found = moments(frame, [Question("x", "ratio", ("x", "y"))])
    for arm in (0, 1):
        exact = of_values(values[arm::2])
        assert found[(arm,)]["x"].cross == pytest.approx(exact.cross, rel=1e-6, abs=1e-4)
        assert found[(arm,)]["x"].mean == pytest.approx(exact.mean, rel=1e-14)


@pytest.mark.parametrize(
    ("change", "more", "error", "words"),
    [
        ({}, {"values": ["nothing"]}, MissingInput, "no column 'nothing'"),
        ({}, {"values": ["land"]}, BadData, "'"),
        ({}, {"values": ["spent"], "control": "c"}, UsageError, "no variant"),
        ({}, {"values": ["spent"], "kinds": ("proportion",)}, BadData, "proportion"),
        ({}, {"values": ["spent"], "kinds": ("quantile",)}, UsageError, "quantile"),
        ({}, {"values": ["spent"], "kinds": ("median",)}, UsageError, "no kind"),
        ({}, {"values": ["spent"], "kinds": ("nps",)}, BadData, "scores"),
        ({}, {"values": ["clicks"], "denominators": ["views"], "befores": ["past"]}, UsageError, "both of its parts"),
        ({}, {"values": ["spent"], "peek": "open"}, UsageError, "planned"),
        ({}, {"values": ["spent"], "alpha": 2.0}, UsageError, "alpha"),
        ({}, {"values": ["spent"], "correction": "bonferoni"}, UsageError, "correction"),
        ({}, {"values": ["spent", "spent"]}, UsageError, "twice"),
        ({"arm": "a"}, {"values": ["spent"]}, BadData, "at least two variants"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, change: dict[str, str], more: dict[str, object], error: type[Exception], words: str
) -> None:
    frame = log(200).with_columns(pl.lit(value).alias(name) for name, value in change.items())
    values = more.pop("values")
    with pytest.raises(error, match=words):
        measured(frame, tmp_path, values, **more)  # type: ignore[arg-type]
