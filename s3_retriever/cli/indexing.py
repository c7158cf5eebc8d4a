"""`s3r index`, `add`, `info`, `delete`, `compact` and `verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import results, say, show_table, warn, write_json
from s3_retriever.cli.files import (
    Counts,
    FoundFile,
    Indexed,
    batches,
    documents,
    find_files,
    none_readable,
)
from s3_retriever.cli.options import create_index, open_index
from s3_retriever.errors import InputError
from s3_retriever.index import DiskBackend, Store
from s3_retriever.recipe import Recipe

if TYPE_CHECKING:
    from s3_retriever.document import Document
    from s3_retriever.engine import S3Index

# Files of a batch are committed together; an interruption loses at most the batch at hand.
BATCH_CHARACTERS = 2_000_000


def index(
    paths: options.Paths,
    to: options.To,
    host: options.HostName = None,
    codebook: options.CodebookName = None,
    recipe: options.RecipeName = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
) -> None:
    """Make an index of files, or continue one.

    The id of a document is its file's path relative to the current folder. Files are committed in
    batches: after an interruption, the same command continues where it stopped. If the index
    exists, this is s3r add: unchanged files are skipped and changed ones replaced.
    """
    files = find_files(paths)
    chosen = options.recipe(recipe)
    if not (to / "manifest.json").exists():
        _add_files(files, None, lambda: create_index(to, host, codebook, chosen, device, dtype))
    elif host or codebook or chosen:
        # What does not fit the index is refused even if there is nothing to add.
        opened = open_index(to, host, codebook, device, dtype)
        _check_origin(opened, chosen)
        _add_files(files, Indexed(to), lambda: opened)
    else:
        _add_files(files, Indexed(to), lambda: open_index(to, None, None, device, dtype))


def add(
    paths: options.Paths,
    to: options.To,
    replace: Annotated[
        bool, typer.Option("--replace", help="Scan unchanged files again as well.")
    ] = False,
    host: options.MovedHost = None,
    codebook: options.MovedCodebook = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
) -> None:
    """Add files to an index.

    Unchanged files are skipped and changed ones replaced. Files are committed in batches: after an
    interruption, the same command continues where it stopped.
    """
    indexed = Indexed(to)
    files = find_files(paths)
    _add_files(files, indexed, lambda: open_index(to, host, codebook, device, dtype), again=replace)


def _check_origin(opened: S3Index, chosen: str | Recipe | None) -> None:
    """Refuse a host, codebook or recipe that the index was not made with."""
    encoder = opened.encoder
    if chosen is not None and encoder.codebook.named_recipe(chosen) != opened.recipe:
        raise InputError(
            f"The index at {opened.path} was made with another recipe ({opened.recipe.name!r}); "
            "omit --recipe, or choose another folder."
        )


def _add_files(
    files: Sequence[FoundFile],
    indexed: Indexed | None,
    load: Callable[[], S3Index],
    again: bool = False,
) -> None:
    """Read, scan and commit; the host is loaded only if there is something to scan."""
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
            "command continues from there."
        ) from None
    if not counts.read:
        raise none_readable(files)
    results().print(f"{counts}.")


def _count(counts: Counts, batch: Sequence[Document], indexed: Indexed | None) -> None:
    replaced = sum(indexed is not None and document.id in indexed for document in batch)
    counts.replaced += replaced
    counts.added += len(batch) - replaced


def info(index: options.IndexPath, as_json: options.AsJson = False) -> None:
    """Show sizes and settings of an index, without loading the host."""
    values = Store.open(index).stats()
    if as_json:
        write_json(values)
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name.replace("_", " "), _shown(value))
    show_table(results(), table)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_inline(item)}" for name, item in value.items())
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _inline(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{name} ({_inline(item)})" if isinstance(item, dict) else f"{name} {item}"
        for name, item in value.items()
    )


def delete(
    ids: Annotated[
        list[str], typer.Argument(metavar="ID", help="Ids of documents; of files, their paths.")
    ],
    index: options.In,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Ignore ids that are not in the index.")
    ] = False,
) -> None:
    """Delete documents from an index, all of them or, after an error, none."""
    store = Store.open(index)
    deleted = store.delete(ids, missing_ok=missing_ok)
    results().print(f"{deleted} deleted, {store.snapshot().n_documents} left.", soft_wrap=True)


def compact(index: options.IndexPath) -> None:
    """Merge all segments into one, and free the space of deleted documents."""
    store = Store.open(index)
    before = store.stats()["bytes"]
    store.compact(progress=True)
    after = store.stats()["bytes"]
    results().print(f"{before:,} bytes before, {after:,} bytes now.", soft_wrap=True)


def verify(index: options.IndexPath) -> None:
    """Check every file of an index against its checksum, without loading the host.

    Names all files that are damaged or missing.
    """
    verification = Store(DiskBackend(index)).verify(progress=True)
    for name in verification.strangers:
        warn(f"{index / name} does not belong to the index.")
    results().print(
        f"{verification.files} files, {verification.bytes:,} bytes: intact.", soft_wrap=True
    )
