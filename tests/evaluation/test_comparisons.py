"""Which of two models is better: against scipy, published tables, and by how often false alarms are raised."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from persona_cli.errors import BadData, UsageError
from persona_cli.evaluation import comparisons
from persona_cli.evaluation.comparisons import as_json, compared, detectable, holm, no_worse, paired_p, users_needed

Floats = NDArray[np.float64]


def frame(values: Floats, metric: str = "ndcg@20") -> pl.DataFrame:
    return pl.DataFrame({"user_id": [f"u{user:05d}" for user in range(len(values))], metric: values})


def ndcg_like(draws: np.random.Generator, *shape: int, hits: float = 0.35) -> Floats:
    """NDCG@20 with one right answer, of which 20 of 57 are in the list: 0 or 1 / log2(rank + 1)."""
    rank = draws.integers(1, round(20 / hits) + 1, shape)
    return np.where(rank <= 20, 1 / np.log2(rank + 1.0), 0.0)


few = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=40)


def test_with_few_who_differ_every_exchange_is_counted() -> None:
    draws = np.random.default_rng(1)
    apart = draws.normal(0.4, 1.0, 15)
    oracle = stats.permutation_test((apart,), np.mean, permutation_type="samples", n_resamples=np.inf)
    padded = np.concatenate([apart, np.zeros(300)])  # users in whom both are alike say nothing
    assert paired_p(padded, np.zeros(315)) == pytest.approx(oracle.pvalue, abs=1e-12)
    # Darwin's maize (Fisher 1935, The Design of Experiments, chapter III): 863 + 863 of 32,768 ways, p = 0.0527.
    maize = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])
    assert paired_p(maize, np.zeros(15)) == pytest.approx(0.0527, abs=5e-5)


def test_with_more_it_is_students_paired_t() -> None:
    draws = np.random.default_rng(2)
    ours, theirs = ndcg_like(draws, 500), ndcg_like(draws, 500)
    assert paired_p(ours, theirs) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-10)


def test_the_two_tests_meet_where_one_takes_over() -> None:
    draws = np.random.default_rng(3)
    for _ in range(30):
        apart = np.concatenate([draws.normal(0.3, 1.0, 16), np.zeros(30)])
        t = stats.ttest_1samp(apart, 0.0).pvalue
        assert paired_p(apart, np.zeros(46)) == pytest.approx(t, abs=0.035)


def test_four_users_of_one_mind_are_no_proof() -> None:
    ours = np.zeros(50)
    ours[:4] = 1.0
    assert paired_p(ours, np.zeros(50)) == 0.125
    assert stats.ttest_1samp(ours, 0.0).pvalue < 0.05
    assert paired_p(np.full(30, 0.01), np.zeros(30)) == 2.0**-29
    assert paired_p(ours, ours) == 1.0 and paired_p([0.1], [0.4]) == 1.0


def test_rounding_is_no_difference() -> None:
    ours = ndcg_like(np.random.default_rng(4), 100)
    assert paired_p(ours + 1e-16, ours) == 1.0
    assert paired_p([0.1 + 0.2, 0.6, 0.0], [0.3, 0.3, 0.3]) == 1.0  # 0.3 and -0.3: both exchanges are as extreme


def test_holm_is_the_step_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.02, 0.5]) == pytest.approx([1.0, 0.06, 1.0])
    assert holm([]) == [] and holm([0.04]) == [0.04]


def test_users_needed_reach_the_power_that_was_asked_for() -> None:
    """Against the noncentral t, as power of paired tests is computed elsewhere."""
    for effect in (0.1, 0.25, 0.5):
        users = users_needed(1.0, effect)
        assert users is not None
        for n, least, most in ((users, 0.799, 0.83), (users - 3, 0.70, 0.80)):
            edge = stats.t.ppf(0.975, n - 1)
            shift = effect * math.sqrt(n)
            power = stats.nct.sf(edge, n - 1, shift) + stats.nct.cdf(-edge, n - 1, shift)
            assert least <= power <= most, (effect, n)
    assert users_needed(1.0, 0.5) == 34 and users_needed(1.0, -0.5) == 34  # 33.4 by the exact power
    assert users_needed(0.04, 0.02, power=0.9) == math.ceil((1.959964 + 1.281552) ** 2 * 100 + 1.92073)
    assert users_needed(1.0, 0.0) is None


def test_the_detectable_difference_is_users_needed_the_other_way_round() -> None:
    found = detectable(0.09, 1000)
    assert found is not None
    assert users_needed(0.09, found * (1 + 1e-9)) == 1000
    assert detectable(0.0, 1000) is None and detectable(0.09, 1) is None


def test_a_better_model_is_called_better() -> None:
    draws = np.random.default_rng(5)
    base = ndcg_like(draws, 2000)
    better = np.where(draws.random(2000) < 0.1, 1.0, base)
    (found,) = compared({"a": frame(better), "b": frame(base)}, "ndcg@20", [("a", "b")])
    assert (found.verdict, found.no_worse, found.users) == ("better", True, 2000)
    assert found.difference.value == pytest.approx(better.mean() - base.mean())
    assert found.lift is not None and found.lift.value == pytest.approx(better.mean() / base.mean() - 1)
    assert found.users_who_differ == np.count_nonzero(better != base)
    variance = (better - base).var(ddof=1)
    assert found.users_needed == users_needed(variance, better.mean() - base.mean())
    assert found.users_needed is not None and found.users_needed < 2000
    assert as_json(found)["lift"].keys() == {"value", "low", "high"} and as_json(found)["verdict"] == "better"


def test_the_same_model_twice_is_within_noise_and_no_worse() -> None:
    base = ndcg_like(np.random.default_rng(6), 400)
    (found,) = compared({"a": frame(base), "b": frame(base)}, "ndcg@20", [("a", "b")])
    assert (found.p, found.verdict, found.no_worse) == (1.0, "within noise", True)
    assert found.difference == (0.0, 0.0, 0.0) and found.users_needed is None and found.detectable is None


def test_over_nothing_there_is_a_difference_and_no_lift() -> None:
    base = ndcg_like(np.random.default_rng(7), 300)
    (found,) = compared({"a": frame(base), "b": frame(0 * base)}, "ndcg@20", [("a", "b")])
    assert found.lift is None and found.verdict == "better" and not found.no_worse


def test_many_comparisons_are_one_family() -> None:
    draws = np.random.default_rng(8)
    frames = {name: frame(ndcg_like(draws, 200)) for name in "abcd"}
    pairs = [("a", "d"), ("b", "d"), ("c", "d")]
    found = compared(frames, "ndcg@20", pairs)
    assert [one.p_holm for one in found] == pytest.approx(holm([one.p for one in found]))
    alone = [compared(frames, "ndcg@20", [pair])[0] for pair in pairs]
    assert [one.p for one in alone] == [one.p for one in found]
    assert [one.p_holm for one in alone] == [one.p for one in found]


@given(few, few)
def test_exchanging_the_models_turns_everything_round(ours: list[float], theirs: list[float]) -> None:
    n = min(len(ours), len(theirs))
    frames = {"a": frame(np.array(ours[:n])), "b": frame(np.array(theirs[:n]))}
    one, other = compared(frames, "ndcg@20", [("a", "b"), ("b", "a")])
    assert one.p == other.p and 0.0 < one.p <= 1.0
    assert one.difference.value == -other.difference.value
    assert one.difference.low is not None and other.difference.high is not None
    assert one.difference.low == pytest.approx(-other.difference.high)
    assert (one.users_needed, one.detectable) == (other.users_needed, other.detectable)
    opposite = {"better": "worse", "worse": "better", "within noise": "within noise"}
    assert other.verdict == opposite[one.verdict]
    if one.verdict == "worse":
        assert not one.no_worse or one.difference.value > -one.margin


@given(few, st.integers(0, 100))
def test_the_order_of_rows_does_not_matter(values: list[float], seed: int) -> None:
    draws = np.random.default_rng(seed)
    ours, theirs = np.array(values), draws.permutation(values)
    frames = {"a": frame(ours), "b": frame(theirs)}
    mixed = {name: one.sample(fraction=1.0, shuffle=True, seed=seed + 1) for name, one in frames.items()}
    assert compared(mixed, "ndcg@20", [("a", "b")]) == compared(frames, "ndcg@20", [("a", "b")])


def test_no_worse_is_fiellers_lower_bound_where_nothing_is_skewed() -> None:
    draws = np.random.default_rng(9)
    base = draws.normal(0.5, 0.05, 400)
    ours = base + draws.normal(0.0, 0.02, 400)
    margins = np.linspace(0.0, 0.02, 201)
    shown = [no_worse(ours, base, margin) for margin in margins]
    assert shown == sorted(shown) and not shown[0] and shown[-1]  # once shown, shown for every greater margin
    limit = margins[shown.index(True)]
    p = stats.ttest_rel(ours, (1 - limit) * base, alternative="greater").pvalue
    assert p == pytest.approx(0.05, abs=0.01)


def test_what_cannot_be_compared_is_refused() -> None:
    base = np.array([0.1, 0.2])
    frames = {"ease": frame(base), "knn": frame(np.array([0.1, 0.2, 0.3]))}
    for call, error, said in (
        (lambda: compared(frames, "ndcg@20", [("ease", "knnn")]), UsageError, "did you mean 'knn'"),
        (lambda: compared(frames, "ndgc@20", [("ease", "ease")]), UsageError, "did you mean 'ndcg@20'"),
        (lambda: compared(frames, "ndcg@20", [("ease", "knn")]), BadData, "not asked about the same users"),
        (lambda: compared(frames, "ndcg@20", [("ease", "ease")], margin=1.0), UsageError, "the margin is 1.0"),
        (lambda: compared({"a": frame(base[:0])}, "ndcg@20", [("a", "a")]), BadData, "no users"),
    ):
        with pytest.raises(error, match=said):
            call()
    twice = pl.concat([frames["ease"], frames["ease"]])
    with pytest.raises(BadData, match="two rows for one user"):
        compared({"a": twice}, "ndcg@20", [("a", "a")])


def false_alarms(n_users: int, runs: int, hits: float, seed: int) -> float:
    """Share of runs with p < 5 % where both models are equally good: each user's values are drawn alike for both."""
    draws = np.random.default_rng(seed)
    alarms = done = 0
    while done < runs:
        size = min(runs - done, max(1, 4_000_000 // n_users))
        ours, theirs = ndcg_like(draws, n_users, size, hits=hits), ndcg_like(draws, n_users, size, hits=hits)
        # Models share what they get right: in half of the users the lists are alike.
        theirs = np.where(draws.random((n_users, size)) < 0.5, ours, theirs) if n_users > 100 else theirs
        alarms += sum(paired_p(ours[:, run], theirs[:, run]) < comparisons.ALPHA for run in range(size))
        done += size
    return alarms / runs


@pytest.mark.parametrize("n_users", [50, 200])
def test_false_alarms_are_5_in_100(n_users: int) -> None:
    assert false_alarms(n_users, 3000, 0.35, seed=10) == pytest.approx(0.05, abs=0.0145)  # 3.6 standard errors


def test_two_users_who_differ_never_raise_an_alarm() -> None:
    assert false_alarms(30, 1500, 0.02, seed=11) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("n_users", [50, 200, 1000, 10_000])
def test_false_alarms_are_5_in_100_over_20_000_runs(n_users: int) -> None:
    assert false_alarms(n_users, 20_000, 0.35, seed=12) == pytest.approx(0.05, abs=0.005)


def test_a_model_at_the_margin_is_rarely_called_no_worse() -> None:
    draws = np.random.default_rng(13)
    base = ndcg_like(draws, 300, 3000)
    ours = np.where(draws.random((300, 3000)) < 0.99, ndcg_like(draws, 300, 3000), 0.0)
    shown = np.mean([no_worse(ours[:, run], base[:, run]) for run in range(3000)])
    assert 0.02 < shown <= 0.064  # 5 %, and 3.5 standard errors
