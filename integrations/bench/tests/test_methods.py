"""Every method of the benchmark searches as it says, on a tiny host."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from s3_retriever import Codebook, Document, Host, InputError, S3Index, TopKSAE
from s3_retriever.codebook.recipes import default_recipe
from s3_retriever.codebook.whitening import fit_whitening
from s3_retriever.host.taps import Tap, read_each
from s3_retriever_bench.retrieval.dialogues import dialogues
from s3_retriever_bench.retrieval.methods import (
    METHODS,
    RERANKING,
    Resources,
    method_names,
    reciprocal_ranks,
)
from s3_retriever_bench.retrieval.passages import (
    CHUNK_TOKENS,
    Passage,
    chunks,
    cut_all,
    fill,
    fill_and_cut,
)
from s3_retriever_bench.retrieval.passages import sentences as cut_sentences
from s3_retriever_bench.retrieval.rankers import Embedder, z_scores


@pytest.fixture(scope="module")
def shared(tiny_bert, tiny_codebook, tiny_llama):
    codebook = Codebook.load(tiny_codebook)
    host = Host.load(str(tiny_bert), layers=codebook.depth, device="cpu", dtype="float32")
    return Resources(host, codebook, str(tiny_llama))


@pytest.fixture(scope="module")
def documents(sentences):
    """Twelve documents of different lengths, some longer than a chunk, two with a title."""
    cuts = [sentences[i * 50 : i * 50 + 3 + 4 * i] for i in range(12)]
    return [
        Document(" ".join(cut), f"d{i}", {"title": f"Title {i}"} if i < 2 else {})
        for i, cut in enumerate(cuts)
    ]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_finds_pieces_of_the_documents_within_the_budget(name, shared, documents):
    texts = {document.id: document.text for document in documents}
    question = documents[5].text.split(".")[2]
    with closing(METHODS[name](shared, documents)) as searcher:
        for budget in (7, 60, 300):
            pieces = searcher.search(question, budget)
            for piece in pieces:
                assert texts[piece.document_id][piece.start : piece.end] == piece.text
                assert shared.host.tokenizer.count(piece.text) == piece.tokens
            assert sum(piece.tokens for piece in pieces) <= budget
        # The paper's question side need not fire on anything, least of all in a random host.
        assert pieces or name == "s3-paper"
        assert searcher.size() > sum(len(piece.text) for piece in pieces)


def test_turns_of_a_transcript_are_found_by_who_said_them_when(shared):
    lines = [
        "[8 May 2023, 13:56] Ann: When can we ship?",
        "[8 May 2023, 13:58] Bob: On Tuesday.",
        "[9 May 2023, 09:05] Bob: I am late.",
    ]
    transcript = Document("\n".join(lines), "talk")
    with closing(METHODS["hybrid-turns"](shared, [transcript])) as searcher:
        piece, *_ = searcher.search("What did Bob say on 9 May?", 300)
    assert (piece.document_id, piece.text) == ("talk", "I am late.")
    assert transcript.text[piece.start : piece.end] == piece.text


def test_questions_about_dialogues_name_one_turn():
    rows = dialogues().rows
    assert rows == dialogues().rows
    for row in rows[:60]:
        ((source, number),) = row.support
        (answer,) = row.answers
        speaker, _, said = source.pieces[number].partition("] ")[2].partition(": ")
        assert answer in said and speaker in row.question
    assert len({(row.question, row.sources[0].name) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", ["bm25", "dense-sentence", "ensemble-rrf", "ensemble-zscore"])
def test_a_sentence_asked_for_word_for_word_comes_first(name, shared, documents):
    wanted = cut_sentences(documents[7], shared.host.tokenizer)[10]
    with closing(METHODS[name](shared, documents)) as searcher:
        first = searcher.search(wanted.text, 100)[0]
    assert (first.document_id, first.start, first.end) == ("d7", wanted.start, wanted.end)


def test_bm25_without_features_ranks_as_the_whole_index_does(shared, documents):
    question = "Who mends the blue ledger before dawn?"
    with (
        closing(METHODS["bm25"](shared, documents)) as searcher,
        S3Index.create(host=shared.host, codebook=shared.codebook) as index,
    ):
        index.add(documents, progress=False)
        expected = index.search(question, mode="bm25", token_budget=200, min_relevance=0)
        spans = searcher.search(question, 200)
    assert [span.id for span in spans] == [span.id for span in expected]


def test_both_frameworks_find_the_same_chunks(shared, documents):
    results = []
    for name in ("dense-chunk", "dense-llamaindex"):
        with closing(METHODS[name](shared, documents)) as searcher:
            results.append(searcher.search("Who paints seven boats?", 800))
    assert results[0] == results[1]


def test_passages_are_the_sentences_that_the_package_indexes(shared, documents):
    with S3Index.create(host=shared.host, codebook=shared.codebook) as index:
        index.add(documents, progress=False)
        spans = index.search("the", 10_000, mode="s3")
    mine = cut_all(documents, cut_sentences, shared.host.tokenizer)
    places = {(p.document_id, p.start, p.end, p.tokens) for p in mine}
    assert {(s.document_id, s.start, s.end, s.tokens) for s in spans} <= places
    assert sum(p.tokens for p in mine) == sum(
        shared.host.tokenizer.count(document.text) for document in documents
    )


def test_chunks_are_whole_sentences_up_to_a_limit(shared, documents):
    runs = cut_all(documents, chunks, shared.host.tokenizer)
    assert len(runs) > len(documents)
    assert max(run.tokens for run in runs) <= CHUNK_TOKENS
    assert all(run.text.endswith(".") for run in runs)
    assert cut_all([Document("", "empty")], chunks, shared.host.tokenizer) == []


def test_what_does_not_fit_is_passed_over_or_cut(shared):
    text = "every release on Friday"
    sizes = [4, 9, 2, 1]
    passages = [Passage("d", 0, 23, size, text, "") for size in sizes]
    assert [p.tokens for p in fill(passages, 7)] == [4, 2, 1]
    long = [passages[0], passages[0]]
    cut = fill_and_cut(long, 6, shared.host.tokenizer)
    assert [p.tokens for p in cut] == [4, 2]
    assert cut[1].text == text[: cut[1].end] and shared.host.tokenizer.count(cut[1].text) == 2


def test_embeddings_are_the_mean_of_the_last_hidden_states(tiny_bert, shared, sentences):
    texts = [sentences[0], " ".join(sentences[:60]), "boats"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    model = AutoModel.from_pretrained(tiny_bert).eval()
    expected = []
    for text in texts:
        batch = tokenizer(text, truncation=True, max_length=128, return_tensors="pt")
        with torch.no_grad():
            mean = model(**batch).last_hidden_state[0].mean(dim=0)
        expected.append((mean / mean.norm()).numpy())
    embedder = Embedder(shared.host)
    vectors = embedder.vectors(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_query(texts[2]), expected[2], atol=1e-5)


def test_a_host_without_a_padding_token_embeds(tiny_llama, sentences):
    embedder = Embedder(Host.load(str(tiny_llama), device="cpu"))
    alone = embedder.embed_query(sentences[0])
    together = embedder.vectors([" ".join(sentences[:9]), sentences[0]])
    np.testing.assert_allclose(together[1], alone, atol=1e-5)


def test_a_decoder_embeds_with_the_whitening_of_its_codebook(tiny_llama, sentences):
    host = Host.load(str(tiny_llama), device="cpu", dtype="float32")
    whitening, _ = fit_whitening(host, 1, [" ".join(sentences[:200])], progress=False)
    tap = Tap("hidden", 1)
    saes = {tap: TopKSAE(len(whitening.bias), 64, 4)}
    recipe = default_recipe(host, saes)
    codebook = Codebook(host.name, host.fingerprint(2), saes, recipe, {}, {1: whitening})
    embedder = Embedder(host, codebook)
    vectors = embedder.vectors(["\n".join(sentences[:20]), *sentences[:9]])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_query(sentences[0]), vectors[1], atol=1e-4)

    (window,) = host.windows([Document(sentences[0], metadata={"title": "Text:"})])
    ((states, sinks),) = (read[tap] for read in read_each(host, [tap], [window]))
    weights = whitening.token_weights[torch.from_numpy(window.ids[window.keep])] * ~sinks
    mean = (states * weights[:, None]).sum(0) / weights.sum()
    expected = mean @ whitening.weights + whitening.bias
    np.testing.assert_allclose(vectors[1], expected / expected.norm(), atol=1e-4)


def test_fusions():
    lexical, dense = np.array([3.0, 0.0, 1.0]), np.array([0.1, 0.9, 0.8])
    expected = [1 / 61 + 1 / 63, 1 / 63 + 1 / 61, 1 / 62 + 1 / 62]
    np.testing.assert_allclose(reciprocal_ranks(lexical, dense), expected)
    fused = z_scores(lexical, dense)
    assert abs(fused.sum()) < 1e-9
    np.testing.assert_allclose(z_scores(lexical * 7 + 2, dense), fused)
    assert (z_scores(np.zeros(3), dense) == z_scores(np.ones(3), dense)).all()


def test_methods_are_chosen_by_name(shared):
    # A second look takes a language model and seconds a question.
    usual = [name for name in METHODS if name not in RERANKING]
    assert method_names(shared.codebook, None) == usual
    assert method_names(shared.codebook, RERANKING) == list(RERANKING)
    assert method_names(shared.codebook, ["s3", "bm25"]) == ["bm25", "s3"]
    with pytest.raises(InputError, match="no method 'bm52'"):
        method_names(shared.codebook, ["bm52"])
