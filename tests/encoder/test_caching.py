"""Encoders that remember: what they keep, and that it is what an encoder reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.codebooks import random_codebook

from s3_retriever import Codebook, Document, Host
from s3_retriever.encoder import CachingEncoder, Encoder, OnceEncoder
from s3_retriever.encoder.caching import RecentlyUsed
from s3_retriever.recipe import (
    Advanced,
    FeatureAttention,
    HeadsRecipe,
    Interleave,
    MaxToken,
    Recipe,
    SentenceRecipe,
    TapRecipe,
)

HEADS = ("0.2", "1.0")


@pytest.fixture(scope="module")
def host(tiny_bert) -> Host:
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def book(host, sentences) -> Codebook:
    book = random_codebook(host, "key.1", "hidden.0", "hidden.1")
    book.sae("key.1").mean_activations = torch.linspace(0.5, 2.0, 48)
    book = book.with_heads(host, sentences[:60], HEADS, progress=False)
    return book.with_recipe(
        Recipe(
            taps={"hidden.1": TapRecipe()},
            sentence=SentenceRecipe(layer=1),
            heads=HeadsRecipe(query_heads=HEADS),
        )
    )


@pytest.fixture
def documents(sentences) -> list[Document]:
    texts = [" ".join(sentences[i : i + 30]) for i in (0, 40, 80)]
    return [Document(text, f"d{i}", {"title": "A title"}) for i, text in enumerate(texts)]


@pytest.fixture
def read(host, monkeypatch) -> list[Document]:
    """The documents and questions that the host reads from now on."""
    read: list[Document] = []
    windows = host.windows
    monkeypatch.setattr(
        host, "windows", lambda documents: windows(read.append(d) or d for d in documents)
    )
    return read


def assert_same(found, wanted):
    """The same chunks, up to the rounding of other batches."""
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.document, ours.sentences) == (theirs.document, theirs.sentences)
        assert (ours.terms, ours.last) == (theirs.terms, theirs.last)
        assert ours.features.keys() == theirs.features.keys()
        for tap, rows in theirs.features.items():
            assert (ours.features[tap] == rows).mean() > 0.99
        assert (ours.vectors is None) == (theirs.vectors is None)
        if theirs.vectors is not None:
            assert (ours.vectors == theirs.vectors).mean() > 0.99
        assert ours.keys.keys() == theirs.keys.keys()
        for head, keys in theirs.keys.items():
            assert (ours.keys[head] == keys).mean() > 0.99


def test_what_was_used_last_is_kept():
    kept = RecentlyUsed[str](5, len)
    kept.put("a", "aa")
    kept.put("b", "bb")
    assert kept.get("a") == "aa"
    kept.put("c", "cc")
    assert [kept.get(key) for key in "abc"] == ["aa", None, "cc"]
    kept.put("d", "much too long")
    assert [kept.get(key) for key in "acd"] == [None, None, None]
    kept.put("e", "ee")
    kept.put("e", "ee")
    kept.put("f", "fff")
    assert (kept.get("e"), kept.get("f")) == ("ee", "fff")


def test_texts_and_questions_are_read_once(host, book, documents, read):
    encoder = CachingEncoder(host, book)
    wanted = list(Encoder(host, book).documents(documents, book.recipe))
    read.clear()
    first = list(encoder.documents(documents, book.recipe))
    assert_same(first, wanted)
    # The same texts under other ids, one of them twice.
    others = [Document(d.text, f"other {d.id}", d.metadata) for d in (*documents, documents[0])]
    again = list(encoder.documents(others, book.recipe))
    assert [chunk.document for chunk in again if chunk.last] == others
    assert len(read) == len(documents)
    # A title is read too.
    list(encoder.documents([Document(documents[0].text)], book.recipe))
    assert len(read) == len(documents) + 1
    read.clear()
    for _ in range(2):
        encoder.question("Who paints?", book.recipe)
        encoder.question("Who paints?", book.recipe.changed("advanced.idf_power", 0.0))
    assert len(read) == 1


def test_little_room_keeps_the_last_texts(host, book, documents, read):
    tokens = host.tokenizer.count(documents[0].text)
    encoder = CachingEncoder(host, book, cache_tokens=2 * tokens + 50, cache_questions=2)
    list(encoder.documents(documents, book.recipe))
    read.clear()
    list(encoder.documents(documents[1:], book.recipe))
    assert not read
    list(encoder.documents(documents[:1], book.recipe))
    assert read == documents[:1]
    read.clear()
    for question in ("one", "two", "one", "three", "one", "two"):
        encoder.question(question, book.recipe)
    assert [document.text for document in read] == ["one", "two", "three", "two"]


def test_questions_with_numbers_for_every_feature_take_more_room(host, book, read):
    recipe, long = RECIPES[-1], " ".join(["Who paints the old harbour?"] * 60)
    (asked,) = Encoder(host, book).question(long, recipe).tap_queries.values()
    room = asked.factors.nbytes // 65_536
    assert room > 3
    encoder = CachingEncoder(host, book, cache_questions=room + 2)
    read.clear()
    for question in ("one", long, "one", "two", long):
        encoder.question(question, recipe)
    assert [document.text for document in read] == ["one", long, "two", long]
    encoder.question(long, recipe.changed("scoring", MaxToken()))
    assert len(read) == 5


def test_scans_with_and_without_sentence_vectors_are_kept_apart(host, book, documents):
    encoder = CachingEncoder(host, book)
    plain = book.recipe.changed("sentence", None)
    for recipe in (plain, book.recipe, plain):
        chunks = encoder.documents(documents, recipe)
        assert {chunk.vectors is not None for chunk in chunks} == {recipe is book.recipe}
        question = encoder.question("Who paints?", recipe)
        assert (question.direction is not None) == (recipe is book.recipe)


RECIPES = [
    Recipe(taps={"hidden.1": TapRecipe()}, sentence=SentenceRecipe(layer=1)),
    Recipe(taps={"hidden.1": TapRecipe()}, sentence=SentenceRecipe(layer=0)),
    Recipe(taps={"key.1": TapRecipe(query_side="query"), "hidden.0": TapRecipe()}),
    Recipe(
        taps={"key.1": TapRecipe()},
        advanced=Advanced(doc_top_k=2, query_top_k=3),
    ),
    Recipe(
        taps={"key.1": TapRecipe(query_side="decoder")},
        heads=HeadsRecipe(query_heads=("1.0",)),
    ),
    Recipe(taps={"hidden.0": TapRecipe()}, heads=HeadsRecipe(query_heads=HEADS)),
    Recipe(taps={}, heads=HeadsRecipe(query_heads=HEADS)),
    Recipe(
        taps={"key.1": TapRecipe(query_side="decoder")},
        scoring=FeatureAttention(),
        fusion=Interleave(),
    ),
]


def test_reading_all_taps_at_once_gives_each_recipe_its_own(host, book, documents):
    once, plain = OnceEncoder(host, book), Encoder(host, book)
    for recipe in RECIPES:
        assert_same(once.documents(documents, recipe), plain.documents(documents, recipe))
        ours, theirs = (e.question("Who paints?", recipe) for e in (once, plain))
        assert ours.features.keys() == theirs.features.keys()
        for tap, features in theirs.features.items():
            np.testing.assert_allclose(
                ours.features[tap].values, features.values, rtol=1e-4, atol=1e-5
            )
        for field in ("queries", "tap_queries"):
            our_queries, their_queries = getattr(ours, field), getattr(theirs, field)
            assert our_queries.keys() == their_queries.keys()
            for name, queries in their_queries.items():
                np.testing.assert_allclose(
                    our_queries[name].factors, queries.factors, rtol=1e-4, atol=1e-5
                )
        if recipe.sentence is None:
            assert ours.direction is None
        else:
            np.testing.assert_allclose(ours.direction, theirs.direction, rtol=1e-4, atol=1e-5)


def test_recipes_share_what_is_read(host, book, documents, read):
    once = OnceEncoder(host, book)
    for field, value in (
        ("name", "as it is"),
        ("advanced.doc_top_k", 2),
        ("taps", {"hidden.0": TapRecipe()}),
        ("advanced.idf_power", 0.0),
    ):
        recipe = book.recipe.changed(field, value)
        list(once.documents(documents, recipe))
        once.question("warm bread", recipe)
    assert len(read) == len(documents) + 1
