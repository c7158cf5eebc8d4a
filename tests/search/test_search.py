"""The rules of scoring, on real segments with features chosen by hand."""

from __future__ import annotations

import math
import re
from collections import Counter

import bm25s
import numpy as np
import pytest
from helpers.segments import add as add_chunks
from rank_bm25 import BM25Okapi

from s3_retriever import (
    Advanced,
    Document,
    FeatureCoverage,
    Interleave,
    MaxToken,
    Recipe,
    TapRecipe,
)
from s3_retriever.features import EncodedQuestion, Layout, TapFeatures
from s3_retriever.index import Store
from s3_retriever.search import Limits, admitted, rank, select
from s3_retriever.search.fusion import Spread, extremes, interleave, nth_largest, weigh
from s3_retriever.search.signals import (
    Coactivation,
    FeatureWeights,
    count_terms,
    question_weights,
    smooth,
    term_gains,
    united_terms,
)
from s3_retriever.text import analyze

FEATURES = 40


def recipe(taps=None, scoring=None, fusion=None, **advanced):
    """Weighs features as eq. 7 does; `advanced` says what else is special."""
    parts = {"scoring": scoring, "fusion": fusion}
    return Recipe(
        taps=taps or {"hidden.0": TapRecipe()},
        advanced=Advanced(**{"weight_power": 1.0, "idf_power": 1.0} | advanced),
        **{name: part for name, part in parts.items() if part is not None},
    )


def words(text):
    return np.array([match.start() for match in re.finditer(r"\S+", text)], dtype=np.uint32)


def make_store(texts, k=3, seed=0):
    """An index whose tokens are words, each with random features; returns those too."""
    generator = np.random.default_rng(seed)
    store = Store.create(None, {})
    features = [
        generator.integers(-1, FEATURES, (len(words(text)), k)).astype(np.int32) for text in texts
    ]
    documents = [Document(text, f"d{number}") for number, text in enumerate(texts)]
    add(store, documents, features)
    return store, features


def add(store, documents, features):
    """Add documents whose tokens are words, with the features [tokens, k] of each."""
    with store.append(Layout({"hidden.0": FEATURES})) as writer:
        for document, rows in zip(documents, features, strict=True):
            add_chunks(writer, document, words(document.text), {"hidden.0": rows})


def brute_force(features, weights, kernel, idf_power):
    """Eq. 7 read literally, one token and one feature at a time."""
    tokens = [set(row[row >= 0].tolist()) for document in features for row in document]
    frequency = Counter(feature for token in tokens for feature in token)
    smoothed = []
    for document in features:
        raw = []
        for row in document:
            score = 0.0
            for feature in set(row.tolist()) & set(weights):
                idf = -math.log(frequency[feature] / len(tokens))
                score += weights[feature] * idf**idf_power
            raw.append(score)
        left, right = kernel // 2, (kernel - 1) // 2
        smoothed += [sum(raw[max(i - left, 0) : i + right + 1]) for i in range(len(raw))]
    return np.array(smoothed)


TEXTS = [
    "one two three four. five six seven eight nine. ten eleven",
    "alpha beta. gamma delta epsilon zeta.",
    "solo",
    "",
    "a b c d e f g h i j k l m n o p. q r s t u v w x y z.",
]


@pytest.mark.parametrize("kernel", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("idf_power", [1.0, 1.5])
def test_scores_are_equation_7_token_by_token(kernel, idf_power):
    store, features = make_store(TEXTS)
    settings = recipe(scoring=MaxToken(kernel=kernel), idf_power=idf_power)
    weights = {3: 1.0, 7: 0.5, 12: 2.0, 39: 0.1, 0: 1.5}
    question = TapFeatures(
        np.array([list(weights)]), np.array([list(weights.values())], dtype=np.float32)
    )
    pooled = question_weights({"hidden.0": question}, settings)
    scores = Coactivation(store.snapshot(), pooled, settings)
    expected = brute_force(features, weights, kernel, idf_power)
    np.testing.assert_allclose(np.concatenate(scores.tokens), expected, atol=1e-5)


@pytest.mark.parametrize("length_power", [0.0, 0.4])
def test_with_feature_coverage_a_sentence_scores_its_distinct_features(length_power):
    store, features = make_store(["Alpha beta. Gamma alpha alpha beta. Delta.", "Beta gamma. " * 9])
    settings = recipe(scoring=FeatureCoverage(length_power=length_power))
    weights = np.random.default_rng(1).random(FEATURES)
    pooled = {"hidden.0": FeatureWeights(np.arange(FEATURES), weights)}
    scores = Coactivation(store.snapshot(), pooled, settings)
    full = scores.weights["hidden.0"]
    rows = np.concatenate(features)
    expected, token = [], 0
    for size in store.snapshot().column("n_tokens").tolist():
        fires = np.unique(rows[token : token + size])
        expected.append(full[fires[fires >= 0]].sum() / size**length_power)
        token += size
    assert token == len(rows)
    np.testing.assert_allclose(scores.sentences(), expected)


def test_pooling_sums_or_takes_the_largest_activation():
    question = TapFeatures(
        np.array([[5, 2], [5, -1]]), np.array([[4.0, 9.0], [5.0, 0.0]], dtype=np.float32)
    )
    summed = question_weights({"hidden.0": question}, recipe(pooling="sum"))["hidden.0"]
    largest = question_weights(
        {"hidden.0": question},
        recipe(pooling="max", weight_power=0.5, taps={"hidden.0": TapRecipe(weight=2)}),
    )["hidden.0"]
    assert summed.features.tolist() == [2, 5]
    np.testing.assert_allclose(summed.weights, [9, 9])
    np.testing.assert_allclose(largest.weights, [2 * 3, 2 * math.sqrt(5)])


def test_scores_do_not_depend_on_how_documents_were_added_or_deleted():
    """Two segments with a deleted document score as one segment without it."""
    generator = np.random.default_rng(1)
    rows = [generator.integers(-1, FEATURES, (len(words(t)), 3)).astype(np.int32) for t in TEXTS]
    documents = [Document(text, text or "empty") for text in TEXTS]
    split, whole = Store.create(None, {}), Store.create(None, {})
    add(split, documents[:2], rows[:2])
    add(split, documents[2:], rows[2:])
    split.delete([TEXTS[0]])
    add(whole, documents[1:], rows[1:])
    question = {"hidden.0": TapFeatures(np.arange(20)[None], np.ones((1, 20), np.float32))}
    settings = recipe(scoring=MaxToken(kernel=4))
    scores = []
    for store in (split, whole):
        snapshot = store.snapshot()
        coactivation = Coactivation(snapshot, question_weights(question, settings), settings)
        allowed = admitted(snapshot, None)
        scores.append((coactivation.sentences()[allowed], bm25(snapshot, "gamma alpha x")[allowed]))
    np.testing.assert_allclose(scores[0][0], scores[1][0])
    np.testing.assert_allclose(scores[0][1], scores[1][1])


def test_smoothing_never_crosses_a_document_border():
    scores = np.array([0.0, 0, 8, 1, 0, 0, 5])
    starts = np.array([0, 3, 3, 6])  # the third document is empty
    np.testing.assert_allclose(smooth(scores, starts, 5), [8, 8, 8, 1, 1, 1, 5])
    np.testing.assert_allclose(smooth(scores, starts, 1), scores)


CORPUS = [
    "The cat sat on the mat.",
    "A dog chased the cat around the garden.",
    "Quantum computers factor large numbers quickly.",
    "The gardener planted roses and roses and roses.",
    "Numbers never lie, said the accountant.",
    "Nothing to see here.",
]


def bm25(snapshot, question):
    return term_gains(snapshot, count_terms(question)).scores(len(snapshot))


@pytest.mark.parametrize("question", ["cat garden", "roses numbers", "large quantum roses cat"])
def test_bm25_ranks_as_the_reference_implementations(question):
    store, _ = make_store(CORPUS)
    scores = bm25(store.snapshot(), question)
    tokens = [analyze(text) for text in CORPUS]
    lucene = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    lucene.index(tokens, show_progress=False)
    expected = lucene.get_scores(analyze(question))
    # bm25s leaves out the constant factor k1 + 1, as Lucene does.
    np.testing.assert_allclose(scores, expected * 2.5, rtol=1e-5)
    okapi = BM25Okapi(tokens).get_scores(analyze(question))
    matches = np.flatnonzero(scores)
    assert np.argsort(-scores[matches]).tolist() == np.argsort(-okapi[matches]).tolist()
    assert len(matches) > 1


def test_bm25_of_several_questions_is_that_of_each():
    store, _ = make_store(CORPUS)
    snapshot = store.snapshot()
    questions = ("cat cat garden", "roses garden", "", "zebra")
    counted = [count_terms(question) for question in questions]
    every = term_gains(snapshot, united_terms(counted)).scores_of(counted, len(snapshot))
    for scores, question in zip(every, questions, strict=True):
        np.testing.assert_allclose(scores, bm25(snapshot, question))
    assert bm25(snapshot, questions[0]).max() > bm25(snapshot, "cat garden").max()


def test_interleaved_signals_take_turns():
    raw_scores = {"s3": np.array([9.0, 8, 7, 0]), "bm25": np.array([0.0, 1, 5, 3])}
    order = np.argsort(-interleave(raw_scores, np.ones(4, dtype=bool)), kind="stable")
    # s3's first, bm25's first, s3's second; then bm25's second: entry 3.
    assert order.tolist() == [0, 2, 1, 3]


def test_z_scores_are_weighed():
    raw_scores = {"s3": np.array([1.0, 2, 3]), "bm25": np.array([300.0, 200, 100])}
    chosen = np.ones(3, dtype=bool)
    equal = weigh(raw_scores, {}, chosen, 256)
    np.testing.assert_allclose(equal["s3"] + equal["bm25"], 0, atol=1e-12)
    heavier = weigh(raw_scores, {"bm25": 2.0}, chosen, 256)
    assert np.argmax(heavier["s3"] + heavier["bm25"]) == 0


@pytest.mark.parametrize("distinct", [2, 50, 100_000])
def test_the_nth_largest_of_scores_many_of_which_are_equal(distinct):
    generator = np.random.default_rng(0)
    for size in (1, 2, 63, 64, 1_000, 70_000):
        scores = generator.integers(0, distinct, size).astype(np.float64)
        scores[generator.random(size) < 0.2] = -np.inf
        ordered = np.sort(scores)[::-1]
        for n in {0, 1, 10, 64, 1_024, size - 1} & set(range(size)):
            assert nth_largest(scores, n) == ordered[n], (size, n)


def test_few_and_many_scores_have_the_same_extremes_and_spread():
    generator = np.random.default_rng(0)
    few, chosen = generator.normal(size=1_000), generator.random(1_000) < 0.3
    several = np.tile(few, 20), np.tile(chosen, 20)
    count, lowest, highest = extremes(few, chosen)
    assert extremes(*several) == (20 * count, lowest, highest)
    spread, wide = Spread.of(few, chosen), Spread.of(*several)
    assert (wide.count, spread.count) == (20 * count, count)
    np.testing.assert_allclose((wide.mean, wide.deviation), (spread.mean, spread.deviation))
    for size in (5, 10_000):
        none = np.zeros(size), np.zeros(size, dtype=bool)
        assert extremes(*none) == (0, np.inf, -np.inf)
        assert Spread.of(*none).deviation == 0
        assert Spread.of(np.full(size, 0.1), ~none[1]).deviation == 0


def test_a_word_of_few_does_not_outweigh_all_else_in_a_large_index():
    generator = np.random.default_rng(0)
    for size in (1_000, 100_000):
        states, words = generator.normal(size=size), np.zeros(size)
        words[: size // 50] = generator.normal(2.0, 0.1, size // 50)
        # The first means what is asked without a word of it, the second shares no more than words.
        states[:2], words[:2] = [6.0, 0.0], [0.0, 2.4]
        weighed = weigh({"s3": states, "bm25": words}, {}, np.ones(size, dtype=bool), 100)
        total = weighed["s3"] + weighed["bm25"]
        assert total[0] > total[1], size


def test_scores_below_a_signals_candidates_are_noise():
    raw_scores = {"s3": np.arange(10.0), "bm25": np.array([5.0, 4, 0, 0, 0, 0, 0, 0, 0, 0])}
    chosen = np.arange(10) > 0
    weighed = weigh(raw_scores, {}, chosen, 3)
    assert len(set(weighed["s3"][:7])) == 1 < len(set(weighed["s3"][6:]))
    assert weighed["bm25"][1] > weighed["bm25"][2] == weighed["bm25"][9]
    kept = np.array([1, 7, 8, 9])
    for scores in weighed.values():
        np.testing.assert_allclose([scores[kept].mean(), scores[kept].std()], [0, 1], atol=1e-9)


def test_more_equal_scores_than_candidates_stand_out_from_the_rest():
    same = np.repeat([0.0, 1.0, 2.0], [50, 10, 40])
    chosen = np.ones(100, dtype=bool)
    weighed = weigh({"s3": same, "bm25": np.zeros(100)}, {}, chosen, 5)
    assert weighed["s3"][-1] > weighed["s3"][0] == weighed["s3"][55]
    assert not weighed["bm25"].any()


def ranking_of(store, question):
    snapshot = store.snapshot()
    return rank(snapshot, question, recipe(), None, "bm25", admitted(snapshot, None))


def test_spans_never_overlap_and_stay_in_their_document():
    text = " ".join(f"Sentence {i} names cat{i % 3} and dog{i % 5}." for i in range(40))
    store, _ = make_store([text, text.replace("Sentence", "Phrase"), "No animals."])
    ranking = ranking_of(store, "cat1 dog2 dog3")
    spans = select(ranking, recipe(radius=9), Limits(token_budget=10_000))
    covered = Counter()
    for span in spans:
        document = [text, text.replace("Sentence", "Phrase")][int(span.document_id[1:])]
        assert document[span.start : span.end] == span.text
        covered.update((span.document_id, i) for i in range(span.start, span.end))
    assert max(covered.values()) == 1
    assert [span.score for span in spans] == sorted((s.score for s in spans), reverse=True)
    # Radius widens spans: some hold more than one sentence.
    assert any(span.text.count("names") > 1 for span in spans)


def test_a_budget_is_kept_and_filled_with_what_still_fits():
    texts = ["cat " * 30 + "end.", "cat dog.", "dog cat bird."]
    store, _ = make_store(texts)
    ranking = ranking_of(store, "cat")
    spans = select(ranking, recipe(), Limits(token_budget=6))
    assert sum(span.tokens for span in spans) <= 6
    assert {span.document_id for span in spans} == {"d1", "d2"}
    assert len(select(ranking, recipe(), Limits(k=1, token_budget=6))) == 1


COPIES = ["cat one. cat dog.", "cat\n  one. cat bird.", "cat two. cat dog."]


def test_what_is_said_already_uses_up_neither_k_nor_budget():
    store, _ = make_store(COPIES)
    ranking = ranking_of(store, "cat")
    for limits in ({"k": 4, "token_budget": None}, {"k": None, "token_budget": 8}):
        spans = select(ranking, recipe(), Limits(**limits, order="document"))
        assert [(span.document_id, span.text) for span in spans] == [
            ("d0", "cat one."),
            ("d0", "cat dog."),
            ("d1", "cat bird."),
            ("d2", "cat two."),
        ]
    everywhere = select(ranking, recipe(), Limits(k=9, unique=False))
    assert len(everywhere) == 6


def test_a_sentence_inside_a_wider_span_is_not_repeated():
    store, _ = make_store(["dull. cat one. cat dog.", "cat dog.", "cat fish."])
    spans = select(ranking_of(store, "cat"), recipe(radius=9), Limits(k=9, order="document"))
    assert [span.text for span in spans] == ["cat one. cat dog.", "cat fish."]


def test_document_order():
    store, _ = make_store(["cat one. fish. cat cat cat.", "cat cat. bird."])
    spans = select(ranking_of(store, "cat"), recipe(), Limits(k=9, order="document"))
    assert [(s.document_id, s.start) for s in spans] == sorted(
        (s.document_id, s.start) for s in spans
    )
    assert len(spans) == 3


class Unread:
    """An encoder that reads no feature in a question."""

    def question(self, text, recipe):
        none = TapFeatures(np.zeros((0, 1), dtype=np.int64), np.zeros((0, 1), dtype=np.float32))
        return EncodedQuestion({"hidden.0": none})


def test_edges_are_the_first_and_last_tokens_of_the_index():
    store, _ = make_store(["first words. middle cat.", "dull. dull dull.", "more. last words."])
    snapshot = store.snapshot()
    settings = recipe(fusion=Interleave(edge_tokens=2))
    ranking = rank(snapshot, "cat", settings, Unread(), "hybrid", admitted(snapshot, None))
    spans = select(ranking, recipe(), Limits(k=9, order="document"))
    assert [(span.text, span.sources) for span in spans] == [
        ("first words.", ("edge",)),
        ("middle cat.", ("bm25",)),
        ("last words.", ("edge",)),
    ]


def test_many_sentences_are_ranked_as_a_full_sort_would():
    text = " ".join(f"cat w{i} {'cat ' * (i % 7)}{'x ' * (i % 11)}end." for i in range(5000))
    store, _ = make_store([text], k=1)
    ranking = ranking_of(store, "cat")
    spans = select(ranking, recipe(), Limits(k=4000))
    starts = ranking.snapshot.column("start")
    expected = starts[np.argsort(-ranking.scores, kind="stable")][:4000]
    assert [span.start for span in spans] == expected.tolist()
