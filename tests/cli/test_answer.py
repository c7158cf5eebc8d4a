"""`s3r answer` on real files with a tiny causal model."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.answering import make_answerer
from typer.testing import CliRunner

from s3_retriever import LongContext
from s3_retriever.cli.answering import answer
from s3_retriever.cli.app import app
from s3_retriever.printable import printable

QUESTION = "What does the old captain paint?"
LIMITS = ["--token-budget", "60", "--max-new-tokens", "8"]


def s3r(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def answerer(tmp_path_factory, tiny_llama, sentences) -> Path:
    return make_answerer(tmp_path_factory.mktemp("answerers") / "llama", tiny_llama, sentences)


@pytest.fixture
def home(tmp_path, monkeypatch, sentences) -> Path:
    """A current folder with a text many times the budget and a page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.txt").write_text("\n\n".join(sentences))
    (tmp_path / "page.html").write_text("<title>The bakery</title><p>A baker mends bread.</p>")
    return tmp_path


@pytest.fixture
def command(answerer) -> list[object]:
    model = ["--host", answerer, "--device", "cpu", "--dtype", "float32"]
    return ["answer", "--question", QUESTION, *model, *LIMITS]


def test_an_answer_and_its_evidence_with_offsets(home, command):
    done = s3r(*command, "long.txt", "page.html")
    assert (done.exit_code, done.stderr) == (0, "")
    text = (home / "long.txt").read_text()
    first, *blocks = done.stdout.split("\n\n")
    assert first.strip()
    output = json.loads(s3r(*command, "long.txt", "page.html", "--json").stdout)
    assert output["question"] == QUESTION
    shown = printable(output["answer"])  # random weights write control characters
    assert first == shown
    assert len(blocks) == len(output["evidence"]) > 1
    cited = {citation["evidence"] for citation in output["citations"]}
    for number, (block, span) in enumerate(zip(blocks, output["evidence"], strict=True)):
        head, _, _ = block.partition("\n")
        assert head.startswith(f"[{number + 1}] {span['id']}  (")
        assert head.endswith(", cited)") == (number in cited)
        if span["document_id"] == "long.txt":
            assert text[span["start"] : span["end"]] == span["text"]
        assert span["text"] in block
    assert any("captain paints" in span["text"] for span in output["evidence"])
    assert 0 < output["new_tokens"] <= 8
    quiet = s3r(*command, "long.txt", "page.html", "--quiet")
    assert quiet.stdout.strip() == shown.strip()


def test_options_reach_the_model(home, command):
    page = json.loads(s3r(*command, "page.html", "--json").stdout)
    (span,) = page["evidence"]
    assert (span["metadata"]["title"], span["sources"]) == ("The bakery", [])
    assert "(whole, " in s3r(*command, "page.html").stdout
    own = json.loads(
        s3r(*command, "page.html", "--prompt", "{context}={question}", "--json").stdout
    )
    assert own["prompt_tokens"] < page["prompt_tokens"]
    done = s3r(*command, "long.txt", "--recipe", "paper", "--token-budget", "400", "--json")
    assert "edge" in json.loads(done.stdout)["evidence"][0]["sources"]


def test_evidence_comes_in_the_form_asked_for(home, command):
    longest = {}
    for form in ("sentence", "section"):
        done = s3r(*command, "long.txt", "--token-budget", "200", "--context", form, "--json")
        longest[form] = max(span["tokens"] for span in json.loads(done.stdout)["evidence"])
    assert longest["section"] > longest["sentence"]


def test_a_kept_scan_serves_the_next_question(home, command, monkeypatch):
    assert s3r(*command, "long.txt", "--keep", "scan").exit_code == 0
    from s3_retriever.encoder import Encoder

    monkeypatch.setattr(Encoder, "documents", None)
    done = s3r(*command, "long.txt", "--keep", "scan", "--question", "Who mends warm bread?")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "bread" in done.stdout
    done = s3r("search", QUESTION, "--in", "scan", "--json")
    assert any("captain" in span["text"] for span in json.loads(done.stdout)["spans"])


def test_nothing_relevant_is_said_and_the_exit_code_shows_it(home, command):
    asked = [*command, "page.html", "--retriever", "minilm", "--question", "Who won in 1987?"]
    done = s3r(*asked)
    assert (done.exit_code, done.stdout) == (3, "The answer is not in the context.\n")
    assert "Nothing in the files is relevant to the question" in done.stderr
    done = s3r(*asked, "--json")
    output = json.loads(done.stdout)
    assert (done.exit_code, output["found"], output["evidence"]) == (3, False, [])
    done = s3r(*asked, "--min-relevance", "0", "--json")
    assert (done.exit_code, json.loads(done.stdout)["found"]) == (0, True)


def test_evidence_may_follow_the_answer(home, command):
    done = s3r(*command, "long.txt", "--refresh", "4", "--json")
    plain = json.loads(s3r(*command, "long.txt", "--json").stdout)
    output = json.loads(done.stdout)
    assert {span["id"] for span in output["evidence"]} > {span["id"] for span in plain["evidence"]}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.txt"], "There is no file or folder 'none.txt'"),
        (["empty.txt"], "The context is empty"),
        (["binary.txt"], "None of the 1 files could be read"),
        (["latin.txt"], "is not UTF-8"),
        (["long.txt", "--question", " "], "The question is empty"),
        (["long.txt", "--token-budget", "900"], "A token_budget of 900 is too large"),
        (["long.txt", "--prompt", "x"], "A prompt has the fields"),
        (["long.txt", "--recipe", "none.json"], "neither default, paper nor"),
        (["long.txt", "--keep", "."], "in use by other files"),
        (["long.txt", "--host", "./none"], "There is no codebook"),
        (["long.txt", "--host", "./none", "--fallback", "bm25"], "There is no folder ./none"),
    ],
)
def test_failures_in_one_sentence(home, command, arguments, problem):
    (home / "empty.txt").write_text(" \n")
    (home / "binary.txt").write_bytes(b"a\0b")
    (home / "latin.txt").write_bytes(b"caf\xe9")
    done = s3r(*command, *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_an_encoder_is_told_apart_before_the_scan(home, command, tiny_bert, tiny_codebook):
    done = s3r(*command, "long.txt", "--host", tiny_bert, "--codebook", tiny_codebook)
    assert done.exit_code == 1
    assert "is an encoder (bert) and cannot generate" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["long.txt"],
        ["long.txt", "--token-budget", "0"],
        ["--fallback", "dense"],
        ["long.txt", "--refresh", "0"],
        ["long.txt", "--refresh", "certain"],
        ["long.txt", "--refresh", "-4"],
        ["long.txt", "--min-relevance", "2"],
    ],
)
def test_wrong_command_line(arguments):
    assert s3r("answer", *arguments).exit_code == 2


def test_defaults_are_those_of_the_library():
    shown = inspect.signature(answer).parameters
    library = inspect.signature(LongContext.answer).parameters
    for name in ("token_budget", "max_new_tokens", "min_relevance", "refresh", "prompt"):
        assert shown[name].default == library[name].default


# Interrupts itself, as Ctrl-C would, in the middle of a scan of which a part is committed.
INTERRUPTED = """
import json, os, signal
from pathlib import Path
from s3_retriever.answer import long_context
from s3_retriever.cli import main
from s3_retriever.host import Host

def forward(host, batch, forward=Host.forward):
    manifest = Path("scan/manifest.json")
    if manifest.exists() and json.loads(manifest.read_text())["generation"] > 0:
        os.kill(os.getpid(), signal.SIGINT)
    forward(host, batch)

long_context._COMMITTED_PIECES = 32
Host.forward = forward
main()
"""


def test_an_interrupted_scan_says_what_was_kept(home, command):
    text = (home / "long.txt").read_text()
    (home / "long.txt").write_text("\n\n".join([text] * 10))
    arguments = [*map(str, command), "long.txt", "--keep", "scan"]
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (process.returncode, process.stdout) == (130, "")
    assert "Interrupted. The scan is kept in scan; the same command continues" in process.stderr
    kept = json.loads(s3r("info", "scan", "--json").stdout)["documents"]
    assert 0 < kept < 10 * len(text) / 1_000
    done = s3r(*command, "long.txt", "--keep", "scan")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(s3r("info", "scan", "--json").stdout)["documents"] > kept
