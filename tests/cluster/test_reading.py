"""Reading documents from rows, files and object storage."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3_retriever import Document, InputError, S3Error, read_files
from s3_retriever.cluster import read_documents
from s3_retriever.cluster.reading import _document, documents_of


@pytest.mark.parametrize(
    ("row", "document"),
    [
        ({"text": "A."}, Document("A.")),
        ({"text": "", "id": 7}, Document("", "7")),
        ({"text": "A.", "id": None, "metadata": None, "unit": None, "x": None}, Document("A.")),
        ({"text": "A.", "year": 2024, "id": "a"}, Document("A.", "a", {"year": 2024})),
        (
            {"text": "A.", "metadata": {"title": "T"}, "year": 1, "unit": "line"},
            Document("A.", metadata={"year": 1, "title": "T"}, unit="line"),
        ),
        ({"text": "A.", "metadata": '{"a": [1]}'}, Document("A.", metadata={"a": [1]})),
    ],
)
def test_rows(row, document):
    assert _document(row, "Row 0") == document


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"content": "A."}, r"Row 0 has no text in a column named text \(it has content\)"),
        ({"text": None}, "has no text"),
        ({"text": b"A."}, "has no text"),
        ({}, "it has nothing"),
        ("A.", "has no text"),
        ([1], "has no text"),
        ({"text": "A.", "metadata": "{"}, "metadata of Row 0 is not JSON"),
        ({"text": "A.", "metadata": [1]}, "not a mapping"),
        ({"text": "A.", "metadata": "[" * 9000}, "not JSON"),
        ({"text": "\ud800"}, "surrogate"),
        ({"text": "A.", "unit": "page"}, "unit"),
        ({"text": "A.", "x": object()}, "JSON cannot hold"),
    ],
)
def test_rows_that_hold_no_document(row, problem):
    with pytest.raises(InputError, match=problem):
        _document(row, "Row 0")


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_object_storage(memory, tmp_path):
    files = {"a/notes.md": "# Notes\n\nText.", "b.txt": "A baker.", "z.bin": "\0\0"}
    for name, text in files.items():
        memory.pipe_file(f"/bucket/{name}", text.encode())
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    rows = [{"text": "One.", "id": "1", "n": 1}, {"text": "Two."}]
    lines = "\n\n".join(map(json.dumps, rows))
    memory.pipe_file("/bucket/c.jsonl", lines.encode())
    found = list(read_documents("memory://bucket"))
    local = {d.id: d for d in read_files(tmp_path, base=tmp_path)}
    assert found[:2] == [local["a/notes.md"], local["b.txt"]]
    assert found[2:] == [Document("One.", "1", {"n": 1}), Document("Two.")]
    (alone,) = read_documents("memory://bucket/b.txt")
    assert (alone.id, alone.text) == ("b.txt", "A baker.")
    assert list(read_documents([tmp_path / "b.txt", "memory://bucket/c.jsonl"]))[1:] == found[2:]


def test_parquet(memory, tmp_path):
    rows = [{"id": f"é{n}", "text": f"Text {n}.", "n": n} for n in range(600)]
    for at, name in enumerate(("a.parquet", "b.pq")):
        pq.write_table(pa.Table.from_pylist(rows[at * 300 :][:300]), tmp_path / name)
    expected = [Document(row["text"], row["id"], {"n": row["n"]}) for row in rows]
    assert list(read_documents(tmp_path)) == expected
    assert list(read_documents(tmp_path / "*.pq")) == expected[300:]
    for name in ("a.parquet", "b.pq"):
        memory.pipe_file(f"/bucket/{name}", (tmp_path / name).read_bytes())
    assert list(read_documents("memory://bucket")) == expected
    (tmp_path / "b.pq").write_bytes(b"PAR1 nothing PAR1")
    found = read_documents(tmp_path)
    assert next(found) == expected[0]
    with pytest.raises(InputError, match=r"b\.pq cannot be read as Parquet"):
        list(found)


def test_a_dataset_of_ray(monkeypatch):
    """Rows come in order, whichever task is ready first."""

    class Dataset:
        context = SimpleNamespace(execution_options=SimpleNamespace(preserve_order=False))

        def iter_rows(self):
            assert self.context.execution_options.preserve_order
            yield {"text": "A.", "id": "a"}
            yield {"text": None}

    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace(Dataset=Dataset))
    found = documents_of(Dataset())
    assert next(found) == Document("A.", "a")
    with pytest.raises(InputError, match="Row 1 has no text"):
        next(found)


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("memory://nowhere", "no files at memory://nowhere"),
        ("quark://bucket", "quark://bucket cannot be read"),
        ("nowhere.parquet", "does not exist"),
        ("", "must be a str"),
        (7, "must be in a list"),
        ([7], "must be a str"),
        ("memory://bad/x.jsonl", r"Line 1 of /bad/x\.jsonl is not JSON"),
    ],
)
def test_places_that_cannot_be_read(place, problem, memory):
    memory.pipe_file("/bad/x.jsonl", b"{")
    with pytest.raises(S3Error, match=problem):
        list(read_documents(place))
