from __future__ import annotations

import random

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from persona_cli.models.item_features import STOP_LEAST, Words

TEXTS = [
    "Late payers, and how to tame late PAYERS",
    "how to tame a lion",
    "The lion: late for tea?",
    None,
    "tea tea tea",
]


def dense(words: Words, texts: list[str | None]) -> np.ndarray:
    return words.vectors(pl.Series(texts, dtype=pl.String)).toarray()


def test_equals_the_vectoriser_of_scikit_learn() -> None:
    there = [text for text in TEXTS if text is not None]
    oracle = TfidfVectorizer(token_pattern=r"\w+", min_df=2, sublinear_tf=True).fit(there)
    words = Words.of(pl.Series(TEXTS))
    assert words.names.to_list() == oracle.get_feature_names_out().tolist()
    assert np.allclose(words.rarity, oracle.idf_)
    wanted = oracle.transform([text or "" for text in TEXTS]).toarray()
    assert np.allclose(dense(words, TEXTS), wanted, atol=1e-6)
    assert np.allclose(dense(words, ["a lion and late"]), oracle.transform(["a lion and late"]).toarray(), atol=1e-6)


def test_words_of_one_text_and_words_of_most_texts_do_not_count() -> None:
    rng = random.Random(4)
    topics = ["cats", "dogs", "tea", "lions", "snow"]
    texts = [f"the {topics[n % 5]} and the {rng.choice(topics)} only{n}" for n in range(10 * STOP_LEAST)]
    names = Words.of(pl.Series(texts)).names.to_list()
    assert "the" not in names and "and" not in names and "only3" not in names
    # In a small catalogue a word in many texts is still a topic.
    assert "the" in Words.of(pl.Series(texts[:STOP_LEAST])).names.to_list()


def test_scripts_without_spaces_are_read_by_pairs_of_characters() -> None:
    words = Words.of(pl.Series(["手机很好用", "好用的手机 iPhone", "IPHONE手机"]))
    assert words.names.to_list() == ["iphone", "好用", "手机"]
    assert (dense(words, ["手机"]) == [[0, 0, 1]]).all()


def test_accents_stay_and_forms_of_one_character_are_one() -> None:
    words = Words.of(pl.Series(["Café naïve", "cafe\u0301", "ﬁn", "fin"]))
    assert words.names.to_list() == ["café", "fin"]


def test_no_texts_at_all() -> None:
    for texts in ([], [None, None], ["", "?!"]):
        words = Words.of(pl.Series(texts, dtype=pl.String))
        assert len(words.names) == 0
        assert words.vectors(pl.Series(["tea", None])).shape == (2, 0)


@given(st.lists(st.text(max_size=30), max_size=12))
def test_vectors_have_length_one_or_none(texts: list[str]) -> None:
    made = Words.of(pl.Series(texts, dtype=pl.String)).vectors(pl.Series(texts, dtype=pl.String))
    lengths = np.sqrt(np.square(made.toarray()).sum(axis=1))
    assert np.all(np.isclose(lengths, 1, atol=1e-5) | (lengths == 0))
