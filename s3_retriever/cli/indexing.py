"""`s3 index` and `s3 add`: files into an index, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3_retriever.cli import options, values
from s3_retriever.cli.console import results, say
from s3_retriever.cli.files import FoundFile, find_files
from s3_retriever.cli.intake import Counts, batches, documents
from s3_retriever.cli.loading import create_index, open_index
from s3_retriever.errors import InputError
from s3_retriever.recipe import Recipe

if TYPE_CHECKING:
    from s3_retriever.cli.indexed import Indexed
    from s3_retriever.document import Document
    from s3_retriever.engine import S3Index

# Committed at once; an interruption loses no more than that.
BATCH_CHARACTERS = 2_000_000


def index(
    paths: options.Paths,
    to: options.To,
    host: options.HostName = None,
    codebook: options.CodebookName = None,
    recipe: options.RecipeName = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
) -> None:
    """Make an index of files, or go on with one.

    A document's id is its file's path from the current folder. Files are committed in batches:
    after an interruption, the same command goes on where it was. Where the index exists, this is
    s3 add: unchanged files are passed over and changed ones take the place of what they were.
    """
    files = find_files(paths)
    chosen = values.recipe(recipe)
    if not (to / "manifest.json").exists():
        _take_in(files, None, lambda: create_index(to, host, codebook, chosen, device, dtype))
        return
    if host or codebook or chosen:
        # The index refuses what it was not made with, also where no file has changed.
        opened = open_index(to, host, codebook, device, dtype)
        _check_recipe(opened, chosen)
        _take_in(files, _indexed(to), lambda: opened)
    else:
        _take_in(files, _indexed(to), lambda: open_index(to, None, None, device, dtype))


def add(
    paths: options.Paths,
    to: options.To,
    replace: Annotated[
        bool, typer.Option("--replace", help="Scan also the files that did not change.")
    ] = False,
    host: options.MovedHost = None,
    codebook: options.MovedCodebook = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = options.Dtype.auto,
) -> None:
    """Add files to an index.

    Unchanged files are passed over and changed ones take the place of what they were. Files are
    committed in batches: after an interruption, the same command goes on where it was.
    """
    indexed = _indexed(to)
    files = find_files(paths)
    _take_in(files, indexed, lambda: open_index(to, host, codebook, device, dtype), again=replace)


def _indexed(path: Path) -> Indexed:
    from s3_retriever.cli.indexed import Indexed

    return Indexed(path)


def _check_recipe(opened: S3Index, chosen: str | Recipe | None) -> None:
    if chosen is None or opened.encoder.codebook.named_recipe(chosen) == opened.recipe:
        return
    raise InputError(
        f"The index at {opened.path} was made with another recipe ({opened.recipe.name!r}); "
        "leave out --recipe, or choose another folder."
    )


def _take_in(
    files: Sequence[FoundFile],
    indexed: Indexed | None,
    load: Callable[[], S3Index],
    again: bool = False,
) -> None:
    """Read, scan and commit; the host is loaded once there is something to scan."""
    counts = Counts()
    target: S3Index | None = None
    try:
        for batch in batches(documents(files, counts, indexed, again), BATCH_CHARACTERS):
            target = target or load()
            target.add(batch, replace=True)
            _count(counts, batch, indexed)
            if counts.read + counts.skipped < len(files):
                say(f"Kept so far: {counts.read} of {len(files)} files")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Kept in the index: {counts.added + counts.replaced} files of this run; the same "
            "command goes on from there."
        ) from None
    if not counts.read:
        raise InputError(f"None of the {len(files)} files could be read.")
    results().print(f"{counts}.")


def _count(counts: Counts, batch: Sequence[Document], indexed: Indexed | None) -> None:
    replaced = sum(indexed is not None and document.id in indexed for document in batch)
    counts.replaced += replaced
    counts.added += len(batch) - replaced
