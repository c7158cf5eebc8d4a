"""`S3Index.save`: a copy on disk of an index in memory or elsewhere."""

from __future__ import annotations

import pytest

from s3_retriever import Document, Host, IndexStoreError, S3Index

QUESTION = "Who mends warm bread?"


@pytest.fixture(scope="module")
def model(tiny_bert, tiny_codebook):
    host = Host.load(str(tiny_bert), device="cpu", dtype="float32")
    return {"host": host, "codebook": tiny_codebook}


@pytest.fixture
def index(model, sentences):
    index = S3Index.create(**model)
    index.add([Document(sentence, str(n)) for n, sentence in enumerate(sentences[:40])])
    index.add([Document("A baker mends warm bread.", "bread", {"year": 2024})])
    index.delete(["3", "4"])
    return index


def test_a_copy_finds_the_same(index, model, tmp_path):
    index.save(tmp_path / "copy.s3r")
    with S3Index.open(tmp_path / "copy.s3r", **model) as copy:
        assert copy.ids() == index.ids()
        assert copy.recipe == index.recipe
        spans, expected = copy.search(QUESTION, 20), index.search(QUESTION, 20)
        assert [span.id for span in spans] == [span.id for span in expected]
        scores = [span.score for span in expected]
        assert [span.score for span in spans] == pytest.approx(scores)
        assert copy.search(QUESTION, where={"year": 2024})[0].document_id == "bread"
        assert copy.verify(progress=False).strangers == ()


def test_a_copy_is_of_its_own(index, model, tmp_path):
    index.save(tmp_path / "copy.s3r")
    index.delete("bread")
    with S3Index.open(tmp_path / "copy.s3r", **model) as copy:
        assert "bread" in copy.ids()
        copy.add(Document("New.", "new"))
        copy.save(tmp_path / "second.s3r")
    assert "new" not in index.ids()
    with S3Index.open(tmp_path / "second.s3r", **model) as second:
        assert {"bread", "new"} <= set(second.ids())


def test_an_empty_index(model, tmp_path):
    S3Index.create(**model).save(tmp_path / "copy.s3r")
    with S3Index.open(tmp_path / "copy.s3r", **model) as copy:
        assert len(copy) == 0


def test_a_folder_in_use_is_refused(index, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(IndexStoreError, match="in use"):
        index.save(tmp_path)
