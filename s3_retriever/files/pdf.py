"""PDF to text and title."""

from __future__ import annotations

from io import BytesIO

from s3_retriever.files.content import PAGE_BREAK, Content, UnreadableError, missing, one_line


def read_pdf(data: bytes) -> Content:
    """The text of the pages, with a page break between them; the title is in the file's metadata.

    Raises:
        UnreadableError: The file is damaged, encrypted or without text, or the library is missing.
    """
    try:
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, FileNotDecryptedError
    except ImportError:
        raise missing("PDF", "pypdf") from None
    try:
        reader = PdfReader(BytesIO(data))
        pages = [page.extract_text().replace("\f", " ") for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    except (FileNotDecryptedError, DependencyError):
        raise UnreadableError("it is encrypted; save a copy without a password.") from None
    except Exception as error:  # damaged files raise errors of every kind
        raise UnreadableError(
            f"it cannot be read as PDF ({one_line(str(error))}); repair it, for example by "
            "printing it to a new PDF."
        ) from error
    if not any(page.strip() for page in pages):
        raise UnreadableError("it has no text; run OCR on it first.")
    return Content(_encodable(PAGE_BREAK.join(pages)), one_line(_encodable(title)))


def _encodable(text: str) -> str:
    """The text without lone surrogates, which damaged fonts yield."""
    return text.encode(errors="replace").decode()
