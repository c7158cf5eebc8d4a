"""Readers of the command line: bytes to text and title."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import pytest

from s3_retriever.cli.readers import Content, UnreadableError, is_known, read_file, reader_for


def read(name: str, data: bytes) -> Content:
    return reader_for(Path(name))(data)


def make_pdf(*pages: str, title: str | None = None) -> bytes:
    """A PDF with one line of text on each page."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 200)
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    file = BytesIO()
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.txt", "a.rst", "a.py", "a.unknown", "Makefile"])
def test_text_is_kept_as_it_is(name):
    assert read(name, "Grüße,\r\nzwei".encode()) == Content("Grüße,\r\nzwei")


def test_byte_order_mark_is_dropped():
    assert read("a.txt", b"\xef\xbb\xbfhello").text == "hello"


def test_invalid_utf8_names_the_byte():
    with pytest.raises(UnreadableError, match=r"not UTF-8, the byte at offset 6 .* iconv"):
        read("a.txt", b"\xef\xbb\xbfcaf\xe9")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_binary_data_is_refused(name):
    with pytest.raises(UnreadableError, match="binary, with a NUL byte at offset 2"):
        read(name, b"ab\0cd")


def test_nul_byte_far_behind_is_no_binary():
    assert len(read("a.txt", b"a" * 9_000 + b"\0").text) == 9_001


def test_ten_megabytes_in_one_line():
    assert len(read("a.md", b"word " * 2_000_000).text) == 10_000_000


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("intro\n\n## The title ##\n\n# Later\n", "The title"),
        ("# Windows\r\n\r\ntext", "Windows"),
        ("```sh\n# a comment\n```\n\n# Real\n", "Real"),
        ("~~~\n```\n# inside\n~~~\n# Outside", "Outside"),
        ("Under\n=====\n\ntext", "Under"),
        ("---\n\nno title\n\n---\n", ""),
        ("#hashtag\nno heading", ""),
        ("#\n\n# Second", "Second"),
        ("", ""),
    ],
)
def test_markdown_title(text, title):
    assert read("a.md", text.encode()) == Content(text, title)


def test_html():
    page = b"""<!DOCTYPE html><html><head><title> The
      bakery </title><style>p {}</style></head>
    <body><nav>Home</nav><h1>Bread</h1><script>var x;</script><!-- not this -->
    <p>A baker carries <b>warm</b>
       bread<br>before dawn.</p><ul><li>Rye</li><li>Wheat</li></ul>
    <table><tr><td>a</td><td>b</td></tr></table><pre>x
  y</pre></body></html>"""
    content = read("a.html", page)
    assert content.title == "The bakery"
    assert content.text == (
        "Bread\n\nA baker carries warm bread\nbefore dawn.\n\nRye\n\nWheat\n\na b\n\nx\n  y"
    )


def test_html_in_another_encoding():
    page = '<meta charset="latin-1"><p>Grüße</p>'.encode("latin-1")
    assert read("a.htm", page).text == "Grüße"


def test_html_nested_without_end():
    assert read("a.html", b"<div>" * 5_000 + b"deep").text == "deep"


def test_xml_in_an_html_file_gives_no_warning():
    assert read("a.html", b'<?xml version="1.0"?><html><p>text</p></html>').text == "text"


def test_pdf():
    content = read("a.pdf", make_pdf("First page.", "Second page.", title="The  report"))
    assert content == Content("First page.\n\nSecond page.", "The report")


def test_pdf_without_title():
    assert read("a.PDF", make_pdf("Text.")).title == ""


def test_damaged_pdf_is_refused():
    with pytest.raises(UnreadableError, match="cannot be read as PDF"):
        read("a.pdf", b"%PDF-1.4 nonsense")


def test_pdf_without_text_is_refused():
    with pytest.raises(UnreadableError, match="no text; run OCR"):
        read("a.pdf", make_pdf(""))


@pytest.mark.parametrize(("name", "library"), [("a.html", "bs4"), ("a.pdf", "pypdf")])
def test_missing_library_names_the_extra(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UnreadableError, match=r"pip install 's3-retriever\[files\]'"):
        read(name, b"<p>")


def test_known_extensions():
    assert is_known(Path("A.TXT"))
    assert is_known(Path("a.pdf"))
    assert not is_known(Path("a.png"))


def test_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableError, match="No such file"):
        read_file(tmp_path / "none.txt")
