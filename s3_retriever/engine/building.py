"""`new_index`: an index that is either filled or not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever.engine.s3index import S3Index
from s3_retriever.recipe import Recipe
from s3_retriever.types import check_path

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.host import Host


@contextmanager
def new_index(
    path: str | Path | None = None,
    host: str | Host = "minilm",
    *,
    codebook: str | Path | Codebook | None = None,
    recipe: str | Recipe = "default",
    **host_options: Any,
) -> Iterator[S3Index]:
    """Make an index to fill within a `with` block.

    The index stays open after the block. After an error in the block it is closed, and `path` is
    as it was before.

    Args:
        path: As in `S3Index.create`.
        host: As in `S3Index.create`.
        codebook: As in `S3Index.create`.
        recipe: As in `S3Index.create`.
        host_options: As in `S3Index.create`.

    Raises:
        S3Error: The host, the codebook or the folder cannot be used.
    """
    had_folder = path is not None and check_path(path).is_dir()
    index = S3Index.create(path, host, codebook=codebook, recipe=recipe, **host_options)
    folder = index.path
    try:
        yield index
    except BaseException:
        index.close()
        if folder is not None:
            # `create` takes only an empty folder: everything in it belongs to the index.
            shutil.rmtree(folder, ignore_errors=True)
            if had_folder:
                folder.mkdir(exist_ok=True)
        raise
