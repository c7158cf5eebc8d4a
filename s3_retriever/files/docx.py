"""Word documents to text and title."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from s3_retriever.files.archive import open_archive
from s3_retriever.files.content import Content, UnreadableError, missing, one_line

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_BREAKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
# Text that was moved elsewhere, and what a drawing shows where it cannot be drawn: both are there
# a second time.
_DROPPED = frozenset(
    {f"{_W}moveFrom", "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}
)


def read_docx(data: bytes) -> Content:
    """The text of a Word document: a line for each paragraph and each row of a table.

    Deleted text of tracked changes, headers, footers and notes are left out. The title is in the
    file's properties, else the first paragraph with the style of a title or heading.

    Raises:
        UnreadableError: The file is damaged, locked, too large or without text, or the library is
            missing.
    """
    try:
        import docx
    except ImportError:
        raise missing("Word", "python-docx") from None
    open_archive(data).close()
    try:
        document = docx.Document(BytesIO(data))
        title = document.core_properties.title or _first_heading(document)
        text = "".join(_pieces(document.element.body))
    except Exception as error:  # damaged files raise errors of every kind
        raise UnreadableError(
            f"it cannot be read as a Word document ({one_line(str(error))}); save it again."
        ) from None
    text = "\n".join(line.rstrip() for line in text.split("\n")).strip()
    if not text:
        raise UnreadableError("it has no text; if it is a scan, run OCR on it first.")
    return Content(text, one_line(title))


def _first_heading(document: Any) -> str:
    for paragraph in document.paragraphs:
        style = paragraph.style.name if paragraph.style is not None else ""
        if style.startswith(("Title", "Heading")) and paragraph.text.strip():
            return str(paragraph.text)
    return ""


def _pieces(body: Any) -> list[str]:
    """The text in order. Word nests tables and text boxes, so this uses a stack."""
    pieces: list[str] = []
    stack: list[tuple[Any, bool]] = [(body, False)]
    while stack:
        node, in_row = stack.pop()
        if isinstance(node, str):
            pieces.append(node)
        elif node.tag == f"{_W}t":
            pieces.append(node.text or "")
        elif node.tag in _BREAKS:
            pieces.append(" " if in_row else _BREAKS[node.tag])
        elif node.tag not in _DROPPED:
            after = _after(node.tag, in_row)
            stack.append((after, in_row))
            inside = in_row or node.tag == f"{_W}tr"
            stack += [(child, inside) for child in reversed(node)]
    return pieces


def _after(tag: Any, in_row: bool) -> str:
    """What follows an element: paragraphs end a paragraph, rows a line, cells a column."""
    if tag == f"{_W}p":
        return " " if in_row else "\n\n"
    if tag == f"{_W}tc":
        return "\t"
    return "\n" if tag in (f"{_W}tr", f"{_W}tbl") else ""
