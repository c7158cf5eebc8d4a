"""`Store`: an index on disk, its generations, its one writer, its commits."""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.index.files import LOCK_NAME, hold, replace_file, sync, write_lock, writing
from s3_retriever.index.manifest import (
    MANIFEST_NAME,
    TOMBSTONE_FILES,
    Manifest,
    SegmentEntry,
    bury,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from s3_retriever.index.merging import Size, copy_live, next_merge
from s3_retriever.index.segment import Segment
from s3_retriever.index.snapshot import Snapshot
from s3_retriever.index.verification import (
    SEGMENT_FOLDERS,
    Verification,
    find_damage,
    intact,
    named_files,
    refuse_damage,
    verify_tables,
)
from s3_retriever.index.writer import SegmentWriter

# Where a segment is written; no reader looks into it.
DRAFT = "draft"


def initialise(path: Path, codebook: Mapping[str, Any], *, durable: bool) -> None:
    """Write the manifest of an empty index.

    Args:
        path: A folder that is empty or does not exist.
        codebook: Identity of host and codebook; JSON values.
        durable: Whether it is on disk for good.

    Raises:
        IndexStoreError: There is an index or something else at `path`, or it cannot be written.
    """
    with writing(path):
        _check_free(path)
        path.mkdir(parents=True, exist_ok=True)
    with hold(write_lock(path)), writing(path):
        _check_free(path)
        manifest = Manifest(uuid=uuid.uuid4().hex, generation=0, origin=dict(codebook))
        replace_manifest(path, manifest, durable=durable)


def replace_manifest(path: Path, manifest: Manifest, *, durable: bool) -> None:
    """Commit: put a manifest, whole, in the place of the one that is there.

    Raises:
        IndexStoreError: It cannot be written.
    """
    with writing(path):
        replace_file(path / MANIFEST_NAME, write_manifest(manifest), durable=durable)


def sweep(path: Path, manifest: Manifest) -> None:
    """Remove what killed writers left, and what the manifest no longer names, where possible."""
    shutil.rmtree(path / DRAFT, ignore_errors=True)
    files = {entry.name: entry.files for entry in manifest.segments}
    for folder in path.glob(SEGMENT_FOLDERS):
        if folder.name not in files:
            shutil.rmtree(folder, ignore_errors=True)
    for name in files:
        for file in (path / name).glob(TOMBSTONE_FILES):
            if file.name not in files[name]:
                with suppress(OSError):
                    file.unlink()


def _check_free(path: Path) -> None:
    if (path / MANIFEST_NAME).exists():
        raise IndexStoreError(
            f"There is an index at {path} already; open it with S3Index.open(), or choose another "
            "path."
        )
    if path.exists() and (
        not path.is_dir() or any(item.name != LOCK_NAME for item in path.iterdir())
    ):
        raise IndexStoreError(f"{path} is in use by other files; choose an empty or a new folder.")


logger = logging.getLogger(__name__)

_NAMED_IDS = 3


class Store:
    """An index on disk: immutable segments and the manifest that names them.

    One process writes at a time, under a lock that ends with the process; any number read. A
    change becomes visible, whole, when the manifest is replaced. What the manifest does not name
    is removed by the next writer. Stores are made by `create` and `open`; one made directly has
    read no more than the manifest, which is what `verify` needs.

    A commit that leaves too many segments, or segments mostly deleted, is followed by merges,
    each a commit of its own, before the writer goes. A thread of its own would take the lock away
    from whoever writes next, and what it costs to copy documents is little beside their scan.

    Args:
        path: A folder that has an index.
        durable: Whether a commit is on disk for good, which takes some time; an index that
            vanishes with its process need not be.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        self._lock = write_lock(path)
        content = read_manifest(path)
        # One attribute, so that threads never see the content of one manifest and another parsed.
        self._read_last = content, parse_manifest(path, content)
        self._snapshot = Snapshot(-1, [])
        self._finalizer: weakref.finalize[..., Store] | None = None

    @classmethod
    def create(cls, path: Path | None, codebook: Mapping[str, Any]) -> Store:
        """Make an empty index.

        Args:
            path: A folder that is empty or does not exist. None makes a private temporary folder,
                which is removed when the store is closed or garbage collected.
            codebook: Identity of host and codebook; JSON values.

        Raises:
            IndexStoreError: There is an index or something else at `path`, or it cannot be
                written.
        """
        if path is not None:
            initialise(path, codebook, durable=True)
            return cls(path)
        folder = Path(tempfile.mkdtemp(prefix="s3-index-"))
        initialise(folder, codebook, durable=False)
        store = cls(folder, durable=False)
        store._finalizer = weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
        return store

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open an index; nothing is written, so that a read-only folder will do.

        Raises:
            IndexStoreError: No index at `path`, one of a newer schema, or a damaged one.
        """
        store = cls(path)
        store.snapshot()
        return store

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is on disk now, commits of other processes included.

        Raises:
            IndexStoreError: The index is gone, damaged, or another one took its place.
        """
        content = read_manifest(self.path)
        known, manifest = self._read_last
        if content != known:
            uuid, manifest = manifest.uuid, parse_manifest(self.path, content)
            if manifest.uuid != uuid:
                raise IndexStoreError(
                    f"The index at {self.path} was replaced by another one; open it again."
                )
            self._read_last = content, manifest
        return manifest

    def snapshot(self) -> Snapshot:
        """The index as it is now; safe to use for as long as it is kept, whatever is committed.

        Raises:
            IndexStoreError: The index is gone or damaged.
        """
        manifest, snapshot = self.manifest, self._snapshot
        if snapshot.generation != manifest.generation:
            snapshot = self._snapshot = self._read(manifest)
        return snapshot

    @contextmanager
    def append(
        self,
        features: Mapping[str, int],
        codes: Mapping[str, int] | None = None,
        *,
        replace: bool = False,
    ) -> Iterator[SegmentWriter]:
        """Add documents: a context in which a writer takes them, and at whose end they are there.

        With any exception the index stays as it is. Without documents nothing happens.

        Args:
            features: Size of the dictionary of every tap of tokens.
            codes: Bytes of a sentence's code, for every tap of sentences.
            replace: Whether a document takes the place of the one that has its id, in the same
                commit; else the writer refuses ids that are there.

        Raises:
            IndexStoreError: The taps are not those of the index, another process is writing, or
                the folder cannot be written.
        """
        with self._writing() as manifest:
            codes = dict(codes or {})
            _check_taps(manifest, features, codes)
            snapshot = self.snapshot()
            taken = () if replace else frozenset(snapshot.ids())
            with self._draft(manifest, features, codes, taken) as writer:
                yield writer
                if not writer.ids:
                    return
                entry = self._adopt(writer)
            kept = self._without(snapshot, writer.ids)
            self._commit(manifest, [*kept, entry])
            self._settle()

    def delete(self, ids: Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete documents in one commit; all of them or, with an error, none.

        Args:
            ids: Ids of the documents.
            missing_ok: Whether ids that no document has are passed over; else they are an error.

        Returns:
            How many documents were deleted.

        Raises:
            InputError: There is no document of some id.
            IndexStoreError: Another process is writing, or the folder cannot be written.
        """
        wanted = set(ids)
        with self._writing() as manifest:
            snapshot = self.snapshot()
            known = {name for name in wanted if snapshot.find(name) is not None}
            if known != wanted and not missing_ok:
                raise _unknown(wanted - known)
            if known:
                self._commit(manifest, self._without(snapshot, known))
                self._settle()
        return len(known)

    def compact(self) -> None:
        """Merge all live documents into one segment and give the room of deleted ones back.

        Raises:
            IndexStoreError: Another process is writing, the folder cannot be written, or a
                segment is damaged.
        """
        with self._writing():
            segments = self.snapshot().segments
            if len(segments) + sum(segment.live is not None for segment in segments) > 1:
                self._merge(slice(0, len(segments)))

    def verify(self, *, progress: bool = False) -> Verification:
        """Read every file and compare it with its checksum.

        Args:
            progress: Whether a bar shows how far it is (only in a terminal).

        Returns:
            How much was read, and what lies about that is not part of the index.

        Raises:
            IndexStoreError: Files are missing or damaged; it names all of them.
        """
        manifest = self.manifest
        problems = find_damage(self.path, manifest.segments, progress=progress)
        if problems:
            # Commits since may have taken files away.
            named = named_files(self.path, self.manifest.segments)
            refuse_damage(self.path, {file: problems[file] for file in problems if file in named})
        return intact(self.path, manifest.segments)

    def close(self) -> None:
        """Let go of the files; a temporary index is removed. Snapshots stay usable."""
        self._snapshot = Snapshot(-1, [])
        if self._finalizer is not None:
            self._finalizer()

    def _read(self, manifest: Manifest) -> Snapshot:
        # Segments that did not change stay open.
        opened = {segment.name: segment for segment in self._snapshot.segments}
        segments = []
        try:
            for entry in manifest.segments:
                segment = opened.get(entry.name)
                if segment is None or segment.entry != entry:
                    folder, known = self.path / entry.name, opened.get(entry.name)
                    segment = Segment(folder, entry)
                    verify_tables(folder, entry, known.entry if known else None)
                segments.append(segment)
        except IndexStoreError:
            # Another process may have compacted the index since the manifest was read.
            latest = self.manifest
            if latest.generation == manifest.generation:
                raise
            return self._read(latest)
        return Snapshot(manifest.generation, segments)

    @contextmanager
    def _writing(self) -> Iterator[Manifest]:
        """Hold the write lock; gives the manifest, which nobody else can change meanwhile."""
        with hold(self._lock):
            manifest = self.manifest
            sweep(self.path, manifest)
            try:
                yield manifest
            finally:
                with suppress(IndexStoreError):
                    sweep(self.path, self.manifest)

    @contextmanager
    def _draft(
        self,
        manifest: Manifest,
        features: Mapping[str, int],
        codes: Mapping[str, int],
        taken: Collection[str] = (),
    ) -> Iterator[SegmentWriter]:
        """A writer for the next generation's segment, in a folder that no reader looks into."""
        name = f"segment-{manifest.generation + 1:06d}"
        writer = SegmentWriter(self.path / DRAFT / name, features, taken, codes)
        try:
            yield writer
        finally:
            writer.abort()

    def _adopt(self, writer: SegmentWriter) -> SegmentEntry:
        """Finish a segment and move it to where the manifest will look for it."""
        entry = writer.close()
        made = self.path / DRAFT / entry.name
        with writing(self.path):
            self._sync(*made.iterdir(), made)
            made.rename(self.path / entry.name)
            self._sync(self.path)
        return entry

    def _without(self, snapshot: Snapshot, ids: Iterable[str]) -> list[SegmentEntry]:
        """The entries of a snapshot's segments once the documents of these ids are deleted."""
        dead: dict[str, list[int]] = {}
        for name in ids:
            if found := snapshot.find(name):
                dead.setdefault(found[0].name, []).append(found[1])
        entries = []
        for segment in snapshot.segments:
            entry: SegmentEntry | None = segment.entry
            if ordinals := dead.get(segment.name):
                entry = self._bury(segment, ordinals, snapshot.generation + 1)
            if entry is not None:
                entries.append(entry)
        return entries

    def _bury(
        self, segment: Segment, ordinals: Collection[int], generation: int
    ) -> SegmentEntry | None:
        """Delete documents of a segment besides those that are deleted already."""
        folder = self.path / segment.name
        before = [] if segment.live is None else np.flatnonzero(~segment.live).tolist()
        entry = bury(folder, segment.entry, [*before, *ordinals], generation)
        if entry is not None and entry.tombstones is not None:
            with writing(folder):
                self._sync(folder / entry.tombstones, folder)
        return entry

    def _settle(self) -> None:
        """Merge segments until nothing is left to be done."""
        try:
            while run := next_merge([_size(segment) for segment in self.snapshot().segments]):
                self._merge(run)
        except IndexStoreError as error:
            # What was asked for is committed, and the next commit tries again.
            logger.warning("Segments of the index at %s stay unmerged: %s", self.path, error)

    def _merge(self, run: slice) -> None:
        """Commit one segment with the live documents of neighbours in their place."""
        manifest, segments = self.manifest, self.snapshot().segments
        entries = [segment.entry for segment in segments]
        # What is damaged must not go on under a new checksum.
        refuse_damage(self.path, find_damage(self.path, entries[run]))
        with self._draft(manifest, entries[0].features, entries[0].codes) as writer:
            for segment in segments[run]:
                copy_live(segment, writer)
            entries[run] = [self._adopt(writer)]
        self._commit(manifest, entries)

    def _commit(self, manifest: Manifest, segments: Iterable[SegmentEntry]) -> None:
        update = {"generation": manifest.generation + 1, "segments": tuple(segments)}
        replace_manifest(self.path, manifest.model_copy(update=update), durable=self._durable)

    def _sync(self, *paths: Path) -> None:
        if self._durable:
            for path in paths:
                sync(path)


def _check_taps(manifest: Manifest, features: Mapping[str, int], codes: Mapping[str, int]) -> None:
    wanted = {**features, **codes}
    for segment in manifest.segments:
        if (segment.features, segment.codes) != (features, codes):
            raise IndexStoreError(
                f"This index has the taps {segment.features | segment.codes}, not {wanted}; use "
                "the codebook that it was made with."
            )


def _unknown(ids: Collection[str]) -> InputError:
    named = ", ".join(repr(name) for name in sorted(ids)[:_NAMED_IDS])
    more = f" and {len(ids) - _NAMED_IDS} more" * (len(ids) > _NAMED_IDS)
    return InputError(
        f"This index has no document {named}{more}, so that nothing was deleted; check the ids."
    )


def _size(segment: Segment) -> Size:
    live = segment.live_documents()
    tokens = int(segment.documents["n_tokens"][live].sum())
    return Size(segment.n_tokens + segment.n_documents, tokens + len(live))
