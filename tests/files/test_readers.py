"""Readers: bytes to text and title."""

from __future__ import annotations

import re
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest

from s3_retriever.files import Content, UnreadableError, contents, reader_for


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


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("a.txt", "sentence"),
        ("a.rst", "sentence"),
        ("a.unknown", "sentence"),
        ("Makefile", "sentence"),
        ("a.py", "line"),
        ("a.log", "line"),
        ("a.JSON", "line"),
    ],
)
def test_text_is_kept_as_it_is(name, unit):
    assert read(name, "Grüße,\r\nzwei".encode()) == Content("Grüße,\r\nzwei", unit=unit)


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
        ("- towels\n- soap\n---\nText.", ""),
        ("> # Quoted\n\n> quoted\n---\nText.", ""),
        ("````\n```\n# inside\n````\n# Outside", "Outside"),
        ("Two\nlines\n---\n", "Two lines"),
        ("## The *big* [pool](x) `a` &amp; b", "The big pool a & b"),
        ('<h1 align="center">The <b>pool</b></h1>\n\n## Install', "The pool"),
        ("<!-- # no -->\n\n# Yes", "Yes"),
        ("---\n\n# Between rules\n\n---\n", "Between rules"),
        ("---\n\nNote: between rules\n\n---\n# Pool", "Pool"),
        ("# [The pool][1]\n\n[1]: http://pool.example", "The pool"),
        ("---\ntitle: not closed\n", ""),
    ],
)
def test_markdown_title(text, title):
    assert read("a.md", text.encode()) == Content(text, title)


@pytest.mark.parametrize(
    ("text", "title", "metadata"),
    [
        ("---\ntitle: Pool rules\ndraft: false\n---\n# Other\n", "Pool rules", {"draft": False}),
        ("---\r\nlayout: post\r\n---\r\n# Pool\r\n", "Pool", {"layout": "post"}),
        ("\ufeff---\ndate: 2024-01-02\n...\n# Pool", "Pool", {"date": "2024-01-02"}),
        ("+++\ntitle = 'Pool'\n[a]\nb = 1.5\n+++\nText", "Pool", {"a": {"b": 1.5}}),
        ("---\ntitle: Pool: the rules\n---\nText", "Pool: the rules", {}),
        ("---\ntitle:\ntags: [a, .nan]\n---\n# Pool", "Pool", {"tags": ["a", "nan"]}),
        ("---\na: !!python/name:os.system x\n---\n# Pool", "Pool", None),
        ("---\nbroken: [\n---\n# Pool", "Pool", {"broken": "["}),
        (f"---\nn: {10**400}\n---\n# Pool", "Pool", {"n": str(10**400)}),
        ('---\nodd: "\\ud800"\n1: 2\n---\n# Pool', "Pool", {"odd": "?", "1": 2}),
    ],
)
def test_front_matter(text, title, metadata):
    content = read("a.md", text.encode())
    assert content.title == title
    assert metadata is None or content.metadata == metadata
    # Its lines are blank, so that line numbers are the file's.
    assert content.text.count("\n") == text.count("\n")
    assert "---" not in content.text
    assert "+++" not in content.text


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


@pytest.mark.parametrize(
    ("page", "title", "text"),
    [
        ("<head><title>Pool</title><body><p>Nine.", "Pool", "Nine."),
        ("<HTML><HEAD><TITLE>Pool</TITLE><P>Nine.<P>Ten.", "Pool", "Nine.\n\nTen."),
        ("<title>Pool</title><ul><li>Nine<li>Ten</ul>Open", "Pool", "Nine\n\nTen\n\nOpen"),
        ("<nav><li>Home</nav><main>Nine.", "", "Nine."),
        ("<nav><li>Home<main>Nine.", "", "Home\nNine."),
        ("<template>Row</template>Nine.", "", "Nine."),
        ("<head><template><p>Nine.", "", "Nine."),
        ("<h2>Two</h2><h1>The <i>pool</i></h1>", "The pool", "Two\n\nThe pool"),
        ("<title> </title><h1> </h1><h3>Pool</h3>", "Pool", "Pool"),
        ("<svg><title>Icon</title></svg><h1>Pool</h1>", "Pool", "Pool"),
        ("<nav><h1>Menu</h1></nav><p hidden>a<p style='display: NONE'>b<p>c", "", "c"),
        ("<body style='display:none'>Nine.", "", "Nine."),
        ("<title>a &amp; b</title>&eacute;&nbsp;&#8364;&bogus;", "a & b", "é €&bogus;"),
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>", "", "a b\n\nc d"),
        ("a <b> b </b>\n c<!-- no", "", "a b c"),
        ("<p>Before<nav>Menu</nav>after", "", "Before\n\nafter"),
        ("<?xml version='1.0'?><html><head><title/></head><p>Nine.", "", "Nine."),
        ("<html xmlns='http://www.w3.org/1999/xhtml'><script src='a'/>Nine.", "", "Nine."),
    ],
)
def test_html_is_recovered_as_browsers_do(page, title, text):
    content = read("a.html", page.encode())
    assert (content.title, content.text) == (title, text)


@pytest.mark.parametrize(
    "page", ["", "<nav>Menu</nav>", "<script>a = 1", "<!-- a", "<title>a", "<img src=a.png>"]
)
def test_html_without_text_is_refused(page):
    with pytest.raises(UnreadableError, match="has no text"):
        read("a.html", page.encode())


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ('<meta charset="latin-1"><p>“Grüße”', "cp1252"),
        ('<meta charset="Shift_JIS"><p>日本語', "shift_jis"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=koi8-r"><p>Привет', "koi8-r"),
        ('<?xml version="1.0" encoding="iso-8859-2"?><p>Příliš', "iso-8859-2"),
        ('<meta charset="iso-2022-jp"><p>日本語', "iso-2022-jp"),
        ('<meta charset="latin-1"><p>Grüße', "utf-8"),
        ('<meta charset="utf-8"><p>Grüße', "utf-16"),
        ('<meta charset="bogus"><p>Grüße', "cp1252"),
        ('<meta charset="rot13"><p>Gruesse', "ascii"),
        ("<p>Grüße", "utf-8"),
    ],
)
def test_html_in_any_encoding(page, encoding):
    assert read("a.htm", page.encode(encoding)).text == page.partition("<p>")[2]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("The fee is 5 € \u2013 see \u2018notes\u2019.", "cp1252"),
        ("El niño comió “churros” en España…", "cp1252"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy", "cp1250"),
        ("Договор подписан в Москве вчера вечером.", "cp1251"),
        ("日本語の文章です。今日は天気がいいです。", "cp932"),
    ],
)
def test_the_advice_on_another_encoding_gives_the_text(text, encoding):
    with pytest.raises(UnreadableError) as refused:
        read("a.txt", text.encode(encoding))
    advised = re.search(r"iconv -f (\S+) -t utf-8", str(refused.value))
    assert advised
    assert text.encode(encoding).decode(advised[1]) == text


HOSTILE = {
    "blanks.html": "<pre>a" + " " * 80_000 + "b</pre>",
    "quotes.html": "<a x='" * 10_000 + "'>b",
    "nested.html": "<div>" * 30_000 + "b",
    "formatting.html": "".join(f"<p><font size={i}>b" for i in range(5_000)),
    "heading.md": "# a" + " " * 20_000 + "b",
    "lists.md": "---\na: " + "[" * 30_000 + "\n---\n# b",
    "aliases.md": "---\na0: &a0 [x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    + "---\nb",
    "quotes.csv": 'a,b\n1,"' + "b\n" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear_in_the_input(name):
    began = time.process_time()
    assert "b" in read(name, HOSTILE[name].encode()).text
    assert time.process_time() - began < 3


def test_html_nested_without_end():
    assert read("a.html", b"<div>" * 5_000 + b"deep").text == "deep"


def test_xml_in_an_html_file_gives_no_warning():
    assert read("a.html", b'<?xml version="1.0"?><html><p>text</p></html>').text == "text"


def test_pdf():
    content = read("a.pdf", make_pdf("First page.", "Second page.", title="The  report"))
    assert content == Content("First page.\n\f\nSecond page.", "The report")


def test_pdf_without_title():
    assert read("a.PDF", make_pdf("Text.")).title == ""


def test_damaged_pdf_is_refused():
    with pytest.raises(UnreadableError, match="cannot be read as PDF"):
        read("a.pdf", b"%PDF-1.4 nonsense")


def test_pdf_without_text_is_refused():
    with pytest.raises(UnreadableError, match="no text; run OCR"):
        read("a.pdf", make_pdf(""))


@pytest.mark.parametrize(
    ("name", "library"), [("a.docx", "docx"), ("a.epub", "lxml"), ("a.pdf", "pypdf")]
)
def test_missing_library_names_the_extra(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UnreadableError, match=r"pip install 's3-retriever\[files\]'"):
        read(name, b"<p>")


def test_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableError, match="No such file"):
        list(contents(tmp_path / "none.txt"))
