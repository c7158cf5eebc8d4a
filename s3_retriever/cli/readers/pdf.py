"""PDF, as far as it has text."""

from __future__ import annotations

from io import BytesIO

from s3_retriever.cli.readers.content import EXTRA, Content, UnreadableError


def read_pdf(data: bytes) -> Content:
    """The pages' text, joined by blank lines, titled by the file's metadata.

    Raises:
        UnreadableError: The file is damaged, locked or without text, or the library is missing.
    """
    try:
        from pypdf import PdfReader
    except ImportError:
        raise UnreadableError(f"PDF needs pypdf; install it with: {EXTRA}") from None
    try:
        reader = PdfReader(BytesIO(data))
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except Exception as error:  # pypdf lets errors of every kind through on damaged files
        raise UnreadableError(
            f"it cannot be read as PDF ({error}); repair it or take its password off."
        ) from error
    text = "\n\n".join(pages).encode(errors="replace").decode()
    if not text.strip():
        raise UnreadableError("it has no text; run OCR on it first.")
    return Content(text, " ".join(title.encode(errors="replace").decode().split()))
