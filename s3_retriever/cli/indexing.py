"""`s3 index`, `add`, `info`, `delete`, `compact` and `verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import results, say, show_table, warn, write_json
from s3_retriever.cli.files import Counts, FoundFile, Indexed, batches, documents, find_files
from s3_retriever.cli.options import create_index, open_index
from s3_retriever.errors import InputError
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe

if TYPE_CHECKING:
    from s3_retriever.document import Document
    from s3_retriever.engine import S3Index
    from s3_retriever.index import Store

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
    chosen = options.recipe(recipe)
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


def info(index: options.IndexPath, as_json: options.AsJson = False) -> None:
    """Show sizes and settings of an index. Does not load the host."""
    from s3_retriever.index import Store

    found = facts(Store.open(index))
    if as_json:
        write_json(found)
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), _shown(value))
    show_table(results(), table)


def facts(store: Store) -> dict[str, Any]:
    """Sizes and settings, as JSON values."""
    manifest, snapshot = store.manifest, store.snapshot()
    size = sum(file.bytes for segment in manifest.segments for file in segment.files.values())
    return {
        "path": str(store.path),
        "host": manifest.origin.get("host"),
        "codebook": manifest.origin.get("codebook"),
        "documents": snapshot.n_documents,
        "sentences": snapshot.n_sentences,
        "tokens": snapshot.n_tokens,
        "bytes": size,
        "bytes_per_token": round(size / snapshot.n_tokens, 1) if snapshot.n_tokens else None,
        "segments": len(manifest.segments),
        "generation": manifest.generation,
        "schema": manifest.schema_version,
        "recipe": manifest.origin.get("recipe"),
    }


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
        list[str], typer.Argument(metavar="ID", help="Ids of documents: for files, their paths.")
    ],
    index: options.In,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Pass over ids that are not in the index.")
    ] = False,
) -> None:
    """Delete documents from an index; all of them or, with an error, none."""
    from s3_retriever.index import Store

    store = Store.open(index)
    deleted = store.delete(ids, missing_ok=missing_ok)
    results().print(f"{deleted} deleted, {store.snapshot().n_documents} left.", soft_wrap=True)


def compact(index: options.IndexPath) -> None:
    """Merge all segments into one, and give the room of deleted documents back."""
    from s3_retriever.index import Store

    store = Store.open(index)
    before = facts(store)["bytes"]
    store.compact()
    after = facts(store)["bytes"]
    results().print(f"{before:,} bytes before, {after:,} bytes now.", soft_wrap=True)


def verify(index: options.IndexPath) -> None:
    """Read every file of an index and compare it with its checksum.

    Names all files that are damaged or missing. Does not load the host.
    """
    from s3_retriever.index import DiskBackend, Store

    found = Store(DiskBackend(index)).verify(progress=True)
    for name in found.strangers:
        warn(f"{index / name} does not belong to the index.")
    results().print(f"{found.files} files, {found.bytes:,} bytes: intact.", soft_wrap=True)
