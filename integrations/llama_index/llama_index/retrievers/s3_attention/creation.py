"""Making an index and filling it, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import s3_retriever

if TYPE_CHECKING:
    from s3_retriever import S3Index


@contextmanager
def new_index(path: str | Path | None, **options: Any) -> Iterator[S3Index]:
    """A new index to be filled; with an error, what is at `path` is as it was.

    Args:
        path: As in `S3Index.create`.
        options: As in `S3Index.create`.

    Raises:
        s3_retriever.S3Error: The host, the codebook or the folder is not usable.
    """
    had_folder = path is not None and Path(path).is_dir()
    index = s3_retriever.S3Index.create(path, **options)
    try:
        yield index
    except BaseException:
        # `create` found no file there, so that all that is there now belongs to the index.
        shutil.rmtree(index.path, ignore_errors=True)
        if had_folder:
            index.path.mkdir(exist_ok=True)
        raise
