"""From paths to files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s3_retriever import InputError
from s3_retriever.files import file_id, find_files


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
    return [file_id(file.path, Path.cwd()) for file in find_files(paths).files]


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
    found = find_files(["docs/.secret", "docs"]).files
    assert [(file.path.name, file.named) for file in found][:2] == [
        (".secret", True),
        ("a.txt", False),
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


def test_links_out_of_the_folder_are_named_and_not_followed(tree):
    (tree / "docs/zlink").symlink_to(tree / "other")
    (tree / "other").mkdir()
    (tree / "other/x.txt").write_text("x")
    (tree / "docs/link.txt").symlink_to(tree / "top.txt")
    assert ids("docs") == ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]
    skipped = find_files("docs").skipped
    assert sorted(path.name for path in skipped) == ["link.txt", "zlink"]
    assert all("link out of the folder" in reason for reason in skipped.values())


def test_links_that_are_named_are_followed(tree):
    (tree / "other").mkdir()
    (tree / "other/x.txt").write_text("x")
    (tree / "zlink").symlink_to(tree / "other")
    (tree / "docs/link.txt").symlink_to(tree / "top.txt")
    assert ids("zlink", "docs/link.txt") == ["other/x.txt", "docs/link.txt"]


def test_links_inside_lead_to_files_that_are_not_found_otherwise(tree):
    (tree / "docs/.data").mkdir()
    (tree / "docs/.data/value.txt").write_text("x")
    (tree / "docs/value.txt").symlink_to(".data/value.txt")
    (tree / "docs/again.txt").symlink_to("a.txt")
    assert ids("docs") == ["docs/a.txt", "docs/b.md", "docs/sub/c.txt", "docs/value.txt"]


def test_a_folder_is_the_same_through_a_link(tree):
    (tree / "alias").symlink_to(tree / "docs")
    assert ids("alias") == ids("docs") == ids("alias", "docs")


@pytest.mark.parametrize("paths", [None, 5, [5], b"docs", {"docs": 1}, "", "a\0b", ["x" * 300]])
def test_what_is_no_path_is_refused(tree, paths):
    with pytest.raises(InputError):
        find_files(paths)


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ({"": "*.txt"}, ["docs/b.md"]),
        ({"": "sub/"}, ["docs/a.txt", "docs/b.md"]),
        ({"": "/a.txt"}, ["docs/b.md", "docs/sub/a.txt", "docs/sub/c.txt"]),
        ({"": "a.txt"}, ["docs/b.md", "docs/sub/c.txt"]),
        ({"": "*.txt\n!c.txt"}, ["docs/b.md", "docs/sub/c.txt"]),
        ({"": "*.txt", "sub": "!c.txt"}, ["docs/b.md", "docs/sub/c.txt"]),
        ({"sub": "/a.txt"}, ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]),
        ({"": "sub", "sub": "!c.txt"}, ["docs/a.txt", "docs/b.md"]),
        (
            {"": "# sub\n\n \\\n!\n"},
            ["docs/a.txt", "docs/b.md", "docs/sub/a.txt", "docs/sub/c.txt"],
        ),
        ({"": "*a*a*a*a*a*a*a*a*\n*.txt"}, ["docs/b.md"]),
        ({"": "[z-a]\n*.txt"}, ["docs/b.md"]),
        ({"": "**/c.txt"}, ["docs/a.txt", "docs/b.md", "docs/sub/a.txt"]),
        ({"": "sub/*\n!sub/c.txt"}, ["docs/a.txt", "docs/b.md", "docs/sub/c.txt"]),
    ],
)
def test_what_git_ignores_is_left_out(tree, ignore, left):
    (tree / "docs/sub/a.txt").write_text("x")
    for folder, patterns in ignore.items():
        (tree / "docs" / folder / ".gitignore").write_text(patterns)
    assert ids("docs") == left


def test_the_repository_above_is_respected_unless_it_ignores_what_is_named(tree):
    (tree / ".gitignore").write_text("*.md\nsub/\n")
    assert "docs/b.md" in ids("docs")
    (tree / "docs/.git").rename(tree / ".git")
    assert ids("docs") == ["docs/a.txt"]
    assert ids("docs/sub") == ["docs/sub/c.txt"]
    assert ids("docs/b.md") == ["docs/b.md"]


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
