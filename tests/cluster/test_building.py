"""Building with many workers: the index that one process makes, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from helpers.segments import tree

from s3_retriever import Document, IndexStoreError, InputError, S3Error, S3Index
from s3_retriever.cluster import building
from s3_retriever.cluster.blocks import BlockFolder
from s3_retriever.cluster.scanning import Scanner
from s3_retriever.errors import IndexLockedError
from s3_retriever.index import Store

BLOCK = 800


@pytest.fixture(scope="module")
def model(tiny_bert, tiny_codebook):
    return {"host": str(tiny_bert), "codebook": tiny_codebook, "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def documents(sentences):
    texts = [" ".join(sentences[n : n + 1 + n % 7]) for n in range(0, 200, 5)]
    documents = [Document(text, f"d{n}", {"n": n}) for n, text in enumerate(texts)]
    table = Document("a,b\nA baker,counts\n", "table", {"title": "Bread"}, unit="line")
    return [Document("", "empty"), *documents, table, Document("The same.", "é:1-2")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory, model, documents):
    path = tmp_path_factory.mktemp("one") / "one.s3r"
    with S3Index.create(path, **model) as index:
        index.add(documents)
    return path


class Here:
    """Workers of a build that are in this process, and what they scanned."""

    def __init__(self) -> None:
        self.scanned: list[int] = []

    def pool(self, job, size, gpus, blocks, bar):
        self._scanner, self._blocks = Scanner(job), blocks
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def origin(self):
        return self._scanner.origin()

    def scan(self, blocks: Iterable):
        names = []
        for block in blocks:
            if self._blocks.finished(block.name) is None:
                self._scanner.scan(block)
                self.scanned.append(block.number)
            names.append(block.name)
        return names


@pytest.fixture
def here(monkeypatch):
    here = Here()
    monkeypatch.setattr(building, "start_ray", lambda: None)
    monkeypatch.setattr(building, "_room", lambda *_, **__: 1)
    monkeypatch.setattr(building, "_Pool", here.pool)
    return here


def build(documents, path, model, **options):
    options = {"block_characters": BLOCK, "progress": False, **options}
    return building.build(documents, path, **model, **options)


def check_equal(path: Path, expected: Path):
    """The index has the same files with the same content."""
    made, wanted = Store.open(path), Store.open(expected)
    assert [segment.files for segment in made.manifest.segments] == [
        segment.files for segment in wanted.manifest.segments
    ]
    assert made.manifest.origin == wanted.manifest.origin
    made.verify()
    assert not (path / ".s3r-blocks").exists()


def interrupted(documents, after, error):
    yield from documents[:after]
    raise error


def test_workers_make_the_index_that_one_process_makes(
    cluster, documents, model, expected, tmp_path, monkeypatch
):
    """From a Parquet file, and although one of them is killed while it works."""
    killed = []

    class Watched(building._Pool):
        def scan(self, blocks):
            call = self._actors[0].__ray_call__.remote(lambda scanner: os.getpid())
            process = ray.get(call)

            def passed():
                for number, block in enumerate(blocks):
                    if number == 2:  # each of the two workers has one
                        os.kill(process, signal.SIGKILL)
                        killed.append(process)
                    yield block

            return super().scan(passed())

    monkeypatch.setattr(building, "_Pool", Watched)
    rows = [
        {"id": d.id, "text": d.text, "metadata": json.dumps(d.metadata), "unit": d.unit}
        for d in documents
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=9)
    with build(tmp_path / "d.parquet", tmp_path / "many.s3r", model, workers=2) as index:
        assert index.ids() == [document.id for document in documents]
    assert killed
    check_equal(tmp_path / "many.s3r", expected)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("the source failed")])
def test_finished_blocks_are_not_scanned_again(here, documents, model, expected, tmp_path, error):
    path = tmp_path / "a.s3r"
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        build(interrupted(documents, 30, error), path, model)
    before = list(here.scanned)
    assert len(before) > 3
    # Nobody sees an index before all of it is there.
    with pytest.raises(IndexStoreError, match="no index"):
        S3Index.open(path)
    build(iter(documents), path, model)
    assert here.scanned == sorted(set(here.scanned))
    check_equal(path, expected)


def test_documents_join_an_index_that_is_there(here, documents, model, tmp_path):
    with S3Index.create(tmp_path / "one", **model) as one:
        one.add(documents[:9])
        one.add(documents[9:])
    build(documents[:9], tmp_path / "many", model)
    build(documents[9:], tmp_path / "many", model)
    check_equal(tmp_path / "many", tmp_path / "one")
    with pytest.raises(InputError, match=r"has a document 'd3' already.*kept"):
        build([Document("New.", "new"), documents[4]], tmp_path / "many", model)
    assert len(S3Index.open(tmp_path / "many")) == len(documents)


def test_blocks_that_were_committed_are_not_added_twice(
    here, documents, model, expected, tmp_path, monkeypatch
):
    """A build that ends between its commit and its last step leaves its blocks."""
    path = tmp_path / "a.s3r"
    with monkeypatch.context() as patch:
        patch.setattr(BlockFolder, "remove", lambda self: None)
        build(documents, path, model)
    assert (path / ".s3r-blocks").exists()
    build(documents, path, model)
    check_equal(path, expected)


def test_a_document_that_occurs_twice(here, documents, model, expected, tmp_path):
    path = tmp_path / "a.s3r"
    with pytest.raises(InputError, match=r"have the id 'd2'.*finished are kept"):
        build([*documents[:35], Document("Another.", "d2"), *documents[35:]], path, model)
    scanned = len(here.scanned)
    build(documents, path, model)
    assert len(here.scanned) == len(set(here.scanned)) > scanned > 0
    check_equal(path, expected)


@pytest.mark.parametrize("damage", ["hidden.1.deltas.npy", "documents.npy", "manifest.json"])
def test_a_damaged_block_is_scanned_again(here, documents, model, expected, tmp_path, damage):
    path = tmp_path / "a.s3r"
    with pytest.raises(RuntimeError):
        build(interrupted(documents, 30, RuntimeError()), path, model)
    file = sorted((path / ".s3r-blocks").rglob(damage))[1]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    if "deltas" in damage:  # compared when it is copied
        with pytest.raises(IndexStoreError, match="damaged and is removed"):
            build(documents, path, model)
        assert not (path / "manifest.json").exists()
    scanned = len(here.scanned)
    build(documents, path, model)
    assert len(here.scanned) > scanned
    check_equal(path, expected)


def test_two_builds_on_one_path(here, documents, model, tmp_path):
    with BlockFolder(tmp_path / "a").reserved(), pytest.raises(IndexLockedError, match="Another"):
        build(documents, tmp_path / "a", model)
    assert not (tmp_path / "a").exists()
    build(documents[:3], tmp_path / "a", model)


def test_a_path_that_is_not_shared(here, documents, model, tmp_path, monkeypatch):
    blocks = BlockFolder(tmp_path)
    with blocks.reserved(), blocks.witness() as witness:
        blocks.check_shared(witness, "here")
        with pytest.raises(IndexStoreError, match=r"machine there does not see.*share"):
            BlockFolder(tmp_path / "mine").check_shared(witness, "there")
        monkeypatch.setattr("s3_retriever.cluster.blocks._VISIBLE_SECONDS", 0.1)
        with pytest.raises(IndexStoreError, match=r"that this machine does not see.*share"):
            blocks.check_visible("f00d")


def test_machines_with_another_codebook(here, documents, model, tmp_path, monkeypatch):
    def scan(self, block):
        Scanner.scan(self._scanner, block._replace(name="0" * 32))

    monkeypatch.setattr(Here, "scan", lambda self, blocks: [scan(self, b) for b in blocks])
    with pytest.raises(IndexStoreError, match="has another host, codebook"):
        build(documents, tmp_path / "a", model)


def test_an_index_made_differently(here, documents, model, expected, tmp_path):
    with pytest.raises(IndexStoreError, match="another recipe; build with the same"):
        build(documents, expected, model, recipe="paper")


def test_no_documents_make_an_empty_index(here, model, tmp_path):
    assert len(build([], tmp_path / "a", model)) == 0
    assert len(build(iter(()), tmp_path / "a", model)) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"path": "s3://bucket/index"}, "is a URL"),
        ({"path": ""}, "must be a str"),
        ({"documents": 7}, "must be in a list"),
        ({"documents": [b"bytes"]}, "decode it"),
        ({"documents": {"a": 1}}, "must be in a list"),
        ({"documents": Path("nowhere.parquet")}, "does not exist"),
        ({"documents": "nowhere/*.txt"}, "nowhere"),
        ({"workers": 0}, "workers must be"),
        ({"threads": 1.5}, "threads must be"),
        ({"block_characters": True}, "block_characters must be"),
        ({"gpus": -1}, "gpus must be"),
        ({"gpus": "one"}, "gpus must be"),
        ({"host": 5}, "host must be"),
        ({"host": "nowhere"}, "nowhere"),
        ({"codebook": 5}, "codebook must be"),
        ({"recipe": "wrong"}, "wrong"),
        ({"progress": "yes"}, "progress must be"),
    ],
)
def test_arguments(here, documents, model, tmp_path, arguments, problem):
    arguments = {"documents": documents[:2], "path": tmp_path / "a", **model, **arguments}
    with pytest.raises(S3Error, match=problem):
        building.build(**arguments)
    assert not (tmp_path / "a").exists()


def test_a_folder_in_use_is_refused(here, documents, model, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(IndexStoreError, match="in use"):
        build(documents, tmp_path, model)
    assert tree(tmp_path) == before
