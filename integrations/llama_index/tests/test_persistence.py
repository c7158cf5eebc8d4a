"""`S3Retriever` on disk."""

from __future__ import annotations

import json

import pytest
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from s3_retriever import S3Index
from s3_retriever.index import Store

from llama_index.retrievers.s3_attention import S3Retriever


def year(value, operator="=="):
    return MetadataFilters(filters=[MetadataFilter(key="year", value=value, operator=operator)])


def test_a_reopened_retriever_is_the_same(nodes, tmp_path):
    retriever = S3Retriever.from_defaults(
        nodes=nodes,
        similarity_top_k=3,
        token_budget=60,
        mode="bm25",
        order="document",
        unique=False,
        filters=MetadataFilters(filters=[year(2021), year([2022, 2024], "in")], condition="or"),
    )
    before = retriever.retrieve("release leave lunch")
    assert before
    retriever.persist(tmp_path / "kept")
    retriever.index.close()
    again = S3Retriever.from_persist_dir(tmp_path / "kept")
    for name in ("similarity_top_k", "token_budget", "mode", "order", "unique", "filters"):
        assert getattr(again, name) == getattr(retriever, name)
    assert again.retrieve("release leave lunch") == before


def test_what_is_on_disk_is_json_and_arrays(nodes, tmp_path):
    S3Retriever.from_defaults(nodes=nodes).persist(str(tmp_path))
    kept = json.loads((tmp_path / "retriever.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept["index"], "retriever.json"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    # The lock of whoever writes next is empty.
    suffixes = {path.suffix for path in files if path.stat().st_size or path.suffix != ".lock"}
    assert suffixes <= {".json", ".jsonl", ".npy", ".bin"}


def test_persisting_again_replaces_what_was_there(nodes, tmp_path):
    (tmp_path / "docstore.json").write_text("{}")
    S3Retriever.from_defaults(nodes=nodes[:1]).persist(tmp_path)
    S3Retriever.from_defaults(nodes=nodes[1:], similarity_top_k=1).persist(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    again = S3Retriever.from_persist_dir(tmp_path)
    assert again.similarity_top_k == 1
    assert again.index.ids() == ["releases", "laptops", "canteen"]


def test_an_opened_retriever_persists_in_place(nodes, tmp_path):
    S3Retriever.from_defaults(nodes=nodes[1:]).persist(tmp_path)
    again = S3Retriever.from_persist_dir(tmp_path)
    again.add_nodes(nodes[:1])
    again.mode = "bm25"
    again.persist(tmp_path)
    third = S3Retriever.from_persist_dir(tmp_path)
    assert (third.mode, len(third.index)) == ("bm25", 4)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_persist_leaves_what_was_there(nodes, tmp_path, monkeypatch):
    S3Retriever.from_defaults(nodes=nodes[:1]).persist(tmp_path)
    retriever = S3Retriever.from_defaults(nodes=nodes[1:])
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(S3Index, "save", _full)
        retriever.persist(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert S3Retriever.from_persist_dir(tmp_path).index.ids() == ["leave"]


def _full(_index, target):
    target.mkdir()
    raise OSError("disk full")


def test_a_change_while_it_is_copied_does_not_tear_the_copy(nodes, tmp_path, monkeypatch):
    retriever = S3Retriever.from_defaults(nodes=nodes[1:], path=tmp_path / "own.s3r")
    create = Store.create

    def change_then_create(*args, **options):
        retriever.add_nodes(nodes[:1])
        retriever.index.delete("canteen")
        retriever.index.compact()
        return create(*args, **options)

    monkeypatch.setattr(Store, "create", change_then_create)
    retriever.persist(tmp_path / "kept")
    again = S3Retriever.from_persist_dir(tmp_path / "kept")
    assert again.index.ids() == ["releases", "laptops", "canteen"]
    assert "soup" in again.retrieve("What is there on Fridays at the canteen?")[0].text
    again.index.verify()


def test_an_index_in_memory_is_persisted(nodes, tmp_path):
    index = S3Index.create()
    retriever = S3Retriever.from_defaults(index)
    retriever.add_nodes(nodes)
    before = retriever.retrieve("release leave lunch")
    retriever.persist(tmp_path)
    index.close()
    assert S3Retriever.from_persist_dir(tmp_path).retrieve("release leave lunch") == before


def test_an_index_that_persist_did_not_copy_is_never_removed(nodes, tmp_path):
    S3Retriever.from_defaults(nodes=nodes[:1], path=tmp_path / "own.s3r").persist(tmp_path)
    assert S3Retriever.from_persist_dir(tmp_path).index.path == tmp_path / "own.s3r"
    S3Retriever.from_defaults(nodes=nodes[1:]).persist(tmp_path)
    assert len(S3Index.open(tmp_path / "own.s3r")) == 1
    assert len(S3Retriever.from_persist_dir(tmp_path).index) == 3


@pytest.mark.parametrize("name", ["..", "../elsewhere", "/tmp", ""])
def test_the_file_cannot_name_an_index_elsewhere(nodes, tmp_path, name):
    retriever = S3Retriever.from_defaults(nodes=nodes[:1])
    retriever.persist(tmp_path)
    kept = json.loads((tmp_path / "retriever.json").read_text())
    (tmp_path / "retriever.json").write_text(json.dumps(kept | {"index": name}))
    for use in (S3Retriever.from_persist_dir, retriever.persist):
        with pytest.raises(ValueError, match="not in the retriever's folder"):
            use(tmp_path)


def test_there_is_no_retriever(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no retriever\.json"):
        S3Retriever.from_persist_dir(tmp_path)
    (tmp_path / "retriever.json").write_text('{"schema_version": 2}')
    with pytest.raises(ValueError, match="newer release"):
        S3Retriever.from_persist_dir(tmp_path)
