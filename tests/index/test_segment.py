"""Segments: what is written is what is read."""

import re
import tracemalloc

import numpy as np
import pytest
from helpers.segments import (
    Corpus,
    add,
    bare,
    build,
    check_lexical,
    check_postings,
    check_texts,
    opened,
    writer_at,
)

from s3_retriever.document import Document
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.features import EncodedChunk, Sentence
from s3_retriever.index import Segment, documents, lexical
from s3_retriever.index import postings as postings_writer
from s3_retriever.index.segment_files import write_tombstones
from s3_retriever.index.storage import DiskFolder
from s3_retriever.quantization import cosine_weights
from s3_retriever.text import term_hash


@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_is_read(tmp_path, small_blocks, seed):
    corpus = Corpus(25, seed)
    entry = build(tmp_path / "s", corpus)
    segment = opened(tmp_path / "s", entry)
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
    writer = writer_at(tmp_path / "s", {"hidden.5": 300})
    add(writer, Document(text, id="long"), starts, features, size=10_000)
    segment = opened(tmp_path / "s", writer.close())
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
    writer = writer_at(tmp_path / "s", {"key.0": 4})
    rows = np.zeros((len(starts), 1), dtype=np.int32)
    add(writer, Document(text, id="x"), starts, {"key.0": rows}, size=4096)
    segment = opened(tmp_path / "s", writer.close())
    assert segment.sentences["n_tokens"].max() <= 128
    assert "".join(segment.text(i, i) for i in range(segment.n_sentences)) == text
    assert segment.lexical(np.array([term_hash("中")], dtype=np.uint64))[2].sum() == 20_000


def test_documents_without_tokens(tmp_path):
    writer = writer_at(tmp_path / "s", {"key.0": 4})
    for text, name in (("", "empty"), (" \n ", "blank"), ("\x00 text", "unread")):
        writer.add(bare(Document(text, id=name), ["key.0"]))
    segment = opened(tmp_path / "s", writer.close())
    assert (segment.n_documents, segment.n_sentences, segment.n_tokens) == (3, 0, 0)
    assert [segment.document_text(i) for i in range(3)] == ["", " \n ", "\x00 text"]
    assert segment.postings("key.0", np.arange(4))[0].size == 0
    assert segment.lexical(np.array([term_hash("text")], dtype=np.uint64))[0].size == 0


def test_features_that_fire_nowhere_or_twice(tmp_path):
    rows = np.array([[2, 2], [-1, -1], [0, 2]], dtype=np.int32)
    writer = writer_at(tmp_path / "s", {"key.0": 4})
    add(writer, Document("a b c", id="x"), np.array([0, 2, 4], dtype=np.uint32), {"key.0": rows})
    segment = opened(tmp_path / "s", writer.close())
    positions, which = segment.postings("key.0", np.array([3, 2, 0]))
    assert (positions.tolist(), which.tolist()) == ([0, 2, 2], [1, 1, 2])
    assert segment.block_features("key.0", 0).tolist() == [[2, -1], [-1, -1], [0, 2]]
    with pytest.raises(IndexError):
        segment.postings("key.0", np.array([4]))
    with pytest.raises(IndexError):
        segment.postings("key.0", np.array([-1]))


def test_numbers_that_are_not_there(tmp_path):
    segment = opened(tmp_path / "s", build(tmp_path / "s", Corpus(3)))
    numbers = np.arange(segment.n_sentences)[::-1]
    assert segment.texts(numbers) == [segment.text(i, i) for i in numbers.tolist()]
    assert segment.texts(numbers[:0]) == []
    for call in [
        lambda: segment.document(-1),
        lambda: segment.document(3),
        lambda: segment.text(0, segment.n_sentences),
        lambda: segment.text(2, 1),
        lambda: segment.text(0, segment.n_sentences - 1),  # of two documents
        lambda: segment.texts(np.array([0, segment.n_sentences])),
    ]:
        with pytest.raises(IndexError):
            call()


DOCUMENT = Document("a b c", id="x")


def chunk_of(starts=(2,), rows=((0,),), sentences=((0, 3, 2),), **changes):
    """Further tokens of a document whose first token is of no sentence yet."""
    given = {
        "document": DOCUMENT,
        "starts": np.array(starts, dtype=np.uint32),
        "sentences": tuple(Sentence(*sentence) for sentence in sentences),
        "terms": ({1: 1},) * len(sentences),
        "features": {"key.0": np.array(rows, dtype=np.int32)},
        "vectors": np.zeros((len(sentences), 3), dtype=np.uint8),
        "last": False,
    }
    return EncodedChunk(**given | changes)


BAD = {
    "tokens out of order": chunk_of([1, 0], [[0], [0]]),
    "before the last token": chunk_of([0], [[0]]),
    "beyond the text": chunk_of([2, 9], [[0], [0]]),
    "a row missing": chunk_of([2, 3], [[0]]),
    "no rows": chunk_of([2, 3], [0, 1]),
    "no such feature": chunk_of([2], [[4]]),
    "a negative feature": chunk_of([2], [[-2]]),
    "no such tap": chunk_of(features={}),
    "more tokens than there are": chunk_of(sentences=[(0, 3, 3)]),
    "no tokens": chunk_of(sentences=[(0, 3, 0)]),
    "no characters": chunk_of(sentences=[(1, 1, 1)]),
    "a sentence beyond the text": chunk_of(sentences=[(0, 6, 2)]),
    "a sentence before the text": chunk_of(sentences=[(-1, 2, 2)]),
    "sentences that overlap": chunk_of(sentences=[(0, 3, 1), (2, 4, 1)]),
    "terms missing": chunk_of(terms=()),
    "no vectors": chunk_of(vectors=None),
    "a vector missing": chunk_of(vectors=np.zeros((0, 3), dtype=np.uint8)),
    "vectors of another size": chunk_of(vectors=np.zeros((1, 4), dtype=np.uint8)),
    "vectors of another type": chunk_of(vectors=np.zeros((1, 3), dtype=np.int8)),
    "a token of no sentence": chunk_of(sentences=[(0, 3, 1)], last=True),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_chunks_that_do_not_fit(tmp_path, bad):
    writer = writer_at(tmp_path / "s", {"key.0": 4}, vector_bytes=3)
    writer.add(chunk_of([1], [[0]], sentences=()))
    with pytest.raises(InputError):
        writer.add(bad)
    for go_on in (lambda: writer.add(chunk_of(last=True)), writer.close):
        with pytest.raises(IndexStoreError, match="interrupted"):
            go_on()
    writer.abort()
    assert not (tmp_path / "s").exists()


def test_the_chunk_that_the_bad_ones_differ_from_fits(tmp_path):
    writer = writer_at(tmp_path / "s", {"key.0": 4}, vector_bytes=3)
    writer.add(chunk_of([1], [[0]], sentences=()))
    writer.add(chunk_of(last=True))
    assert writer.ids == ["x"]
    assert writer.close().sentences == 1


def test_vectors_where_the_index_has_none(tmp_path):
    writer = writer_at(tmp_path / "s", {"key.0": 4})
    with pytest.raises(InputError, match="vectors"):
        writer.add(chunk_of([0, 1], [[0], [0]], last=True))
    writer.abort()


def test_vectors_are_those_of_their_sentences(tmp_path, small_blocks):
    numbers = np.random.default_rng(0)
    writer = writer_at(tmp_path / "s", vector_bytes=5)
    expected = []
    for document, starts, features in Corpus(9).items:
        vectors = numbers.integers(0, 256, (len(starts), 5), dtype=np.uint8)
        before = writer._sentences.count
        add(writer, document, starts, features, vectors=vectors)
        expected.append(vectors[: writer._sentences.count - before])
    segment = opened(tmp_path / "s", writer.close())
    expected = np.concatenate(expected)
    assert np.array_equal(segment.vectors(0, segment.n_sentences), expected)
    direction = numbers.standard_normal(10).astype(np.float32)
    weights, offset = cosine_weights(direction)
    similarity = offset + (expected & 15) @ weights[0] + (expected >> 4) @ weights[1]
    np.testing.assert_allclose(segment.similarity(direction), similarity, rtol=1e-5)
    with pytest.raises(KeyError):
        opened(tmp_path / "t", build(tmp_path / "t", Corpus(2))).similarity(direction)


def test_ids_with_the_same_hash_are_distinguished(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "id_hash", len)
    corpus = Corpus(12)
    segment = opened(tmp_path / "s", build(tmp_path / "s", corpus))
    assert [segment.find(f"d{i}") for i in range(12)] == list(range(12))
    assert segment.find("x") is segment.find("d12") is None


def test_deleting_reads_nothing_again(tmp_path, monkeypatch):
    """What is known of a segment's files outlives its tombstones."""
    entry = build(tmp_path / "s", Corpus(20))
    folder = DiskFolder(tmp_path / "s")
    segment = Segment(folder, entry)
    segment.ids(), segment.column("n"), segment.find("d3")
    dead = write_tombstones(folder, entry, [3], 2)
    for read in ("bytes", "array"):
        monkeypatch.setattr(DiskFolder, read, only_tombstones(getattr(DiskFolder, read)))
    monkeypatch.setattr(documents.Documents, "_line", None)
    after = Segment(folder, dead, segment)
    assert after.find("nothing") is None
    assert after.ids() == segment.ids()
    assert after.column("n") is segment.column("n")
    assert np.flatnonzero(after.column("n").equal([3])).tolist() == [3]


def only_tombstones(read):
    def checked(folder, name, *arguments):
        assert name.startswith("tombstones")
        return read(folder, name, *arguments)

    return checked


def test_memory_does_not_grow_with_the_segment(tmp_path, monkeypatch):
    monkeypatch.setattr(postings_writer, "BLOCK_TOKENS", 256)
    monkeypatch.setattr(lexical, "BLOCK_ENTRIES", 256)
    text = " ".join(f"word{i}." for i in range(200))
    starts = np.array([m.start() for m in re.finditer(r"\S+", text)], dtype=np.uint32)
    rows = np.random.default_rng(0).integers(0, 300, (200, 32), dtype=np.int32)
    features = {"hidden.5": rows}

    def peak(name, n_documents):
        writer = writer_at(tmp_path / name, {"hidden.5": 300})
        tracemalloc.start()
        for i in range(n_documents):
            add(writer, Document(text, id=f"{i}"), starts, features, size=100)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        writer.close()
        return highest

    peak("warm", 2)  # fills the caches of terms
    assert peak("long", 40) < 1.5 * peak("short", 10)
