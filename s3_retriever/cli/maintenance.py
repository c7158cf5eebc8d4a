"""`s3 delete`, `s3 compact` and `s3 verify`; none needs the host."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_retriever.cli import options
from s3_retriever.cli.console import results, warn
from s3_retriever.cli.info import facts


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
    from s3_retriever.index import Store

    found = Store(index).verify(progress=True)
    for name in found.strangers:
        warn(f"{index / name} does not belong to the index.")
    results().print(f"{found.files} files, {found.bytes:,} bytes: intact.", soft_wrap=True)
