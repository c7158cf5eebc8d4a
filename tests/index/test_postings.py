"""Postings of features: what is counted and added up is what was written."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from helpers.segments import add

from s3_retriever.document import Document
from s3_retriever.features import Layout
from s3_retriever.index import Store
from s3_retriever.index import postings as postings_writer

TAP, FEATURES = "hidden.0", 40


@pytest.fixture(params=[0, 1, 2])
def written(request, monkeypatch):
    """A segment of small blocks, one document of which is deleted, and its tokens' features."""
    monkeypatch.setattr(postings_writer, "BLOCK_TOKENS", 300)
    numbers = np.random.default_rng(request.param)
    # White space of any length belongs to a sentence, so that tokens may be far from its start.
    texts = [("a b. " + " " * gap + "c d e. f\n") * 5 for gap in (0, 130, 127, 400, 126, 2)]
    rows = []
    store = Store.create(None, {})
    with store.append(Layout({TAP: FEATURES})) as writer:
        for number, text in enumerate(texts):
            features = numbers.integers(0, FEATURES, (len(text), 2), dtype=np.int32)
            features[numbers.random(features.shape) < 0.7] = -1
            features[:, 0][numbers.random(len(text)) < 0.1] = 7  # frequent
            starts = np.arange(len(text), dtype=np.uint32)
            add(writer, Document(text, str(number)), starts, {TAP: features})
            rows.append(features)
    store.delete("1")
    (segment,) = store.snapshot().segments
    assert segment.sentences["n_tokens"].max() > 2 * postings_writer.STEP
    return segment, np.concatenate(rows)


def test_frequencies_are_those_of_live_documents(written):
    segment, rows = written
    live = np.repeat(segment.live, segment.documents["n_tokens"].astype(np.int64))
    asked = np.array([7, 3, 39, 7])
    expected = [int((rows[live] == feature).any(axis=1).sum()) for feature in asked]
    assert segment.frequencies(TAP, asked).tolist() == expected
    assert segment.frequencies(TAP, np.arange(8))[[7, 3]].tolist() == expected[:2]


def test_tokens_and_sentences_get_the_weights_of_their_features(written):
    segment, rows = written
    weights = np.random.default_rng(9).random(FEATURES)
    fires = np.zeros((len(rows), FEATURES), dtype=bool)
    for column in rows.T:
        fires[np.flatnonzero(column >= 0), column[column >= 0]] = True
    asked = np.array([0, 7, 11, 12, 13, 38])
    tokens, sentences = np.ones(len(rows)), np.ones(segment.n_sentences)
    segment.add_to_tokens(TAP, asked, weights[asked], tokens)
    segment.add_to_sentences(TAP, asked, weights[asked], sentences)
    np.testing.assert_allclose(tokens, 1 + fires[:, asked] @ weights[asked])
    first = segment.sentences["first_token"].astype(np.int64)
    inside = np.logical_or.reduceat(fires, first)
    np.testing.assert_allclose(sentences, 1 + inside[:, asked] @ weights[asked])


def test_some_sentences_are_told_by_the_features_that_are_asked_for(written):
    segment, _ = written
    asked = np.array([38, 0, 7, 11])
    every = [set(segment.sentence_features(TAP, i)[0]) for i in range(segment.n_sentences)]
    some = np.flatnonzero(np.random.default_rng(4).random(len(every)) < 0.3)
    for sentences in (some, np.arange(len(every)), some[:1], some[:0]):
        found = segment.features_in(TAP, asked, sentences)
        assert found.shape == (len(sentences), len(asked))
        for sentence, row in zip(sentences, found, strict=True):
            assert set(asked[row]) == every[sentence] & set(asked)
    assert segment.features_in(TAP, asked, some).any()
    for outside in ([-1, 0], [0, len(every)]):
        with pytest.raises(IndexError, match="has sentences 0"):
            segment.features_in(TAP, asked, np.array(outside))


def test_blocks_give_back_what_was_written(written):
    segment, rows = written
    assert (segment.blocks[0], segment.blocks[-1]) == (0, segment.n_sentences)
    assert len(segment.blocks) > 6
    first_tokens = np.append(segment.sentences["first_token"], segment.n_tokens).astype(np.int64)
    tokens = first_tokens[segment.blocks]
    for block, (first, end) in enumerate(pairwise(tokens.tolist())):
        read = segment.block_features(TAP, block)
        for given, back in zip(rows[first:end].tolist(), read.tolist(), strict=True):
            assert set(given) - {-1} == set(back) - {-1}


def test_a_sentence_has_the_features_of_its_tokens(written):
    segment, rows = written
    for sentence, record in enumerate(segment.sentences):
        first, n = int(record["first_token"]), int(record["n_tokens"])
        tokens = [set(row) - {-1} for row in rows[first : first + n].tolist()]
        expected = Counter(feature for token in tokens for feature in token)
        features, counts = segment.sentence_features(TAP, sentence)
        assert features.tolist() == sorted(expected)
        assert dict(zip(features.tolist(), counts.tolist(), strict=True)) == expected
