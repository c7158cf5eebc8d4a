"""`Compressor`: evidence from documents that something else retrieved."""

from __future__ import annotations

import copy
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3_retriever import Codebook, Compressor, Document, Host, InputError
from s3_retriever.host import Host as HostClass

DOCUMENTS = [
    Document("The release manager signs every release. A baker mends bread.", "a", {"page": 1}),
    Document("The old captain paints seven boats in the harbour. Dull text.", "b", {"page": 2}),
    "My neighbour forgets a broken clock.",
]


@pytest.fixture
def compressor(tiny_bert, tiny_codebook):
    return Compressor(str(tiny_bert), codebook=tiny_codebook, device="cpu", dtype="float32")


def test_it_returns_the_evidence_with_offsets_and_metadata(compressor):
    spans = compressor.compress("the old captain paints seven boats", DOCUMENTS, k=1)
    assert [(span.text, span.metadata) for span in spans] == [
        ("The old captain paints seven boats in the harbour.", {"page": 2})
    ]
    assert DOCUMENTS[1].text[spans[0].start : spans[0].end] == spans[0].text


def test_a_document_seen_before_is_not_scanned_again(compressor, monkeypatch):
    forwards = []
    forward = HostClass.forward
    monkeypatch.setattr(
        HostClass,
        "forward",
        lambda self, batch: (forwards.append(len(batch)), forward(self, batch))[1],
    )
    first = compressor.compress("captain boats", DOCUMENTS)
    assert forwards == [3, 1]  # the documents, the question
    assert compressor.compress("captain boats", DOCUMENTS) == first
    assert forwards == [3, 1]
    compressor.compress("captain boats", [*DOCUMENTS, "New words here."])
    assert forwards == [3, 1, 1]  # the new document
    compressor.compress("the night nurse", DOCUMENTS)
    assert forwards == [3, 1, 1, 1]  # the new question


def test_a_small_cache_changes_no_result(tiny_bert, tiny_codebook):
    host = Host.load(str(tiny_bert), device="cpu", dtype="float32")
    book = Codebook.load(tiny_codebook)
    tiny, ample = (Compressor(host, codebook=book, cache_tokens=n) for n in (15, 10_000))
    for documents in (DOCUMENTS, DOCUMENTS[::-1], DOCUMENTS[:1], DOCUMENTS):
        spans = [c.compress("captain bread clock", documents, k=9) for c in (tiny, ample)]
        assert spans[0] == spans[1]
    assert tiny.encoder._scans._size <= 15


def test_the_budget_holds_and_repeated_documents_do_no_harm(compressor):
    twice = [*DOCUMENTS, *DOCUMENTS]
    spans = compressor.compress("captain bread", twice, token_budget=15)
    assert 0 < sum(span.tokens for span in spans) <= 15
    assert spans == compressor.compress("captain bread", DOCUMENTS, token_budget=15)
    assert compressor.compress("captain bread", []) == []
    first = Document("The old captain counts warm bread.", "a")
    (span,) = compressor.compress("captain bread", [first, *DOCUMENTS[:1]])
    assert span.text == first.text
    with pytest.raises(InputError, match="empty"):
        compressor.compress(" ", DOCUMENTS)


def test_a_single_document_needs_no_list(compressor):
    text = "The old captain paints seven boats. A baker mends bread."
    expected = compressor.compress("captain boats", [text], k=1)
    assert [span.text for span in expected] == ["The old captain paints seven boats."]
    assert compressor.compress("captain boats", text, k=1) == expected
    assert compressor.compress("captain boats", Document(text), k=1) == expected


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        (7, "The documents must be in a list, not int"),
        (["text", 7], "A document is a Document or a string, not int"),
    ],
)
def test_anything_else_is_refused(compressor, documents, problem):
    with pytest.raises(InputError, match=problem):
        compressor.compress("captain", documents)


def test_it_writes_no_files(compressor, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert compressor.compress("captain boats", DOCUMENTS)


def test_overlapping_chunks_bring_nothing_twice(compressor):
    sentences = [
        "The old captain paints seven boats in the harbour.",
        "The old captain counts warm bread.",
        "The old captain mends a broken clock.",
        "The old captain forgets every release.",
    ]
    chunks = [Document(" ".join(sentences[i : i + 2]), f"chunk-{i}") for i in range(3)]
    copy = Document("\n".join(sentences), "page")
    for limit in ({"k": 4}, {"token_budget": 50}):
        spans = compressor.compress("the old captain", [*chunks, copy], **limit)
        assert sorted(span.text for span in spans) == sorted(sentences)


def test_threads_share_one_compressor(compressor):
    questions = ["captain boats", "bread", "release manager", "broken clock"] * 4
    expected = [compressor.compress(question, DOCUMENTS, k=2) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        spans = pool.map(lambda question: compressor.compress(question, DOCUMENTS, k=2), questions)
        assert list(spans) == expected


def test_hosts_by_name_are_loaded_once(tiny_bert, tiny_codebook, compressor):
    again = Compressor(str(tiny_bert), codebook=tiny_codebook, device="cpu", dtype="float32")
    assert again.encoder.host is compressor.encoder.host
    other = Compressor(
        str(tiny_bert), codebook=tiny_codebook, device="cpu", dtype="float32", window=64
    )
    assert other.encoder.host is not compressor.encoder.host


def test_a_copy_is_shared_and_a_pickle_loads_the_host_by_name(compressor):
    assert copy.deepcopy(compressor) is compressor
    again = pickle.loads(pickle.dumps(compressor))
    assert again.encoder.host is compressor.encoder.host
    assert again.compress("bread", DOCUMENTS) == compressor.compress("bread", DOCUMENTS)
