"""`Store`: an index on disk or in memory, its generations, its one writer, its commits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.features import Layout
from s3_retriever.index.backends import (
    Backend,
    DiskBackend,
    MemoryBackend,
    MirrorBackend,
    new_manifest,
)
from s3_retriever.index.copying import Part, write_index
from s3_retriever.index.manifest import Manifest, SegmentEntry
from s3_retriever.index.merging import Size, next_merge
from s3_retriever.index.mirroring import forget, mirror
from s3_retriever.index.segment import Segment
from s3_retriever.index.segment_files import write_tombstones
from s3_retriever.index.snapshot import Snapshot
from s3_retriever.index.verification import Verification
from s3_retriever.index.writer import SegmentWriter
from s3_retriever.progress import progress_bar
from s3_retriever.remote import is_url, local_path

logger = logging.getLogger(__name__)

# Which of an index's segments are read.
Share = Callable[[Sequence[SegmentEntry]], Sequence[SegmentEntry]]
_NAMED_IDS = 3


class Store:
    """An index: immutable segments and the manifest that names them.

    On disk one process writes at a time, under a lock that ends with the process; any number
    read. In memory the same holds for threads. A change becomes visible, whole, when the manifest
    is replaced. The next writer removes what the manifest does not name. Make stores with
    `create` and `open`; one made directly has read no more than the manifest, which is what
    `verify` needs.

    A commit that leaves too many segments, or segments mostly deleted, is followed by merges,
    each a commit of its own, before the writer goes. A thread of its own would take the lock away
    from whoever writes next, and copying documents costs little beside scanning them.

    Args:
        backend: Where the index is kept.
        share: Chooses the segments that snapshots have, so that several processes can each read a
            part of an index; by default all. A store with a share is not written to.
    """

    def __init__(self, backend: Backend, share: Share | None = None) -> None:
        self._backend = backend
        self._share = share
        self._snapshot = Snapshot(-1, [])
        self._closed = False

    @classmethod
    def create(
        cls,
        path: Path | None,
        origin: Mapping[str, Any],
        text_analysis: Mapping[str, str] | None = None,
    ) -> Store:
        """Make an empty index.

        Args:
            path: A folder that is empty or does not exist. None keeps the index in memory until
                the store is closed.
            origin: What the index is made with: host, codebook and recipe; JSON values.
            text_analysis: By name, versions of what cuts its texts into sentences and terms.

        Raises:
            IndexStoreError: There is an index or something else at `path`, or it cannot be
                written.
        """
        manifest = new_manifest(origin, text_analysis or {})
        if path is None:
            return cls(MemoryBackend(manifest))
        DiskBackend.create(path, manifest)
        return cls(DiskBackend(path))

    @classmethod
    def open(cls, path: str | Path, share: Share | None = None) -> Store:
        """Open an index; nothing is written, and a read-only folder will do.

        Args:
            path: Its folder; or its URL in object storage, from where it is copied to the user's
                cache, as it is there now, to be read.
            share: As in the class.

        Raises:
            IndexStoreError: There is no index at `path`, it is damaged, or of another schema.
            S3Error: As `mirroring.mirror`, for a URL.
        """
        if isinstance(path, str) and is_url(path):
            return cls._open_url(path, share)
        store = cls(DiskBackend(local_path(path)), share)
        store.snapshot()
        return store

    @classmethod
    def _open_url(cls, url: str, share: Share | None) -> Store:
        folder = mirror(url)
        try:
            store = cls(MirrorBackend(folder, url), share)
            store.snapshot()
        except IndexStoreError:
            # What is wrong may be wrong in the cache alone.
            forget(folder)
            store = cls(MirrorBackend(mirror(url), url), share)
            store.snapshot()
        return store

    @property
    def path(self) -> Path | None:
        """The folder, for an index in object storage that of its copy; None in memory."""
        return self._backend.path

    @property
    def url(self) -> str | None:
        """Where the index is in object storage; None if it is not there."""
        return self._backend.url if isinstance(self._backend, MirrorBackend) else None

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is now, commits of other processes included.

        Raises:
            IndexStoreError: The index is closed, gone, damaged, or was replaced by another.
        """
        if self._closed:
            raise IndexStoreError(
                f"The index at {self.path} is closed; open it again."
                if self.path
                else "This index was in memory and is closed; make another."
            )
        return self._backend.manifest

    def snapshot(self) -> Snapshot:
        """The index as it is now; later commits do not affect the snapshot.

        Raises:
            IndexStoreError: The index is closed, gone or damaged.
        """
        manifest, snapshot = self.manifest, self._snapshot
        if snapshot.generation != manifest.generation:
            snapshot = self._snapshot = self._read(manifest)
        return snapshot

    def stats(self) -> dict[str, Any]:
        """Sizes and settings of the index, as JSON values; the host is not needed."""
        manifest, snapshot = self.manifest, self.snapshot()
        return {
            "path": self.url or (None if self.path is None else str(self.path)),
            **described([manifest], snapshot.n_documents, snapshot.n_sentences, snapshot.n_tokens),
        }

    @contextmanager
    def append(
        self,
        layout: Layout,
        *,
        replace: bool = False,
        text_analysis: Mapping[str, str] | None = None,
        progress: bool = False,
    ) -> Iterator[SegmentWriter]:
        """Add documents: a context whose writer takes them and which commits them at its end.

        With any exception the index stays as it is. Without documents nothing is committed.

        Args:
            layout: What the index keeps of each token and sentence.
            replace: Whether a document replaces the one with its id, in the same commit; otherwise
                the writer refuses known ids.
            text_analysis: What cuts the documents into sentences and terms, as for `create`.
            progress: Whether a bar shows how far merges are (only in a terminal).

        Raises:
            IndexStoreError: Layout or text analysis are not those of the index, someone else is
                writing, or the folder cannot be written.
        """
        with self._writing():
            manifest, snapshot = self.manifest, self.snapshot()
            _check_text_analysis(manifest, text_analysis or {})
            snapshot.check_layout(layout)
            taken = None if replace else snapshot.__contains__
            with self._draft(layout, taken) as writer:
                yield writer
                # Ids include that of a document that an error broke off.
                if not (writer.ids or writer.n_documents):
                    return
                entry = self._publish(writer)
            kept = self._without(snapshot, writer.ids)
            self._commit([*kept, entry])
            self._merge_if_due(progress)

    def delete(self, ids: Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete documents in one commit; all of them or, with an error, none.

        Args:
            ids: Ids of the documents, or of spans of them.
            missing_ok: Whether unknown ids are ignored; otherwise they are an error.

        Returns:
            How many documents were deleted.

        Raises:
            InputError: An id is unknown.
            IndexStoreError: Someone else is writing, or the folder cannot be written.
        """
        wanted = set(ids)
        with self._writing():
            snapshot = self.snapshot()
            named = {name: snapshot.named(name) for name in wanted}
            unknown = [name for name, document_id in named.items() if document_id is None]
            if unknown and not missing_ok:
                raise unknown_ids(unknown)
            known = {document_id for document_id in named.values() if document_id is not None}
            if known:
                self._commit(self._without(snapshot, known))
                self._merge_if_due(progress=False)
        return len(known)

    def compact(self, *, progress: bool = False) -> None:
        """Merge all live documents into one segment and free the space of deleted ones.

        Args:
            progress: Whether bars show how far it is (only in a terminal).

        Raises:
            IndexStoreError: Someone else is writing, the folder cannot be written, or a segment
                is damaged.
        """
        with self._writing():
            segments = self.snapshot().segments
            if len(segments) + sum(segment.live is not None for segment in segments) > 1:
                self._merge(slice(0, len(segments)), progress)

    def save(self, path: Path) -> None:
        """Write the live documents to a new index on disk, as one segment.

        Args:
            path: A folder that is empty or does not exist.

        Raises:
            IndexStoreError: `path` is in use or cannot be written, or this index is damaged.
        """
        parts = [Part(segment) for segment in self.intact().segments]
        write_index(path, self.manifest.origin, self.manifest.text_analysis, parts)

    def intact(self, *, progress: bool = False) -> Snapshot:
        """The index as it is now, all files compared with their checksums, to copy from.

        Damaged content must not get a new, valid checksum.

        Args:
            progress: Whether a bar shows how far it is (only in a terminal).

        Raises:
            IndexStoreError: As `snapshot`, or files are damaged.
        """
        snapshot = self.snapshot()
        entries = [segment.entry for segment in snapshot.segments]
        self._backend.refuse_damage(entries, progress=progress)
        return snapshot

    def verify(self, *, progress: bool = False) -> Verification:
        """Read every file and compare it with its checksum; in memory there is nothing to do.

        Args:
            progress: Whether a bar shows how far it is (only in a terminal).

        Returns:
            How much was read, and which files do not belong to the index.

        Raises:
            IndexStoreError: Files are missing or damaged; it names all of them.
        """
        return self._backend.verify(progress=progress)

    def close(self) -> None:
        """Let go of the files; an index in memory is gone. Snapshots stay usable."""
        self._closed = True
        self._snapshot = Snapshot(-1, [])
        self._backend.close()

    def shared(self) -> Store:
        """Another store of the same index; closing one of an index in memory empties both."""
        store = Store(self._backend, self._share)
        store._closed = self._closed
        return store

    def _writing(self) -> AbstractContextManager[None]:
        assert self._share is None, "a part of an index is not written to"
        return self._backend.writing()

    def _read(self, manifest: Manifest) -> Snapshot:
        # Segments that did not change stay open.
        opened = {segment.name: segment for segment in self._snapshot.segments}
        segments = []
        try:
            for entry in self._share(manifest.segments) if self._share else manifest.segments:
                segment = opened.get(entry.name)
                if segment is None or segment.entry != entry:
                    segment = self._backend.open_segment(entry, segment)
                segments.append(segment)
        except IndexStoreError:
            # Someone else may have merged segments since the manifest was read.
            latest = self.manifest
            if latest.generation == manifest.generation:
                raise
            return self._read(latest)
        return Snapshot(manifest.generation, segments)

    @contextmanager
    def _draft(
        self,
        layout: Layout,
        taken: Callable[[str], bool] | None = None,
    ) -> Iterator[SegmentWriter]:
        """A writer for the next generation's segment, in a folder that readers ignore."""
        folder = self._backend.draft(f"segment-{self.manifest.generation + 1:06d}")
        writer = SegmentWriter(folder, layout, taken)
        try:
            yield writer
        finally:
            writer.abort()

    def _publish(self, writer: SegmentWriter) -> SegmentEntry:
        """Finish a segment and put it where the manifest will look for it."""
        entry = writer.close()
        self._backend.publish(entry.name)
        return entry

    def _without(self, snapshot: Snapshot, ids: Iterable[str]) -> list[SegmentEntry]:
        """The entries of a snapshot's segments after deleting the documents with these ids."""
        dead: dict[str, list[int]] = {}
        for name in ids:
            if place := snapshot.find(name):
                segment, ordinal = place
                dead.setdefault(segment.name, []).append(ordinal)
        entries = []
        for segment in snapshot.segments:
            entry: SegmentEntry | None = segment.entry
            if ordinals := dead.get(segment.name):
                before = [] if segment.live is None else np.flatnonzero(~segment.live).tolist()
                entry = write_tombstones(
                    self._backend.folder(segment.name),
                    segment.entry,
                    [*before, *ordinals],
                    snapshot.generation + 1,
                )
            if entry is not None:
                entries.append(entry)
        return entries

    def _merge_if_due(self, progress: bool) -> None:
        """Merge segments until there is nothing left to do."""
        try:
            while run := next_merge([_size(segment) for segment in self.snapshot().segments]):
                self._merge(run, progress)
        except IndexStoreError as error:
            # The caller's change is committed, and the next commit tries again.
            where = self.path or "(in memory)"
            logger.warning("Segments of the index at %s stay unmerged: %s", where, error)

    def _merge(self, run: slice, progress: bool) -> None:
        """Commit one segment with the live documents of neighbours in their place."""
        segments = self.snapshot().segments
        entries = [segment.entry for segment in segments]
        # Damaged content must not get a new, valid checksum.
        self._backend.refuse_damage(entries[run], progress=progress)
        total = sum(segment.n_tokens for segment in segments[run])
        with (
            self._draft(entries[0].layout) as writer,
            progress_bar(
                progress, total=total, unit="token", unit_scale=True, desc="Merging"
            ) as bar,
        ):
            for segment in segments[run]:
                writer.copy_live(segment, bar)
            entries[run] = [self._publish(writer)]
        self._commit(entries)

    def _commit(self, segments: Iterable[SegmentEntry]) -> None:
        manifest = self.manifest
        update = {"generation": manifest.generation + 1, "segments": tuple(segments)}
        self._backend.commit(manifest.model_copy(update=update))


def described(
    manifests: Sequence[Manifest], documents: int, sentences: int, tokens: int
) -> dict[str, Any]:
    """Sizes and settings of indexes that were made alike, as JSON values.

    Args:
        manifests: Theirs, at least one.
        documents: Number of live documents of all of them.
        sentences: Number of their sentences.
        tokens: Number of their tokens.
    """
    segments = [segment for manifest in manifests for segment in manifest.segments]
    size = sum(file.bytes for segment in segments for file in segment.files.values())
    origin = manifests[0].origin
    return {
        "host": origin.get("host"),
        "codebook": origin.get("codebook"),
        "documents": documents,
        "sentences": sentences,
        "tokens": tokens,
        "bytes": size,
        "bytes_per_token": round(size / tokens, 1) if tokens else None,
        "segments": len(segments),
        "generation": max(manifest.generation for manifest in manifests),
        "schema": manifests[0].schema_version,
        "recipe": origin.get("recipe"),
    }


def _check_text_analysis(manifest: Manifest, text_analysis: Mapping[str, str]) -> None:
    if manifest.text_analysis != dict(text_analysis):
        raise IndexStoreError(
            f"This index was made with the text analysis {_versions(manifest.text_analysis)}, but "
            f"{_versions(text_analysis)} is installed: it can be searched, but to add documents "
            "install the versions it was made with, or index the documents again."
        )


def _versions(text_analysis: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text_analysis[name]}" for name in sorted(text_analysis)) or "none"


def unknown_ids(ids: Collection[str]) -> InputError:
    """The error for ids that no document has."""
    named = ", ".join(repr(name) for name in sorted(ids)[:_NAMED_IDS])
    more = f" and {len(ids) - _NAMED_IDS} more" * (len(ids) > _NAMED_IDS)
    return InputError(f"This index has no document {named}{more}; check the ids.")


def _size(segment: Segment) -> Size:
    total = segment.n_tokens + segment.n_documents
    return Size(total, segment.n_live_tokens + segment.n_live_documents)
