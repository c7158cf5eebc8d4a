"""`s3r index`, `add`, `sync`, `list`, `show`, `info`, `delete`, `compact` and `verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from s3_retriever.cli import options
from s3_retriever.cli.console import results, say, show_table, warn, write_json
from s3_retriever.cli.files import Counts, batches, none_readable, warn_skipped
from s3_retriever.cli.options import create_index, open_index, open_remote
from s3_retriever.errors import InputError
from s3_retriever.files import FoundFiles, KnownFiles, SkippedFile, find_files, read_files
from s3_retriever.index import DiskBackend, Snapshot, Store
from s3_retriever.recipe import Recipe

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
    _index(paths, to, host, codebook, recipe, device, dtype)


def sync(
    paths: options.Paths,
    to: options.To,
    host: options.HostName = None,
    codebook: options.CodebookName = None,
    recipe: options.RecipeName = None,
    device: options.Device = "auto",
    dtype: options.DtypeName = "auto",
) -> None:
    """Make an index the same as folders: like s3r index, and drops what is gone.

    Documents are dropped whose files were in the folders and are there no more, or are ignored
    now. Documents from elsewhere stay.
    """
    _index(paths, to, host, codebook, recipe, device, dtype, drop_gone=True)


def _index(
    paths: list[str],
    to: Path,
    host: str | None,
    codebook: str | None,
    recipe: str | None,
    device: str,
    dtype: options.Dtype,
    *,
    drop_gone: bool = False,
) -> None:
    found = find_files(paths)
    chosen = options.recipe(recipe)
    if not (to / "manifest.json").exists():
        known = KnownFiles((), to.parent)
        _add_files(found, known, lambda: create_index(to, host, codebook, chosen, device, dtype))
        return
    known = _known(to)
    if host or codebook or chosen:
        # What does not fit the index is refused even if there is nothing to add.
        opened = open_index(to, host, codebook, device, dtype)
        _check_origin(opened, chosen)
        _add_files(found, known, lambda: opened, drop_gone=drop_gone)
    else:
        _add_files(
            found,
            known,
            lambda: open_index(to, None, None, device, dtype),
            drop_gone=drop_gone,
        )


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
    if server:
        remote = open_remote(server, to, token)
        at_server = KnownFiles(remote.rows(), Path(), again=replace)
        _add_files(find_files(paths), at_server, lambda: remote)
        return
    known = _known(to, again=replace)
    _add_files(find_files(paths), known, lambda: open_index(to, host, codebook, device, dtype))


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
    drop_gone: bool = False,
) -> None:
    """Read, scan and commit; the host is loaded only if there is something to scan."""
    counts = Counts()
    files: set[Any] = set()
    target: S3Index | RemoteIndex | None = None

    def on_skip(skipped: SkippedFile) -> None:
        counts.skipped += 1
        known.on_skip(skipped)
        warn_skipped(skipped)

    documents = read_files(found, base=known.base, on_skip=on_skip, is_known=known.is_known)
    try:
        for batch in batches(documents, BATCH_CHARACTERS):
            target = target or load()
            target.add(batch, replace=True)
            replaced = sum(document.id in known for document in batch)
            counts.replaced += replaced
            counts.added += len(batch) - replaced
            files.update(document.metadata["path"] for document in batch)
            if (done := len(files) + known.unchanged + counts.skipped) < len(found.files):
                say(f"Kept so far: {done - counts.skipped} of {len(found.files)} files")
        counts.unchanged = known.unchanged
        if stale := known.stale(found, drop_gone=drop_gone):
            counts.dropped = (target or load()).delete(stale)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Kept in the index: {counts.added + counts.replaced} files of this run; the same "
            "command continues from there."
        ) from None
    if not counts.read and not counts.dropped:
        raise none_readable(found)
    results().print(f"{counts}.")


def list_documents(
    index: options.IndexPath,
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
    index: options.IndexPath,
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
        ids = _named(names, KnownFiles(snapshot.rows(), index.parent))
        documents = [_document(snapshot, document_id) for document_id in ids]
    if as_json:
        write_json(documents)
        return
    for document in documents:
        results().print(Text(document["text"]), soft_wrap=True)


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
    verification = Store(DiskBackend(index)).verify(progress=True)
    for name in verification.strangers:
        warn(f"{index / name} does not belong to the index.")
    results().print(
        f"{verification.files} files, {verification.bytes:,} bytes: intact.", soft_wrap=True
    )
