"""The manifest: which files make up an index. Replacing it is what commits a change.

Its second line is a checksum of all bytes after that line.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator as After
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from s3_retriever.errors import IndexStoreError, brief
from s3_retriever.features import MAX_FEATURES, Layout
from s3_retriever.index.files import damaged
from s3_retriever.paths import regular_size

SCHEMA_VERSION = 3
MANIFEST_NAME = "manifest.json"
# A thousand segments, far more than merging leaves, take 4 MB.
LARGEST_MANIFEST = 1 << 26
_SEAL = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')

# A tap's files start with its name, and those of the lexical postings and of keys with these.
RESERVED_TAPS = ("lexical", "keys")

# Names that come from a file become paths: no separators, nothing hidden, no "..".
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]


def _not_reserved(tap: str) -> str:
    if tap.split(".")[0] in RESERVED_TAPS:
        raise ValueError(f"{tap!r} cannot be the name of a tap")
    return tap


TapName = Annotated[PlainName, After(_not_reserved)]


# What takes memory without a file that is as large has bounds.
DictionarySize = Annotated[int, Field(ge=1, le=MAX_FEATURES)]
_MOST_VECTOR_BYTES = 4_096
_MOST_KEY_BYTES = 1_024
# Of numbers that JSON readers agree on.
_LARGEST_NUMBER = 2**53


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FileEntry(_Strict):
    """Size in bytes and SHA-256 of a file."""

    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SegmentEntry(_Strict):
    """What the manifest records of a segment.

    Attributes:
        name: Its folder.
        documents: Number of documents, deleted ones included (so are the next two).
        sentences: Number of sentences.
        tokens: Number of token positions.
        features: Size of every tap's dictionary.
        vector_bytes: Bytes of a sentence's vector; 0 for an index without sentence vectors.
        key_bytes: Bytes of a token's key, by key head.
        languages: Languages that documents were analysed in; others may have been, if they are
            deleted.
        files: Every file of the folder, by name.
        deleted: Number of deleted documents; at least one document is not deleted.
        tombstones: Name of the file that lists the deleted documents; None if there are none.
    """

    name: PlainName
    documents: PositiveInt
    sentences: NonNegativeInt
    tokens: NonNegativeInt
    features: dict[TapName, DictionarySize]
    vector_bytes: Annotated[int, Field(ge=0, le=_MOST_VECTOR_BYTES)] = 0
    key_bytes: dict[PlainName, Annotated[int, Field(ge=1, le=_MOST_KEY_BYTES)]] = Field(
        default_factory=dict
    )
    languages: tuple[Annotated[str, Field(max_length=8)], ...] = ()
    files: dict[PlainName, FileEntry]
    deleted: NonNegativeInt = 0
    tombstones: PlainName | None = None

    @model_validator(mode="after")
    def _check_deleted(self) -> SegmentEntry:
        if bool(self.deleted) != bool(self.tombstones) or self.deleted > max(self.documents - 1, 0):
            raise ValueError("the number of deleted documents does not fit")
        return self

    @property
    def layout(self) -> Layout:
        """What the segment keeps of each token and sentence."""
        return Layout(self.features, self.vector_bytes, self.key_bytes)

    def check_layout(self, layout: Layout) -> None:
        """Refuse another layout than the segment's.

        Raises:
            IndexStoreError: It is another.
        """
        if self.layout != layout:
            raise IndexStoreError(
                f"This index has {_described(self.layout)}, not {_described(layout)}; use the "
                "codebook and the recipe that it was made with."
            )

    def without_tombstones(self) -> SegmentEntry:
        """The entry of the same files before any document was deleted."""
        files = {name: file for name, file in self.files.items() if name != self.tombstones}
        return self.model_copy(update={"files": files, "deleted": 0, "tombstones": None})


def _described(layout: Layout) -> str:
    heads = f", keys of the heads {dict(layout.key_bytes)}" if layout.key_bytes else ""
    return (
        f"the taps {dict(layout.features)}{heads} and sentence vectors of "
        f"{layout.vector_bytes} bytes"
    )


def _go_together(segments: tuple[SegmentEntry, ...]) -> tuple[SegmentEntry, ...]:
    if len({segment.name for segment in segments}) < len(segments):
        raise ValueError("a segment is listed twice")
    for segment in segments[1:]:
        if segment.layout != segments[0].layout:
            raise ValueError("segments differ in taps, keys or sentence vectors")
    return segments


class Manifest(_Strict):
    """One state of an index.

    Attributes:
        schema_version: Version of the files' layout.
        uuid: Identity of the index, random.
        generation: Counts the commits.
        origin: What the index was made with: host, codebook and recipe, as the engine gives it.
        text_analysis: By name, versions of what cut the texts into sentences and terms.
        segments: The segments, oldest first.
    """

    schema_version: NonNegativeInt = SCHEMA_VERSION
    uuid: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    generation: Annotated[int, Field(ge=0, lt=_LARGEST_NUMBER)]
    origin: dict[str, Any]
    text_analysis: dict[str, str] = Field(default_factory=dict)
    segments: Annotated[tuple[SegmentEntry, ...], Field(strict=False), After(_go_together)] = ()


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as the file holds it, its checksum included."""
    rest = manifest.model_dump_json(indent=1).encode().removeprefix(b"{\n")
    return b'{\n "sha256": "%s",\n%s' % (_digest(rest), rest)


def read_manifest(path: Path) -> bytes:
    """The manifest of the index at `path`, as the file holds it.

    Raises:
        IndexStoreError: There is no index at `path`, or it cannot be read.
    """
    file = path / MANIFEST_NAME
    try:
        if regular_size(file) > LARGEST_MANIFEST:
            raise damaged(file, f"it has more than {LARGEST_MANIFEST:,} bytes")
        return file.read_bytes()
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
        IndexStoreError: It is damaged, or of an older or a newer schema.
    """
    file = path / MANIFEST_NAME
    try:
        seal = _SEAL.match(content)
        rest = content[seal.end() :] if seal else b""
        if seal and seal[1] != _digest(rest):
            raise damaged(file, "its content does not match its checksum")
        version = dict(json.loads(content)).get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise IndexStoreError(
                f"The index at {path} has schema {version}, newer than {SCHEMA_VERSION}, which is "
                "the newest that this version reads; upgrade s3-retriever."
            )
        if not seal:
            raise damaged(file, "its checksum is missing")
        if isinstance(version, int) and version < SCHEMA_VERSION:
            raise IndexStoreError(
                f"The index at {path} was made by an older release; index the documents again."
            )
        return Manifest.model_validate_json(b"{\n" + rest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise damaged(file, brief(f"{where}: {first['msg']}")) from None
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise damaged(file, brief(error)) from None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
