"""Readers of tables, notebooks, Word and EPUB, and of hostile archives."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from s3_retriever.files import UnreadableError, contents, place, read_files, reader_for
from s3_retriever.files import archive as archives


def read(name: str, data: bytes):
    return reader_for(Path(name))(data)


def zipped(files: dict[str, str]) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("a.csv", "id,customer,total\n1,Ann,3\n", "(id, customer, total)"),
        ("a.csv", "id;customer\n1;Ann\n", "(id, customer)"),
        ("a.tsv", "id\tcustomer\n1\tAnn\n", "(id, customer)"),
        ("a.csv", '"Last, first",age\n"Ng, Ann",3\n', "(Last, first, age)"),
        ("a.csv", ",name,age\n0,Ann,3\n", "(name, age)"),
        ("a.csv", "\n\nname,age\nAnn,3\n", "(name, age)"),
        ("a.csv", "sep=;\r\nname;age\r\nNg, Ann;3\r\n", "(name, age)"),
        ("a.csv", "1,Ann\n2,Bo\n", ""),
        ("a.csv", "Ann,ann@example.com\n", ""),
        ("a.csv", "name,name\nAnn,Ng\n", ""),
        ("a.csv", "one column\nx\n", ""),
        ("a.csv", "", ""),
    ],
)
def test_tables_keep_their_text_and_name_their_columns(name, text, title):
    content = read(name, text.encode())
    assert (content.text, content.title, content.unit) == (text, title, "line")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a,b\n1,"x\ny"\n2,z\n', 'a,b\n1,"x y"\n2,z\n'),
        ('a,b\r\n1,"x\r\ny"\r\n', 'a,b\r\n1,"x  y"\r\n'),
        ('a,b\n1,5" pipe\n2,7" pipe\n', 'a,b\n1,5" pipe\n2,7" pipe\n'),
        ('a,b\n1,"left open\n2,c\n', 'a,b\n1,"left open\n2,c\n'),
    ],
)
def test_a_row_is_one_line(text, rows):
    assert read("a.csv", text.encode()).text == rows


def test_many_columns_make_a_bounded_title():
    header = ",".join(f"column{'x' * 9}{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600))
    assert len(read("a.csv", header.encode()).title) < 400


def notebook(*cells: tuple[str, object]) -> bytes:
    listed = [{"cell_type": kind, "source": source} for kind, source in cells]
    listed[-1]["outputs"] = [{"text": "an output"}]
    return json.dumps({"nbformat": 4, "cells": listed}).encode()


def test_notebook_cells(tmp_path):
    data = notebook(
        ("markdown", ["# Sales\n", "By month."]), ("code", ""), ("code", "import os\nos.getcwd()")
    )
    (tmp_path / "sales.ipynb").write_bytes(data)
    cells = list(read_files(tmp_path, base=tmp_path))
    assert [(cell.id, cell.text, cell.unit, cell.title) for cell in cells] == [
        ("sales.ipynb#1", "# Sales\nBy month.", "sentence", "Sales"),
        ("sales.ipynb#3", "import os\nos.getcwd()", "line", "Sales"),
    ]
    assert place(cells[1].metadata, cells[1].text, 0) == "sales.ipynb cell 3"


@pytest.mark.parametrize("data", [b"[]", b"{}", b"{", b'{"cells": [1]}', b"[" * 100_000, b"null"])
def test_what_is_no_notebook_is_refused(tmp_path, data):
    (tmp_path / "a.ipynb").write_bytes(data)
    with pytest.raises(UnreadableError, match="not a Jupyter notebook"):
        list(contents(tmp_path / "a.ipynb"))


def word(*paragraphs: str, title: str = "", table: list[list[str]] | None = None) -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.title = title
    for text in paragraphs:
        document.add_heading(text[2:]) if text.startswith("# ") else document.add_paragraph(text)
    if table:
        rows = document.add_table(len(table), len(table[0]))
        for row, cells in zip(rows.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    data = BytesIO()
    document.save(data)
    return data.getvalue()


def test_word():
    data = word("# Pool rules", "No running.", table=[["day", "hours"], ["Monday", "9 to 5"]])
    content = read("a.docx", data)
    assert content.title == "Pool rules"
    assert content.text == "Pool rules\n\nNo running.\n\nday \thours\nMonday \t9 to 5"
    assert read("a.docx", word("Text.", title="The  title")).title == "The title"


def test_word_without_text_is_refused():
    with pytest.raises(UnreadableError, match="no text"):
        read("a.docx", word())


_OPF = """<package xmlns="http://www.idpf.org/2007/opf"><metadata
xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A  book</dc:title></metadata>
<manifest><item id="b" href="two.xhtml"/><item id="a" href="a%20one.xhtml"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""
BOOK = {
    "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>',
    "OPS/book.opf": _OPF,
    "OPS/a one.xhtml": "<html><head><title>I</title></head><body><p>First.</p></body></html>",
    "OPS/two.xhtml": "<p>Second.",
}


def test_epub_in_reading_order():
    content = read("a.epub", zipped(BOOK))
    assert (content.title, content.text) == ("A book", "First.\n\f\nSecond.")
    at = content.text.index("Second")
    assert place({"path": "a.epub"}, content.text, at) == "a.epub section 2"


def test_epub_that_lists_a_section_it_lacks():
    package = _OPF.replace("two.xhtml", "two.xhtml#top").replace(
        "<spine>", '<spine><itemref idref="lost"/>'
    )
    content = read("a.epub", zipped(BOOK | {"OPS/book.opf": package}))
    assert content.text == "First.\n\f\nSecond."


def test_protected_epub_is_refused():
    locked = '<encryption><CipherReference URI="OPS/two.xhtml"/></encryption>'
    with pytest.raises(UnreadableError, match="protected"):
        read("a.epub", zipped(BOOK | {"META-INF/encryption.xml": locked}))


def test_entities_are_not_expanded(tmp_path):
    (tmp_path / "secret").write_text("secret")

    def book(entities: str) -> bytes:
        opf = f"<!DOCTYPE package [{entities}]>{_OPF.replace('A  book', '&e9;')}"
        return zipped(BOOK | {"OPS/book.opf": opf})

    for entity in ('<!ENTITY e9 "boom">', f'<!ENTITY e9 SYSTEM "file://{tmp_path}/secret">'):
        assert read("a.epub", book(entity)).title == ""
    doubled = [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10)]
    with pytest.raises(UnreadableError, match="cannot be read as EPUB"):
        read("a.epub", book("".join(['<!ENTITY e0 "boom">', *doubled])))


@pytest.mark.parametrize("name", ["a.docx", "a.epub"])
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "damaged"),
        (b"PK\x03\x04 nonsense", "damaged"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "password or is of an old format"),
        (zipped({"a": "b"}), "cannot be read as"),
    ],
)
def test_damaged_archives_are_refused(name, data, problem):
    with pytest.raises(UnreadableError, match=problem):
        read(name, data)


def test_archives_that_unpack_to_too_much_are_refused(monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1 << 20)
    bomb = zipped(BOOK | {"OPS/two.xhtml": " " * (2 << 20)})
    assert len(bomb) < 10_000
    with pytest.raises(UnreadableError, match="unpacks to more than 1 MiB"):
        read("a.epub", bomb)
