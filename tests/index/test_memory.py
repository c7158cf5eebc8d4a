"""An index in memory: no file, the same answers."""

import builtins
import gc
import io
import os
import tempfile
import threading
import warnings

import numpy as np
import pytest
from helpers.segments import (
    LAYOUT,
    ORIGIN,
    Corpus,
    check_lexical,
    check_postings,
    check_texts,
)
from helpers.writers import LAYOUT as WRITERS_LAYOUT
from helpers.writers import made_up, read_documents

from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.index import Store, lock


@pytest.fixture
def no_files(monkeypatch, tmp_path):
    """Nothing is opened, made or synced."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a file: {arguments}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for module, name in (
        (builtins, "open"),
        (io, "open"),
        (os, "open"),
        (os, "mkdir"),
        (os, "fsync"),
        (tempfile, "mkdtemp"),
    ):
        monkeypatch.setattr(module, name, refuse)
    yield
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def add(store, corpus, ids=None, **options):
    with store.append(LAYOUT, **options) as writer:
        corpus.write(writer, ids)


def test_all_that_a_store_does_needs_no_file(no_files, small_blocks):
    store = Store.create(None, ORIGIN)
    assert store.path is None
    corpora = [Corpus(12, 0, "a"), Corpus(7, 1, "b"), Corpus(9, 2, "c")]
    for corpus in corpora:
        add(store, corpus)
    for segment, corpus in zip(store.snapshot().segments, corpora, strict=True):
        check_postings(segment, corpus.items)
        check_texts(segment, corpus.items)
        check_lexical(segment, corpus.items)
    with pytest.raises(InputError, match="was already added"):
        add(store, corpora[1], ["b3"])
    add(store, corpora[1], ["b3"], replace=True)
    assert store.delete(["a1", "c8"]) == 2
    before, report = store.snapshot(), store.verify()
    assert report.bytes == sum(
        file.bytes for s in store.manifest.segments for file in s.files.values()
    )
    assert report.strangers == ()
    store.compact()
    (segment,) = store.snapshot().segments
    items = [
        item for corpus in corpora for item in corpus.items if item[0].id not in ("a1", "b3", "c8")
    ]
    items.append(corpora[1].items[3])
    check_postings(segment, items)
    check_texts(segment, items)
    check_lexical(segment, items)
    check_postings(before.segments[0], corpora[0].items)


def test_what_is_compacted_is_what_is_written_to_disk(tmp_path, small_blocks):
    stores = [Store.create(None, ORIGIN), Store.create(tmp_path / "x.s3r", ORIGIN)]
    for store in stores:
        for seed in range(3):
            add(store, Corpus(5, seed, f"{seed}-"))
        store.delete(["0-1", "2-3"])
        store.compact()
    (memory,), (disk,) = (store.snapshot().segments for store in stores)
    for name in disk.entry.files:
        kept = memory._files.folder.bytes(name)
        assert np.array_equal(kept, np.fromfile(stores[1].path / disk.name / name, np.uint8))


def test_what_is_closed_is_gone_but_for_snapshots():
    store, corpus = Store.create(None, ORIGIN), Corpus(3)
    add(store, corpus)
    snapshot = store.snapshot()
    store.close()
    gc.collect()
    assert snapshot.segments[0].document_text(0) == corpus.items[0][0].text
    for use in (store.snapshot, store.compact, lambda: store.delete(["d1"])):
        with pytest.raises(IndexStoreError, match="is closed"):
            use()


def test_superseded_files_are_let_go_of():
    store = Store.create(None, ORIGIN)
    add(store, Corpus(9))
    for i in range(4):
        store.delete([f"d{i}"])
    (folder,) = store._backend._folders.values()
    assert set(folder.entries()) == set(store.manifest.segments[0].files)
    assert sum(name.startswith("tombstones") for name in folder.entries()) == 1
    store.delete([f"d{i}" for i in range(4, 9)])
    assert store._backend._folders == store._backend._drafts == {}


def test_an_error_leaves_the_index_as_it_was():
    store = Store.create(None, ORIGIN)
    add(store, Corpus(3))
    before = store.manifest
    with pytest.raises(ValueError), store.append(LAYOUT) as writer:
        Corpus(3, 1, "e").write(writer)
        raise ValueError
    assert store.manifest == before
    assert store._backend._drafts == {}
    add(store, Corpus(3, 1, "e"))
    assert store.snapshot().n_documents == 6


def test_one_thread_writes_at_a_time(monkeypatch):
    store = Store.create(None, ORIGIN)
    names = [f"d{i}" for i in range(24)]
    failures = []

    def write(mine):
        try:
            for name in mine:
                with store.append(WRITERS_LAYOUT) as writer:
                    writer.add(made_up(name, 0)[1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=[names[i::4]]) for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(dict(read_documents(store))) <= len(names)
    for thread in threads:
        thread.join()
    assert failures == []
    assert dict(read_documents(store)) == dict.fromkeys(names, 0)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.1)
    with store.append(WRITERS_LAYOUT):
        # The same thread, and another one, whose wait ends.
        with pytest.raises(IndexStoreError, match="Another writer is changing"):
            store.delete(["d0"])
        write(["late"])
        thread = threading.Thread(target=write, args=[["later"]])
        thread.start()
        thread.join()
    assert [type(error) for error in failures] == [IndexStoreError] * 2
    store.delete(["d0"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_takes_nothing_away():
    store, corpus = Store.create(None, ORIGIN), Corpus(3)
    add(store, corpus)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy has threads of its own
        child = os.fork()
    if child == 0:
        try:
            store.delete(["d0", "d1"])
            store.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    assert store.snapshot().ids() == ["d0", "d1", "d2"]
    check_texts(store.snapshot().segments[0], corpus.items)
