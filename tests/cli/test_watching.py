"""`s3r sync --watch` as a real process on real files."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from s3_retriever import S3Index
from s3_retriever.cli import watching
from s3_retriever.cli.app import app
from s3_retriever.cli.files import Counts
from s3_retriever.errors import IndexLockedError
from s3_retriever.index import lock

pytest.importorskip("watchfiles")

_CODE = (
    "import s3_retriever.index.lock as lock; lock.LOCK_SECONDS = 0.2; "
    "from s3_retriever.cli import main; main()"
)
_SECONDS = 300


class Watch:
    """The command in a process of its own, and what it prints, line by line."""

    def __init__(self, folder, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *map(str, arguments)],
            cwd=folder,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(re.sub(r"^\d\d:\d\d:\d\d  ", "", line).strip())

    def until(self, last):
        """The lines up to one that begins so, in alphabetical order: a round has no order."""
        lines, deadline = [], time.monotonic() + _SECONDS
        while True:
            lines.append(self._lines.get(timeout=max(deadline - time.monotonic(), 0)))
            if lines[-1].startswith(last):
                return lines

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=_SECONDS)

    def end(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()


def test_the_index_follows_its_folder(tmp_path, tiny_bert, tiny_codebook):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "bread.txt").write_text("A baker carries warm bread before dawn.")
    model = ["--host", tiny_bert, "--codebook", tiny_codebook]
    # The index is inside: its own files must not start a round.
    index = docs / "idx.s3r"
    watch = Watch(tmp_path, "sync", "docs", "--to", index, *model, "--watch")
    try:
        assert watch.until("Watching docs;")[0] == "1 added, 0 replaced, 0 unchanged, 0 skipped."

        (docs / "broken.txt").write_bytes(b"a\0b")
        (docs / "boats.txt").write_text("My neighbour paints seven boats.")
        *warning, added = watch.until("added")
        assert added == "added     boats.txt"
        assert [line.split(" is skipped: ")[0] for line in warning] == ["Warning: docs/broken.txt"]

        (docs / "bread.txt").write_text("A baker carries warm cake before dawn.")
        assert watch.until("replaced") == ["replaced  bread.txt"]

        (docs / "more").mkdir()
        (docs / "boats.txt").rename(docs / "more/ships.txt")
        assert watch.until("dropped") == ["added     more/ships.txt", "dropped   boats.txt"]

        (docs / ".gitignore").write_text("ships.txt\n")
        assert watch.until("dropped") == ["dropped   more/ships.txt"]
        (docs / ".gitignore").unlink()
        assert watch.until("added") == ["added     more/ships.txt"]

        with FileLock(index / lock.LOCK_NAME):
            (docs / "bread.txt").unlink()
            assert watch.until("Another writer") == [
                "Another writer is changing the index; waiting for it."
            ]
        assert watch.until("dropped") == ["dropped   bread.txt"]

        assert watch.stop() == 130
        *_, last = watch.until("Error: Interrupted.")
        assert "Interrupted. The index has all changes that are named above." in last
    finally:
        watch.end()
    with S3Index.open(index) as kept:
        assert kept.ids() == ["more/ships.txt"]
        assert kept.verify().bytes
        assert kept.search("Who paints boats?", k=1, mode="bm25")


class EndedError(Exception):
    pass


def rounds(tmp_path, monkeypatch, *steps):
    """Run the steps between rounds; the names of the files that each round read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watching, "_events", lambda *_: events())
    read: list[list[str]] = []

    def events():
        yield True
        for step in steps:
            step()
            yield True
        raise EndedError

    def update(found, chosen, on_change):
        read.append(sorted(file.path.name for file in chosen.files))
        return Counts()

    with pytest.raises(EndedError):
        watching.follow(["docs"], tmp_path / "idx.s3r", update)
    return read


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("A")
    return folder


def test_a_folder_that_is_away_for_a_while_is_not_empty(docs, tmp_path, monkeypatch, capsys):
    away = tmp_path / "away"
    steps = [lambda: docs.rename(away), lambda: None, lambda: away.rename(docs)]
    assert rounds(tmp_path, monkeypatch, *steps) == [["a.txt"]]
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "its documents stay in the index" in line] == [
        "There is no file or folder 'docs'; check the path. Waiting for it; its documents stay in "
        "the index."
    ]
    assert said[-1] == "Watching docs; stop with Ctrl-C."


def test_only_what_changed_is_read_again(docs, tmp_path, monkeypatch):
    def same_size_and_time():
        before = (docs / "a.txt").stat()
        (docs / "a.txt").write_text("B")
        os.utime(docs / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))

    steps = [
        lambda: None,
        lambda: (docs / "b.txt").write_text("B"),
        same_size_and_time,
        lambda: (docs / "a.txt").unlink(),
    ]
    assert rounds(tmp_path, monkeypatch, *steps) == [["a.txt"], ["b.txt"], ["a.txt"], []]


def test_a_round_that_met_another_writer_is_repeated(docs, tmp_path, monkeypatch):
    tries = iter([None, IndexLockedError("Another writer"), None])
    seen = []

    def update(found, chosen, on_change):
        seen.append([file.path.name for file in chosen.files])
        if error := next(tries):
            raise error
        return Counts()

    monkeypatch.chdir(tmp_path)
    watch = watching._Rounds(["docs"], update)
    watch.run()
    (docs / "b.txt").write_text("B")
    for _ in range(3):
        watch.due |= len(seen) == 1
        watch.run()
    assert seen == [["a.txt"], ["b.txt"], ["b.txt"]]


def test_a_round_names_a_bounded_number_of_documents(capsys):
    log = watching._Log()
    for number in range(25):
        log.note("added", f"{number}\x1b[2J\n.txt")
    log.end()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[-1].endswith("  and 5 more documents")
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("paths", "problem"),
    [(["docs/a.txt"], "'docs/a.txt' is not one"), (["docs/*"], "'docs/*' is not one")],
)
def test_only_folders_are_watched(docs, tmp_path, monkeypatch, paths, problem):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sync", *paths, "--to", "idx.s3r", "--watch"])
    assert done.exit_code == 1
    assert done.stderr == f"Error: --watch follows folders, and {problem}.\n"


def test_without_watchfiles_the_extra_is_named(docs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sync", "docs", "--to", "idx.s3r", "--watch"])
    assert done.exit_code == 1
    assert "install it with: pip install 's3-retriever[watch]'" in done.stderr
    assert not (tmp_path / "idx.s3r").exists()
