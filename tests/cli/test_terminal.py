"""What documents and names hold never acts on the terminal, whatever the terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.text import Text
from typer.testing import CliRunner

from s3_retriever import Document, S3Index
from s3_retriever.cli import console
from s3_retriever.cli.app import app

# Titles, colours, the clipboard, the C1 form, an override of direction, a return.
HARM = "\x1b]0;OWNED\x1b\\ \x1b[2J \x1b]52;c;cm0=\x07 \x9b31m \u202egnp.exe \u2066 \r \x7f \x85"
UNSAFE = [*"\x1b\x07\x9b\u202e\u2066\r\x7f\x85"]


def s3r(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def harmful(tmp_path_factory, tiny_bert, tiny_codebook):
    path = tmp_path_factory.mktemp("harm") / "x.s3r"
    index = S3Index.create(path, str(tiny_bert), codebook=tiny_codebook, dtype="float32")
    text = f"The laptop policy {HARM} is strict."
    index.add(
        [
            Document(text, f"id{HARM}", {"title": f"Laptop {HARM}"}),
            Document("[red]Laptop[/] [link=http://x]markup[/link] :smile:", "[/bold]\nid"),
        ]
    )
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["search", "the laptop policy", "--mode", "bm25"],
        ["search", "the laptop policy", "--mode", "bm25", "--json"],
        ["explain", "the laptop policy"],
        ["delete", f"no{HARM}"],
        ["search", "x", "--where", HARM],
        ["search", "x", f"--{HARM}"],
    ],
)
def test_no_command_prints_control_characters(harmful, command):
    done = s3r(*command, "--in", harmful)
    output = done.stdout + done.stderr
    assert output
    assert not [mark for mark in UNSAFE if mark in output]
    assert done.exception is None or isinstance(done.exception, SystemExit)
    if "--json" in command:
        spans = json.loads(done.stdout)["spans"]
        assert {span["text"] for span in spans} > {f"The laptop policy {HARM} is strict."}
    elif command[0] == "search" and "--mode" in command:
        assert "[red]Laptop[/] [link=http://x]markup[/link] :smile:" in output
        assert "[/bold] id:0-" in output


def test_file_names_and_errors_are_shown_without(tmp_path, capsys):
    for show in (console.say, console.warn, console.fail):
        show(f"{HARM}\nand more")
    shown = capsys.readouterr().err
    assert not [mark for mark in UNSAFE if mark in shown]
    assert shown.count("\n") == 3


def test_colours_are_kept():
    stream = io.StringIO()
    terminal = console._Console(file=stream, force_terminal=True, color_system="standard")
    terminal.print(Text.assemble(("bold\x1b[2J", "bold"), "plain"))
    assert stream.getvalue().count("\x1b") == 2  # bold, and its end
    assert "\x1b[2J" not in stream.getvalue()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_ascii_terminal(harmful, options):
    code = "from s3_retriever.cli import main; main()"
    question = ["search", "laptop \u4e2d\u6587", "-k", "5", "--mode", "bm25", "--in", str(harmful)]
    done = subprocess.run(
        [sys.executable, "-c", code, *question, *options],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"Traceback" not in done.stderr
