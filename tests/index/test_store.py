"""The store: commits that happen whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers.segments import (
    LAYOUT,
    ORIGIN,
    Corpus,
    bare,
    check_lexical,
    check_postings,
    check_texts,
    chunks,
    size,
    tree,
)
from helpers.segments import add as write

from s3_retriever.document import Document
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.features import Layout
from s3_retriever.index import Store, lock

DESCRIPTORS = Path("/proc/self/fd")
HELPERS = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.segments import LAYOUT, Corpus
from s3_retriever.errors import IndexStoreError
from s3_retriever.index import Store
path = Path(sys.argv[1])
"""


def start(script, path):
    return subprocess.Popen(
        [sys.executable, "-c", HELPERS + script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def add(store, corpus, ids=None, *, replace=False):
    with store.append(LAYOUT, replace=replace) as writer:
        corpus.write(writer, ids)


def live_texts(store):
    return {
        segment.document(i).id: segment.document_text(i)
        for segment in store.snapshot().segments
        for i in segment.live_documents().tolist()
    }


def texts(corpus, ids=None):
    return {d.id: d.text for d, _, _ in corpus.items if ids is None or d.id in ids}


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "x.s3r", ORIGIN)


@pytest.fixture(params=["disk", "memory"])
def any_store(request, tmp_path):
    return Store.create(tmp_path / "x.s3r" if request.param == "disk" else None, ORIGIN)


def test_a_new_index_is_empty(any_store):
    assert (any_store.manifest.schema_version, any_store.manifest.generation) == (3, 0)
    assert any_store.manifest.origin == ORIGIN
    snapshot = any_store.snapshot()
    assert (snapshot.n_documents, snapshot.n_sentences, snapshot.n_tokens) == (0, 0, 0)
    assert snapshot.segments == snapshot.ids() == []
    assert snapshot.find("d0") is None
    any_store.compact()
    assert any_store.delete([]) == 0
    assert any_store.manifest.generation == 0


def test_reopened_index_is_the_same(store, small_blocks):
    corpora = [Corpus(5, 0, "a"), Corpus(6, 1, "b")]
    for corpus in corpora:
        add(store, corpus)
    opened = Store.open(store.path)
    assert opened.manifest == store.manifest
    opened.verify()
    for segment, corpus in zip(opened.snapshot().segments, corpora, strict=True):
        check_postings(segment, corpus.items)
        check_texts(segment, corpus.items)
        check_lexical(segment, corpus.items)
    assert opened.snapshot().ids() == [d.id for c in corpora for d, _, _ in c.items]
    assert opened.snapshot().n_documents == 11
    segment, ordinal = opened.snapshot().find("b3")
    assert segment.document_text(ordinal) == corpora[1].items[3][0].text


def test_a_snapshot_is_kept_until_something_is_committed(any_store):
    add(any_store, Corpus(2, 0, "a"))
    first = any_store.snapshot()
    assert any_store.snapshot() is first
    add(any_store, Corpus(2, 1, "b"))
    second = any_store.snapshot()
    assert second.generation == first.generation + 1
    assert second.segments[0] is first.segments[0]  # still open
    assert first.ids() == ["a0", "a1"]


def test_delete(store):
    corpus = Corpus(8)
    add(store, corpus)
    before = store.snapshot()
    assert store.delete(["d1", "d5", "d1"]) == 2
    assert store.delete(["d2"]) == 1
    left = {f"d{i}" for i in (0, 3, 4, 6, 7)}
    for reader in (store, Store.open(store.path)):
        snapshot = reader.snapshot()
        assert set(snapshot.ids()) == left
        assert snapshot.find("d5") is None
        assert live_texts(reader) == texts(corpus, left)
        segment = snapshot.segments[0]
        assert segment.live.tolist() == [f"d{i}" in left for i in range(8)]
        assert snapshot.n_documents == 5
        documents = segment.documents[segment.live]
        assert snapshot.n_tokens == documents["n_tokens"].sum() < segment.n_tokens
        assert snapshot.n_sentences == documents["n_sentences"].sum()
    assert before.segments[0].live is None
    # Superseded tombstones are gone.
    assert len(list(store.path.rglob("tombstones.*"))) == 1


def test_delete_of_unknown_ids_deletes_nothing(store):
    add(store, Corpus(3))
    state = tree(store.path)
    with pytest.raises(InputError, match=r"'x1', 'x2', 'x3' and 2 more"):
        store.delete(["d0", "x1", "x2", "x3", "x4", "x5"])
    assert tree(store.path) == state
    store.delete(["d0"])
    with pytest.raises(InputError, match="'d0'"):
        store.delete(["d0"])


def test_delete_may_pass_over_unknown_ids(any_store):
    add(any_store, Corpus(3))
    assert any_store.delete(["d0", "x1", "d0"], missing_ok=True) == 1
    generation = any_store.manifest.generation
    assert any_store.delete(["d0", "x1"], missing_ok=True) == 0
    assert any_store.manifest.generation == generation
    assert any_store.snapshot().ids() == ["d1", "d2"]


def test_a_segment_without_live_documents_goes(store):
    add(store, Corpus(2, 0, "a"))
    add(store, Corpus(2, 1, "b"))
    store.delete(["a0", "a1"])
    assert [s.ids() for s in store.snapshot().segments] == [["b0", "b1"]]
    assert len(list(store.path.glob("segment-*"))) == 1
    add(store, Corpus(2, 2, "a"))
    assert store.snapshot().ids() == ["b0", "b1", "a0", "a1"]


TEXT_ANALYSIS = {"splitter": "1.0", "terms": "1"}


@pytest.mark.parametrize("path", ["x.s3r", None])
def test_an_index_of_another_text_analysis_is_searched_but_not_added_to(tmp_path, path):
    store = Store.create(path and tmp_path / path, ORIGIN, TEXT_ANALYSIS)
    assert store.manifest.text_analysis == TEXT_ANALYSIS
    corpus = Corpus(3)
    for document_id in ("d0", "d1"):
        with store.append(LAYOUT, text_analysis=dict(TEXT_ANALYSIS)) as writer:
            corpus.write(writer, [document_id])
    for other in (None, {}, {**TEXT_ANALYSIS, "splitter": "1.1"}):
        with (
            pytest.raises(IndexStoreError, match=r"splitter 1\.0, terms 1.*index the documents"),
            store.append(LAYOUT, text_analysis=other) as writer,
        ):
            corpus.write(writer, ["d2"])
    assert live_texts(store) == texts(corpus, ["d0", "d1"])
    store.compact()
    store.delete(["d0"])
    assert live_texts(store) == texts(corpus, ["d1"])
    assert store.manifest.text_analysis == TEXT_ANALYSIS


def test_ids_are_unique(store):
    add(store, Corpus(3))
    state = tree(store.path)
    for ids in (["d1"], ["e0", "d2"]):
        with (
            pytest.raises(InputError, match="was already added"),
            store.append(LAYOUT) as writer,
        ):
            for name in ids:
                writer.add(bare(Document("new", id=name)))
    with (
        pytest.raises(InputError, match="was already added"),
        store.append(LAYOUT, replace=True) as writer,
    ):
        for _ in range(2):
            writer.add(bare(Document("new", id="twice")))
    assert tree(store.path) == state
    store.delete(["d1"])
    add(store, Corpus(3), ["d1"])
    assert store.snapshot().n_documents == 3


def test_replace_happens_in_one_commit(any_store):
    old, new = Corpus(4, 0), Corpus(6, 1)
    add(any_store, old)
    before = any_store.manifest.generation
    add(any_store, new, ["d1", "d3", "d5"], replace=True)
    assert any_store.manifest.generation == before + 1
    expected = {**texts(old), **texts(new, ["d1", "d3", "d5"])}
    assert live_texts(any_store) == expected
    assert any_store.snapshot().n_documents == 5
    add(any_store, new, replace=True)
    assert live_texts(any_store) == texts(new)
    assert len(any_store.snapshot().segments) == 1


def test_compact(store, small_blocks):
    corpora = [Corpus(12, 0, "a"), Corpus(1, 1, "b"), Corpus(12, 2, "c")]
    for corpus in corpora:
        add(store, corpus)
    store.delete(["a0", "a7", "c11", "b0"])
    old, before = store.snapshot(), size(store.path)
    expected = live_texts(store)
    store.compact()
    assert size(store.path) < before
    assert len(list(store.path.glob("segment-*"))) == 1
    (segment,) = store.snapshot().segments
    items = [item for c in corpora for item in c.items if item[0].id in expected]
    check_postings(segment, items)
    check_texts(segment, items)
    check_lexical(segment, items)
    store.verify()
    # What was opened before can still be read.
    assert {s.document(i).id: s.document_text(i) for s in old.segments for i in s.live_documents()}
    check_postings(old.segments[0], corpora[0].items)
    generation = store.manifest.generation
    store.compact()
    assert store.manifest.generation == generation  # nothing to do


def test_a_compacted_segment_is_the_one_that_would_have_been_written(store, tmp_path):
    corpus = Corpus(10)
    for item in corpus.items:
        add(store, corpus, [item[0].id])
    store.compact()
    other = Store.create(tmp_path / "y.s3r", ORIGIN)
    add(other, corpus)
    assert store.manifest.segments[0].files == other.manifest.segments[0].files


class Stop(BaseException):
    """What Ctrl-C raises, in effect."""


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, ValueError])
def test_an_interrupted_append_leaves_nothing(store, error):
    add(store, Corpus(3))
    state = tree(store.path)

    item = max(Corpus(5, 1, "e").items, key=lambda item: len(item[1]))

    def break_off(writer):
        writer.add(next(chunks(*item)))
        raise error

    with pytest.raises(error), store.append(LAYOUT) as writer:
        Corpus(3, 2, "f").write(writer)
        break_off(writer)
    assert tree(store.path) == state
    with (
        pytest.raises(IndexStoreError, match="interrupted"),
        store.append(LAYOUT) as writer,
        suppress(error),
    ):
        break_off(writer)
    assert tree(store.path) == state
    with pytest.raises(IndexStoreError, match="interrupted"), store.append(LAYOUT) as writer:
        with suppress(error):
            break_off(writer)
        writer.add(bare(Document("after that", id="after")))
    assert tree(store.path) == state
    add(store, Corpus(5, 1, "e"))
    assert store.snapshot().n_documents == 8


def test_an_append_without_documents_is_no_commit(store):
    state = tree(store.path)
    with store.append(LAYOUT):
        pass
    assert tree(store.path) == state


def test_taps_must_be_those_of_the_index(any_store):
    add(any_store, Corpus(1))
    with (
        pytest.raises(IndexStoreError, match="has the taps"),
        any_store.append(Layout({"key.0": 4})),
    ):
        pass


def test_two_stores_see_each_other(store):
    other = Store.open(store.path)
    add(store, Corpus(2, 0, "a"))
    assert other.snapshot().ids() == ["a0", "a1"]
    add(other, Corpus(2, 1, "b"))
    assert store.snapshot().n_documents == 4
    store.delete(["b0"])
    with pytest.raises(InputError, match="'b0'"):
        other.delete(["b0"])
    other.compact()
    add(store, Corpus(1, 2, "c"))
    assert other.snapshot().ids() == ["a0", "a1", "b1", "c0"]
    assert other.manifest == store.manifest


def test_one_writer_at_a_time(store, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    for second in (store, Store.open(store.path)):
        with store.append(LAYOUT) as writer:
            Corpus(1, 0, f"x{id(second)}").write(writer)
            for call in (lambda s=second: s.delete(["d0"]), second.compact):
                with pytest.raises(IndexStoreError, match="Another writer is changing"):
                    call()
    assert store.snapshot().n_documents == 2


def test_a_lock_of_another_process(store, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    script = """
with Store.open(path).append(LAYOUT) as writer:
    Corpus(2, 0, "other").write(writer)
    print("writing", flush=True)
    sys.stdin.readline()
"""
    with start(script, store.path) as process:
        assert process.stdout.readline() == "writing\n"
        assert list((store.path / "draft").iterdir())
        with pytest.raises(IndexStoreError, match="Another writer is changing"):
            add(store, Corpus(1))
        assert store.snapshot().ids() == []  # readers do not wait
        process.communicate("\n")
    assert process.returncode == 0
    assert store.snapshot().ids() == ["other0", "other1"]


def test_readers_are_not_disturbed_by_a_writer(store):
    add(store, Corpus(2, 0, "kept"))
    script = """
store = Store.open(path)
for i in range(8):
    with store.append(LAYOUT) as writer:
        Corpus(1, i, "passing").write(writer)
    store.compact()
    store.delete(["passing0"])
    store.compact()
"""
    generations = set()
    with start(script, store.path) as process:
        while process.poll() is None:
            snapshot = Store.open(store.path).snapshot()
            generations.add(snapshot.generation)
            assert snapshot.ids()[:2] == ["kept0", "kept1"]
            assert store.snapshot().find("kept1") is not None
    assert process.returncode == 0
    assert len(generations) > 3


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_writer_leaves_the_index_as_it_was(store):
    add(store, Corpus(2))
    state = tree(store.path)
    script = """
with Store.open(path).append(LAYOUT) as writer:
    Corpus(9, 1, "lost").write(writer)
    print("writing", flush=True)
    sys.stdin.readline()
"""
    with start(script, store.path) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    # As if it had died a little later, between its two last steps.
    shutil.copytree(store.path / "segment-000001", store.path / "segment-000002")
    shutil.copy(
        store.path / "segment-000001" / "tokens.npy",
        store.path / "segment-000001" / "tombstones.000002.npy",
    )
    assert len(tree(store.path)) > len(state)
    assert Store.open(store.path).snapshot().ids() == ["d0", "d1"]
    add(store, Corpus(1, 2, "next"))  # the next writer tidies up
    assert store.snapshot().ids() == ["d0", "d1", "next0"]
    store.verify()
    left = {name for name in tree(store.path) if not name.startswith("segment-000002/")}
    assert left == set(state)
    assert store.snapshot().segments[1].name == "segment-000002"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_fills_up(store):
    add(store, Corpus(2))
    state = tree(store.path)
    script = """
import resource
store = Store.open(path)
before = store.manifest
for limit in [0, 100, 500, 1000, 2000, 3000, 5000, 8000, 12000, 20000, 50000, 1 << 20, 1 << 30]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with store.append(LAYOUT) as writer:
            Corpus(9, 1, "new").write(writer)
    except IndexStoreError as error:
        assert "failed (File too large)" in str(error), error
        assert Store.open(path).manifest == before
        assert sorted(os.listdir(path)) == [
            "manifest.json", "queue.lock", "segment-000001", "write.lock"
        ]
        print("refused")
    else:
        assert store.snapshot().n_documents == 11
        break
"""
    with start(script, store.path) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    assert output.count("refused") >= 5
    store.verify()
    assert set(state) < set(tree(store.path))


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
def test_a_read_only_folder_opens():
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        store = Store.create(folder / "x.s3r", ORIGIN)
        add(store, Corpus(3))
        for path in [store.path, *store.path.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        script = """
import mmap, numpy as np
if os.geteuid() == 0:
    os.setuid(65534)  # nobody: permissions do not bind root
store = Store.open(path)
segment, ordinal = store.snapshot().find("d1")
assert segment.document_text(ordinal) == Corpus(3).items[1][0].text
assert segment.postings("hidden.5", np.arange(300))[0].size
for call in (lambda: store.delete(["d1"]), lambda: Store.create(path / "new", {})):
    try:
        call()
    except IndexStoreError as error:
        assert "failed (Permission denied)" in str(error), error
    else:
        raise SystemExit("written")
assert store.snapshot().ids() == ["d0", "d1", "d2"]
"""
        with start(script, store.path) as process:
            process.communicate()
        assert process.returncode == 0
        for path in [store.path, *store.path.rglob("*")]:
            path.chmod(0o755)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def synced(monkeypatch):
    """Files and folders that were brought to disk for good, by inode."""
    inodes = set()
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (inodes.add(os.fstat(file).st_ino), fsync(file))[1]
    )
    return inodes


@pytest.mark.skipif(os.name == "nt", reason="needs folders that can be synced")
def test_all_that_a_commit_names_is_on_disk_for_good(tmp_path, synced):
    store = Store.create(tmp_path / "x.s3r", ORIGIN)

    def assert_all_synced():
        found = [path for path in store.path.rglob("*") if path.name not in lock.LOCK_NAMES]
        assert [path for path in (store.path, *found) if path.stat().st_ino not in synced] == []
        synced.clear()

    assert_all_synced()
    add(store, Corpus(3, 0, "a"))
    assert_all_synced()
    store.delete(["a1"])
    tombstones = store.path / "segment-000001" / "tombstones.000002.npy"
    changed = {tombstones, tombstones.parent, store.path / "manifest.json", store.path}
    assert {path.stat().st_ino for path in changed} == synced
    store.compact()
    assert_all_synced()


def test_create_touches_nothing_that_is_there(store, tmp_path):
    add(store, Corpus(1))
    state = tree(store.path)
    with pytest.raises(IndexStoreError, match=r"There already is an index at .*; open it"):
        Store.create(store.path, ORIGIN)
    assert tree(store.path) == state
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for path in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(IndexStoreError, match="in use by other files"):
            Store.create(path, ORIGIN)
    assert [item.name for item in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert Store.create(tmp_path / "empty", ORIGIN).manifest.generation == 0


def test_another_index_in_the_same_place(store, tmp_path):
    shutil.rmtree(store.path)
    with pytest.raises(IndexStoreError, match="no index"):
        store.snapshot()
    Store.create(store.path, ORIGIN)
    with pytest.raises(IndexStoreError, match="replaced by another; open it again"):
        store.snapshot()


def test_files_that_are_not_the_index_s_stay(store):
    (store.path / "README.txt").write_text("about this index")
    add(store, Corpus(1))
    store.compact()
    assert (store.path / "README.txt").exists()


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="needs a list of open files")
def test_many_small_segments_hold_few_files_open(store):
    numbers = np.random.default_rng(0)
    for i in range(15):
        with store.append(Layout({"key.0": 16})) as writer:
            rows = numbers.integers(0, 16, (1, 2), dtype=np.int32)
            starts = np.zeros(1, dtype=np.uint32)
            write(writer, Document("text", id=str(i)), starts, {"key.0": rows})
    before = len(list(DESCRIPTORS.iterdir()))
    opened = Store.open(store.path)
    after = len(list(DESCRIPTORS.iterdir()))
    assert opened.snapshot().n_documents == 15
    assert after - before < 5
