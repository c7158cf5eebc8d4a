"""Heat maps and firings, on the embedded host."""

from __future__ import annotations

import numpy as np
import pytest

from s3_retriever import Document, InputError, S3Index

TEXT = (
    "  The lighthouse on the cape was built in 1874. Its keeper lit the lamp every evening.\n\n"
    "A ferry 🚢 crosses the bay twice a day. The bakery sells rye bread."
)
QUESTION = "Who lit the lamp of the lighthouse?"


@pytest.fixture(scope="module")
def index():
    with S3Index.create() as made:
        documents = [
            Document(TEXT, "cape", {"title": "The cape"}),
            Document("Trains stop here at night. A lamp hangs over the door.", "station"),
            Document("An old lighthouse keeper wrote poems.", "gone"),
            Document("   ", "blank"),
            Document("Lamp" + "x" * 100_000, "unbroken"),
        ]
        made.add(documents, progress=False)
        made.delete("gone")
        yield made


def test_every_token_of_the_document_is_scored(index):
    heat = index.heat(QUESTION, "cape")
    pieces = [TEXT[start:end] for start, end in heat.tokens]
    assert pieces == [piece.strip() for piece in pieces]
    assert "".join("".join(pieces).split()) == "".join(TEXT.split())
    assert set(heat.scores) == set(index.recipe.taps)
    for scores in heat.scores.values():
        assert scores.shape == (len(pieces),)
        assert scores[pieces.index("lighthouse")] > scores[pieces.index("ferry")]


def test_heat_agrees_with_the_explanation(index):
    (span,) = [s for s in index.search(QUESTION, 9) if s.text.startswith("Its keeper")]
    heat, explained = index.heat(QUESTION, "cape"), index.explain(QUESTION, span)
    total = {
        tuple(bounds): score
        for bounds, score in zip(
            heat.tokens.tolist(), np.sum(list(heat.scores.values()), axis=0), strict=True
        )
    }
    for token in explained.tokens:
        assert total[token.start, token.end] == pytest.approx(token.score)
    shared = {(feature.tap, feature.feature) for feature in explained.features[:8]}
    assert shared <= {(feature.tap, feature.feature) for feature in heat.features}


def test_features_come_strongest_first_with_their_tokens(index):
    heat = index.heat(QUESTION, "cape")
    assert 0 < len(heat.features) <= 32
    weights = [feature.weight for feature in heat.features]
    assert weights == sorted(weights, reverse=True)
    strongest = heat.features[0]
    assert all(heat.scores[strongest.tap][token] >= weights[0] for token in strongest.tokens)


def test_a_blank_document_has_no_tokens(index):
    heat = index.heat(QUESTION, "blank")
    assert heat.tokens.shape == (0, 2)
    assert heat.features == ()


def test_a_feature_leads_to_the_sentences_in_which_it_fires(index):
    heat = index.heat(QUESTION, "cape")
    texts = {document.id: document.text for document in index}
    for feature in heat.features[:8]:
        found = index.firings(feature.tap, feature.feature)
        assert found.total == len(found.sentences)
        for sentence in found.sentences:
            text = texts[sentence.document_id]
            assert text[sentence.start : sentence.end] == sentence.text
            assert sentence.tokens
        here = [t for s in found.sentences if s.document_id == "cape" for t in s.tokens]
        assert sorted(here) == [tuple(heat.tokens[token]) for token in feature.tokens]
    assert index.firings(feature.tap, feature.feature, 1).total == found.total


def test_of_a_sentence_without_spaces_an_excerpt_is_shown(index):
    (feature, *_) = index.heat("What is unbroken?", "unbroken").features
    found = index.firings(feature.tap, feature.feature, 1_000)
    (shown,) = [s for s in found.sentences if s.document_id == "unbroken"]
    text = index.get("unbroken").text
    assert len(shown.text) == 400
    assert text[shown.start : shown.end] == shown.text
    assert all(shown.start <= a < b <= shown.end for a, b in shown.tokens)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.heat(" ", "cape"), "question is empty"),
        (lambda index: index.heat(QUESTION, "gone"), "no document 'gone'"),
        (lambda index: index.heat(QUESTION, 7), "document_id must be a string"),
        (lambda index: index.firings("hidden.99", 0), "Unknown tap 'hidden.99'; this index has"),
        (lambda index: index.firings(None, 0), "tap must be a string"),
        (lambda index: index.firings("{tap}", 1 << 40), "has features 0 to"),
        (lambda index: index.firings("{tap}", -1), "feature must be a whole number"),
        (lambda index: index.firings("{tap}", True), "feature must be a whole number"),
        (lambda index: index.firings("{tap}", 0, 0), "limit must be a whole number"),
    ],
)
def test_what_cannot_be_asked(index, call, message):
    class Named:
        heat = index.heat

        def firings(self, tap, *rest):
            named = next(iter(index.recipe.taps)) if tap == "{tap}" else tap
            return index.firings(named, *rest)

    with pytest.raises(InputError, match=message):
        call(Named())
