"""The second look: what is read again, and what it changes."""

from __future__ import annotations

import random

import numpy as np
import pytest
from helpers.parts import Asked, Collection, Liking, random_question, random_recipe

from s3_retriever.search import Limits, search
from s3_retriever.search.reranking import SecondLook


class Fond(Liking):
    """Likes the passages that come last in a search best."""

    def scores(self, question, passages):
        self.read.append([each.text for each in passages])
        return np.arange(float(len(passages)))


def found(collection, seed, limits, look=None, mode="hybrid", **options):
    question, encoded = random_question(seed)
    # Without a discount for repetition, spans are sentences in the order of their scores.
    recipe = random_recipe(6 * seed + 2).changed("redundancy", None).changed("advanced.radius", 0)
    snapshot = collection.whole.snapshot()
    return search(
        snapshot, question, recipe, Asked(encoded), limits, mode=mode, look=look, **options
    )


@pytest.mark.parametrize("mode", ["hybrid", "s3", "bm25"])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_are_read_and_ranked_anew_ahead_of_all_others(seed, mode):
    collection, limits = Collection(seed, 40, 2), Limits(unique=False)
    first, reader = found(collection, seed, limits, mode=mode), Fond()
    again = found(collection, seed, limits, SecondLook(7, reader), mode)
    assert reader.read == [[" ".join(span.text.split()) for span in first[:7]]]
    assert {span.id for span in again[:7]} == {span.id for span in first[:7]}
    assert [span.id for span in again[7:]] == [span.id for span in first[7:]]
    before = {span.id: span for span in first}
    for span in again:
        old = before[span.id]
        assert span.relevance == old.relevance
        assert span.sources == old.sources
        assert span.score >= old.score
        if old.contributions:
            assert sum(span.contributions.values()) == pytest.approx(span.score, abs=1e-6)
            assert span.contributions["rerank"] == pytest.approx(span.score - old.score, abs=1e-6)
        else:
            assert not span.contributions
    assert any(span.score > before[span.id].score for span in again)


@pytest.mark.parametrize("seed", range(8))
def test_limits_filters_and_deletions_hold(seed):
    rng, collection = random.Random(seed), Collection(seed, 40, 2)
    limits = Limits(
        k=rng.choice([None, 3]),
        token_budget=rng.choice([None, 25]),
        min_relevance=rng.choice([0.0, 0.3]),
        order=rng.choice(["score", "document"]),
        spans_per_document=1,
        context=rng.choice(["sentence", "neighbours"]),
    )
    where, reader = {"kind": "a"}, Liking()
    spans = found(collection, seed, limits, SecondLook(12, reader), where=where)
    live = set(collection.whole.snapshot().ids())
    assert all(span.metadata["kind"] == "a" and span.document_id in live for span in spans)
    assert all(span.relevance >= limits.min_relevance for span in spans)
    assert len({" ".join(span.text.split()) for span in spans}) == len(spans)
    assert len({span.document_id for span in spans}) == len(spans)
    assert limits.k is None or len(spans) <= limits.k
    assert limits.token_budget is None or sum(span.tokens for span in spans) <= 25
    every = found(collection, seed, Limits(unique=False), where=where)
    relevant = {(each.document_id, each.start): each.relevance for each in every}
    for passage in (passage for read in reader.read for passage in read):
        assert relevant[passage.document_id, passage.start] >= limits.min_relevance


def test_nothing_is_read_if_nothing_is_relevant():
    reader, collection = Liking(), Collection(0, 40, 1)
    assert found(collection, 0, Limits(), SecondLook(5, reader), where={"n": 99}) == []
    first = found(collection, 0, Limits(), mode="bm25")[0]
    floor = Limits(min_relevance=(1 + first.relevance) / 2)
    assert found(collection, 0, floor, SecondLook(5, reader), mode="bm25") == []
    assert not reader.read


@pytest.mark.parametrize("seen", [0.25, np.nan, np.inf])
def test_a_reader_that_says_nothing_changes_nothing(seen):
    class Blank(Liking):
        def scores(self, question, passages):
            return np.array([seen, *[0.25] * (len(passages) - 1)])

    collection = Collection(2, 40, 1)
    first = found(collection, 2, Limits())
    again = found(collection, 2, Limits(), SecondLook(5, Blank()))
    assert [(span.id, span.score) for span in again] == [(span.id, span.score) for span in first]


def test_documents_follow_the_second_look():
    collection, limits = Collection(5, 40, 1), Limits(unique=False, spans_per_document=2)
    for mode in ("hybrid", "bm25"):
        first = found(collection, 5, limits, mode=mode, group_by="document")
        again = found(collection, 5, limits, SecondLook(20, Fond()), mode, group_by="document")
        assert {each.document_id for each in again} == {each.document_id for each in first}
        assert [each.document_id for each in again] != [each.document_id for each in first]
