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
    *("index", "add", "search", "ask", "explain", "info", "delete", "compact"),
    *("fit", "calibrate"),
]


def test_version():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"s3-retriever {__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["index", "--help"], ["info", "none.s3"]])
def test_slow_libraries_are_not_imported_in_vain(arguments):
    code = (
        "import atexit, sys; from s3_retriever.cli import main; "
        "slow = {'torch', 'transformers'}; "
        "atexit.register(lambda: print(slow & set(sys.modules), file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == "set()"


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
        assert f"## s3 {command}\n" in page
    assert "`--verbose, -v`" in page
    assert "| `-k N` | Spans at most. | 5, or no limit with --budget |" in page
    assert "hidden" not in page.split("## s3 fit")[1].split("| Parameter")[0]
    assert "FILE... HOST" not in page
