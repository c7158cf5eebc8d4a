"""Completion in a shell, as a real shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from s3_retriever.cli.app import app
from s3_retriever.cli.options import indexes


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A current folder with indexes and folders that are none."""
    monkeypatch.chdir(tmp_path)
    for name in ("idx.s3r", "ideas", "deep/in.s3r", "odd\nname.s3r"):
        (tmp_path / name).mkdir(parents=True)
        if name.endswith(".s3r"):
            (tmp_path / name / "manifest.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("incomplete", "completions"),
    [
        *(
            ("", ["idx.s3r"]),
            ("i", ["idx.s3r"]),
            ("./i", ["./idx.s3r"]),
            ("deep/", ["deep/in.s3r"]),
        ),
        *(("none/", []), ("ideas", []), ("odd", []), ("~nobody/", []), ("a\0/", [])),
    ],
)
def test_paths_of_indexes(home, incomplete, completions):
    assert indexes(incomplete) == completions
    absolute = f"{home}/{incomplete.removeprefix('./')}"
    if not incomplete.startswith(("~", "a")):
        assert indexes(absolute) == [f"{home}/{each.removeprefix('./')}" for each in completions]


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("s3r sea", ["search"]),
        ("s3r search x --mode ", ["hybrid", "s3", "bm25"]),
        ("s3r search x --order d", ["document"]),
        ("s3r search x --in ", ["idx.s3r"]),
        ("s3r info deep/", ["deep/in.s3r"]),
        ("s3r index docs --to i", ["idx.s3r"]),
        ("s3r index docs --host ", ["minilm", "smollm2"]),
        ("s3r index docs --recipe p", ["paper", "paper-literal"]),
        ("s3r fit --device c", ["cpu", "cuda"]),
    ],
)
def test_words_of_a_line(home, line, completions):
    variables = {"_S3R_COMPLETE": "complete_bash", "COMP_WORDS": line}
    variables["COMP_CWORD"] = str(line.count(" "))
    done = CliRunner().invoke(app, [], env=variables, prog_name="s3r")
    assert done.stdout.split() == completions


def test_a_real_shell_completes_without_the_model_libraries(home):
    s3r = home / "bin/s3r"
    s3r.parent.mkdir()
    code = (
        "import atexit, sys; from s3_retriever.cli import main; "
        "atexit.register(lambda: print(*{'torch', 'transformers'} & set(sys.modules), "
        "file=open('slow', 'a'))); main()"
    )
    s3r.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    s3r.chmod(0o755)
    (home / "s3r.toml").write_text("[")  # is not read
    script = (
        'eval "$(s3r --show-completion)"; '
        "COMP_WORDS=(s3r search x --in i); COMP_CWORD=4; _s3r_completion s3r; "
        'printf "%s" "${COMPREPLY[@]}"'
    )
    path = f"{s3r.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"PATH": path, "SHELL": "/bin/bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "idx.s3r", done.stderr
    assert (home / "slow").read_text().split() == []
