"""Forks, interrupts and working directories: whatever a process does, the index stays usable."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.segments import ORIGIN, tree
from helpers.writers import LAYOUT, made_up

from s3_retriever.errors import IndexStoreError
from s3_retriever.index import Store, backends, lock

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# Other tests of the run may have left threads, of which newer releases of Python warn.
ignored = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SECONDS = 30


def add(store, *names):
    with store.append(LAYOUT) as writer:
        for name in names:
            writer.add(made_up(name, 0)[1])


def in_fork(action):
    """How a forked child ends that runs an action; it may not take long."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    made = Store.create(tmp_path / "x.s3r" if request.param == "disk" else None, ORIGIN)
    add(made, "a", "b")
    return made


@forks
@ignored
def test_a_forked_child_writes_while_another_thread_of_the_parent_did(store, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_SECONDS", 20.0)
    begun, go_on = threading.Event(), threading.Event()

    def write_slowly():
        with store.append(LAYOUT) as writer:
            writer.add(made_up("slow", 0)[1])
            begun.set()
            go_on.wait()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    begun.wait()
    threading.Timer(0.2, go_on.set).start()
    assert in_fork(lambda: store.delete(["a"])) == 0
    writer.join()
    # On disk both changed the same index, in memory each its own.
    left = ["b", "slow"] if store.path else ["a", "b", "slow"]
    assert store.snapshot().ids() == left


@forks
@ignored
def test_a_child_forked_while_its_thread_adds_leaves_the_addition_alone(store):
    def finish(context):
        # As a program ends: what is open is closed, and what is written would be committed.
        try:
            context.__exit__(None, None, None)
        except IndexStoreError as error:
            assert "only its parent can finish" in str(error)
        else:
            assert store.path is None

    context = store.append(LAYOUT)
    writer = context.__enter__()
    writer.add(made_up("new", 0)[1])
    assert in_fork(lambda: finish(context)) == 0
    writer.add(made_up("newer", 0)[1])
    context.__exit__(None, None, None)
    assert store.snapshot().ids() == ["a", "b", "new", "newer"]
    store.verify()


def test_an_interrupt_at_any_line_leaves_the_lock_free(store, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    watched = {lock.__file__: None, backends.__file__: {"writing", "_wait_for", "_first_turn"}}

    def interrupt_at(number):
        """Delete nothing, with an interrupt at a line of the lock; whether there is one."""
        lines = 0

        def count(frame, event, _):
            nonlocal lines
            lines += event == "line"
            if lines == number:
                sys.settrace(None)
                raise KeyboardInterrupt
            return count

        def watch(frame, _event, _arg):
            names = watched.get(frame.f_code.co_filename, ())
            return count if names is None or frame.f_code.co_name in names else None

        before = sys.gettrace()
        sys.settrace(watch)
        try:
            store.delete([])
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    number = 1
    while interrupt_at(number):
        store.delete([])
        number += 1
    assert number > 10


def test_a_forgotten_writer_leaves_the_lock_free(store, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    context = store.append(LAYOUT)
    context.__enter__().add(made_up("lost", 0)[1])
    with pytest.raises(IndexStoreError, match="Another writer"):
        store.delete(["a"])
    del context
    gc.collect()
    store.delete(["a"])
    assert store.snapshot().ids() == ["b"]
    if store.path:
        assert not (store.path / "draft").exists()


def test_writers_take_turns(store):
    """One that comes back at once does not overtake one that waits."""
    done = threading.Event()
    refused = []

    def write_again_and_again():
        while not done.is_set():
            store.delete([])

    def write():
        other = store if store.path is None else Store.open(store.path)
        try:
            for _ in range(3):
                other.delete([])
        except IndexStoreError as error:
            refused.append(error)

    busy = [threading.Thread(target=write_again_and_again) for _ in range(2)]
    waiting = threading.Thread(target=write)
    for thread in (*busy, waiting):
        thread.start()
    waiting.join()
    done.set()
    for thread in busy:
        thread.join()
    assert refused == []


def test_a_relative_path_counts_from_where_it_was_opened(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    made = Store.create(Path("x.s3r"), ORIGIN)
    opened = Store.open(Path("x.s3r"))
    monkeypatch.chdir("other")
    add(made, "a")
    assert opened.snapshot().ids() == ["a"]
    assert opened.path == tmp_path / "x.s3r"
    assert list(Path().iterdir()) == []
    (tmp_path / "other").rmdir()
    assert made.snapshot().ids() == ["a"]
    with pytest.raises(IndexStoreError, match="give an absolute path"):
        Store.open(Path("x.s3r"))


def test_a_closed_index_says_so(store):
    other = store.shared()
    store.close()
    store.close()
    for call in (store.snapshot, store.stats, lambda: store.delete(["a"]), store.compact):
        with pytest.raises(IndexStoreError, match="is closed"):
            call()
    if other.path:
        assert other.snapshot().ids() == ["a", "b"]


@pytest.mark.skipif(os.name == "nt", reason="needs folders that can be synced")
def test_the_folders_above_a_new_index_are_on_disk_for_good(tmp_path, monkeypatch):
    synced = set()
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (synced.add(os.fstat(file).st_ino), fsync(file))[1]
    )
    path = Store.create(tmp_path / "new" / "newer" / "x.s3r", ORIGIN).path
    for folder in (tmp_path, tmp_path / "new", path.parent, path):
        assert folder.stat().st_ino in synced


def test_an_index_of_another_store_is_untouched_by_a_refused_change(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.05)
    store = Store.create(tmp_path / "x.s3r", ORIGIN)
    with store.append(LAYOUT) as writer:
        writer.add(made_up("a", 0)[1])
        state = tree(store.path)
        with pytest.raises(IndexStoreError, match="Another writer"):
            add(Store.open(store.path), "b")
        assert tree(store.path) == state
    assert store.snapshot().ids() == ["a"]
