"""Scoring by attention to features, against sums over all tokens by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
from helpers.parts import TAPS, Asked, Collection, random_question

from s3_retriever.recipe import FeatureAttention, Recipe, TapRecipe
from s3_retriever.search import rank
from s3_retriever.search import tap_attention as module
from s3_retriever.search.explanation import explain
from s3_retriever.search.heat import heat
from s3_retriever.search.selection import Limits, select

RECIPE = Recipe(
    taps={
        "hidden.0": TapRecipe(weight=1.5, query_side="decoder"),
        "hidden.1": TapRecipe(query_side="decoder"),
    },
    scoring=FeatureAttention(),
)


def ranked(seed: int, mode: str = "s3"):
    snapshot = Collection(seed, 12, 1).whole.snapshot()
    question, encoded = random_question(seed)
    allowed = snapshot.live & (np.random.default_rng(seed).random(len(snapshot)) < 0.8)
    return rank(snapshot, question, RECIPE, Asked(encoded), mode, allowed), encoded, allowed


def by_hand(snapshot, encoded, allowed):
    """The score of every token of an allowed sentence, by place and position."""
    scores = {}
    for tap, asked in encoded.tap_queries.items():
        logits = {}
        for place, segment in enumerate(snapshot.segments):
            owners = np.repeat(np.arange(segment.n_sentences), segment.sentence_tokens)
            fires = np.concatenate(
                [segment.block_features(tap, block) for block in range(len(segment.blocks) - 1)]
            )
            for token, row in enumerate(fires):
                if allowed[snapshot.bounds[place] + owners[token]]:
                    known = [feature for feature in row if feature >= 0]
                    if known:
                        logits[place, token] = asked.factors[:, known].sum(axis=1)
        for key in logits:
            total = sum(np.exp(each.astype(np.float64)) for each in logits.values())
            attention = (np.exp(logits[key].astype(np.float64)) / total).mean()
            weight = RECIPE.taps[tap].weight * snapshot.n_tokens
            scores[key] = scores.get(key, 0.0) + weight * attention
    return scores


@pytest.mark.parametrize("at_once", [64, 1])
@pytest.mark.parametrize("seed", range(4))
def test_sentences_and_tokens_score_the_attention_they_get(seed, at_once, monkeypatch):
    # Logits of few queries at once give the same sums.
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", at_once)
    ranking, encoded, allowed = ranked(seed)
    snapshot = ranking.snapshot
    tokens = by_hand(snapshot, encoded, allowed)
    for number in range(len(snapshot)):
        place, segment, ordinal = snapshot.locate(number)
        start = int(segment.sentences[ordinal]["first_token"])
        size = int(segment.sentences[ordinal]["n_tokens"])
        own = [tokens.get((place, token), 0.0) for token in range(start, start + size)]
        found = ranking.coactivation.tokens[place][start : start + size]
        np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-9)
        expected = sum(own) / size**0.5
        assert ranking.raw_scores["s3"][number] == pytest.approx(expected, rel=1e-5, abs=1e-8)
        assert ranking.eligible[number] == (expected > 0)


def test_an_explanation_divides_the_attention_among_features_and_tokens():
    ranking, encoded, _ = ranked(3, "hybrid")
    span = select(ranking, RECIPE, Limits(k=1))[0]
    question = [f"token {i}" for i in range(max(encoded.tap_queries["hidden.0"].tokens) + 1)]
    explanation = explain(ranking, question, span, RECIPE)
    assert {share.tap for share in explanation.features} == set(TAPS)
    assert sum(share.share for share in explanation.features) == pytest.approx(1)
    assert sum(share.share for share in explanation.attention) == pytest.approx(1)
    assert {share.head for share in explanation.attention} == set(TAPS)
    for share in explanation.features:
        assert set(share.question_tokens) <= set(question)
        assert share.span_tokens
        assert set(share.span_tokens) <= {token.text for token in explanation.tokens}
    found = heat(ranking, span.document_id)
    assert set(found.scores) == set(TAPS)
    strongest = {(each.tap, each.feature) for each in explanation.features[:3]}
    assert strongest <= {(each.tap, each.feature) for each in found.features}


def test_a_question_without_tokens_finds_nothing():
    snapshot = Collection(1, 8, 1).whole.snapshot()
    question, encoded = random_question(random.Random(1).randint(0, 9))
    for queries in encoded.tap_queries.values():
        object.__setattr__(queries, "factors", queries.factors[:0])
        object.__setattr__(queries, "tokens", queries.tokens[:0])
    ranking = rank(snapshot, question, RECIPE, Asked(encoded), "s3", snapshot.live)
    assert not ranking.eligible.any()
