"""From paths on the command line to files."""

from __future__ import annotations

import os

import pytest

from s3_retriever import InputError
from s3_retriever.cli.files import find_files


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "docs/b.md",
        "docs/a.txt",
        "docs/sub/c.txt",
        "docs/.hidden/d.txt",
        "docs/.secret",
        "docs/.git/config",
        "docs/node_modules/e.js",
        "docs/__pycache__/f.pyc",
        "top.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def ids(*paths):
    return [file.id for file in find_files(paths)]


def test_folder_in_order_without_hidden_files(tree):
    assert ids("docs") == ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]


def test_ids_do_not_depend_on_how_the_path_is_written(tree):
    assert ids("./docs/../docs/a.txt") == ids(str(tree / "docs/a.txt")) == ["docs/a.txt"]


def test_outside_the_current_folder_ids_are_absolute(tree, monkeypatch):
    monkeypatch.chdir(tree / "docs")
    assert ids("../top.txt") == [(tree / "top.txt").as_posix()]


def test_globs(tree):
    assert ids("docs/*.md", "*.txt") == ["docs/b.md", "top.txt"]
    assert ids("docs/**/*.txt") == ["docs/a.txt", "docs/sub/c.txt"]


def test_each_file_once(tree):
    assert ids("docs/a.txt", "docs", "docs/*.txt") == ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]


def test_hidden_file_by_name(tree):
    found = find_files(["docs/.secret", "docs"])
    assert [(file.id, file.named) for file in found][:2] == [
        ("docs/.secret", True),
        ("docs/a.txt", False),
    ]


def test_name_with_glob_characters(tree):
    (tree / "odd[1].txt").write_text("x")
    assert ids("odd[1].txt") == ["odd[1].txt"]


@pytest.mark.parametrize("path", ["nothing", "nothing/*.md"])
def test_path_that_stands_for_nothing(tree, path):
    with pytest.raises(InputError, match="no file or folder"):
        find_files([path])


def test_loops_of_links_end(tree):
    (tree / "docs/loop").symlink_to(tree / "docs")
    (tree / "docs/sub/up").symlink_to("..")
    (tree / "docs/self").symlink_to("self")
    (tree / "docs/broken").symlink_to("nowhere")
    assert ids("docs") == ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]


def test_linked_folder_and_file_are_followed(tree):
    (tree / "docs/zlink").symlink_to(tree / "other")
    (tree / "other").mkdir()
    (tree / "other/x.txt").write_text("x")
    (tree / "docs/link.txt").symlink_to(tree / "top.txt")
    assert ids("docs") == [
        "docs/a.txt",
        "docs/b.md",
        "docs/link.txt",
        "docs/sub/c.txt",
        "docs/zlink/x.txt",
    ]


def test_pipes_are_passed_over(tree):
    os.mkfifo(tree / "docs/pipe")
    assert "docs/pipe" not in ids("docs")
    with pytest.raises(InputError, match="no file or folder"):
        find_files(["docs/pipe"])


def test_an_index_is_no_document(tree):
    for name in ("manifest.json", "write.lock", "other"):
        (tree / "docs/idx.s3r").mkdir(exist_ok=True)
        (tree / "docs/idx.s3r" / name).write_text("{}")
    assert "docs/idx.s3r/other" not in ids("docs")
