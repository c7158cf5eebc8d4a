"""Jupyter notebooks, cell by cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from s3_retriever.files.content import Content, UnreadableError
from s3_retriever.files.decoding import decode
from s3_retriever.files.markdown import markdown_content


def read_notebook(data: bytes, name: str) -> Iterator[Content]:
    """The cells of a notebook that are not blank: prose and code, without outputs.

    Prose is made of sentences, code of lines. Every cell has the notebook's title, which is its
    first heading, and its number as `cell` in the metadata.

    Args:
        data: The file.
        name: The title of a notebook without headings.

    Raises:
        UnreadableError: The data is not a notebook.
    """
    cells = _cells(data)
    headings = (markdown_content(source).title for kind, source in cells if kind == "markdown")
    title = next(filter(None, headings), name)
    for number, (kind, source) in enumerate(cells, 1):
        if source.strip():
            yield Content(
                source,
                title,
                unit="line" if kind == "code" else "sentence",
                metadata={"cell": number},
                part=str(number),
            )


def _cells(data: bytes) -> list[tuple[str, str]]:
    """Type and source of every cell."""
    try:
        notebook = json.loads(decode(data))
        if "worksheets" in notebook:  # before version 4 of the format
            cells = [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        else:
            cells = notebook["cells"]
        return [(cell["cell_type"], _source(cell)) for cell in cells]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError("it is not a Jupyter notebook; check the file.") from None


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", cell.get("input", ""))
    return source if isinstance(source, str) else "".join(source)
