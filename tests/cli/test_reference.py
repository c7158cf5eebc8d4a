"""The command line as a whole: help, speed of its start, reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from s3_retriever import __version__
from s3_retriever.cli.app import app
from s3_retriever.cli.reference import reference

REFERENCE = Path(__file__).parents[2] / "docs/cli.md"
COMMANDS = [
    *("index", "add", "sync", "search", "answer", "explain", "list", "show", "info", "delete"),
    *("compact", "verify"),
    *("serve", "mcp", "fit", "calibrate", "config"),
]


def test_version():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"s3-retriever {__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["index", "--help"], ["search", "--help"], ["info", "none.s3r"]]
)
def test_slow_libraries_are_not_imported_in_vain(arguments):
    _, imported = run_and_list_slow_imports(*arguments)
    assert imported == "set()"


def test_a_search_by_words_loads_no_model_library(tmp_path, tiny_bert, tiny_codebook):
    (tmp_path / "a.txt").write_text("A baker carries warm bread before dawn.")
    index, model = tmp_path / "idx.s3r", ["--host", tiny_bert, "--codebook", tiny_codebook]
    done = CliRunner().invoke(
        app, list(map(str, ["index", tmp_path / "a.txt", "--to", index, *model]))
    )
    assert done.exit_code == 0, done.stderr
    stdout, imported = run_and_list_slow_imports(
        "search", "warm bread", "--in", str(index), "--mode", "bm25"
    )
    assert "A baker carries warm bread before dawn." in stdout
    assert imported == "set()"


def run_and_list_slow_imports(*arguments: str) -> tuple[str, str]:
    """What a command in a process of its own prints, and which slow libraries it imported."""
    code = (
        "import atexit, sys; from s3_retriever.cli import main; "
        "slow = {'torch', 'transformers'}; "
        "atexit.register(lambda: print(slow & set(sys.modules), file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout, done.stderr.splitlines()[-1]


def test_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "s3_retriever.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"s3-retriever {__version__}\n"


def test_reference_is_up_to_date():
    assert REFERENCE.read_text() == reference(), (
        "run: python -m s3_retriever.cli.reference > docs/cli.md"
    )


def test_reference_does_not_depend_on_the_terminal(monkeypatch):
    before = reference()
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert reference() == before


def test_reference_names_everything():
    page = reference()
    for command in COMMANDS:
        assert f"## s3r {command}\n" in page
    assert "`--verbose, -v`" in page
    assert "| `-k N` | Maximum number of spans, or documents. | no limit |" in page
    assert "| `--mode hybrid\\|s3\\|bm25` |" in page
    assert "s3r fit HOST --text PATH --out DIR [OPTIONS]" in page
