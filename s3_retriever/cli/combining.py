"""`s3r merge`, `s3r split` and `s3r export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3_retriever.cli import options
from s3_retriever.cli.console import results
from s3_retriever.index import Store


def merge(
    indexes: Annotated[
        list[Path],
        typer.Argument(metavar="INDEX", help="Folders of indexes.", autocompletion=options.indexes),
    ],
    into: Annotated[Path, typer.Option("--into", metavar="INDEX", help="Folder of the new index.")],
) -> None:
    """Make one index of several, without scanning anything again.

    They need the same host, codebook and recipe. The new index has the documents of the first,
    then those of the second, and so on; the others stay as they are.
    """
    from s3_retriever.engine import merge_indexes

    _show(merge_indexes(indexes, into))


def split(
    index: options.IndexPath,
    into: Annotated[
        list[Path] | None,
        typer.Option("--into", metavar="INDEX", help="Folder of a new index; repeatable."),
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            "--parts",
            metavar="N",
            min=1,
            help="Instead of --into: how many to make beside the index, with numbers in their "
            "names.",
        ),
    ] = None,
) -> None:
    """Make several indexes of one, without scanning anything again.

    Each gets a run of the documents, in order and of about as many tokens. The index stays as it
    is.
    """
    from s3_retriever.engine import split_index

    if (into is None) == (parts is None):
        raise typer.BadParameter("Name the new indexes with --into, or say how many with --parts.")
    for made in split_index(index, into or parts or 0):
        _show(made)


def export(
    index: options.IndexPlace,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write, empty or new.")],
) -> None:
    """Write the sentences of an index as Parquet, for another engine; needs the extra export.

    Each has its text, its document and its metadata, sparse vectors of its features and terms,
    and a dense vector. The host is not loaded.
    """
    from s3_retriever.engine import S3Index, export_index

    with S3Index.open(index) as opened:
        file = export_index(opened, folder)
        sentences = opened.stats()["sentences"]
    results().print(f"{file}: {sentences:,} sentences.", soft_wrap=True)


def _show(path: Path) -> None:
    stats = Store.open(path).stats()
    results().print(
        f"{path}: {stats['documents']:,} documents, {stats['tokens']:,} tokens.", soft_wrap=True
    )
