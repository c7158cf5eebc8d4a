"""Encoding documents and questions: what the host and the SAEs compute, in chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.codebooks import random_codebook

from s3_retriever.codebook import Codebook
from s3_retriever.document import Document
from s3_retriever.encoder import Encoder, WordsEncoder
from s3_retriever.errors import CodebookError
from s3_retriever.features import Layout
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap, group_queries, read
from s3_retriever.recipe import Advanced, Interleave, Recipe, SentenceRecipe, TapRecipe
from s3_retriever.text import SentenceCutter, count_terms

CPU = {"device": "cpu", "dtype": "float32"}
QUESTION = "Who signs every release before dawn?"


@pytest.fixture(scope="module")
def bert(tiny_bert) -> Host:
    return Host.load(str(tiny_bert), window=32, **CPU)


@pytest.fixture(scope="module")
def llama(tiny_llama) -> Host:
    return Host.load(str(tiny_llama), window=32, **CPU)


@pytest.fixture
def book(bert) -> Codebook:
    return random_codebook(bert, "key.1", "hidden.0")


def test_another_host_is_refused(llama, book, bert, tiny_bert):
    with pytest.raises(CodebookError, match="has other weights"):
        Encoder(llama, book)
    with torch.no_grad():
        other = Host.load(str(tiny_bert), **CPU)
        other.blocks[0].attention.self.key.weight.mul_(1.1)
    with pytest.raises(CodebookError, match="has other weights"):
        Encoder(other, book)
    Encoder(Host.load(str(tiny_bert), layers=2, **CPU), book)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_documents_equal_encoding_one_text_at_a_time(family, request, sentences):
    host = request.getfixturevalue(family)
    book = random_codebook(host, "key.1", "hidden.0")
    recipe = Recipe(
        taps={"key.1": TapRecipe(), "hidden.0": TapRecipe()}, advanced=Advanced(doc_top_k=4)
    )
    texts = [" ".join(sentences[i : i + n]) for i, n in enumerate([1, 9, 0, 2, 30, 1])]
    documents = [
        Document(text, metadata={"title": "A title" * (text == texts[1])}) for text in texts
    ]
    found = list(Encoder(host, book).documents(documents, recipe))
    assert [one.document for one in found if one.last] == documents
    for document in documents:
        mine = [one for one in found if one.document is document]
        starts = np.concatenate([one.starts for one in mine])
        assert starts.tolist() == [start for start, _ in host.tokenizer.split(document.text)]
        for name in recipe.taps:
            got = np.concatenate([one.features[name] for one in mine])
            assert (got.dtype, got.shape) == (np.int32, (len(starts), 4))
            expected = []
            for window in host.windows([document]):
                x = read(host, [Tap.parse(name)], [window])[Tap.parse(name)]
                expected.append(book.sae(name).encode(x, 4)[1].numpy())
            # Rounding in batches may swap features of nearly the same strength.
            same = np.sort(got) == np.sort(np.concatenate(expected))
            assert same.mean() > 0.99 if same.size else document.text == ""


def test_documents_keep_no_more_features_than_the_sae_was_trained_for(bert, book):
    recipe = Recipe(taps={"key.1": TapRecipe()}, advanced=Advanced(doc_top_k=40))
    (found,) = Encoder(bert, book).documents([Document("every release")], recipe)
    assert found.features["key.1"].shape[1] == 6


def test_documents_are_read_one_at_a_time(bert, book):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Document("every release " * 50)

    next(Encoder(bert, book).documents(endless(), book.recipe))
    assert taken <= 16 * bert.batch_tokens / 100


def test_question_side_same(bert, book):
    found = Encoder(bert, book).question(QUESTION, book.recipe).features
    (window,) = bert.windows([Document(QUESTION)])
    for name, features in found.items():
        tap = Tap.parse(name)
        x = read(bert, [tap], [window])[tap]
        values, indices = book.sae(name).encode(x, book.recipe.advanced.query_top_k)
        np.testing.assert_allclose(features.values, values.detach(), rtol=1e-3, atol=1e-4)
        assert (features.indices == indices.numpy()).mean() > 0.95
        assert features.values.shape == (len(bert.tokenizer.split(QUESTION)), 32)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_question_side_query_goes_through_the_key_sae(family, request):
    host = request.getfixturevalue(family)
    book = random_codebook(host, "key.1")
    recipe = Recipe(
        taps={"key.1": TapRecipe(query_side="query")}, advanced=Advanced(query_top_k=100)
    )
    found = Encoder(host, book).question(QUESTION, recipe).features["key.1"]
    (window,) = host.windows([Document(QUESTION)])
    x = group_queries(read(host, [Tap("query", 1)], [window])[Tap("query", 1)], host)
    values, _ = book.sae("key.1").encode(x, 100)
    assert found.values.shape[1] == 48  # all the features there are
    np.testing.assert_allclose(found.values, values.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", ["same", "query"])
def test_a_question_without_tokens_has_no_features(llama, bert, side):
    for host in (bert, llama):
        recipe = Recipe(taps={"key.1": TapRecipe(query_side=side)})
        blank = "\u200b" if host is bert else " "
        found = Encoder(host, random_codebook(host, "key.1")).question(blank, recipe)
        assert found.features["key.1"].indices.shape == (0, 32)


def test_a_long_question_is_read_in_windows(bert, book):
    question = QUESTION * 30
    found = Encoder(bert, book).question(question, book.recipe)
    assert len(found.features["key.1"].values) == len(bert.tokenizer.split(question)) > 100


def test_bfloat16_finds_mostly_the_same_features(tiny_bert, tiny_codebook, sentences):
    book = Codebook.load(tiny_codebook)
    narrow = Host.load(str(tiny_bert), device="cpu", dtype="bfloat16")
    wide = Host.load(str(tiny_bert), **CPU)
    text = [Document(" ".join(sentences[:8]))]
    (a,) = Encoder(wide, book).documents(text, book.recipe)
    (b,) = Encoder(narrow, book).documents(text, book.recipe)
    for name in book.recipe.taps:
        shared = [
            len(set(x) & set(y)) / len(x)
            for x, y in zip(a.features[name], b.features[name], strict=True)
        ]
        assert np.mean(shared) > 0.85


# Chunks share out a document


TEXTS = [
    "",
    " \n\t ",
    "\u200b",
    "One sentence without an end",
    "Two of them. And a paragraph\n\nwith another! " * 30,
    "a sentence of very many words " * 200,
    "x" * 40_000,
    "漢字かな混じり文。" * 90,
]


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("scores_sentences", [False, True])
def test_chunks_share_out_tokens_and_sentences(family, scores_sentences, request):
    host = request.getfixturevalue(family)
    book = random_codebook(host, "hidden.1")
    recipe = book.recipe
    if scores_sentences:
        recipe = recipe.changed("sentence", SentenceRecipe(layer=1))
    documents = [Document(text, str(i), {"title": "A title"}) for i, text in enumerate(TEXTS)]
    chunks = list(Encoder(host, book).documents(documents, recipe))
    for document in documents:
        mine = [chunk for chunk in chunks if chunk.document is document]
        assert [chunk.last for chunk in mine] == [False] * (len(mine) - 1) + [True]
        starts = np.concatenate([chunk.starts for chunk in mine])
        assert starts.dtype == np.uint32
        split = host.tokenizer.split(document.text) if document.text.strip() else []
        assert starts.tolist() == [start for start, _ in split]
        whole = SentenceCutter(document.text).push(starts, last=True)
        assert tuple(part for chunk in mine for part in chunk.sentences) == whole
        assert sum(part.n_tokens for part in whole) == len(starts)
        terms = tuple(part for chunk in mine for part in chunk.terms)
        assert terms == count_terms("A title", document.text, whole)
        for chunk in mine:
            assert len(chunk.features["hidden.1"]) == len(chunk.starts)
            assert len(chunk.terms) == len(chunk.sentences)
            if scores_sentences:
                assert chunk.vectors.shape == (
                    len(chunk.sentences),
                    book.layout(recipe).vector_bytes,
                )
            else:
                assert chunk.vectors is None
    assert [chunk.document for chunk in chunks if chunk.last] == documents


def test_words_need_no_features_and_no_run_of_the_host(bert, monkeypatch):
    monkeypatch.setattr(bert, "forward", lambda batch: pytest.fail("the host ran"))
    encoder = WordsEncoder(bert)
    recipe = encoder.named_recipe("default")
    assert not recipe.taps
    documents = [Document(text) for text in TEXTS]
    chunks = list(encoder.documents(documents, recipe))
    assert [chunk.document for chunk in chunks if chunk.last] == documents
    assert all(chunk.vectors is None and not chunk.features for chunk in chunks)
    cut = sum(len(SentenceCutter(d.text).push(starts_of(bert, d), last=True)) for d in documents)
    assert sum(len(chunk.sentences) for chunk in chunks) == cut > 60
    question = encoder.question(QUESTION, recipe)
    assert (dict(question.features), question.direction) == ({}, None)
    assert encoder.layout(recipe) == Layout({})
    assert encoder.codebook.identity == WordsEncoder(bert).codebook.identity
    own = encoder.named_recipe(
        Recipe(taps={"key.1": TapRecipe()}, fusion=Interleave(edge_tokens=7))
    )
    assert (own.taps, own.fusion.edge_tokens) == ({}, 7)


def starts_of(host, document):
    return np.array([start for start, _ in host.tokenizer.split(document.text)], dtype=np.uint32)
