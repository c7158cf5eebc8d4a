"""Merging after commits: few segments, little copied, nothing lost."""

import logging
import math
import os
import random
import threading

import pytest
from helpers.segments import ORIGIN, size
from helpers.writers import TAPS, made_up, read_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_retriever.errors import IndexStoreError
from s3_retriever.index import Store
from s3_retriever.index.backends import DiskBackend
from s3_retriever.index.merging import SMALL, WIDTH, Size, most_segments, next_merge


@pytest.fixture
def store(tmp_path):
    """One that does not wait for the disk, which changes nothing else."""
    Store.create(tmp_path / "x.s3r", ORIGIN)
    return Store(DiskBackend(tmp_path / "x.s3r", durable=False))


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
    with store.append(TAPS, replace=replace) as writer:
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
