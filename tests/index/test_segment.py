"""Segments: what is written is what is read."""

import re
import tracemalloc

import numpy as np
import pytest
from helpers.segments import Corpus, build, check_lexical, check_postings, check_texts, chunks

from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.index import Segment, SegmentWriter, TokenChunk, lexical
from s3_retriever.index import postings as postings_writer
from s3_retriever.text.terms import term_hash


@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_is_read(tmp_path, small_blocks, seed):
    corpus = Corpus(25, seed)
    entry = build(tmp_path / "s", corpus)
    segment = Segment(tmp_path / "s", entry)
    assert segment.n_tokens > 3 * 64
    assert segment.live is None
    assert segment.ids() == [document.id for document, _, _ in corpus.items]
    check_postings(segment, corpus.items)
    check_texts(segment, corpus.items)
    check_lexical(segment, corpus.items)


def test_blocks_of_the_real_size_and_mapped_files(tmp_path):
    numbers = np.random.default_rng(0)
    n = postings_writer.BLOCK_TOKENS + 1000
    text = "word. " * n
    starts = np.arange(0, 6 * n, 6, dtype=np.uint32)
    features = {"hidden.5": numbers.integers(-1, 300, (n, 2), dtype=np.int32)}
    writer = SegmentWriter(tmp_path / "s", {"hidden.5": 300})
    writer.add(Document(text, id="long"), chunks(starts, features, size=10_000))
    segment = Segment(tmp_path / "s", writer.close())
    positions, which = segment.postings("hidden.5", np.array([299, 7]))
    for index, feature in enumerate([299, 7]):
        (expected,) = np.nonzero((features["hidden.5"] == feature).any(axis=1))
        assert positions[which == index].tolist() == expected.tolist()
    assert segment.n_sentences == n
    assert segment.text(n - 2, n - 1) == "word. word."
    sentences, _, counts = segment.lexical(np.array([term_hash("word")], dtype=np.uint64))
    assert sentences.tolist() == list(range(n))
    assert set(counts.tolist()) == {1}


def test_the_same_documents_make_the_same_files(tmp_path, small_blocks):
    first = build(tmp_path / "a" / "s", Corpus(6))
    assert build(tmp_path / "b" / "s", Corpus(6)) == first


def test_one_huge_line(tmp_path):
    text = "nospace中" * 20_000
    starts = np.arange(len(text), dtype=np.uint32)
    writer = SegmentWriter(tmp_path / "s", {"key.0": 4})
    rows = np.zeros((len(starts), 1), dtype=np.int32)
    writer.add(Document(text, id="x"), chunks(starts, {"key.0": rows}, size=4096))
    segment = Segment(tmp_path / "s", writer.close())
    assert segment.sentences["n_tokens"].max() <= 128
    assert "".join(segment.text(i, i) for i in range(segment.n_sentences)) == text
    assert segment.lexical(np.array([term_hash("中")], dtype=np.uint64))[2].sum() == 20_000


def test_documents_without_tokens(tmp_path):
    writer = SegmentWriter(tmp_path / "s", {"key.0": 4})
    blank = TokenChunk(np.array([0, 1], dtype=np.uint32), {"key.0": np.zeros((2, 1), np.int32)})
    writer.add(Document("", id="empty"), [])
    writer.add(Document(" \n ", id="blank"), [blank])
    writer.add(Document("\x00 text", id="unread"), [])
    segment = Segment(tmp_path / "s", writer.close())
    assert (segment.n_documents, segment.n_sentences, segment.n_tokens) == (3, 0, 0)
    assert [segment.document_text(i) for i in range(3)] == ["", " \n ", "\x00 text"]
    assert segment.postings("key.0", np.arange(4))[0].size == 0
    assert segment.lexical(np.array([term_hash("text")], dtype=np.uint64))[0].size == 0


def test_features_that_fire_nowhere_or_twice(tmp_path):
    rows = np.array([[2, 2], [-1, -1], [0, 2]], dtype=np.int32)
    writer = SegmentWriter(tmp_path / "s", {"key.0": 4})
    writer.add(
        Document("a b c", id="x"),
        [TokenChunk(np.array([0, 2, 4], dtype=np.uint32), {"key.0": rows})],
    )
    segment = Segment(tmp_path / "s", writer.close())
    positions, which = segment.postings("key.0", np.array([3, 2, 0]))
    assert (positions.tolist(), which.tolist()) == ([0, 2, 2], [1, 1, 2])
    assert segment.block_features("key.0", 0).tolist() == [[2, -1], [-1, -1], [0, 2]]
    with pytest.raises(IndexError):
        segment.postings("key.0", np.array([4]))
    with pytest.raises(IndexError):
        segment.postings("key.0", np.array([-1]))


def test_numbers_that_are_not_there(tmp_path):
    segment = Segment(tmp_path / "s", build(tmp_path / "s", Corpus(3)))
    for call in [
        lambda: segment.document(-1),
        lambda: segment.document(3),
        lambda: segment.text(0, segment.n_sentences),
        lambda: segment.text(2, 1),
        lambda: segment.text(0, segment.n_sentences - 1),  # of two documents
    ]:
        with pytest.raises(IndexError):
            call()


def chunk_of(starts, rows):
    return TokenChunk(np.array(starts, dtype=np.uint32), {"key.0": np.array(rows, dtype=np.int32)})


@pytest.mark.parametrize(
    "bad",
    [
        chunk_of([1, 0], [[0], [0]]),  # out of order
        chunk_of([0, 9], [[0], [0]]),  # beyond the text
        chunk_of([0, 1], [[0]]),  # a row missing
        chunk_of([0, 1], [0, 1]),  # no rows
        chunk_of([0], [[4]]),  # no such feature
        chunk_of([0], [[-2]]),
        TokenChunk(np.array([0], dtype=np.uint32), {}),  # no such tap
    ],
)
def test_tokens_that_do_not_fit(tmp_path, bad):
    writer = SegmentWriter(tmp_path / "s", {"key.0": 4})
    with pytest.raises(InputError):
        writer.add(Document("a b c", id="x"), [chunk_of([0], [[0]]), bad])
    writer.abort()
    assert not (tmp_path / "s").exists()


def test_memory_does_not_grow_with_the_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(postings_writer, "BLOCK_TOKENS", 256)
    monkeypatch.setattr(lexical, "BLOCK_ENTRIES", 256)
    text = " ".join(f"word{i}." for i in range(200))
    starts = np.array([m.start() for m in re.finditer(r"\S+", text)], dtype=np.uint32)
    rows = np.random.default_rng(0).integers(0, 300, (200, 32), dtype=np.int32)
    document_chunks = list(chunks(starts, {"hidden.5": rows}, size=100))

    def peak(name, n_documents):
        writer = SegmentWriter(tmp_path / name, {"hidden.5": 300})
        tracemalloc.start()
        for i in range(n_documents):
            writer.add(Document(text, id=f"{i}"), iter(document_chunks))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        writer.close()
        return highest

    peak("warm", 2)  # fills the caches of terms
    assert peak("long", 40) < 1.5 * peak("short", 10)
