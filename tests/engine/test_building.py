"""`new_index`: filled, or not there."""

from __future__ import annotations

import pytest

from s3_retriever import IndexStoreError, InputError, S3Index, new_index


@pytest.fixture
def made(tiny_bert, tiny_codebook):
    return {"host": str(tiny_bert), "codebook": tiny_codebook}


@pytest.mark.parametrize("path", [None, "book.s3r"])
def test_the_index_stays_open(path, made, tmp_path):
    with new_index(path and tmp_path / path, **made) as index:
        index.add("Seven boats lie in the harbour.")
    assert len(index.search("boats")) == 1


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_after_an_error_the_path_is_as_it_was(existed, error, made, tmp_path, monkeypatch):
    path = tmp_path / "book.s3r"
    if existed:
        path.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error), new_index("book.s3r", **made) as index:
        index.add("Seven boats lie in the harbour.")
        raise error
    assert path.exists() == existed
    assert not existed or list(path.iterdir()) == []


def test_what_is_at_the_path_already_stays(made, tmp_path):
    with new_index(tmp_path / "book.s3r", **made) as index:
        index.add("Seven boats lie in the harbour.", progress=False)
    with pytest.raises(IndexStoreError, match="already"), new_index(tmp_path / "book.s3r", **made):
        raise AssertionError
    assert len(S3Index.open(tmp_path / "book.s3r", **made)) == 1


def test_an_error_of_a_document_is_the_callers(made, tmp_path):
    with pytest.raises(InputError), new_index(tmp_path / "book.s3r", **made) as index:
        index.add(["Seven boats.", 3])
    assert not (tmp_path / "book.s3r").exists()
