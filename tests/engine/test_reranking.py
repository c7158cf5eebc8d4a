"""`rerank`: a language model reads the best sentences of a search again."""

from __future__ import annotations

import pytest

from s3_retriever import Compressor, Document, Host, HostError, InputError, S3Index

QUESTION = "Who paints seven boats in the harbour?"
DOCUMENTS = [
    Document("The release manager signs every release. A baker mends bread.", "a", {"page": 1}),
    Document("The old captain paints seven boats in the harbour. Dull text.", "b", {"page": 2}),
    Document("My neighbour forgets seven boats. The harbour is old.", "c", {"page": 3}),
]
LIMITS = {"k": 4, "min_relevance": 0.0}


@pytest.fixture(scope="module")
def index(tiny_bert, tiny_codebook, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranked") / "index"
    index = S3Index.create(
        folder, str(tiny_bert), codebook=tiny_codebook, device="cpu", dtype="float32"
    )
    index.add(DOCUMENTS)
    return index


@pytest.fixture(scope="module")
def reader(tiny_llama) -> Host:
    return Host.load(str(tiny_llama), device="cpu", dtype="float32")


def texts(spans):
    return [span.text for span in spans]


@pytest.mark.parametrize("mode", ["hybrid", "bm25"])
def test_a_host_by_name_and_a_loaded_one_read_alike(index, reader, tiny_llama, mode):
    first = index.search(QUESTION, mode=mode, **LIMITS)
    named = index.search(QUESTION, mode=mode, rerank=4, rerank_host=str(tiny_llama), **LIMITS)
    loaded = index.search(QUESTION, mode=mode, rerank=4, rerank_host=reader, **LIMITS)
    assert named == loaded
    assert {span.id for span in named} == {span.id for span in first}
    assert sorted(span.relevance for span in named) == sorted(span.relevance for span in first)


def test_what_it_adds_is_explained(index, reader):
    best = index.search(QUESTION, rerank=4, rerank_host=reader, **LIMITS)[0]
    explained = index.explain(QUESTION, best, rerank=4, rerank_host=reader)
    assert explained.contributions["rerank"] == pytest.approx(best.contributions["rerank"])
    assert "rerank" not in index.explain(QUESTION, best).contributions


def test_a_compressor_reranks_too(index, reader, tiny_bert, tiny_codebook):
    compressor = Compressor(index.encoder.host, codebook=tiny_codebook)
    options = {"rerank": 4, "rerank_host": reader, **LIMITS}
    found = compressor.compress(QUESTION, DOCUMENTS, **options)
    assert texts(found) == texts(index.search(QUESTION, **options))


def test_an_encoder_is_refused_in_one_sentence(index, tiny_bert):
    for host in (None, str(tiny_bert), index.encoder.host):
        with pytest.raises(HostError, match=r"is an encoder and cannot rerank.*rerank_host") as no:
            index.search(QUESTION, rerank=4, rerank_host=host)
        assert str(no.value).count(". ") == 0
    assert index.search(QUESTION)


@pytest.mark.parametrize("rerank", [True, 0, -1, 1.5, "20", 10**30, 1_001, [3], float("nan")])
def test_numbers_that_are_none_are_refused(index, tiny_bert, tiny_codebook, rerank):
    with pytest.raises(InputError, match="rerank must be"):
        index.search(QUESTION, rerank=rerank, rerank_host="no/such-model")
    with pytest.raises(InputError, match="rerank must be"):
        Compressor(index.encoder.host, codebook=tiny_codebook).compress("x", [], rerank=rerank)


def test_hosts_that_are_none_are_refused(index, tmp_path):
    with pytest.raises(InputError, match="say how many with rerank"):
        index.search(QUESTION, rerank_host="smollm2")
    for host in (3, ["smollm2"], b"smollm2"):
        with pytest.raises(InputError, match="host"):
            index.search(QUESTION, rerank=3, rerank_host=host)
    with pytest.raises(HostError, match="nowhere"):
        index.search(QUESTION, rerank=3, rerank_host=str(tmp_path / "nowhere"))


def test_a_causal_index_reads_with_its_own_host(tiny_llama, sentences, tmp_path):
    from helpers.answering import CPU, make_answerer

    folder = make_answerer(tmp_path / "model", tiny_llama, sentences[:200])
    index = S3Index.create(None, str(folder), window=256, **CPU)
    index.add(DOCUMENTS)
    # Its codebook has no heads, so all heads of all layers look, not those of the first ones.
    assert len(index.encoder.host.blocks) == 2
    whole = Host.load(str(folder), window=256, **CPU)
    own = index.search(QUESTION, rerank=4, **LIMITS)
    assert own == index.search(QUESTION, rerank=4, rerank_host=whole, **LIMITS)


def test_words_alone_are_searched_without_the_index_own_host(index, reader):
    with S3Index.open(index.path) as opened:
        assert opened.search(QUESTION, mode="bm25", rerank=3, rerank_host=reader)
        assert callable(opened._encoder)  # not loaded
