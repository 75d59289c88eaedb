"""k-anonymity and l-diversity: tables worked by hand, and the census against grouping it with plain Python."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.errors import UsageError
from persona_cli.privacy.anonymity import anonymity

ADULT = Path(__file__).parents[3] / "shared" / "data" / "adult" / "people.parquet"

# The 4-anonymous table of inpatients that Machanavajjhala et al. 2007 begin with (figure 2).
INPATIENTS = pl.DataFrame(
    [("130**", "<30", ill) for ill in ("heart", "heart", "viral", "viral")]
    + [("1485*", ">=40", ill) for ill in ("cancer", "heart", "viral", "viral")]
    + [("130**", "3*", "cancer")] * 4,
    schema=["zip", "age", "condition"],
    orient="row",
)


def test_the_inpatients_are_4_anonymous_and_not_diverse() -> None:
    found = anonymity(INPATIENTS, ["zip", "age"], ["condition"])
    assert (found.k, found.rows, found.people, found.classes.height) == (4, 12, 12, 3)
    (diversity,) = found.diversities
    assert (diversity.distinct, diversity.entropy) == (1, 1.0)
    by_age = {row["age"]: row for row in found.classes.iter_rows(named=True)}
    assert by_age["<30"]["entropy_l_condition"] == pytest.approx(2)
    assert by_age[">=40"]["entropy_l_condition"] == pytest.approx(2**1.5)  # shares 1/4, 1/4, 1/2
    assert [by_age[age]["l_condition"] for age in ("<30", ">=40", "3*")] == [2, 3, 1]
    assert found.short(4).height == 0 and found.short(5).height == 3
    assert found.short(4, min_l=2)["age"].to_list() == ["3*"]
    assert sorted(found.short(1, min_l=3)["age"]) == ["3*", "<30"]
    assert found.short(1, min_entropy_l=2)["age"].to_list() == ["3*"]


def test_rows_of_one_person_hide_nobody() -> None:
    events = pl.DataFrame(
        {"user": ["a"] * 9 + ["b", "c"], "country": ["de"] * 9 + ["fr"] * 2, "plan": ["x"] * 8 + ["y"] + ["x", "x"]}
    )
    found = anonymity(events, ["country"], ["plan"], person="user")
    assert found.classes.to_dicts() == [
        {"country": "de", "people": 1, "rows": 9, "l_plan": 2, "entropy_l_plan": pytest.approx(2)},
        {"country": "fr", "people": 2, "rows": 2, "l_plan": 1, "entropy_l_plan": pytest.approx(1)},
    ]
    assert (found.k, anonymity(events, ["country"]).k) == (1, 2)
    assert found.sizes().to_dicts() == [
        {"from": 1, "to": 1, "classes": 1, "people": 1},
        {"from": 2, "to": 2, "classes": 1, "people": 2},
    ]


def test_missing_values_are_a_class_of_their_own() -> None:
    table = pl.DataFrame({"age": [None, None, 30], "plan": [None, "x", "x"]})
    found = anonymity(table, ["age"], ["plan"])
    assert [(row["age"], row["people"], row["l_plan"]) for row in found.classes.iter_rows(named=True)] == [
        (30, 1, 1),
        (None, 2, 2),
    ]


def test_an_empty_table_and_columns_that_are_not_there() -> None:
    assert anonymity(INPATIENTS.clear(), ["zip"], ["condition"]).k == 0
    with pytest.raises(UsageError, match="no column 'zap'; did you mean 'zip'"):
        anonymity(INPATIENTS, ["zap"])
    with pytest.raises(UsageError, match="named twice"):
        anonymity(INPATIENTS, ["zip"], ["zip"])
    with pytest.raises(UsageError, match="quasi"):
        anonymity(INPATIENTS, [])


ROWS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 2)))


@given(ROWS, st.integers(1, 4), st.integers(1, 3))
def test_what_is_left_without_the_short_classes_meets_the_minimum(
    rows: list[tuple[int, str, str, int]], k: int, least: int
) -> None:
    table = pl.DataFrame(rows, schema={"who": pl.Int64, "a": pl.String, "b": pl.String, "s": pl.Int64}, orient="row")
    short = anonymity(table, ["a", "b"], ["s"], "who").short(k, least)
    left = table.join(short, on=["a", "b"], how="anti")
    again = anonymity(left, ["a", "b"], ["s"], "who")
    assert again.short(k, least).height == 0
    assert left.height == 0 or (again.k >= k and again.diversities[0].distinct >= least)
    assert again.diversities[0].entropy <= again.diversities[0].distinct + 1e-9


@pytest.mark.skipif(not ADULT.is_file(), reason="the shared data are not here")
def test_the_census() -> None:
    table = pl.read_parquet(ADULT)
    quasi, sensitive = ["age", "gender", "race"], "occupation"
    groups: dict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    for *key, value in table.select(*quasi, sensitive).iter_rows():
        groups[tuple(key)][value] += 1

    def entropy_l(counts: Counter[str]) -> float:
        shares = [n / counts.total() for n in counts.values()]
        return math.prod(share**-share for share in shares)

    found = anonymity(table, quasi, [sensitive])
    assert found.k == min(counts.total() for counts in groups.values())
    assert found.classes.height == len(groups)
    assert found.diversities[0].distinct == min(map(len, groups.values()))
    for row in found.classes.iter_rows(named=True):
        counts = groups[tuple(row[name] for name in quasi)]
        assert (row["people"], row["l_occupation"]) == (counts.total(), len(counts))
        assert row["entropy_l_occupation"] == pytest.approx(entropy_l(counts))
    assert found.short(5)["rows"].sum() == sum(c.total() for c in groups.values() if c.total() < 5)
