"""`s3r index`, `add`, `sync`, `list`, `show`, `info`, `delete`, `compact` and `verify`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from s3_retriever.cli import options
from s3_retriever.cli.console import results, say, show_table, warn, write_json
from s3_retriever.cli.files import Counts, batches, none_readable, warn_skipped
from s3_retriever.cli.options import create_index, open_index, open_remote
from s3_retriever.cli.watching import OnChange, check_watch, follow
from s3_retriever.errors import InputError
from s3_retriever.files import FoundFiles, KnownFiles, SkippedFile, find_files, read_files
from s3_retriever.index import DiskBackend, Snapshot, Store
from s3_retriever.recipe import Recipe
from s3_retriever.remote import is_url, local_path

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index
    from s3_retriever.server.client import RemoteIndex

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

    The id of a document is its file's path, relative to the folder that holds the index, or
    absolute outside it. Files are committed in batches: after an interruption, the same command
    continues where it stopped. If the index exists, this is s3r add: unchanged files are skipped
    and changed ones replaced.
    """
    found, load = find_files(paths), _loader(to, host, codebook, recipe, device, dtype)
    _show(_add_files(found, _known_so_far(to), load), found)


def sync(
    paths: options.Paths,
    to: options.To,
    host: options.HostName = None,
    codebook: options.CodebookName = None,
    recipe: options.RecipeName = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Go on, and follow every change; needs the extra watch."),
    ] = False,
) -> None:
    """Make an index the same as folders: like s3r index, and drops what is gone.

    Documents are dropped whose files were in the folders and are there no more, or are ignored
    now. Documents from elsewhere stay.

    With --watch it goes on until Ctrl-C (exit code 130) and prints a line for every document that
    it adds, replaces or drops. A file that cannot be read is named and skipped, and while another
    process writes to the index, it waits.
    """
    found = find_files(paths)
    if watch:
        check_watch(paths)
    load = _loader(to, host, codebook, recipe, device, dtype)

    def update(found: FoundFiles, read: FoundFiles, on_change: OnChange | None) -> Counts:
        return _add_files(
            found, _known_so_far(to), load, read=read, drop_gone=True, on_change=on_change
        )

    if watch:
        follow(paths, to, update)
    else:
        _show(update(found, found, None), found)


def _loader(
    to: Path,
    host: str | None,
    codebook: str | None,
    recipe: str | None,
    device: str,
    dtype: options.Dtype,
) -> Callable[[], S3Index]:
    """What opens an index, or makes it, when it is first needed."""
    chosen = options.recipe(recipe)
    if not _exists(to):
        return cache(lambda: create_index(to, host, codebook, chosen, device, dtype))
    if not (host or codebook or chosen):
        return cache(lambda: open_index(to, None, None, device, dtype))
    # What does not fit the index is refused even if there is nothing to add.
    opened = open_index(to, host, codebook, device, dtype)
    _check_origin(opened, chosen)
    return lambda: opened


def _exists(index: Path) -> bool:
    return (index / "manifest.json").exists()


def _known_so_far(index: Path) -> KnownFiles:
    """What an index has of files; nothing if it is not there yet."""
    return _known(index) if _exists(index) else KnownFiles((), index.parent)


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
    server: options.Server = None,
    token: options.Token = None,
) -> None:
    """Add files to an index.

    Unchanged files are skipped and changed ones replaced; s3r sync also drops what is gone. Files
    are committed in batches: after an interruption, the same command continues where it stopped.
    With --server, the ids of files are their paths relative to the current folder.
    """
    load: Callable[[], S3Index | RemoteIndex]
    if server:
        remote = open_remote(server, to, token)
        known, load = KnownFiles(remote.rows(), Path(), again=replace), lambda: remote
    else:
        known = _known(to, again=replace)
        load = lambda: open_index(to, host, codebook, device, dtype)  # noqa: E731
    found = find_files(paths)
    _show(_add_files(found, known, load), found)


def _known(index: Path, *, again: bool = False) -> KnownFiles:
    """What an index has of files."""
    return KnownFiles(Store.open(index).snapshot().rows(), index.parent, again=again)


def _check_origin(opened: S3Index, chosen: str | Recipe | None) -> None:
    """Refuse a host, codebook or recipe that the index was not made with."""
    encoder = opened.encoder
    if chosen is not None and encoder.codebook.named_recipe(chosen) != opened.recipe:
        raise InputError(
            f"The index at {opened.path} was made with another recipe ({opened.recipe.name!r}); "
            "omit --recipe, or choose another folder."
        )


def _add_files(
    found: FoundFiles,
    known: KnownFiles,
    load: Callable[[], S3Index | RemoteIndex],
    *,
    read: FoundFiles | None = None,
    drop_gone: bool = False,
    on_change: OnChange | None = None,
) -> Counts:
    """Read, scan and commit; the host is loaded only if there is something to scan.

    Args:
        found: The files that are there.
        known: What the index has of them.
        load: Opens the index.
        read: Which of the files to read; all by default.
        drop_gone: Whether documents are dropped whose files are gone.
        on_change: Called after a commit with what was done and the id of each document.
    """
    counts = Counts()
    changed = on_change or (lambda *_: None)
    read = read or found
    total, files = len(read.files), set[Any]()
    target: S3Index | RemoteIndex | None = None

    def on_skip(skipped: SkippedFile) -> None:
        counts.skipped += 1
        known.on_skip(skipped)
        # What vanished while a folder is watched is dropped by the next round.
        if on_change is None or os.path.lexists(skipped.path):
            warn_skipped(skipped)

    documents = read_files(read, base=known.base, on_skip=on_skip, is_known=known.is_known)
    try:
        for batch in batches(documents, BATCH_CHARACTERS):
            target = target or load()
            target.add(batch, replace=True)
            for document in batch:
                replaced = document.id in known
                counts.replaced += replaced
                counts.added += not replaced
                changed("replaced" if replaced else "added", document.id)
            files.update(document.metadata["path"] for document in batch)
            if (done := len(files) + known.unchanged + counts.skipped) < total:
                say(f"Kept so far: {done - counts.skipped} of {total} files")
        counts.unchanged = known.unchanged
        if stale := known.stale(found, drop_gone=drop_gone, read=read.files):
            counts.dropped = (target or load()).delete(stale)
            for document_id in stale:
                changed("dropped", document_id)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Kept in the index: {counts.added + counts.replaced} files of this run; the same "
            "command continues from there."
        ) from None
    return counts


def _show(counts: Counts, found: FoundFiles) -> None:
    """Print what was done; it is an error if no file could be read."""
    if not counts.read and not counts.dropped:
        raise none_readable(found)
    results().print(f"{counts}.")


def list_documents(
    index: options.IndexPlace,
    server: options.Server = None,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """List the documents of an index, one id per line."""
    listed = open_remote(server, index, token) if server else Store.open(index).snapshot()
    if as_json:
        rows = listed.rows()
        write_json([{"id": name, "metadata": metadata} for name, metadata in rows])
        return
    for document_id in listed.ids():
        results().print(Text(document_id), soft_wrap=True)


def show(
    index: options.IndexPlace,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="ID", help="Ids of documents, paths of files, or what a search prints."
        ),
    ],
    server: options.Server = None,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the text of documents as it is in the index."""
    if server:
        remote = open_remote(server, index, token)
        found = remote.get(_named(names, KnownFiles(remote.rows(), Path())))
        documents = [{"id": d.id, "metadata": d.metadata, "text": d.text} for d in found]
    else:
        snapshot = Store.open(index).snapshot()
        folder = Path() if is_url(index) else Path(index).parent
        ids = _named(names, KnownFiles(snapshot.rows(), folder))
        documents = [_document(snapshot, document_id) for document_id in ids]
    if as_json:
        write_json(documents)
        return
    for document in documents:
        results().print(Text(str(document["text"])), soft_wrap=True)


def _document(snapshot: Snapshot, document_id: str) -> dict[str, Any]:
    place = snapshot.find(document_id)
    if place is None:
        raise InputError(f"This index has no document {document_id!r}; list them with: s3r list")
    segment, ordinal = place
    row = segment.document(ordinal)
    return {"id": row.id, "metadata": row.metadata, "text": segment.document_text(ordinal)}


def _named(names: Sequence[str], known: KnownFiles) -> list[str]:
    """The ids that names mean, each once; names that mean none are kept as they are."""
    return list(dict.fromkeys(key for name in names for key in known.documents_at(name) or [name]))


def info(index: options.IndexPlace, as_json: options.AsJson = False) -> None:
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
        list[str],
        typer.Argument(
            metavar="ID", help="Ids of documents, paths of files, or what a search prints."
        ),
    ],
    index: options.In,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Ignore ids that are not in the index.")
    ] = False,
    server: options.Server = None,
    token: options.Token = None,
) -> None:
    """Delete documents from an index, all of them or, after an error, none."""
    if server:
        remote = open_remote(server, index, token)
        named = _named(ids, KnownFiles(remote.rows(), Path()))
        deleted, left = remote.delete(named, missing_ok=missing_ok), len(remote)
    else:
        store = Store.open(index)
        named = _named(ids, KnownFiles(store.snapshot().rows(), index.parent))
        deleted = store.delete(named, missing_ok=missing_ok)
        left = store.snapshot().n_documents
    results().print(f"{deleted} deleted, {left} left.", soft_wrap=True)


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
    verification = Store(DiskBackend(local_path(index))).verify(progress=True)
    for name in verification.strangers:
        warn(f"{index / name} does not belong to the index.")
    results().print(
        f"{verification.files} files, {verification.bytes:,} bytes: intact.", soft_wrap=True
    )
