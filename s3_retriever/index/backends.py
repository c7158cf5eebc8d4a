"""Where an index is kept: a folder on disk, shared between processes, or memory."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from s3_retriever.errors import IndexStoreError
from s3_retriever.index import lock
from s3_retriever.index.files import replace_file, sync, writing
from s3_retriever.index.lock import LOCK_NAMES, hold
from s3_retriever.index.manifest import (
    MANIFEST_NAME,
    Manifest,
    SegmentEntry,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from s3_retriever.index.segment import Segment
from s3_retriever.index.segment_files import TOMBSTONE_FILES
from s3_retriever.index.storage import DiskFolder, MemoryFolder
from s3_retriever.index.verification import (
    SEGMENT_FOLDERS,
    Verification,
    check_files,
    find_damage,
    intact,
    named_files,
    refuse_damage,
)
from s3_retriever.processes import renew_after_fork

# Where a segment is written; no reader looks into it.
DRAFT = "draft"
# Where the segment of an index is written that has no manifest yet. What a killed process leaves
# there is in nobody's way.
UNFINISHED = ".s3r-unfinished"
# Where the blocks of a cluster's build wait until they are copied into the index.
BLOCKS = ".s3r-blocks"
_POLL_SECONDS = 0.002


def new_manifest(origin: Mapping[str, Any], text_analysis: Mapping[str, str]) -> Manifest:
    """The manifest of an empty index."""
    return Manifest(
        uuid=uuid.uuid4().hex,
        generation=0,
        origin=dict(origin),
        text_analysis=dict(text_analysis),
    )


class DiskBackend:
    """An index in a folder.

    Args:
        path: A folder that has an index.
        durable: Whether a commit waits until the disk has everything, which takes some time.

    Raises:
        IndexStoreError: There is no index, or it is damaged or of another schema.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path = _absolute(path)
        self._durable = durable
        # The process that is writing: what it forks meanwhile has a copy of this object.
        self._writer: int | None = None
        content = read_manifest(path)
        # One attribute: threads never see the bytes of one manifest and the parsed form of another.
        self._last_read = content, parse_manifest(path, content)

    @staticmethod
    def create(
        path: Path,
        manifest: Manifest,
        fill: Callable[[DiskFolder], SegmentEntry] | None = None,
    ) -> None:
        """Make a new index; there is none before all of it is on the disk.

        Args:
            path: A folder that is empty or does not exist.
            manifest: Of an empty index.
            fill: Writes a segment into a folder, with which the index begins.

        Raises:
            IndexStoreError: There is an index or something else at `path`, or it cannot be
                written.
        """
        path = _absolute(path)
        with writing(path):
            check_free(path)
            holders = [path.parent, *(f.parent for f in path.parents if not f.exists())]
            path.mkdir(parents=True, exist_ok=True)
        with hold(path), writing(path):
            check_free(path)
            new: list[Path] = []
            if fill is not None:
                manifest, new = _filled(path, manifest, fill)
            replace_file(path / MANIFEST_NAME, write_manifest(manifest), first=new, durable=True)
            for folder in holders:
                # A folder that lets nobody list it cannot be synced.
                with suppress(PermissionError):
                    sync(folder)

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is on disk now, commits of other processes included.

        Raises:
            IndexStoreError: The index is gone, damaged, or was replaced by another.
        """
        content = read_manifest(self.path)
        known, manifest = self._last_read
        if content != known:
            identity, manifest = manifest.uuid, parse_manifest(self.path, content)
            if manifest.uuid != identity:
                raise IndexStoreError(
                    f"The index at {self.path} was replaced by another; open it again."
                )
            self._last_read = content, manifest
        return manifest

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep others from writing, and remove leftovers before and after.

        Raises:
            IndexStoreError: Someone else is writing, the folder cannot be written, or the index is
                gone.
        """
        _ = self.manifest  # The lock would make the folder of an index that is gone.
        with hold(self.path):
            self._writer = os.getpid()
            self._refuse_links()
            self._remove_orphans()
            try:
                yield
            finally:
                if self._writer == os.getpid():
                    with suppress(IndexStoreError):
                        self._remove_orphans()

    def commit(self, manifest: Manifest) -> None:
        """Replace the current manifest, all or nothing; the disk has the files it names before.

        Raises:
            IndexStoreError: It cannot be written.
        """
        self._check_writer()
        new = self._new_files(manifest) if self._durable else []
        with writing(self.path):
            replace_file(
                self.path / MANIFEST_NAME,
                write_manifest(manifest),
                first=new,
                durable=self._durable,
            )

    def draft(self, name: str) -> DiskFolder:
        """A folder for a new segment, into which no reader looks."""
        return DiskFolder(self.path / DRAFT / name)

    def publish(self, name: str) -> None:
        """Move a finished draft to where the manifest will look for it.

        Raises:
            IndexStoreError: It cannot be written.
        """
        self._check_writer()
        with writing(self.path):
            (self.path / DRAFT / name).rename(self.path / name)

    def folder(self, name: str) -> DiskFolder:
        """The folder of a segment."""
        return DiskFolder(self.path / name)

    def open_segment(self, entry: SegmentEntry, known: Segment | None) -> Segment:
        """Open a segment whose files have the right sizes and whose tables are intact.

        Args:
            entry: Its entry in the manifest.
            known: An open version of the segment with fewer documents deleted, if there is one.

        Raises:
            IndexStoreError: A file is missing or damaged.
        """
        folder = self.folder(entry.name)
        check_files(folder.location, entry, known.entry if known else None)
        return Segment(folder, entry, known)

    def refuse_damage(self, segments: Sequence[SegmentEntry], *, progress: bool = False) -> None:
        """Compare all files of segments with their checksums.

        Args:
            segments: Their entries in the manifest.
            progress: Whether a bar shows how far it is (only in a terminal).

        Raises:
            IndexStoreError: Some are damaged.
        """
        refuse_damage(self.path, find_damage(self.path, segments, progress=progress))

    def verify(self, *, progress: bool) -> Verification:
        """As `Store.verify`."""
        manifest = self.manifest
        problems = find_damage(self.path, manifest.segments, progress=progress)
        if problems:
            # Later commits may have removed files.
            named = named_files(self.path, self.manifest.segments)
            refuse_damage(self.path, {file: problems[file] for file in problems if file in named})
        return intact(self.path, manifest.segments)

    def close(self) -> None:
        """Nothing is held but what snapshots need."""

    def _check_writer(self) -> None:
        if self._writer != os.getpid():
            raise IndexStoreError(
                f"This process was forked while the index at {self.path} was being changed; only "
                "its parent can finish the change: add or delete again here once it is done."
            )

    def _new_files(self, manifest: Manifest) -> list[Path]:
        """Files that the next manifest names and the current one does not, and their folders."""
        known = named_files(self.path, self.manifest.segments)
        files = [file for file in named_files(self.path, manifest.segments) if file not in known]
        folders = dict.fromkeys(file.parent for file in files)
        segments = {segment.name for segment in self.manifest.segments}
        moved = any(folder.name not in segments for folder in folders)
        return [*files, *folders, *([self.path] if moved else [])]

    def _refuse_links(self) -> None:
        """Refuse to write where that would follow links out of the folder."""
        for entry in self.manifest.segments:
            folder = self.path / entry.name
            if folder.is_symlink():
                raise IndexStoreError(
                    f"{folder} is a symbolic link, which writing does not follow; copy the index "
                    "with its files in the place of links."
                )

    def _remove_orphans(self) -> None:
        """Remove what killed writers left, and what the manifest no longer names."""
        named = {entry.name: entry.files for entry in self.manifest.segments}
        _remove(self.path / DRAFT)
        for folder in self.path.glob(SEGMENT_FOLDERS):
            if folder.name not in named:
                _remove(folder)
        for name in named:
            for file in (self.path / name).glob(TOMBSTONE_FILES):
                if file.name not in named[name]:
                    with suppress(OSError):
                        file.unlink()


def _absolute(path: Path) -> Path:
    """The path from any working directory.

    Raises:
        IndexStoreError: It is relative, and the working directory is gone.
    """
    try:
        return path.absolute()
    except OSError as error:
        raise IndexStoreError(
            f"The working directory, in which {path} would be, is gone ({error.strerror}); give "
            "an absolute path."
        ) from error


class MirrorBackend(DiskBackend):
    """A local copy of an index in object storage, which is only read.

    Args:
        path: Folder of the copy.
        url: Where the index is.
    """

    def __init__(self, path: Path, url: str) -> None:
        super().__init__(path)
        self.url = url

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Refuse to.

        Raises:
            IndexStoreError: Always.
        """
        raise IndexStoreError(
            f"The index at {self.url} can only be read; change the index that it is a copy of, and "
            "copy that there again."
        )
        yield


def _filled(
    path: Path, manifest: Manifest, fill: Callable[[DiskFolder], SegmentEntry]
) -> tuple[Manifest, list[Path]]:
    """The manifest of an index with its first segment, and what the disk must have before it."""
    draft = path / UNFINISHED
    _remove(draft)
    try:
        entry = fill(DiskFolder(draft / "segment-000001"))
        folder = path / entry.name
        (draft / entry.name).rename(folder)
    finally:
        _remove(draft)
    update = {"generation": 1, "segments": (entry,)}
    return manifest.model_copy(update=update), [*folder.iterdir(), folder]


def _remove(folder: Path) -> None:
    """Remove a folder as far as possible; of a link, the link alone."""
    with suppress(OSError):
        folder.unlink()  # it fails on a folder
    shutil.rmtree(folder, ignore_errors=True)


def check_free(path: Path) -> None:
    """Refuse a folder for a new index that is in use.

    Raises:
        IndexStoreError: There is an index or something else.
    """
    if (path / MANIFEST_NAME).exists():
        raise IndexStoreError(
            f"There already is an index at {path}; open it with S3Index.open(), or choose another "
            "path."
        )
    if path.exists() and (
        not path.is_dir()
        or any(item.name not in (*LOCK_NAMES, UNFINISHED, BLOCKS) for item in path.iterdir())
    ):
        raise IndexStoreError(f"{path} is in use by other files; choose an empty or a new folder.")
    if path.name.startswith("segment-") and (path.parent / MANIFEST_NAME).exists():
        raise IndexStoreError(
            f"{path} is a name for segments of the index at {path.parent}; choose another folder."
        )


class _Turn:
    """A thread's turn to write. It ends with this object, whatever interrupted the thread."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class MemoryBackend:
    """An index in memory, which threads of one process share. Else as `DiskBackend`.

    Args:
        manifest: Of an empty index.
    """

    path = None

    def __init__(self, manifest: Manifest) -> None:
        self._manifest: Manifest | None = manifest
        self._folders: dict[str, MemoryFolder] = {}
        self._drafts: dict[str, MemoryFolder] = {}
        # Writers in the order in which they came; the first one writes.
        self._turns: list[weakref.ref[_Turn]] = []
        renew_after_fork(self._renew)

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is now."""
        if self._manifest is None:
            raise IndexStoreError("This index was in memory and is closed; make another one.")
        return self._manifest

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until it is this thread's turn, as `lock.hold` does for processes."""
        turn = _Turn()
        place = weakref.ref(turn)
        try:
            self._turns.append(place)
            self._wait_for(turn)
            try:
                yield
            finally:
                self._remove_orphans()
        finally:
            # Not there in a forked child, nor after an interrupt.
            with suppress(ValueError):
                self._turns.remove(place)

    def commit(self, manifest: Manifest) -> None:
        """Keep a manifest."""
        self._manifest = manifest

    def draft(self, name: str) -> MemoryFolder:
        """A folder for a new segment."""
        folder = self._drafts[name] = MemoryFolder(name)
        return folder

    def publish(self, name: str) -> None:
        """Keep a finished draft."""
        self._folders[name] = self._drafts.pop(name)

    def folder(self, name: str) -> MemoryFolder:
        """The folder of a segment; an empty one if it is gone."""
        return self._folders.get(name) or MemoryFolder(name)

    def open_segment(self, entry: SegmentEntry, known: Segment | None) -> Segment:
        """Open a segment."""
        return Segment(self.folder(entry.name), entry, known)

    def refuse_damage(self, segments: Sequence[SegmentEntry], *, progress: bool = False) -> None:
        """Memory is taken to be intact."""

    def verify(self, *, progress: bool) -> Verification:  # noqa: ARG002
        """Memory is taken to be intact."""
        entries = [file for s in self.manifest.segments for file in s.files.values()]
        return Verification(len(entries), sum(file.bytes for file in entries), strangers=())

    def close(self) -> None:
        """Let go of the index; snapshots stay usable."""
        self._manifest = None
        self._folders = {}

    def _renew(self) -> None:
        """In a forked child, forget the threads that only the parent has."""
        self._turns.clear()

    def _first_turn(self) -> _Turn:
        return next(turn for place in list(self._turns) if (turn := place()) is not None)

    def _wait_for(self, turn: _Turn) -> None:
        until = time.monotonic() + lock.LOCK_SECONDS
        while (first := self._first_turn()) is not turn:
            if first.thread == turn.thread or time.monotonic() > until:
                raise IndexStoreError(
                    "Another writer is changing this index in memory; try again when it is done."
                )
            time.sleep(_POLL_SECONDS)

    def _remove_orphans(self) -> None:
        segments = self._manifest.segments if self._manifest else ()
        self._drafts = {}
        self._folders = {
            entry.name: self._folders[entry.name]
            for entry in segments
            if entry.name in self._folders
        }
        for entry in segments:
            self.folder(entry.name).keep(entry.files)


Backend = DiskBackend | MemoryBackend
