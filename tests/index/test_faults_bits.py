"""Bits flipped anywhere in an index: always found, never an answer that no document holds.

`S3_FAULT_FLIPS` is the number of bits that are flipped one after the other, 200 where it is not
set.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from s3_retriever import Document, IndexStoreError, S3Index
from s3_retriever.cli.app import app
from s3_retriever.index import DiskBackend, Store

FLIPS = int(os.environ.get("S3_FAULT_FLIPS", "200"))
# What is compared with its checksum before anything else is read.
CHECKED = ("manifest", "documents.npy", "sentences.npy", "blocks", "tombstones")
HEADER_BYTES = 128
QUESTIONS = [
    "Which seven boats does the old captain paint after the storm?",
    "Who mends a broken clock without a word?",
    "warm bread before dawn",
]


def documents(sentences):
    """What the index holds: long and short documents, with metadata and titles; and the deleted."""
    texts = [" ".join(sentences[first : first + 15]) for first in range(0, 600, 15)]
    texts += sentences[600:660]
    metadata = [{"title": f"Part {n}", "n": n} if n % 2 else {"n": n} for n in range(len(texts))]
    made = [Document(text, f"d{n}", metadata[n]) for n, text in enumerate(texts)]
    return made, {"d1", "d45", "d50", "d99"}


@pytest.fixture(scope="module")
def path(tmp_path_factory, tiny_bert, tiny_codebook, sentences):
    """An index of three segments, two of them with tombstones."""
    folder = tmp_path_factory.mktemp("bits") / "x.s3r"
    made, deleted = documents(sentences)
    options = {"codebook": tiny_codebook, "dtype": "float32", "device": "cpu"}
    with S3Index.create(folder, str(tiny_bert), **options) as index:
        for part in (slice(0, 30), slice(30, 80), slice(80, None)):
            index.add(made[part], progress=False)
        index.delete(deleted)
        assert index.stats()["segments"] == 3
        index.verify()
    return folder


def files(path):
    """Every file of the index, as paths within it."""
    segments = json.loads((path / "manifest.json").read_text())["segments"]
    named = [f"{segment['name']}/{name}" for segment in segments for name in segment["files"]]
    return ["manifest.json", *named]


def places(path, number, seed=0):
    """Bits at random: some of every file and its header, more of large files."""
    rng = random.Random(seed)
    names = files(path)
    sizes = [(path / name).stat().st_size for name in names]
    chosen = [name for name in names for _ in range(2)]
    chosen += rng.choices(names, sizes, k=max(0, number - 3 * len(names)))
    bits = [(name, rng.randrange(8 * (path / name).stat().st_size)) for name in chosen]
    bits += [
        (name, rng.randrange(8 * min(HEADER_BYTES, size)))
        for name, size in zip(names, sizes, strict=True)
    ]
    return bits


# In a process of its own, so that a crash is seen


def ask_damaged(path: Path) -> None:
    """For every bit on stdin: flip it, use the index, flip it back, and tell on stdout."""
    from s3_retriever import Codebook, Host

    made_with = json.loads((path / "manifest.json").read_text())["origin"]
    host = Host.load(made_with["host"], device="cpu", dtype="float32")
    codebook = Codebook.load(made_with["codebook_source"])
    texts = json.loads(path.with_name("texts.json").read_text())
    for line in sys.stdin:
        name, bit, number = json.loads(line)
        flip(path / name, bit)
        found = {"verify": verified(path)}
        try:
            with S3Index.open(path, host, codebook=codebook) as index:
                found["answers"] = used(index, QUESTIONS[number % len(QUESTIONS)], texts)
        except IndexStoreError as error:
            found["refused"] = str(error)
        flip(path / name, bit)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def flip(file: Path, bit: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(bit // 8)
        (byte,) = opened.read(1)
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


def verified(path: Path) -> str | None:
    """What `verify` complains of."""
    try:
        Store(DiskBackend(path)).verify()
    except IndexStoreError as error:
        return str(error)
    return None


def used(index: S3Index, question: str, texts: dict) -> int:
    """Search in every mode and explain; the number of answers, all of which documents hold."""
    answers = 0
    for mode, k in (("hybrid", 5), ("s3", 5), ("bm25", 200)):
        spans = index.search(question, k, mode=mode)
        for span in spans:
            text, metadata = texts[span.document_id]
            assert text[span.start : span.end] == span.text
            assert span.metadata == metadata
        answers += len(spans)
        if spans and mode == "hybrid":
            index.explain(question, spans[0])
    return answers


class Child:
    """A process that runs `ask_damaged`."""

    def __init__(self, path: Path) -> None:
        script = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
            "import index.test_faults_bits as faults; faults.ask_damaged(Path(sys.argv[2]))"
        )
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-X",
                "faulthandler",
                "-c",
                script,
                str(Path(__file__).parents[1]),
                path,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, name: str, bit: int, number: int) -> dict:
        self._process.stdin.write(json.dumps([name, bit, number]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process ended by bit {bit} of {name}: {self._process.wait()}"
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


def test_a_flipped_bit_is_found_and_never_changes_what_a_span_says(path, sentences):
    made, deleted = documents(sentences)
    texts = {d.id: (d.text, dict(d.metadata)) for d in made if d.id not in deleted}
    path.with_name("texts.json").write_text(json.dumps(texts))
    seen = Counter()
    child = Child(path)
    for number, (name, bit) in enumerate(places(path, FLIPS)):
        found = child.ask(name, bit, number)
        assert found["verify"] and f"{path / name} is damaged" in found["verify"], (name, bit)
        seen["refused" if "refused" in found else "answered"] += 1
        seen[Path(name).name] += 1
        if Path(name).name.startswith(CHECKED):
            assert "is damaged" in found["refused"]
    child.close()
    assert verified(path) is None
    assert seen["refused"] > 0 and seen["answered"] > 0
    assert sum(seen.values()) / 2 >= FLIPS


def test_verify_names_all_files_that_are_damaged(path, tmp_path):
    flipped = [files(path)[number] for number in (3, 9, 20)]
    for name in flipped:
        flip(path / name, 8 * 130)
    gone = path / files(path)[15]
    gone.rename(tmp_path / "gone")
    try:
        done = CliRunner().invoke(app, ["verify", str(path)])
        assert (done.exit_code, done.stdout) == (1, "")
        for name in [*flipped, files(path)[15]]:
            assert name in done.stderr
        assert done.stderr.startswith("Error: 4 files of the index")
        assert done.stderr.count("\n") == 1
        assert done.stderr.count("its content does not match its checksum") == 3
        assert "missing" in done.stderr
    finally:
        for name in flipped:
            flip(path / name, 8 * 130)
        (tmp_path / "gone").rename(gone)


def test_verify_says_that_all_is_well_and_what_does_not_belong(path):
    names = files(path)
    size = sum((path / name).stat().st_size for name in names[1:])
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{len(names)} files, {size:,} bytes: intact.\n"
    extra = [path / "segment-000001" / "notes.txt", path / "segment-000099", path / "draft"]
    extra[0].write_text("mine")
    extra[1].mkdir()
    extra[2].mkdir()
    try:
        done = CliRunner().invoke(app, ["verify", str(path)])
        assert done.exit_code == 0
        assert "intact" in done.stdout
        assert done.stderr == (
            f"Warning: {extra[0]} does not belong to the index.\n"
            f"Warning: {extra[1]} does not belong to the index.\n"
        )
        found = Store.open(path).verify()
        assert sorted(found.strangers) == ["segment-000001/notes.txt", "segment-000099"]
    finally:
        extra[0].unlink()
        extra[1].rmdir()
        extra[2].rmdir()


def test_verify_loads_no_host(path):
    script = (
        "import sys; from s3_retriever.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "verify", str(path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("intact.\n")


def test_verify_of_what_is_no_index(tmp_path):
    done = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert done.exit_code == 1
    assert "There is no index" in done.stderr
