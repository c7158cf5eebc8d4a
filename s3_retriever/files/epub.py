"""EPUB books to text and title."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from s3_retriever.files.archive import open_archive
from s3_retriever.files.content import PAGE_BREAK, Content, UnreadableError, missing, one_line
from s3_retriever.files.decoding import decode_markup
from s3_retriever.files.html import html_content


def read_epub(data: bytes) -> Content:
    """The text of a book in reading order, with a page break between its sections.

    Raises:
        UnreadableError: The file is damaged, protected, too large or without text, or the library
            is missing.
    """
    try:
        from lxml import etree  # noqa: F401
    except ImportError:
        raise missing("EPUB", "lxml") from None
    with open_archive(data) as archive:
        try:
            package = _xml(archive, _package_name(archive))
            title = next((node.text for node in package.iterfind(".//{*}title")), "")
            sections = list(_sections(archive, package))
        except UnreadableError:
            raise
        except Exception as error:  # damaged files raise errors of every kind
            raise UnreadableError(
                f"it cannot be read as EPUB ({one_line(str(error))}); save it again."
            ) from None
    text = PAGE_BREAK.join(sections)
    if not text.strip():
        raise UnreadableError("it has no text; if it is a scan, run OCR on it first.")
    return Content(text, one_line(title or ""))


def _xml(archive: ZipFile, name: str) -> Any:
    """Parse a file of the archive; entities are not expanded, nothing else is loaded."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return etree.fromstring(archive.read(name), parser)


def _package_name(archive: ZipFile) -> str:
    """Where the archive keeps its table of files, by its container file."""
    container = _xml(archive, "META-INF/container.xml")
    return str(container.find(".//{*}rootfile").get("full-path"))


def _sections(archive: ZipFile, package: Any) -> Iterator[str]:
    """The visible texts of the files that the package lists, in its reading order."""
    folder = posixpath.dirname(_package_name(archive))
    names = {
        item.get("id"): unquote(item.get("href", "")).partition("#")[0]
        for item in package.iterfind(".//{*}manifest/{*}item")
    }
    unread = set(archive.namelist())
    locked = _encrypted(archive) if "META-INF/encryption.xml" in unread else set()
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        name = posixpath.normpath(posixpath.join(folder, names.get(reference.get("idref"), "")))
        if name in locked:
            raise UnreadableError("it is protected (DRM); use a copy without protection.")
        if name in unread:
            unread.remove(name)  # a section that is listed often is read once
            if text := html_content(decode_markup(archive.read(name))).text:
                yield text.replace("\f", " ")


def _encrypted(archive: ZipFile) -> set[str]:
    """The files that are encrypted; often only fonts are."""
    listed = _xml(archive, "META-INF/encryption.xml").iterfind(".//{*}CipherReference")
    return {posixpath.normpath(unquote(reference.get("URI", ""))) for reference in listed}
