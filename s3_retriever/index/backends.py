"""Where an index is kept: a folder on disk, shared between processes, or memory."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from s3_retriever.errors import IndexStoreError
from s3_retriever.index import files
from s3_retriever.index.files import LOCK_NAME, hold, replace_file, sync, write_lock, writing
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

# Where a segment is written; no reader looks into it.
DRAFT = "draft"


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
        self.path = path
        self._durable = durable
        self._lock = write_lock(path)
        content = read_manifest(path)
        # One attribute: threads never see the bytes of one manifest and the parsed form of another.
        self._last_read = content, parse_manifest(path, content)

    @staticmethod
    def create(path: Path, manifest: Manifest) -> None:
        """Write the manifest of a new index.

        Args:
            path: A folder that is empty or does not exist.
            manifest: Of an empty index.

        Raises:
            IndexStoreError: There is an index or something else at `path`, or it cannot be
                written.
        """
        with writing(path):
            _check_free(path)
            path.mkdir(parents=True, exist_ok=True)
        with hold(write_lock(path)), writing(path):
            _check_free(path)
            replace_file(path / MANIFEST_NAME, write_manifest(manifest), durable=True)

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
            IndexStoreError: Someone else is writing, or the folder cannot be written.
        """
        with hold(self._lock):
            self._refuse_links()
            self._remove_orphans()
            try:
                yield
            finally:
                with suppress(IndexStoreError):
                    self._remove_orphans()

    def commit(self, manifest: Manifest) -> None:
        """Replace the current manifest, all or nothing.

        Raises:
            IndexStoreError: It cannot be written.
        """
        with writing(self.path):
            replace_file(self.path / MANIFEST_NAME, write_manifest(manifest), durable=self._durable)

    def draft(self, name: str) -> DiskFolder:
        """A folder for a new segment, into which no reader looks."""
        return DiskFolder(self.path / DRAFT / name, durable=self._durable)

    def publish(self, name: str) -> None:
        """Move a finished draft to where the manifest will look for it.

        Raises:
            IndexStoreError: It cannot be written.
        """
        made = self.path / DRAFT / name
        with writing(self.path):
            if self._durable:
                for path in (*made.iterdir(), made):
                    sync(path)
            made.rename(self.path / name)
            if self._durable:
                sync(self.path)

    def folder(self, name: str) -> DiskFolder:
        """The folder of a segment."""
        return DiskFolder(self.path / name, durable=self._durable)

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


def _remove(folder: Path) -> None:
    """Remove a folder as far as possible; of a link, the link alone."""
    with suppress(OSError):
        folder.unlink()  # it fails on a folder
    shutil.rmtree(folder, ignore_errors=True)


def _check_free(path: Path) -> None:
    if (path / MANIFEST_NAME).exists():
        raise IndexStoreError(
            f"There already is an index at {path}; open it with S3Index.open(), or choose another "
            "path."
        )
    if path.exists() and (
        not path.is_dir() or any(item.name != LOCK_NAME for item in path.iterdir())
    ):
        raise IndexStoreError(f"{path} is in use by other files; choose an empty or a new folder.")


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
        self._lock = threading.Lock()
        self._writer: int | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is now."""
        if self._manifest is None:
            raise IndexStoreError("This index was in memory and is closed; make another one.")
        return self._manifest

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock, waiting for other threads as `files.hold` does for processes."""
        me = threading.get_ident()
        if self._writer == me or not self._lock.acquire(timeout=files.LOCK_SECONDS):
            raise IndexStoreError(
                "Another thread is writing to this index; try again when it is done."
            )
        self._writer = me
        try:
            yield
        finally:
            self._remove_orphans()
            self._writer = None
            self._lock.release()

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
