"""`mirror`: a local copy of an index in object storage, each file of it fetched once."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from s3_retriever.errors import IndexStoreError
from s3_retriever.index.files import checksum, writing
from s3_retriever.index.manifest import (
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    parse_manifest,
    read_manifest,
)
from s3_retriever.progress import progress_bar
from s3_retriever.remote import file_system, reaching

# How often to begin again because a writer replaced the index meanwhile.
_ATTEMPTS = 3


def mirror(url: str) -> Path:
    """Copy an index from object storage to the user's cache, as it is there now.

    Files are kept by their SHA-256: what another state of the index, or another index, has too is
    not fetched again. The cache may be removed at any time. In a terminal a bar shows how far it
    is.

    Args:
        url: A folder at any address that fsspec knows, such as `s3://bucket/handbook.s3r`.

    Returns:
        The folder of the copy, an index that nothing may write to.

    Raises:
        S3Error: fsspec or its driver for such addresses is missing.
        IndexStoreError: There is no index, it cannot be reached, it is damaged, or the cache
            cannot be written.
    """
    system, top = file_system(url)
    cache = user_cache_path("s3-retriever") / "indexes"
    for attempts in range(_ATTEMPTS, 0, -1):
        content = _manifest(url, system, top)
        try:
            return _mirror_state(url, system, top, cache, content)
        except IndexStoreError:
            # A merge may have removed files since the manifest was read.
            if attempts == 1 or _manifest(url, system, top) == content:
                raise
    raise AssertionError


def _manifest(url: str, system: Any, top: str) -> bytes:
    file = f"{top}/{MANIFEST_NAME}"
    with reaching(url):
        if not system.exists(file):
            raise IndexStoreError(
                f"There is no index at {url}; check the address, the bucket and your credentials."
            )
        if system.size(file) > LARGEST_MANIFEST:
            raise _damaged(url, MANIFEST_NAME, f"it has more than {LARGEST_MANIFEST:,} bytes")
        content = system.cat_file(file)
    return bytes(content)


def _mirror_state(url: str, system: Any, top: str, cache: Path, content: bytes) -> Path:
    place = Path(url)
    try:
        manifest = parse_manifest(place, content)
    except IndexStoreError as error:
        # A path has one slash where a URL has two.
        raise IndexStoreError(str(error).replace(str(place), url)) from None
    folder = cache / hashlib.sha256(content).hexdigest()[:32]
    files = cache / "files"
    with writing(cache):
        files.mkdir(parents=True, exist_ok=True)
    total = sum(entry.bytes for segment in manifest.segments for entry in segment.files.values())
    with progress_bar(True, total=total, unit="B", unit_scale=True, desc="Fetching") as bar:
        for segment in manifest.segments:
            for name, entry in segment.files.items():
                _fetch(url, system, f"{top}/{segment.name}/{name}", files / entry.sha256, entry)
                bar.update(entry.bytes)
    with writing(folder):
        if (
            not all(
                (folder / segment.name / name).is_file()
                for segment in manifest.segments
                for name in segment.files
            )
            or not (folder / MANIFEST_NAME).is_file()
        ):
            shutil.rmtree(folder, ignore_errors=True)
            _assemble(folder, manifest, content, files)
    return folder


def forget(folder: Path) -> None:
    """Remove a copy, and the files in the cache that it is made of."""
    with suppress(IndexStoreError):
        manifest = parse_manifest(folder, read_manifest(folder))
        for segment in manifest.segments:
            for entry in segment.files.values():
                (folder.parent / "files" / entry.sha256).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _fetch(url: str, system: Any, source: str, target: Path, entry: FileEntry) -> None:
    """Fetch a file unless it is there, and compare it with its checksum."""
    with writing(target):
        if target.is_file() and target.stat().st_size == entry.bytes:
            return
        draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    name = source.rpartition("/")[2]
    try:
        with reaching(f"{url}/{source.rsplit('/', 2)[1]}/{name}"):
            size = system.size(source)
            if size != entry.bytes:
                raise _damaged(url, name, f"it has {size} bytes, not {entry.bytes}")
            system.get_file(source, str(draft))
        with writing(draft):
            if draft.stat().st_size != entry.bytes or checksum(draft) != entry.sha256:
                raise _damaged(url, name, "its content does not match its checksum")
            draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _assemble(folder: Path, manifest: Manifest, content: bytes, files: Path) -> None:
    """Put an index together from files of the cache."""
    draft = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    try:
        for segment in manifest.segments:
            (draft / segment.name).mkdir(parents=True)
            for name, entry in segment.files.items():
                _link(files / entry.sha256, draft / segment.name / name)
        draft.mkdir(parents=True, exist_ok=True)
        (draft / MANIFEST_NAME).write_bytes(content)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():  # another process was a moment faster otherwise
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, name)


def _damaged(url: str, name: str, reason: str) -> IndexStoreError:
    return IndexStoreError(
        f"{name} of the index at {url} is damaged ({reason}); copy the index there again."
    )
