"""`read_documents`: documents from files, folders, Parquet and object storage."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeGuard, Union

from s3_retriever.document import Document, as_documents
from s3_retriever.errors import InputError, S3Error, brief
from s3_retriever.files import read_files
from s3_retriever.paths import nan_as_null
from s3_retriever.remote import file_system, is_url, reaching
from s3_retriever.types import check_items, check_path

if TYPE_CHECKING:
    from ray.data import Dataset

Source = Union["Dataset", str, Path, Iterable[Document | str], Document]

_PARQUET = (".parquet", ".pq")
_RECORDS = (".jsonl", ".ndjson")
_FIELDS = ("text", "id", "metadata", "unit")
_NAMED_COLUMNS = 8
# Rows of a Parquet file that are held at once.
_ROWS = 256


def documents_of(source: Source) -> Iterator[Document]:
    """Documents of anything that `build` takes, in order.

    Raises:
        InputError: It is of another type; also while iterating, as `read_documents`.
    """
    if is_dataset(source):
        return _of_dataset(source)
    if isinstance(source, (str, Path)):
        return read_documents(source)
    return as_documents(source)


def is_dataset(source: object) -> TypeGuard[Dataset]:
    """Whether this is a dataset of Ray Data, which takes a while to import."""
    data = sys.modules.get("ray.data")
    return data is not None and isinstance(source, data.Dataset)


def read_documents(places: Iterable[str | Path] | str | Path) -> Iterator[Document]:
    """Read documents from files, folders and object storage, in order, as they are needed.

    A Parquet file has a document in each row: `text`, and if there are such columns `id`,
    `metadata` (a mapping, or JSON text) and `unit`; other columns join the metadata. JSON Lines
    in object storage have the same fields. All other files are read as `read_files` does, with
    their paths as ids.

    Args:
        places: Files, folders, globs of files, or URLs such as `s3://bucket/texts`.

    Raises:
        InputError: A place is missing or has no documents, or a row is none.
        S3Error: A URL cannot be read, or the library for it is missing.
    """
    for place in check_items(places, "places", (str, Path)):
        if is_url(place):
            yield from _at_url(place)
        elif files := _parquet_files(check_path(place)):
            for file in files:
                yield from _of_parquet(str(file), None, str(file))
        else:
            yield from read_files(place)


def _parquet_files(path: Path) -> list[Path]:
    """The Parquet files that a path means, in order; none if it is no such file or folder.

    Raises:
        InputError: The file does not exist.
    """
    if path.is_dir():
        return sorted(filter(_is_parquet, path.iterdir()))
    if not _is_parquet(path):
        return []
    files = [path] if path.is_file() else sorted(path.parent.glob(path.name))
    if not files:
        raise InputError(f"{path} does not exist; check the path.")
    return files


def _is_parquet(path: Path | PurePosixPath) -> bool:
    return path.suffix.lower() in _PARQUET


def _at_url(url: str) -> Iterator[Document]:
    system, top = file_system(url)
    with reaching(url):
        files = [PurePosixPath(file) for file in sorted(system.find(top))]
    if not files:
        raise InputError(f"There are no files at {url}; check the address.")
    for file in files:
        if _is_parquet(file):
            yield from _of_parquet(url, system, str(file))
        elif file.suffix.lower() in _RECORDS:
            yield from _of_lines(url, system, file)
        else:
            yield from _of_copy(url, system, file, PurePosixPath(top))


def _of_parquet(url: str, system: Any, file: str) -> Iterator[Document]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise S3Error(
            f"Reading {url} needs the library pyarrow; install it with: pip install "
            "'s3-retriever[ray]'"
        ) from error
    try:
        rows = _rows(pq.ParquetFile(file, filesystem=system))
        for number, row in enumerate(rows):
            yield _document(row, f"Row {number:,} of {file}")
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{url} cannot be read as Parquet ({brief(error)}); check the file."
        ) from error


def _rows(parquet: Any) -> Iterator[dict[str, Any]]:
    for batch in parquet.iter_batches(_ROWS):
        yield from batch.to_pylist()


def _of_dataset(dataset: Dataset) -> Iterator[Document]:
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    for number, row in enumerate(dataset.iter_rows()):
        yield _document(row, f"Row {number:,}")


def _of_lines(url: str, system: Any, file: PurePosixPath) -> Iterator[Document]:
    with reaching(url), system.open(str(file), "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name = f"Line {number:,} of {file}"
            try:
                row = json.loads(line, parse_constant=nan_as_null)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{name} is not JSON ({brief(error)}); correct it.") from None
            yield _document(row, name)


def _of_copy(url: str, system: Any, file: PurePosixPath, top: PurePosixPath) -> Iterator[Document]:
    """Read a file as those on disk, with its path below the folder that was named as its id."""
    name = file.relative_to(top) if file != top else PurePosixPath(file.name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with reaching(url):
            system.get_file(str(file), str(copy))
        yield from read_files(Path(folder), base=folder)


def _document(row: Any, name: str) -> Document:
    """The document that a row holds.

    Raises:
        InputError: It holds none.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
        columns = ", ".join(map(str, list(row)[:_NAMED_COLUMNS])) if row else "nothing"
        raise InputError(
            f"{name} has no text in a column named text (it has {columns}); rename the column, "
            "or give documents from an iterator."
        )
    metadata = row.get("metadata")
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata, parse_constant=nan_as_null)
        except (ValueError, RecursionError) as error:
            raise InputError(f"The metadata of {name} is not JSON ({brief(error)}).") from None
    others = {key: value for key, value in row.items() if key not in _FIELDS and value is not None}
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InputError(f"The metadata of {name} is not a mapping; make it one.")
    document_id = row.get("id")
    document = Document(
        row["text"],
        id="" if document_id is None else str(document_id),
        metadata={**others, **(metadata or {})},
    )
    unit = row.get("unit")
    return document if unit is None else replace(document, unit=unit)
