"""Files and folders to documents, and what an index knows of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from s3_retriever import InputError
from s3_retriever.files import KnownFiles, find_files, place, read_files, reading


def read(folder: Path):
    """Documents by id, and reasons by name of the files that are skipped."""
    skipped = {}
    documents = read_files(
        folder, base=folder, on_skip=lambda file: skipped.setdefault(file.path.name, file.reason)
    )
    return {document.id: document for document in documents}, skipped


def test_titles_and_units(tmp_path):
    (tmp_path / "plain.txt").write_text("Some text.")
    (tmp_path / "orders.csv").write_text("id,customer,total\n1,Ann,3\n")
    (tmp_path / "app.py").write_text("import os\n")
    (tmp_path / "rules.md").write_text("---\ntitle: Pool\npath: elsewhere\nyear: 2024\n---\nText.")
    documents, skipped = read(tmp_path)
    assert {name: (document.title, document.unit) for name, document in documents.items()} == {
        "app.py": ("app.py", "line"),
        "orders.csv": ("orders.csv (id, customer, total)", "line"),
        "plain.txt": ("plain", "sentence"),
        "rules.md": ("Pool", "sentence"),
    }
    metadata = documents["rules.md"].metadata
    assert (metadata["path"], metadata["year"], metadata["bytes"]) == ("rules.md", 2024, 52)
    assert not skipped


def test_skipped_files_are_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 1_000)
    for name, data in {
        "big.txt": b"x" * 2_000,
        "binary.txt": b"a\0b",
        "blank.html": b"<nav>Menu</nav>",
        "blank.txt": b" \n",
        "empty.pdf": b"",
        "latin.txt": b"caf\xe9",
        "sheet.xlsx": b"PK\x03\x04\0\0",
    }.items():
        (tmp_path / name).write_bytes(data)
    documents, skipped = read(tmp_path)
    assert not documents
    assert {name: reason.split(";")[0] for name, reason in skipped.items()} == {
        "big.txt": "it is larger than 0 MiB",
        "binary.txt": "it is binary, with a NUL byte at offset 1",
        "blank.html": "it has no text",
        "blank.txt": "it has no text.",
        "empty.pdf": "it cannot be read as PDF (Cannot read an empty file)",
        "latin.txt": "it is not UTF-8, the byte at offset 3 is invalid",
        "sheet.xlsx": "it is binary, and files of type .xlsx are not read",
    }


def test_skipped_files_are_logged_by_default(tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    (tmp_path / "a.png").write_bytes(b"a\0b")
    with caplog.at_level(logging.WARNING):
        assert list(read_files(tmp_path)) == []
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == [
        f"{tmp_path}/a.txt is skipped"
    ]


def test_paths_are_checked_before_the_first_document():
    with pytest.raises(InputError, match="no file or folder"):
        read_files("nowhere")


def test_records(tmp_path):
    records = [
        {"text": "One.", "title": "First", "id": "r1", "year": 2024, "metadata": {"tag": "x"}},
        {"text": "Two."},
        {"title": "no text"},
        {"text": "Four.", "id": "r1"},
        {"text": "Five.", "id": 5, "metadata": "none"},
        {"text": "Six.", "id": True},
    ]
    lines = [json.dumps(record) for record in records]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines[:2], "", *lines[2:], "{"]))
    (tmp_path / "blank.jsonl").write_text('{"text": " "}')
    documents, skipped = read(tmp_path)
    assert list(documents) == ["r1", "a.jsonl#2", "5", "a.jsonl#7"]
    assert documents["r1"].metadata.items() >= {
        "title": "First", "year": 2024, "tag": "x", "line": 1, "path": "a.jsonl"
    }.items()  # fmt: skip
    assert "title" not in documents["a.jsonl#2"].metadata
    assert place(documents["5"].metadata, "Five.", 0) == "a.jsonl:6"
    assert "line 4 is not a JSON object" in skipped["a.jsonl"]
    assert skipped["blank.jsonl"] == "line 1 has no text."


def test_not_a_number_in_records_is_null(tmp_path):
    """Python's json writes NaN where a value is missing."""
    (tmp_path / "a.jsonl").write_text('{"text": "One.", "id": NaN, "score": NaN}')
    (tmp_path / "chat.json").write_text('[{"speaker": "Ann", "text": "Hi.", "id": NaN}]')
    documents, skipped = read(tmp_path)
    assert (list(documents), skipped) == (["a.jsonl#1", "chat.json#1"], {})
    assert documents["a.jsonl#1"].metadata["score"] is None


def test_json_lines_that_are_no_records_are_lines(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"level": "info"}\n{"text": "x"}\n')
    documents, skipped = read(tmp_path)
    assert documents["log.jsonl"].unit == "line"
    assert not skipped


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_mark(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("Zoë €", encoding=encoding)
    (tmp_path / "a.jsonl").write_text('{"text": "Zoë €"}', encoding=encoding)
    (tmp_path / "a.html").write_text("<p>Zoë €", encoding=encoding)
    documents, _ = read(tmp_path)
    assert {document.text for document in documents.values()} == {"Zoë €"}
    assert len(documents) == 3


@pytest.mark.parametrize(
    ("path", "text", "where"),
    [
        ("a.md", "one\ntwo\nthree", "a.md:2"),
        ("a.txt", "\r\ntwo", "a.txt:2"),
        ("a.pdf", "one\n\f\ntwo", "a.pdf p. 2"),
        ("a.html", "one\ntwo", "a.html"),
        ("a.docx", "one\ntwo", "a.docx"),
    ],
)
def test_places(path, text, where):
    assert place({"path": path}, text, text.index("two")) == where
    assert place({}, text, 0) is None


class Index:
    """What an index remembers of documents, without their features."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.documents: dict[str, dict] = {}

    def sync(self, *paths: Path | str, drop_gone: bool = True):
        known = KnownFiles(self.documents.items(), self.base)
        found = find_files(paths)
        added = list(
            read_files(found, base=self.base, is_known=known.is_known, on_skip=known.on_skip)
        )
        self.documents |= {document.id: dict(document.metadata) for document in added}
        stale = known.stale(found, drop_gone=drop_gone)
        for document_id in stale:
            del self.documents[document_id]
        return sorted(document.id for document in added), sorted(stale)


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs/sub").mkdir(parents=True)
    for name in ("docs/a.txt", "docs/b.md", "docs/sub/c.txt", "top.txt"):
        (tmp_path / name).write_text(name)
    index = Index(tmp_path)
    assert index.sync("docs", "top.txt") == (
        ["docs/a.txt", "docs/b.md", "docs/sub/c.txt", "top.txt"],
        [],
    )
    return index


def test_the_same_folder_written_otherwise_is_unchanged(index, monkeypatch):
    for path in ("docs", "./docs/", index.base / "docs", "docs/../docs"):
        assert index.sync(path) == ([], [])
    monkeypatch.chdir(index.base / "docs")
    for path in (".", "../docs", "a.txt"):
        assert index.sync(path) == ([], [])


def test_changed_renamed_and_gone_files(index):
    (index.base / "docs/a.txt").write_text("changed")
    (index.base / "docs/b.md").rename(index.base / "docs/renamed.md")
    (index.base / "docs/sub/c.txt").unlink()
    assert index.sync("docs") == (
        ["docs/a.txt", "docs/renamed.md"],
        ["docs/b.md", "docs/sub/c.txt"],
    )
    assert "top.txt" in index.documents
    assert index.sync("docs") == ([], [])


def test_adding_drops_no_files(index):
    (index.base / "docs/a.txt").unlink()
    assert index.sync("docs", drop_gone=False) == ([], [])


def test_ignored_files_are_dropped_and_unreadable_ones_kept(index):
    (index.base / "docs/.gitignore").write_text("a.txt")
    (index.base / "docs/b.md").write_bytes(b"\0")
    assert index.sync("docs") == ([], ["docs/a.txt"])


def test_what_is_below_a_folder_that_cannot_be_read_is_kept(index, monkeypatch):
    listed = Path.iterdir

    def refuse(folder):
        if folder.name == "sub":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert index.sync("docs") == ([], [])


def test_parts_that_a_file_has_no_more_are_dropped(index):
    path = index.base / "docs/r.jsonl"
    path.write_text('{"text": "One.", "id": "x"}\n{"text": "Two."}\n{"text": "Three."}\n')
    assert index.sync("docs") == (["docs/r.jsonl#2", "docs/r.jsonl#3", "x"], [])
    del index.documents["docs/r.jsonl#2"]  # as after an interruption
    assert index.sync("docs") == (["docs/r.jsonl#2"], [])
    path.write_text('{"text": "One."}\n{"text": "Two."}\n')
    assert index.sync("docs", drop_gone=False) == (
        ["docs/r.jsonl#1", "docs/r.jsonl#2"],
        ["docs/r.jsonl#3", "x"],
    )


def test_documents_by_what_a_search_prints(index):
    (index.base / "docs/r.jsonl").write_text('{"text": "One.", "id": "x"}\n{"text": "Two."}\n')
    index.sync("docs")
    known = KnownFiles(index.documents.items(), index.base)
    for name in ("docs/a.txt", "docs/a.txt:1", "docs/a.txt:3-9", str(index.base / "docs/a.txt")):
        assert known.documents_at(name) == ["docs/a.txt"]
    assert known.documents_at("docs/r.jsonl:1") == known.documents_at("x") == ["x"]
    assert known.documents_at("docs/r.jsonl") == ["x", "docs/r.jsonl#2"]
    assert known.documents_at("nothing:1") == []
