"""The mean states of sentences in an index: kept, searched, verified."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.sentence_vectors import exact_means, long_text, mapped

from s3_retriever import Document, S3Index
from s3_retriever.engine.s3index import new_store
from s3_retriever.errors import CodebookError, IndexStoreError
from s3_retriever.features import Layout
from s3_retriever.index import Store
from s3_retriever.quantization import direction_of
from s3_retriever.recipe import SecondHop, SentenceRecipe
from s3_retriever.search.pipeline import rank
from s3_retriever.text import TEXT_ANALYSIS


def index_of(encoder, recipe, documents):
    index = S3Index(new_store(None, encoder, recipe, None), encoder, recipe)
    index.add(documents, progress=False)
    return index


def similarity(index, direction):
    segments = index._store.snapshot().segments
    return np.concatenate([segment.similarity(direction) for segment in segments])


def test_similarity_is_the_cosine_of_question_and_sentence(host, book, encoder, sentences):
    text, question = long_text(sentences), sentences[3]
    index = index_of(encoder, book.recipe, [Document(text, "d", {"title": "A title"})])
    direction = encoder.question(question, book.recipe).direction
    centre = book.centre(1)
    asked = exact_means(host, question).mean(0) - centre
    means = mapped(book, exact_means(host, text))
    cosine = torch.cosine_similarity(means, asked[None]).detach().numpy()
    found = similarity(index, direction)
    # One window or several, a title or none: states differ a little with what surrounds them.
    np.testing.assert_allclose(found, cosine, atol=0.12)
    assert np.corrcoef(cosine, found)[0, 1] > 0.98


@pytest.mark.parametrize("change", ["compact", "merge", "replace"])
def test_vectors_stay_with_their_sentences(change, book, encoder, sentences):
    documents = [Document(long_text(sentences[i:], 6), f"d{i}") for i in range(12)]
    direction = np.random.default_rng(0).normal(size=32).astype(np.float32)
    index = index_of(encoder, book.recipe, documents[:4])
    kept = documents[1:]
    if change == "merge":
        for one in documents[4:]:
            index.add([one], progress=False)
        index.delete("d0")
        assert len(index._store.snapshot().segments) < 9
    else:
        index.add(documents[4:], progress=False)
        index.delete("d0")
    if change == "replace":
        index.add([documents[5]], replace=True, progress=False)
        kept = [one for one in kept if one.id != "d5"] + [documents[5]]
    index.compact()
    np.testing.assert_allclose(
        similarity(index, direction),
        similarity(index_of(encoder, book.recipe, kept), direction),
        atol=0.1,
    )


def test_what_a_sentence_says_as_a_whole_counts(book, encoder, sentences):
    documents = [Document(text, f"d{i}") for i, text in enumerate(sentences)]
    index = index_of(encoder, book.recipe, documents)
    without = book.recipe.model_copy(update={"sentence": None, "hop": None})
    with_it = book.recipe.model_copy(
        update={"sentence": SentenceRecipe(layer=1, weight=1e6), "hop": None}
    )
    question = sentences[7]
    direction = encoder.question(question, with_it).direction
    order = np.argsort(-similarity(index, direction), kind="stable")
    found = index.search(question, 3, mode="s3", recipe=with_it)
    assert [span.document_id for span in found] == [f"d{i}" for i in order[:3]]
    assert "sentence" in found[0].sources
    assert "sentence" in index.explain(question, found[0]).contributions
    plain = index.search(question, 3, mode="s3", recipe=without)
    assert all("sentence" not in span.sources for span in plain)


def test_blank_documents_have_no_vectors(book, encoder, sentences):
    index = index_of(
        encoder, book.recipe, [Document(" \n ", "blank"), Document(sentences[0], "full")]
    )
    assert [span.document_id for span in index.search(sentences[0], 2)] == ["full"]


def test_an_index_without_vectors_says_so(book, encoder, sentences):
    plain = book.recipe.changed("sentence", None)
    index = index_of(encoder, plain, [Document(sentences[0], "d")])
    with pytest.raises(CodebookError, match="sentence layer 1, which is not indexed"):
        index.search("where", recipe=book.recipe)
    with (
        pytest.raises(IndexStoreError, match="has the taps"),
        index._store.append(Layout({"hidden.1": 96}, 12), text_analysis=TEXT_ANALYSIS),
    ):
        pass


def test_damaged_vectors_are_found_by_verifying(book, encoder, sentences, tmp_path):
    store = new_store(tmp_path / "index", encoder, book.recipe, None)
    with S3Index(store, encoder, book.recipe) as index:
        index.add([Document(long_text(sentences, 30), "d")], progress=False)
        (file,) = (tmp_path / "index").glob("*/vectors.npy")
        content = bytearray(file.read_bytes())
        content[-200:] = b"\xff" * 200
        file.write_bytes(bytes(content))
    with S3Index(Store.open(tmp_path / "index"), encoder, book.recipe) as index:
        assert index.search(sentences[0], 3)
        with pytest.raises(IndexStoreError, match=r"vectors\.npy"):
            index.verify(progress=False)


def test_a_question_without_tokens_finds_nothing(book, encoder, sentences):
    index = index_of(encoder, book.recipe, [Document(sentences[0], "d")])
    assert index.search("\u200b") == []


def test_a_bridge_leads_to_sentences_like_it(book, encoder, sentences):
    documents = [Document(sentences[i], f"d{i}") for i in range(0, 600, 20)]
    recipe = book.recipe.changed(
        "hop", SecondHop(bridges=1, neighbours=3, weight=0.0, similarity_weight=1.0)
    )
    index = index_of(encoder, recipe, documents)
    snapshot = index._store.snapshot()
    question = "Who mends a broken clock before dawn?"
    ranking = rank(snapshot, question, recipe, encoder, "s3", snapshot.live)
    (bridge,) = ranking.hop.bridges
    assert bridge == ranking.hop.first.scores.argmax()
    asked = encoder.question(question, recipe).direction
    vectors = np.concatenate([s.vectors(0, s.n_sentences) for s in snapshot.segments])
    own = direction_of(vectors[bridge])
    beyond = own - (own @ asked) * asked
    alike = similarity(index, beyond / np.linalg.norm(beyond))
    alike[bridge] = alike[~ranking.eligible] = -np.inf
    assert set(np.flatnonzero(ranking.raw_scores["hop"])) == set(np.argsort(-alike)[:3])
    hybrid = rank(snapshot, question, recipe, encoder, "hybrid", snapshot.live)
    without = recipe.changed("hop.similarity_weight", 0.0)
    same = rank(snapshot, question, without, encoder, "hybrid", snapshot.live)
    np.testing.assert_array_equal(hybrid.scores, same.scores)
