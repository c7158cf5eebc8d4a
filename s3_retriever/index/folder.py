"""The folder of an index: made where nothing is in the way, committed to, and swept."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from s3_retriever.errors import IndexStoreError
from s3_retriever.index.files import replace_file, writing
from s3_retriever.index.lock import LOCK_NAME, hold, write_lock
from s3_retriever.index.manifest import MANIFEST_NAME, Manifest, write_manifest
from s3_retriever.index.tombstones import TOMBSTONE_FILES
from s3_retriever.index.verification import SEGMENT_FOLDERS

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
        manifest = Manifest(uuid=uuid.uuid4().hex, generation=0, codebook=dict(codebook))
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
