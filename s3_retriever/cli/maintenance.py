"""`s3 delete` and `s3 compact`; neither needs the host."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_retriever.cli import options
from s3_retriever.cli.console import results
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
    """Merge what many additions left, and give the room of deleted documents back."""
    from s3_retriever.index import Store

    store = Store.open(index)
    before = facts(store)["bytes"]
    store.compact()
    after = facts(store)["bytes"]
    results().print(f"{before:,} bytes before, {after:,} bytes now.", soft_wrap=True)
