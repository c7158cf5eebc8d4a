"""`s3r sync --watch`: the index follows its folders, round by round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rich.text import Text

from s3_retriever.cli.console import results, say
from s3_retriever.cli.files import Counts
from s3_retriever.errors import IndexLockedError, InputError
from s3_retriever.files import FoundFiles, find_files
from s3_retriever.printable import one_line
from s3_retriever.types import shown

# Called with what was done, such as `added`, and the id of the document.
OnChange = Callable[[str, str], None]
# Makes the index the same as the files that are there, of which it reads some.
Update = Callable[[FoundFiles, FoundFiles, OnChange | None], Counts]
# What a changed file differs in: times in nanoseconds, bytes and number on its disk.
_Stamp = tuple[int, int, int, int]

# A round begins when nothing has changed for that long, or changes have gone on for longer.
_QUIET_MS = 300
_LONGEST_MS = 5_000
# How often to look for what the operating system does not report: folders that come and go, and
# an index that is free again.
_TICK_MS = 500
# Documents that a round names; another branch changes thousands.
_NAMED = 20


def check_watch(paths: Sequence[str]) -> None:
    """Refuse what cannot be watched, before work begins.

    Raises:
        InputError: The package watchfiles is missing, or a path is not a folder.
    """
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--watch needs watchfiles; install it with: pip install 's3-retriever[watch]'"
        ) from error
    for path in paths:
        if not Path(path).is_dir():
            raise InputError(f"--watch follows folders, and {shown(path)} is not one.")


def follow(paths: Sequence[str], index: Path, update: Update) -> NoReturn:
    """Update an index now and after every change in folders, until it is interrupted.

    Events only start a round. What to read follows from the files themselves, whose times and
    sizes are compared with those of the round before, so that no event has to be understood and
    none is missed.

    Raises:
        KeyboardInterrupt: In the end.
    """
    rounds = _Rounds(paths, update)
    try:
        for changed in _events(paths, os.path.realpath(index)):
            rounds.due |= changed
            rounds.run()
    except KeyboardInterrupt:
        if rounds.completed:
            sentence = "The index has all changes that are named above."
            raise KeyboardInterrupt(sentence) from None
        raise
    raise AssertionError("events never end")


class _Rounds:
    """The rounds of a watch, each of which reads what changed since the one before.

    Attributes:
        due: Whether something may have changed since the last completed round.
        completed: How many rounds were completed.
    """

    def __init__(self, paths: Sequence[str], update: Update) -> None:
        self.due = True
        self.completed = 0
        self._paths = paths
        self._update = update
        self._stamps: dict[Path, _Stamp] | None = None
        self._skipped: set[Path] = set()
        self._said = ""

    def run(self) -> None:
        """Run a round if one is due; it stays due while it has to wait."""
        if not self.due:
            return
        try:
            found = find_files(self._paths)
        except InputError as error:
            # A folder that is being replaced, or whose disk is gone, is not an empty one.
            self._say(f"{error} Waiting for it; its documents stay in the index.")
            return
        stamps = {file.path: stamp for file in found.files if (stamp := _stamp(file.path))}
        try:
            if stamps != self._stamps:
                self._round(found, stamps)
        except IndexLockedError:
            self._say("Another writer is changing the index; waiting for it.")
            return
        if self._said or not self.completed:
            say(f"Watching {', '.join(self._paths)}; stop with Ctrl-C.")
        self.due, self._said, self._stamps = False, "", stamps
        self.completed += 1

    def _round(self, found: FoundFiles, stamps: dict[Path, _Stamp]) -> None:
        before = self._stamps or {}
        changed = [file for file in found.files if before.get(file.path) != stamps.get(file.path)]
        skipped = {path: why for path, why in found.skipped.items() if path not in self._skipped}
        self._skipped |= skipped.keys()
        read = FoundFiles(changed, skipped=skipped)
        if self._stamps is None:
            results().print(f"{self._update(found, read, None)}.")
        else:
            log = _Log()
            try:
                self._update(found, read, log.note)
            finally:
                log.end()

    def _say(self, sentence: str) -> None:
        """Say why the watch waits, once."""
        if sentence != self._said:
            say(sentence)
        self._said = sentence


class _Log:
    """Names the documents of a round, with the time; of many, the first."""

    def __init__(self) -> None:
        self._count = 0

    def note(self, done: str, document_id: str) -> None:
        """Name a document."""
        self._count += 1
        if self._count <= _NAMED:
            _print(f"{done:8}  {one_line(document_id)}")

    def end(self) -> None:
        """Say how many documents were not named."""
        if self._count > _NAMED:
            _print(f"and {self._count - _NAMED:,} more documents")


def _print(line: str) -> None:
    results().print(Text(f"{time.strftime('%H:%M:%S')}  {line}"), soft_wrap=True)


def _stamp(path: Path) -> _Stamp | None:
    """What tells a changed file; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _events(paths: Sequence[str], index: str) -> Iterator[bool]:
    """Whether something may have changed, again and again without end.

    Args:
        paths: Folders, which may be gone for a while or replaced by others.
        index: Folder of the index without links; its changes do not count.
    """
    from watchfiles import Change, watch

    def counts(_: Change, path: str) -> bool:
        real = os.path.realpath(path)
        return real != index and not real.startswith(index + os.sep)

    while True:
        folders = _folders(paths)
        changed = True  # while nothing was watched
        with suppress(FileNotFoundError):
            for changes in watch(
                *folders,
                watch_filter=counts,
                debounce=_LONGEST_MS,
                step=_QUIET_MS,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
            ):
                yield changed or bool(changes)
                changed = False
                if _folders(paths) != folders:
                    break


def _folders(paths: Sequence[str]) -> dict[str, int]:
    """The folders that are there, each with what distinguishes it from another of its name."""
    folders = {}
    for path in paths:
        with suppress(OSError):
            folders[path] = Path(path).stat().st_ino
    return folders
