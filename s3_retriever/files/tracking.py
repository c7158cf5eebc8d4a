"""`KnownFiles`: what an index has of files, to read only what changed and drop what is gone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from s3_retriever.files.finding import FoundFile, FoundFiles
from s3_retriever.files.places import split_place
from s3_retriever.files.reading import SkippedFile, file_id


class KnownFiles:
    """The documents of an index by the file that `read_files` read them from.

    Its methods `is_known` and `on_skip` go to `read_files`, which fills it in.

    Args:
        documents: Ids and metadata of the index's documents.
        base: The folder that the paths in ids and metadata are relative to.
        again: Whether unchanged files are read as well.

    Attributes:
        unchanged: How many documents are of unchanged files.
    """

    def __init__(
        self,
        documents: Iterable[tuple[str, Mapping[str, Any]]],
        base: Path,
        *,
        again: bool = False,
    ) -> None:
        self.base = Path(os.path.realpath(base))
        self.unchanged = 0
        self._again = again
        self._digests: dict[str, Any] = {}
        self._files: dict[str, list[str]] = {}
        self._places: dict[str, Any] = {}
        self._seen: set[str] = set()
        self._failed: set[str] = set()
        for document_id, metadata in documents:
            self._digests[document_id] = metadata.get("sha256")
            self._places[document_id] = metadata.get(
                "line", metadata.get("cell", metadata.get("turn"))
            )
            if isinstance(path := metadata.get("path"), str):
                self._files.setdefault(path, []).append(document_id)

    def __contains__(self, document_id: str) -> bool:
        return document_id in self._digests

    def is_known(self, document_id: str, sha256: str) -> bool:
        """Whether the index has a document, read from a file with the same content."""
        self._seen.add(document_id)
        known = not self._again and self._digests.get(document_id) == sha256
        self.unchanged += known
        return known

    def on_skip(self, skipped: SkippedFile) -> None:
        """Note that a file could not be read, so that what the index has of it is kept."""
        self._failed.add(file_id(skipped.path, self.base))

    def stale(
        self, found: FoundFiles, *, drop_gone: bool, read: Iterable[FoundFile] | None = None
    ) -> list[str]:
        """The documents that their files no longer have, after the files were read.

        Args:
            found: The files that are there.
            drop_gone: Whether documents count whose files are gone from the folders. Those below
                folders that could not be read do not.
            read: The files that were read; all by default.
        """
        present = {file_id(file.path, self.base) for file in found.files}
        if read is None:
            fresh = present - self._failed
        else:
            fresh = {file_id(file.path, self.base) for file in read} - self._failed
        folders = [Path(os.path.realpath(folder)) for folder in found.folders]
        unknown = [Path(os.path.realpath(path)) for path in found.skipped]
        stale: list[str] = []
        for name, ids in self._files.items():
            path = self.base / name
            if name in present:
                if name in fresh:
                    stale += [document_id for document_id in ids if document_id not in self._seen]
            elif (
                drop_gone
                and any(path.is_relative_to(folder) for folder in folders)
                and not any(path.is_relative_to(folder) for folder in unknown)
            ):
                stale += ids
        return stale

    def documents_at(self, name: str) -> list[str]:
        """The ids of the documents that a name means, as a search or a user writes it.

        Args:
            name: An id; a file, by the path in ids or from the current folder; or either with the
                line, page or cell that `place` adds or the characters of a span, such as
                `handbook.md:12`.

        Returns:
            No ids if the index has no such document.
        """
        for candidate, number in ((name, None), split_place(name)):
            for path in (candidate, file_id(Path(candidate), self.base)):
                if path in self:
                    return [path]
                if ids := self._files.get(path, []):
                    return [key for key in ids if number == self._places[key]] or ids
        return []
