"""Disks that fill up and permissions that end in the midst of a change.

Resource limits and permissions are those of the process, so that each case has one of its own.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers.writers import LAYOUT, made_up, read_documents

from s3_retriever.errors import IndexStoreError
from s3_retriever.index import DiskBackend, Store, files
from s3_retriever.index.lock import LOCK_NAMES

FULL = Path("/dev/full")
KEPT = [f"d{i}" for i in range(7)]
# The longest documents, and one much smaller than those with which it is merged.
LONG = [name for name in map(str, range(100)) if len(made_up(name, 0)[0].text) > 1000][:7]
TINY = next(name for name in map(str, range(100)) if len(made_up(name, 0)[0].text) < 40)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


def add(store, *names, version=0, replace=False):
    with store.append(LAYOUT, replace=replace) as writer:
        for name in names:
            writer.add(made_up(name, version)[1])


# Each makes a change, and says which documents there are after it.
CHANGES = {
    "add": lambda store: add(store, "new"),
    "add with a merge": lambda store: add(store, TINY),
    "replace": lambda store: add(store, *KEPT[2:4], version=1, replace=True),
    "delete": lambda store: store.delete([KEPT[1], "p1", "p2"]),
    "delete most": lambda store: store.delete([f"p{i}" for i in range(1, 9)]),
    "compact": lambda store: store.compact(),
}


def prepare(path):
    """An index one addition short of a merge, some of it in one segment and some in many."""
    Store.create(path, {"host": "none"})
    store = Store(DiskBackend(path, durable=False))
    add(store, *(f"p{i}" for i in range(10)))
    for name, long in zip(KEPT, LONG, strict=True):
        add(store, name, long)
    return Store.open(path)


def held(path):
    store = Store.open(path)
    store.verify()
    return dict(read_documents(store))


def tidy(path):
    """Nothing is left over but what the manifest names."""
    named = json.loads((path / "manifest.json").read_text())["segments"]
    expected = {"manifest.json", *LOCK_NAMES, *(segment["name"] for segment in named)}
    assert {item.name for item in path.iterdir()} - {"manifest.json.tmp"} == expected
    for segment in named:
        assert {item.name for item in (path / segment["name"]).iterdir()} == set(segment["files"])


def in_child(function, *arguments):
    """Run a function of this module in a process of its own."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import index.test_faults_disk as faults; getattr(faults, sys.argv[2])(*sys.argv[3:])"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            str(Path(__file__).parents[1]),
            function,
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# A disk that fills up


@pytest.mark.parametrize("change", CHANGES)
def test_a_disk_that_fills_up_during_a_change(tmp_path, change):
    path = tmp_path / "x.s3r"
    prepare(path)
    after = tmp_path / "after.s3r"
    shutil.copytree(path, after)
    CHANGES[change](Store.open(after))
    refused, silent = json.loads(in_child("fill_up", path, after, change))
    assert refused >= 2
    if change == "add with a merge":
        assert silent > 0
    assert held(path) == held(after)
    tidy(path)


def fill_up(path, after, change):
    """Try a change with limits to the size of files that rise until nothing is refused."""
    import resource

    logging.disable()
    path = Path(path)
    before, expected = held(path), held(Path(after))
    store = Store.open(path)
    limits = [0, 1, 100, 400, 1000, 3000, 10_000, 18_000, 22_000, 26_000, 30_000, 1 << 20]
    refused = silent = 0
    for limit in limits:
        segments = len(store.manifest.segments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            CHANGES[change](store)
        except IndexStoreError as error:
            refused += 1
            assert "failed (File too large)" in str(error), error
            assert "the index keeps its last state" in str(error), error
            assert held(path) == before
            assert set(store.snapshot().ids()) == set(before)
            tidy(path)
        else:
            # A merge that was refused is for the next change to try.
            silent += len(store.manifest.segments) > segments
            break
    assert held(path) == expected
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    if silent:
        add(store, "last")
        store.delete(["last"])
    sys.stdout.write(json.dumps([refused, silent]))


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("change", CHANGES)
def test_no_room_for_the_manifest(tmp_path, change, monkeypatch):
    path = tmp_path / "x.s3r"
    store = prepare(path)
    before = held(path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "begin_draft", lambda _path: FULL.open("wb"))
        with pytest.raises(IndexStoreError, match=r"failed \(No space left on device\)"):
            CHANGES[change](store)
    assert held(path) == before
    assert set(store.snapshot().ids()) == set(before)
    tidy(path)
    CHANGES[change](store)
    store.verify()
    tidy(path)


# Permissions that end


@pytest.fixture
def open_folder():
    """A folder that any user may look into, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="s3-faults-"))
    folder.chmod(0o777)
    yield folder
    for item in folder.rglob("*"):
        item.chmod(0o777)
    shutil.rmtree(folder)


@pytest.mark.parametrize("change", CHANGES)
def test_permissions_that_end_during_a_change(open_folder, change):
    in_child("lose_permissions", open_folder / "x.s3r", change)


def lose_permissions(path, change):
    """Try a change where new names are refused in the index, and then in its segments."""
    path = Path(path)
    # Imports all that is needed: the user to be may see nothing of the installation.
    CHANGES[change](prepare(path.with_name("first.s3r")))
    store = prepare(path)
    before = held(path)
    if os.geteuid() == 0:  # whom permissions do not bind
        for item in [path, *path.rglob("*")]:
            os.chown(item, 65534, 65534)
        os.setuid(65534)
    segments = [folder for folder in path.iterdir() if folder.is_dir()]
    refused, done = 0, False
    for closed in ([path], segments):
        for folder in closed:
            folder.chmod(0o555)
        try:
            CHANGES[change](store)
            done = True
        except IndexStoreError as error:
            refused += 1
            assert "failed (Permission denied)" in str(error), error
            assert held(path) == before
        for folder in closed:
            if folder.exists():
                folder.chmod(0o755)
        if done:
            break
    if not done:
        CHANGES[change](store)
    assert refused > 0
    assert held(path) == held(path.with_name("first.s3r"))
    add(store, "last")
    tidy(path)


def test_a_permission_that_ends_while_documents_are_added(open_folder):
    in_child("lose_permission_midway", open_folder / "x.s3r")


def lose_permission_midway(path):
    path = Path(path)
    store = prepare(path)
    before = held(path)
    if os.geteuid() == 0:
        for item in [path, *path.rglob("*")]:
            os.chown(item, 65534, 65534)
        os.setuid(65534)
    try:
        with store.append(LAYOUT) as writer:
            writer.add(made_up("new", 0)[1])
            path.chmod(0o555)
    except IndexStoreError as error:
        assert "failed (Permission denied)" in str(error), error
    else:
        raise AssertionError("written")
    assert held(path) == before
    path.chmod(0o755)
    add(store, "new")
    assert held(path) == {**before, "new": 0}
    tidy(path)


@pytest.mark.parametrize("blocked", ["draft", "segment-000009", "manifest.json.tmp"])
def test_something_else_in_the_way(tmp_path, blocked):
    """A folder or a file where the index wants to write its own."""
    path = tmp_path / "x.s3r"
    store = prepare(path)
    before = held(path)
    if blocked == "draft":
        (path / blocked).write_text("mine")
    else:
        (path / blocked).mkdir()
        (path / blocked / "file").write_text("mine")
    try:
        add(store, "new")
    except IndexStoreError as error:
        assert f"Writing {path}" in str(error)
        assert held(path) == before
        target = path / blocked
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        add(store, "new")
    assert held(path) == {**before, "new": 0}
