"""Merging and splitting indexes, by copying."""

from __future__ import annotations

import json
import shutil

import pytest
from helpers.segments import tree
from typer.testing import CliRunner

from s3_retriever import (
    Document,
    IndexStoreError,
    InputError,
    S3Error,
    S3Index,
    merge_indexes,
    split_index,
)
from s3_retriever.cli.app import app
from s3_retriever.index import Store
from s3_retriever.index.manifest import MANIFEST_NAME, parse_manifest, write_manifest

QUESTIONS = ["Who mends warm bread?", "a broken clock in the harbour", "ledger"]


@pytest.fixture(scope="module")
def model(tiny_bert, tiny_codebook):
    return {"host": str(tiny_bert), "codebook": tiny_codebook, "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def documents(sentences):
    texts = [" ".join(sentences[n : n + 1 + n % 5]) for n in range(0, 120, 4)]
    documents = [Document(text, f"d{n}", {"n": n}) for n, text in enumerate(texts)]
    return [*documents, Document("", "empty"), Document("A baker.", "no:1-2", {"title": "Bread"})]


@pytest.fixture(scope="module")
def made(tmp_path_factory, model, documents):
    """An index of all documents, two of the halves, and one whose first half has deletions."""
    folder = tmp_path_factory.mktemp("made")
    for name, part in {
        "whole": documents,
        "first": documents[:13],
        "second": documents[13:],
    }.items():
        with S3Index.create(folder / name, **model) as index:
            index.add(part[:7])
            index.add(part[7:])
    return folder


def assert_same(path, expected, model):
    with S3Index.open(path, **model) as index, S3Index.open(expected, **model) as other:
        assert index.ids() == other.ids()
        assert list(index) == list(other)
        for question in QUESTIONS:
            for mode in ("hybrid", "s3", "bm25"):
                spans = index.search(question, 10, mode=mode)
                wanted = other.search(question, 10, mode=mode)
                assert [s.id for s in spans] == [s.id for s in wanted]
                assert [s.score for s in spans] == pytest.approx(
                    [s.score for s in wanted], abs=1e-9
                )
        assert index.verify(progress=False).strangers == ()


def test_merged_indexes_are_one_index(made, model, tmp_path):
    before = tree(made)
    assert merge_indexes([made / "first", made / "second"], tmp_path / "m") == tmp_path / "m"
    assert_same(tmp_path / "m", made / "whole", model)
    assert tree(made) == before
    with S3Index.open(tmp_path / "m", **model) as index:
        index.add(Document("Something new.", "new"))
        assert index.delete(["d0", "new"]) == 2


@pytest.mark.parametrize("n", [1, 2, 5, 32])
def test_parts_of_an_index_make_the_same_again(made, model, tmp_path, n):
    targets = [tmp_path / str(i) for i in range(n)]
    assert split_index(made / "whole", targets) == targets
    shares = [Store.open(target).snapshot() for target in targets]
    assert all(share.n_documents for share in shares)
    if n < 6:
        assert max(s.n_tokens for s in shares) < 2 * min(s.n_tokens for s in shares)
    merge_indexes(targets, tmp_path / "m")
    if n == 5:
        assert_same(tmp_path / "m", made / "whole", model)
    shutil.copytree(made / "whole", tmp_path / "w")
    Store.open(tmp_path / "w").compact()
    assert Store.open(tmp_path / "m").manifest.segments[0].files == (
        Store.open(tmp_path / "w").manifest.segments[0].files
    )


def test_deleted_documents_are_left_out(made, model, tmp_path):
    shutil.copytree(made / "whole", tmp_path / "w.s3r")
    with S3Index.open(tmp_path / "w.s3r", **model) as index:
        index.delete(["d0", "d8", "d9", "empty"])
    parts = split_index(tmp_path / "w.s3r", 3)
    assert [part.name for part in parts] == ["w-1.s3r", "w-2.s3r", "w-3.s3r"]
    merge_indexes(parts, tmp_path / "m")
    assert_same(tmp_path / "m", tmp_path / "w.s3r", model)


def test_empty_indexes(made, model, tmp_path):
    S3Index.create(tmp_path / "empty", **model).close()
    merge_indexes([tmp_path / "empty"], tmp_path / "none")
    assert len(S3Index.open(tmp_path / "none")) == 0
    merge_indexes([tmp_path / "empty", made / "first"], tmp_path / "m")
    assert_same(tmp_path / "m", made / "first", model)
    with pytest.raises(InputError, match="0 documents, too few"):
        split_index(tmp_path / "empty", 1)


def change_origin(path, **changes):
    manifest = parse_manifest(path, (path / MANIFEST_NAME).read_bytes())
    texts = changes.pop("text_analysis", manifest.text_analysis)
    update = {"origin": {**manifest.origin, **changes}, "text_analysis": texts}
    (path / MANIFEST_NAME).write_bytes(write_manifest(manifest.model_copy(update=update)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": "0" * 8}, "another host;"),
        ({"codebook": "other", "window": 7}, "another window and another codebook;"),
        ({"text_analysis": {"words": "0"}}, "another text analysis;"),
    ],
)
def test_indexes_made_differently_do_not_merge(made, tmp_path, change, named):
    shutil.copytree(made / "second", tmp_path / "b")
    change_origin(tmp_path / "b", **change)
    with pytest.raises(IndexStoreError, match=named):
        merge_indexes([made / "first", tmp_path / "b"], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_host_that_moved_is_the_same_host(made, model, tmp_path):
    shutil.copytree(made / "second", tmp_path / "b")
    change_origin(tmp_path / "b", host="/elsewhere/bert", codebook_source=None)
    merge_indexes([made / "first", tmp_path / "b"], tmp_path / "m")
    assert_same(tmp_path / "m", made / "whole", model)


@pytest.mark.parametrize(
    ("merge", "problem"),
    [
        (lambda made, path: merge_indexes([], path / "m"), "nothing to merge"),
        (lambda made, path: merge_indexes(made / "first", path / "m"), "a list of paths"),
        (lambda made, path: merge_indexes(None, path / "m"), "a list of paths"),
        (lambda made, path: merge_indexes([made / "no"], path / "m"), "no index at"),
        (lambda made, path: merge_indexes([made / "first"] * 2, path / "m"), "'d0' is in"),
        (lambda made, path: merge_indexes([made / "first"], made), "in use by other files"),
        (lambda made, path: merge_indexes([made / "first"], made / "first"), "already is an index"),
        (lambda made, path: merge_indexes([made / "first"], made / "no\0"), "cannot be the name"),
        (lambda made, path: split_index(made / "first", 0), "at least 1"),
        (lambda made, path: split_index(made / "first", True), "at least 1"),
        (lambda made, path: merge_indexes([made / "first"], "s3://b/m"), "is a URL"),
        (lambda made, path: merge_indexes(["s3://b/m"], path / "m"), "is a URL"),
        (lambda made, path: split_index(made / "first", 10**15), "13 documents, too few"),
        (lambda made, path: split_index(made / "first", []), "nothing to split into"),
        (lambda made, path: split_index(made / "first", path / "m"), "their folders in a list"),
        (lambda made, path: split_index(made / "first", [path / "m"] * 2), "named twice"),
        (lambda made, path: split_index(made / "first", [path / "m", made]), "in use"),
    ],
)
def test_what_cannot_be_done_leaves_everything_as_it_was(made, tmp_path, merge, problem):
    before = tree(made)
    with pytest.raises(S3Error, match=problem):
        merge(made, tmp_path)
    assert tree(made) == before
    assert not list(tmp_path.iterdir())


def test_damage_is_not_copied(made, tmp_path):
    shutil.copytree(made / "second", tmp_path / "b")
    file = sorted((tmp_path / "b").glob("segment-*/hidden.1.deltas.npy"))[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for attempt in (
        lambda: merge_indexes([made / "first", tmp_path / "b"], tmp_path / "m"),
        lambda: split_index(tmp_path / "b", [tmp_path / "m"]),
    ):
        with pytest.raises(IndexStoreError, match=r"deltas\.npy is damaged"):
            attempt()
        assert not (tmp_path / "m").exists()


def test_names_relative_to_a_folder(made, tmp_path, monkeypatch):
    shutil.copytree(made / "first", tmp_path / "a.s3r")
    (tmp_path / "a.s3r" / "in").mkdir()
    for here, name in (("a.s3r", "."), ("a.s3r/in", "..")):
        monkeypatch.chdir(tmp_path / here)
        made_of_it = split_index(name, 1)
        assert made_of_it == [(tmp_path / "a-1.s3r").resolve()]
        shutil.rmtree(made_of_it[0])


def test_no_index_takes_the_place_of_a_segment(made, tmp_path):
    shutil.copytree(made / "first", tmp_path / "a")
    with pytest.raises(IndexStoreError, match="for segments of the index"):
        merge_indexes([made / "second"], tmp_path / "a" / "segment-000009")


def test_a_split_that_fails_leaves_no_part(made, tmp_path, monkeypatch):
    from s3_retriever.engine import combining

    write = combining.write_index

    def full(path, *rest, **options):
        if path.name == "b":
            raise IndexStoreError("The disk is full.")
        write(path, *rest, **options)

    monkeypatch.setattr(combining, "write_index", full)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(IndexStoreError, match="full"):
        split_index(made / "whole", [tmp_path / "a", tmp_path / "link", tmp_path / "b"])
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "link" / MANIFEST_NAME).exists()


def test_what_a_killed_merge_left_is_in_nobody_s_way(made, model, tmp_path):
    left = tmp_path / "m" / ".s3r-unfinished" / "segment-000001"
    left.mkdir(parents=True)
    (left / "tokens.npy").write_bytes(b"half")
    merge_indexes([made / "first", made / "second"], tmp_path / "m")
    assert not left.exists()
    assert_same(tmp_path / "m", made / "whole", model)


def test_the_commands(made, tmp_path):
    def s3r(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    done = s3r("merge", made / "first", made / "second", "--into", tmp_path / "m.s3r")
    assert done.exit_code == 0, done.stderr
    assert "32 documents" in done.stdout
    done = s3r("split", tmp_path / "m.s3r", "--parts", 2)
    assert done.exit_code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert s3r("merge", made / "first", "--into", tmp_path / "m.s3r").exit_code == 1
    assert s3r("split", tmp_path / "m.s3r").exit_code == 2
    done = s3r("merge", made / "first", "--into", "s3://bucket/m.s3r")
    assert (done.exit_code, "is a URL" in done.stderr) == (1, True)
    assert json.loads(s3r("info", tmp_path / "m-1.s3r", "--json").stdout)["documents"] > 0
