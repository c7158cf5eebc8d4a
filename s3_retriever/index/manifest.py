"""The manifest: which files make up an index. Replacing it is what commits a change.

Its first line but one is a checksum of all lines after it, byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator as After
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from s3_retriever.errors import IndexStoreError
from s3_retriever.index.arrays import ArrayWriter, open_array
from s3_retriever.index.files import checksum, damaged, writing
from s3_retriever.index.tables import TOMBSTONE

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
_SEAL = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')

# A tap's files carry its name, and this one is taken by the lexical postings.
RESERVED_TAP = "lexical"

# Names that come from a file become paths: no separators, nothing hidden, no "..".
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]


def _not_reserved(tap: str) -> str:
    if tap == RESERVED_TAP:
        raise ValueError(f"{RESERVED_TAP!r} is no name for a tap")
    return tap


TapName = Annotated[PlainName, After(_not_reserved)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FileEntry(_Strict):
    """Size in bytes and SHA-256 of a file."""

    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Describe a file.

        Raises:
            OSError: It cannot be read.
        """
        return cls(bytes=path.stat().st_size, sha256=checksum(path))


class SegmentEntry(_Strict):
    """One segment.

    Attributes:
        name: Its folder.
        documents: Number of documents, deleted ones included (so are the next two).
        sentences: Number of sentences.
        tokens: Number of token positions.
        features: Size of the dictionary of every tap of tokens.
        codes: Bytes of a sentence's code, for every tap of sentences.
        files: Every file of the folder, by name.
        tombstones: The one of `files` that lists the deleted documents; None where there are none.
    """

    name: PlainName
    documents: NonNegativeInt
    sentences: NonNegativeInt
    tokens: NonNegativeInt
    features: dict[TapName, PositiveInt]
    codes: dict[TapName, PositiveInt] = Field(default_factory=dict)
    files: dict[PlainName, FileEntry]
    tombstones: PlainName | None = None


def _distinct(segments: tuple[SegmentEntry, ...]) -> tuple[SegmentEntry, ...]:
    if len({segment.name for segment in segments}) < len(segments):
        raise ValueError("a segment is listed twice")
    return segments


class Manifest(_Strict):
    """One state of an index.

    Attributes:
        schema_version: Version of the files' layout.
        uuid: Identity of the index, random.
        generation: Counts the commits.
        origin: How the index was made, as given by the engine.
        segments: The segments, oldest first.
    """

    schema_version: NonNegativeInt = SCHEMA_VERSION
    uuid: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    generation: NonNegativeInt
    origin: dict[str, Any]
    segments: Annotated[tuple[SegmentEntry, ...], Field(strict=False), After(_distinct)] = ()


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as it stands in the file, its checksum included."""
    rest = manifest.model_dump_json(indent=1).encode().removeprefix(b"{\n")
    return b'{\n "sha256": "%s",\n%s' % (_digest(rest), rest)


def read_manifest(path: Path) -> bytes:
    """The manifest of the index at `path`, as it stands in the file.

    Raises:
        IndexStoreError: There is no index at `path`, or it cannot be read.
    """
    try:
        return (path / MANIFEST_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise IndexStoreError(
            f"There is no index at {path}; check the path or make one with S3Index.create()."
        ) from None
    except OSError as error:
        raise IndexStoreError(
            f"The index at {path} cannot be read ({error.strerror}); check its permissions."
        ) from error


def parse_manifest(path: Path, content: bytes) -> Manifest:
    """Check the manifest of the index at `path`.

    Raises:
        IndexStoreError: It is damaged or of a newer schema.
    """
    file = path / MANIFEST_NAME
    try:
        seal = _SEAL.match(content)
        rest = content[seal.end() :] if seal else b""
        if seal and seal[1] != _digest(rest):
            raise damaged(file, "its content is not what its checksum says")
        version = dict(json.loads(content)).get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise IndexStoreError(
                f"The index at {path} has schema {version}, newer than {SCHEMA_VERSION}, which is "
                "the newest that this version reads; upgrade s3-retriever."
            )
        if not seal:
            raise damaged(file, "its checksum is missing")
        return Manifest.model_validate_json(b"{\n" + rest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise damaged(file, f"{where}: {first['msg']}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(file, error) from None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


TOMBSTONE_FILES = "tombstones.*.npy"


def read_live(path: Path, n_documents: int) -> NDArray[np.bool_]:
    """For every document of a segment whether it is not deleted [n_documents].

    Raises:
        IndexStoreError: The file is missing or damaged.
    """
    dead = open_array(path, TOMBSTONE, (None,))
    if dead.size and dead.max() >= n_documents:
        raise damaged(path, "tombstones beyond the last document")
    live = np.ones(n_documents, dtype=np.bool_)
    live[dead] = False
    return live


def bury(
    folder: Path, entry: SegmentEntry, dead: Iterable[int], generation: int
) -> SegmentEntry | None:
    """Delete documents of a segment for the commit of a generation.

    Args:
        folder: The segment's folder.
        entry: Its entry in the manifest.
        dead: Ordinals of all its deleted documents, those deleted before included.
        generation: The generation to be.

    Returns:
        The segment's new entry; None where no live document is left.

    Raises:
        IndexStoreError: The file cannot be written.
    """
    ordinals = sorted(set(dead))
    if len(ordinals) == entry.documents:
        return None
    path = folder / f"tombstones.{generation:06d}.npy"
    file = ArrayWriter(path, TOMBSTONE)
    file.append(ordinals)
    file.close()
    with writing(path):
        files = {**entry.files, path.name: FileEntry.of(path)}
    files.pop(entry.tombstones or "", None)
    return entry.model_copy(update={"files": files, "tombstones": path.name})
