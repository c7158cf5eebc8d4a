"""Indexes in object storage: copied once, checked, and only read."""

from __future__ import annotations

import pickle
import sys

import fsspec
import pytest
from helpers.segments import tree

from s3_retriever import IndexStoreError, S3Error, S3Index
from s3_retriever.index import mirroring

QUESTION = "Who mends warm bread?"


@pytest.fixture(scope="module")
def model(tiny_bert, tiny_codebook):
    return {"host": str(tiny_bert), "codebook": tiny_codebook, "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, model, sentences):
    path = tmp_path_factory.mktemp("made") / "a.s3r"
    with S3Index.create(path, **model) as index:
        index.add(sentences[:30])
        index.add(sentences[30:50])
        index.delete(index.ids()[3])
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(mirroring, "user_cache_path", lambda _: tmp_path / "cache")
    return tmp_path / "cache" / "indexes"


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def put(system, path, at="/bucket/a.s3r"):
    for name, content in tree(path).items():
        system.pipe_file(f"{at}/{name}", content)


def found(index):
    return [(span.id, span.score) for span in index.search(QUESTION, 5)]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_an_index_is_read_from_object_storage(kind, made, model, memory, cache):
    put(memory, made)
    url = "memory://bucket/a.s3r" if kind == "memory" else made.as_uri()
    with S3Index.open(url, **model) as index, S3Index.open(made, **model) as local:
        assert index.ids() == local.ids()
        assert found(index) == found(local)
        assert index.verify(progress=False).strangers == ()
        for change in (
            lambda: index.add("New."),
            lambda: index.delete(index.ids()[0]),
            lambda: index.compact(),
        ):
            with pytest.raises(IndexStoreError, match="can only be read"):
                change()
        assert found(pickle.loads(pickle.dumps(index))) == found(local)
    # Nothing is fetched again but the manifest.
    before = {file: file.stat().st_mtime_ns for file in (cache / "files").iterdir()}
    S3Index.open(url + "/", **model).close()
    assert {file: file.stat().st_mtime_ns for file in (cache / "files").iterdir()} == before


def test_a_later_state_fetches_what_is_new(made, model, memory, cache, tmp_path):
    put(memory, made)
    S3Index.open("memory://bucket/a.s3r", **model).close()
    S3Index.open(made, **model).save(tmp_path / "b")
    with S3Index.open(tmp_path / "b", **model) as index:
        index.add("A new one.")
    put(memory, tmp_path / "b")
    with S3Index.open("memory://bucket/a.s3r", **model) as index:
        assert len(index) == 50


def test_a_damaged_cache_is_fetched_again(made, model, memory, cache):
    put(memory, made)
    S3Index.open("memory://bucket/a.s3r", **model).close()
    for file in cache.rglob("documents.npy"):
        file.write_bytes(bytes(file.stat().st_size))
    next(cache.rglob("text.bin")).unlink()
    with S3Index.open("memory://bucket/a.s3r", **model) as index:
        assert found(index)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: content[:-1], r"is damaged \(it has"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "does not match its checksum"),
        (None, "it is not there"),
    ],
)
@pytest.mark.parametrize("name", ["text.bin", "manifest.json"])
def test_damaged_objects(made, model, memory, cache, name, damage, problem):
    put(memory, made)
    file = next(file for file in memory.find("/bucket") if file.endswith(name))
    if damage:
        memory.pipe_file(file, damage(memory.cat_file(file)))
    else:
        memory.rm_file(file)
    if name == "manifest.json":
        problem = "There is no index at memory://bucket" if damage is None else "is damaged"
    with pytest.raises(IndexStoreError, match=problem) as caught:
        S3Index.open("memory://bucket/a.s3r", **model)
    assert "memory://bucket/a.s3r" in str(caught.value)
    assert not [file for file in (cache / "files").glob("*") if len(file.name) != 64]


def test_a_writer_that_merges_meanwhile(made, model, memory, cache, tmp_path, monkeypatch):
    """The manifest was read, and then the index was replaced."""
    put(memory, made)
    S3Index.open(made, **model).save(tmp_path / "b")
    manifest, reads = mirroring._manifest, []

    def read(*arguments):
        reads.append(manifest(*arguments))
        if len(reads) == 1:
            memory.rm("/bucket/a.s3r", recursive=True)
            put(memory, tmp_path / "b")
        return reads[-1]

    monkeypatch.setattr(mirroring, "_manifest", read)
    with S3Index.open("memory://bucket/a.s3r", **model) as index:
        assert len(index) == 49
    assert len(reads) == 3


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("memory://nowhere", "There is no index at memory://nowhere"),
        ("file:///nowhere/at/all", "There is no index at file:///nowhere"),
        ("FILE:///nowhere/at/all", "There is no index at FILE:///nowhere"),
        ("simplecache::memory://nowhere", "There is no index at simplecache::memory://nowhere"),
        ("quark://bucket/a", "quark://bucket/a cannot be read"),
        ("s3://bucket/a", "no driver for s3://.*s3fs"),
        ("memory://", "There is no index at memory://"),
    ],
)
def test_addresses(url, problem, memory, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(S3Error, match=problem):
        S3Index.open(url)


def test_without_fsspec(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(S3Error, match=r"fsspec; install it with: pip install 's3-retriever\[remo"):
        S3Index.open("memory://bucket/a.s3r")


def test_a_cache_that_cannot_be_written(made, model, memory, cache, tmp_path):
    put(memory, made)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(IndexStoreError, match=r"Writing .* failed"):
        S3Index.open("memory://bucket/a.s3r", **model)
