"""Commands that are killed or interrupted, as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from s3_retriever import Codebook
from s3_retriever.cli.app import app

BATCHES = "import s3_retriever.cli.indexing as job; job.BATCH_CHARACTERS = 2_000"
CHECKPOINTS = (
    "import importlib; "
    "importlib.import_module('s3_retriever.codebook.fit')._CHECKPOINT_SECONDS = 0.0"
)


def start(folder, prepare, *arguments):
    """Run `s3r` in a process of its own, with a constant made smaller."""
    code = f"{prepare}; from s3_retriever.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def s3r(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def corpus(tmp_path, sentences):
    """Forty files of about 2,000 characters, each a batch."""
    (tmp_path / "docs").mkdir()
    for number in range(40):
        text = " ".join(sentences[number * 10 : number * 10 + 45])
        (tmp_path / f"docs/{number:02}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_index_goes_on_after_an_end_in_the_middle(
    corpus, tiny_bert, tiny_codebook, end, monkeypatch
):
    model = ["--host", tiny_bert, "--codebook", tiny_codebook, "--device", "cpu"]
    command = ["index", "docs", "--to", "idx.s3r", *model]
    process = start(corpus, BATCHES, *command)
    for line in process.stderr:
        if line.startswith("Kept so far: 3 "):
            process.send_signal(end)
            break
    _, stderr = process.communicate(timeout=60)
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert "Interrupted. Kept in the index: " in stderr
        assert "Traceback" not in stderr
    else:
        assert process.returncode == -signal.SIGKILL

    monkeypatch.chdir(corpus)
    kept = json.loads(s3r("info", "idx.s3r", "--json").stdout)["documents"]
    assert 3 <= kept < 40
    done = s3r(*command)
    assert done.exit_code == 0
    assert done.stdout == f"{40 - kept} added, 0 replaced, {kept} unchanged, 0 skipped.\n"
    output = json.loads(s3r("search", "warm bread", "--in", "idx.s3r", "--json").stdout)
    assert output["spans"]


def test_fit_goes_on_after_a_kill(tmp_path, tiny_bert, sentences):
    (tmp_path / "text.txt").write_text("\n".join(sentences * 3))
    options = ["--text", "text.txt", "--out", "book", "--features", "64", "--k", "4"]
    command = ["fit", tiny_bert, *options, "--tokens", "40000", "--json"]
    process = start(tmp_path, CHECKPOINTS, *command)
    progress = tmp_path / "book.checkpoint/progress.safetensors"
    deadline = time.monotonic() + 120
    while not progress.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    assert progress.is_file()
    assert not (tmp_path / "book").exists()

    process = start(tmp_path, CHECKPOINTS, "--verbose", *command)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "Resuming after" in stderr
    report = json.loads(stdout)["report"]
    assert sorted(report["taps"]) == ["hidden.1", "key.1"]
    assert not progress.parent.exists()
    assert Codebook.load(tmp_path / "book").depth == 2
