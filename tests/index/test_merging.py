"""Merging after commits: few segments, little copied, nothing lost."""

import logging
import math
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import segments
from helpers.segments import ORIGIN, size
from helpers.writers import LAYOUT, made_up, read_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_retriever import text
from s3_retriever.errors import IndexStoreError
from s3_retriever.features import Layout
from s3_retriever.index import DiskBackend, Store, lexical, postings
from s3_retriever.index.merging import SMALL, WIDTH, Size, next_merge


@pytest.fixture
def store(tmp_path):
    """A store that does not wait for the disk, which changes nothing else."""
    Store.create(tmp_path / "x.s3r", ORIGIN)
    return Store(DiskBackend(tmp_path / "x.s3r", durable=False))


def most_segments(size):
    """Most segments of an index of that size: seven of each level."""
    levels = 1
    while size > SMALL:
        size //= WIDTH
        levels += 1
    return (WIDTH - 1) * levels


def grow(additions):
    """Add segments of these sizes and merge as said: what is left, and how much was copied."""
    sizes, copied = [], 0
    for number in additions:
        sizes.append(Size(number, number))
        while run := next_merge(sizes):
            live = sum(size.live for size in sizes[run])
            sizes[run] = [Size(live, live)]
            copied += live
        assert len(sizes) <= most_segments(sum(size.total for size in sizes))
    return sizes, copied


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 7).map(lambda power: 10**power), max_size=300))
def test_segments_stay_few_whatever_is_added(additions):
    sizes, _ = grow(additions)
    assert sum(size.total for size in sizes) == sum(additions)


NUMBERS = random.Random(0)
PATTERNS = {
    "one sentence each": [25] * 20_000,
    "one page each": [500] * 10_000,
    "batches": [500_000] * 1_000,
    "one large, then small": [1_000_000] + [100] * 10_000,
    "large and small in turn": [50_000, 50] * 2_000,
    "small ones between large ones": ([300_000] + [10] * 6) * 500,
    "falling": [max(10, 10**6 // (i + 1)) for i in range(3_000)],
    "rising": [10 * (i + 1) for i in range(3_000)],
    "any": [int(10 ** NUMBERS.uniform(1, 5)) for _ in range(5_000)],
}


@pytest.mark.parametrize("additions", PATTERNS.values(), ids=PATTERNS.keys())
def test_little_is_copied(additions):
    sizes, copied = grow(additions)
    total = sum(additions)
    assert copied < 1.5 * total * (1 + math.log(total / SMALL, WIDTH))
    assert len(sizes) <= most_segments(total) <= 7 * (2 + math.log(total / SMALL, WIDTH))


def test_what_is_mostly_deleted_is_rewritten():
    assert next_merge([Size(100, 50), Size(10, 10)]) is None
    assert next_merge([Size(10, 10), Size(100, 49), Size(10, 10)]) == slice(1, 2)
    assert next_merge([Size(100, 49), Size(10**6, 1), Size(10, 10), Size(9, 1)]) == slice(0, 2)
    assert next_merge([]) is None


def add(store, *names, version=0, replace=False):
    with store.append(LAYOUT, replace=replace) as writer:
        for name in names:
            writer.add(made_up(name, version)[1])


def held(store):
    """Ids and versions of all documents, in order; looks at all of them."""
    return list(read_documents(store))


def test_many_small_additions_leave_few_segments(store):
    names = [f"d{i}" for i in range(200)]
    for name in names:
        add(store, name)
        snapshot = store.snapshot()
        assert len(snapshot.segments) <= most_segments(snapshot.n_tokens + snapshot.n_documents)
    assert len(snapshot.segments) < 20
    assert held(store) == [(name, 0) for name in names]
    store.verify()
    assert len(list(store.path.glob("segment-*"))) == len(snapshot.segments)
    assert not (store.path / "draft").exists()


def test_an_index_in_memory_is_merged_too():
    store = Store.create(None, ORIGIN)
    for i in range(8):
        add(store, f"d{i}")
    assert len(store.snapshot().segments) == 1
    store.delete([f"d{i}" for i in range(1, 8)])
    assert held(store) == [("d0", 0)]
    assert store.snapshot().segments[0].live is None
    store.close()


def test_deleting_gives_the_room_back(store):
    for part in range(3):
        add(store, *(f"d{part}-{i}" for i in range(60)))
    before = size(store.path)
    kept = ["d0-0", "d1-7", "d1-9", "d2-59"]
    store.delete([name for name in store.snapshot().ids() if name not in kept])
    assert size(store.path) < before / 4
    assert held(store) == [(name, 0) for name in kept]
    assert all(segment.live is None for segment in store.snapshot().segments)
    store.verify()


def test_replacing_gives_the_room_back(store, tmp_path):
    names = [f"d{i}" for i in range(12)]
    for version in range(8):
        for name in names:
            add(store, name, version=version, replace=True)
    assert sorted(held(store)) == sorted((name, 7) for name in names)
    other = Store.create(tmp_path / "y.s3r", ORIGIN)
    add(other, *names, version=7)
    n_segments = len(store.snapshot().segments)
    assert size(store.path) < 3 * size(other.path) + n_segments * 30_000
    assert store.snapshot().n_tokens == other.snapshot().n_tokens


def test_readers_keep_their_snapshots_while_segments_are_merged(store):
    names = [f"d{i}" for i in range(60)]
    texts = [made_up(name, 0)[0].text for name in names]
    add(store, *names[:2])
    failures, stop = [], threading.Event()

    def read(reader):
        try:
            while not stop.is_set():
                snapshot = reader.snapshot()
                ids = snapshot.ids()
                assert ids == names[: len(ids)]
                stop.wait(0.003)  # what it has may be merged away meanwhile
                found = [s.document_text(i) for s in snapshot.segments for i in s.live_documents()]
                assert found == texts[: len(ids)]
                reader.verify()  # of what is there as it begins
        except BaseException as error:
            failures.append(error)
            raise

    readers = [store, Store.open(store.path), Store.open(store.path)]
    threads = [threading.Thread(target=read, args=[reader]) for reader in readers]
    for thread in threads:
        thread.start()
    for name in names[2:]:
        add(store, name)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_damage_gets_no_new_checksum(store, caplog):
    for i in range(7):
        add(store, f"d{i}")
    file = store.path / "segment-000003" / "tokens.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        add(store, "d7")
    assert "stay unmerged" in caplog.text and "tokens.npy is damaged" in caplog.text
    assert len(store.snapshot().segments) == store.snapshot().n_documents == 8
    with pytest.raises(IndexStoreError, match=r"tokens\.npy is damaged"):
        store.verify()
    content[-1] ^= 1
    file.write_bytes(content)
    add(store, "d8")  # tries again
    assert len(store.snapshot().segments) == 1
    store.verify()


@pytest.mark.skipif(os.name == "nt", reason="needs folders that can be synced")
def test_a_merge_is_on_disk_for_good_before_it_counts(tmp_path, monkeypatch):
    store = Store.create(tmp_path / "x.s3r", ORIGIN)
    for i in range(7):
        add(store, f"d{i}")
    inodes = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda f: (inodes.add(os.fstat(f).st_ino), fsync(f))[1])
    add(store, "d7")
    merged = store.path / "segment-000009"
    assert [entry.name for entry in store.manifest.segments] == [merged.name]
    assert {path.stat().st_ino for path in [merged, *merged.iterdir(), store.path]} <= inodes


# Rows are copied


def everything(store):
    """By id, all that an index knows of its live documents, and where each term occurs in them."""
    known, numbers = {}, {}
    for segment in store.snapshot().segments:
        for ordinal in segment.live_documents().tolist():
            row, record = segment.document(ordinal), segment.documents[ordinal]
            first, n = int(record["first_sentence"]), int(record["n_sentences"])
            table = segment.sentences[first : first + n]
            known[row.id] = (
                row,
                segment.document_text(ordinal),
                segments.document_tokens(segment, ordinal).tolist(),
                table[["start", "end", "n_bytes", "n_tokens", "n_terms", "crc32"]].tolist(),
                [segment.text(i, i) for i in range(first, first + n)],
                [
                    [part.tolist() for part in segment.sentence_features(tap, i)]
                    for tap in segments.TAPS
                    for i in range(first, first + n)
                ],
                segment.vectors(first, first + n).tolist(),
            )
            numbers.update({(segment, first + i): (row.id, i) for i in range(n)})
    terms = set()
    for segment in store.snapshot().segments:
        for block in segment.lexical_blocks():
            for sentence, term, count in zip(*(part.tolist() for part in block), strict=True):
                if (segment, sentence) in numbers:
                    terms.add((term, *numbers[segment, sentence], count))
    return known, terms


def scores(store):
    """What all features, and a direction, add to live sentences and tokens, in order."""
    numbers = np.random.default_rng(0)
    parts = store.snapshot().segments
    scored = []
    for tap, n in segments.TAPS.items():
        features, weights = np.arange(n), numbers.random(n)
        sentences, tokens = [], []
        for segment in parts:
            of_sentences, of_tokens = np.zeros(segment.n_sentences), np.zeros(segment.n_tokens)
            segment.add_to_sentences(tap, features, weights, of_sentences)
            segment.add_to_tokens(tap, features, weights, of_tokens)
            live = segment.live_sentences
            sentences.append(of_sentences[live])
            tokens.append(of_tokens[np.repeat(live, segment.sentence_tokens)])
        scored += [np.concatenate(sentences), np.concatenate(tokens)]
        scored.append(sum(segment.frequencies(tap, features) for segment in parts))
    direction = numbers.standard_normal(2 * VECTOR_BYTES).astype(np.float32)
    similar = [segment.similarity(direction)[segment.live_sentences] for segment in parts]
    return [*scored, np.concatenate(similar)]


VECTOR_BYTES = 6


@pytest.fixture(params=["disk", "memory"])
def merged(request, tmp_path, small_blocks):
    """A store of some segments with deleted documents, and what those that are left should be."""
    store = Store.create(tmp_path / "m.s3r" if request.param == "disk" else None, ORIGIN)
    corpora = [segments.Corpus(n, seed, f"{seed}-") for seed, n in enumerate((12, 1, 25, 7))]
    for corpus in corpora:
        with store.append(Layout(segments.TAPS, VECTOR_BYTES)) as writer:
            write(corpus, writer)
    store.delete(["0-0", "0-7", "1-0", "2-3", "2-4", "2-24", "3-1"])
    return store, corpora


def write(corpus, writer, ids=None):
    numbers = np.random.default_rng(len(corpus.items))
    for document, starts, features in corpus.items:
        vectors = numbers.integers(0, 256, (len(starts), VECTOR_BYTES), dtype=np.uint8)
        if ids is None or document.id in ids:
            segments.add(writer, document, starts, features, vectors=vectors)


def test_a_merge_changes_nothing_whatever_splitter_and_stemmer_are_installed(merged, monkeypatch):
    store, _ = merged
    before, scored = everything(store), scores(store)

    def cut_otherwise(*arguments):
        raise AssertionError("a merge cuts no text")

    for module in (text, text.sentences, text.terms):
        for name in ("SentenceCutter", "split_sentences", "analyze", "term_hash"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, cut_otherwise)
    assert len(store.snapshot().segments) > 1
    store.compact()
    (segment,) = store.snapshot().segments
    assert segment.live is None
    assert everything(store) == before
    assert all(np.array_equal(*pair) for pair in zip(scores(store), scored, strict=True))
    store.verify()


def test_a_merged_segment_is_the_one_that_would_have_been_written(merged, tmp_path):
    store, corpora = merged
    left = store.snapshot().ids()
    store.compact()
    other = Store.create(tmp_path / "other.s3r", ORIGIN)
    with other.append(Layout(segments.TAPS, VECTOR_BYTES)) as writer:
        for corpus in corpora:
            write(corpus, writer, left)
    (copied,), (written,) = (s.snapshot().segments for s in (store, other))
    assert copied.entry.files.keys() == written.entry.files.keys()
    for name in written.entry.files:
        assert np.array_equal(*(s._files.folder.bytes(name) for s in (copied, written)))


def test_merging_does_not_import_the_text_room(store):
    for i in range(3):
        add(store, f"d{i}")
    script = (
        "import sys; from pathlib import Path; from s3_retriever.index import DiskBackend, Store;"
        "store = Store.open(Path(sys.argv[1])); store.delete(['d1']); store.compact();"
        "rooms = ('s3_retriever.text', 'sentencex', 'Stemmer', 'torch');"
        "assert not [name for name in sys.modules if name.startswith(rooms)]"
    )
    subprocess.run([sys.executable, "-c", script, str(store.path)], check=True)
    assert held(store) == [("d0", 0), ("d2", 0)]
    assert len(store.snapshot().segments) == 1


def test_a_bar_follows_a_merge(store, monkeypatch, small_blocks):
    for i in range(3):
        add(store, f"d{i}")
    store.delete(["d1"])
    moves = []

    def shown(_progress, **_options):
        return nullcontext(SimpleNamespace(update=moves.append))

    monkeypatch.setattr("s3_retriever.index.store.progress_bar", shown)
    tokens = sum(segment.n_tokens for segment in store.snapshot().segments)
    store.compact(progress=True)
    assert sum(moves) == tokens
    assert len(moves) > 1


def test_the_memory_of_a_merge_does_not_grow_with_the_segments(monkeypatch):
    monkeypatch.setattr(postings, "BLOCK_TOKENS", 256)
    monkeypatch.setattr(lexical, "BLOCK_ENTRIES", 256)

    def peak(n):
        store = Store.create(None, ORIGIN)
        for _ in range(2):
            with store.append(LAYOUT) as writer:
                for _ in range(n):
                    name = f"x{len(writer.ids)}-{store.manifest.generation}"
                    chunk = made_up("d8", 0)[1]
                    writer.add(replace(chunk, document=replace(chunk.document, id=name)))
        size = sum(file.bytes for s in store.manifest.segments for file in s.files.values())
        tracemalloc.start()
        store.compact()
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest, size

    peak(2)
    (small, _), (large, size) = peak(40), peak(400)
    # The new segment, which is in memory here, and a little more.
    assert large - small < 1.6 * size
